"""The inside's end of a link as a socket that says what it is told, proper or not.

    dial      a component link (XEP-0114) that the gateway dials
    accept    the same over TLS, dialled by the inside
    jabberd2  the router of jabberd2, one scripted component of which is the local domain

It keeps one stream up, counts `ups`, and keeps what comes: `stanzas`, and for each stream that has
ended the condition of the stream error that ended it, or None (`ends`).
"""
import base64
import hashlib
import os
import re
import socket
import ssl
import threading
import time
import xml.etree.ElementTree as ET
from xml.parsers import expat

from actors import COMPONENT, SASL, STREAM, Cutter, Ended, Stanza
from jabberd2 import N
from labnet import WAIT, Timeout
from peers import STREAMS

KINDS = ("dial", "accept", "jabberd2")
BEGIN = re.compile(r"^<(message|presence|iq)")
BUFFER = 65536  # small, so that an inside that stops reading is felt at once
BROKEN = (Ended, OSError, expat.ExpatError, ET.ParseError, AssertionError)


class Tls:
    """A client's TLS over a socket which one thread reads and another one writes: OpenSSL's objects
    are for one thread at a time, so they work in memory and under a lock."""

    def __init__(self, sock, context):
        self.sock, self.come, self.go = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls, self.using = context.wrap_bio(self.come, self.go), threading.Lock()
        self.sending = threading.Lock()
        while not self._done(self.tls.do_handshake):
            self._more()

    def _done(self, step):
        try:
            step()
            return True
        except ssl.SSLWantReadError:
            return False
        finally:
            if waiting := self.go.read():
                self.sock.sendall(waiting)

    def _more(self):
        data = self.sock.recv(65536)
        with self.using:
            if data:
                self.come.write(data)
            else:
                self.come.write_eof()

    def sendall(self, data):
        for at in range(0, len(data), 65536):
            with self.sending:
                with self.using:
                    self.tls.write(data[at:at + 65536])
                    records = self.go.read()
                self.sock.sendall(records)

    def recv(self, size):
        while True:
            with self.using:
                try:
                    return self.tls.read(size)
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            self._more()

    def shutdown(self, how):
        self.sock.shutdown(how)

    def close(self):
        self.sock.close()


class Stream:
    def __init__(self, sock):
        self.sock, self.cutter, self.backlog = sock, Cutter(), []
        self.error = None

    def send(self, text):
        self.sock.sendall(text if isinstance(text, bytes) else text.encode())

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise Ended("end of connection")
        self.backlog += self.cutter.feed(data)

    def header(self):
        self.cutter, self.backlog = Cutter(), []
        while self.cutter.header is None:
            self._more()
        return self.cutter.header

    def next(self):
        """The next element; None behind the closing tag."""
        while not self.backlog and not self.cutter.over:
            self._more()
        if not self.backlog:
            return None
        return Stanza(self.backlog.pop(0), None, self.cutter.header).element

    def due(self):
        """The next element, which has to come."""
        element = self.next()
        if element is None:
            raise Ended("closing tag")
        return element


class RawInside:
    """at: where to listen or, for accept, whom to dial with `context`. header: bytes to say instead
    of a stream header; early: right behind it; both for one stream, then they are forgotten."""

    def __init__(self, kind, at, secret, domain, context=None):
        self.kind, self.at, self.secret, self.domain = kind, at, secret, domain
        self.context, self.header, self.early = context, None, None
        self.stanzas, self.ends, self.ups = [], [], 0
        self.flood = {}  # by id, of those that begin so
        self.stream, self.closed, self.listener = None, False, None
        self.changed, self.sending = threading.Condition(), threading.Lock()
        self.reading = threading.Event()
        self.reading.set()
        if kind != "accept":
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            self.listener.bind(at)
            self.listener.listen(8)
        threading.Thread(target=self._dial if kind == "accept" else self._accept,
                         daemon=True).start()

    # -- connections

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _dial(self):
        while not self.closed:
            try:
                sock = socket.socket()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
                sock.connect(self.at)
                self._serve(Tls(sock, self.context))
            except OSError:
                time.sleep(0.02)  # the pace of a connector that tries again

    def _serve(self, sock):
        s = Stream(sock)
        try:
            (self._greet_router if self.kind == "jabberd2" else self._greet)(s)
            self._read(s)
            s.send("</stream:stream>")
        except BROKEN:
            pass
        finally:
            with self.changed:
                self.stream = None if self.stream is s else self.stream
                self.ends.append(s.error)
                self.changed.notify_all()
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            with self.sending:  # nobody writes into a descriptor that is somebody else's by now
                sock.close()

    def _read(self, s):
        while (element := s.next()) is not None:
            self.reading.wait()
            self._take(s, element)

    def _take(self, s, element):
        with self.changed:
            if element.tag == f"{{{STREAM}}}error":
                s.error = next(c.tag.split("}")[1] for c in element
                               if c.tag.startswith(f"{{{STREAMS}}}"))
            elif element.tag == f"{{{N}}}route":
                self._route(s, element)
            elif element.tag == f"{{{N}}}bind":
                s.send(f"<bind xmlns='{N}'><default/></bind>")
            elif element.tag.split("}")[1] in ("message", "presence", "iq"):
                self._keep(element)
            self.changed.notify_all()

    def _keep(self, element):
        if (element.get("id") or "").startswith("flood"):
            self.flood[element.get("id")] = element
        else:
            self.stanzas.append(element)

    def _route(self, s, route):
        if route.get("from") == route.get("to"):  # its ping of itself
            s.send(ET.tostring(route))
        else:
            self._keep(route[0])

    def _up(self, s):
        with self.changed:
            self.stream, self.ups = s, self.ups + 1
            self.changed.notify_all()

    # -- how a stream begins

    def _say_header(self, s, proper):
        text, self.header = self.header, None
        s.send(proper if text is None else text)
        if text is not None:
            self._read(s)
            raise Ended("the header was refused")
        text, self.early = self.early, None
        if text is not None:
            s.send(text)
            self._read(s)
            raise Ended("it was refused before it was up")

    def _greet(self, s):
        self.name = s.header()["to"]
        ident = os.urandom(8).hex()
        self._say_header(s, f"<?xml version='1.0'?><stream:stream xmlns='{COMPONENT}' "
                            f"xmlns:stream='{STREAM}' from='{self.name}' id='{ident}'>")
        assert s.due().text == hashlib.sha1((ident + self.secret).encode()).hexdigest()
        s.send("<handshake/>")
        self._up(s)

    def _greet_router(self, s):
        s.header()
        features = "<stream:features>%s</stream:features>"
        proper = (f"<?xml version='1.0'?><stream:stream xmlns:stream='{STREAM}' version='1.0' "
                  "id='x'>")
        self._say_header(s, proper)
        s.send(features % f"<mechanisms xmlns='{SASL}'><mechanism>DIGEST-MD5</mechanism>"
                          "</mechanisms>")
        assert s.due().get("mechanism") == "DIGEST-MD5"
        self._digest_md5(s)
        s.header()
        s.send(proper + features % "")
        bind = s.due()
        self.name = bind.get("name")
        s.send(f"<presence xmlns='{N}' from='{self.domain}'/><bind xmlns='{N}'/>")
        self._up(s)

    def _digest_md5(self, s):
        """RFC 2831 as the router does it."""
        challenge = ('realm="jabberd-router",nonce="n0nce",qop="auth",charset=utf-8,'
                     'algorithm=md5-sess')
        s.send(f"<challenge xmlns='{SASL}'>{_base64(challenge)}</challenge>")
        answer = base64.b64decode(s.due().text).decode()
        given = dict(re.findall(r'([\w-]+)="?([^",]*)"?', answer))
        assert given["response"] == digest(self.secret, given, "AUTHENTICATE:"), given
        proof = _base64(f"rspauth={digest(self.secret, given, ':')}")
        s.send(f"<success xmlns='{SASL}'>{proof}</success>")

    # -- for tests

    def wait(self, condition, timeout=WAIT, what="the inside to see it"):
        with self.changed:
            if not self.changed.wait_for(condition, timeout):
                last = [ET.tostring(e)[:200] for e in self.stanzas[-3:]]
                raise Timeout(f"waited {timeout:g} s for {what}; ups {self.ups}, "
                              f"ends {self.ends[-5:]}, last {last}")

    def wait_up(self, ups=1, timeout=WAIT):
        self.wait(lambda: self.ups >= ups and self.stream, timeout, f"stream number {ups}")

    def wait_end(self, before, timeout=WAIT):
        """The condition of the stream error of the first stream that ended after so many."""
        self.wait(lambda: len(self.ends) > before, timeout, "the end of a stream")
        return self.ends[before]

    def raw(self, data):
        """Bytes on the stream, as they are; what nobody reads any more is not missed."""
        with self.sending:
            try:
                self.stream.send(data)
            except OSError:
                pass

    def say(self, stanza, to="raw.lab"):
        """to: for jabberd2, where the router would send it."""
        self.raw(self.wrapped(stanza, to))

    def wrapped(self, stanza, to="raw.lab"):
        if self.kind != "jabberd2":
            return stanza
        inner = BEGIN.sub(r"<\1 xmlns='jabber:client'", stanza)
        return f"<route xmlns='{N}' from='{self.domain}' to='{to}'>{inner}</route>"

    def seen(self, **attrs):
        attrs = {k.rstrip("_"): v for k, v in attrs.items()}
        return [e for e in list(self.stanzas) if all(e.get(k) == v for k, v in attrs.items())]

    def expect(self, timeout=WAIT, **attrs):
        self.wait(lambda: self.seen(**attrs), timeout, f"a stanza with {attrs}")
        return self.seen(**attrs)[0]

    def hang_up(self):
        s = self.stream
        if s:
            _shut(s.sock)

    def close(self):
        self.closed = True
        self.reading.set()
        if self.listener:
            _shut(self.listener)
        self.hang_up()


def digest(secret, given, method):
    """The response, or for method ':' the router's own proof."""
    def md5(data):
        return hashlib.md5(data).digest()

    first = (md5(f"{given['username']}:{given['realm']}:{secret}".encode())
             + f":{given['nonce']}:{given['cnonce']}".encode())
    second = md5(f"{method}{given['digest-uri']}".encode()).hex()
    words = [md5(first).hex(), given["nonce"], given["nc"], given["cnonce"], given["qop"], second]
    return md5(":".join(words).encode()).hex()


def _base64(text):
    return base64.b64encode(text.encode()).decode()


def _shut(sock):
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()
