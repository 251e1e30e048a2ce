"""Remote servers made of a socket and a few lines, for what no honest server would do.

`XmlStream` reads and writes one XML stream. `dial` makes one towards the gateway. `RemoteServer`
listens for a remote domain: it is its authority for dialback, takes what is sent to it, and can be
told to stop answering at any step.
"""
import hashlib
import hmac
import itertools
import re
import socket
import ssl
import threading
import time
import xml.etree.ElementTree as ET

from labnet import S2S, WAIT, Timeout

STREAM = "http://etherx.jabber.org/streams"
STREAMS = "urn:ietf:params:xml:ns:xmpp-streams"
STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
TLS = "urn:ietf:params:xml:ns:xmpp-tls"
DIALBACK = "jabber:server:dialback"
SERVER = "jabber:server"
FEATURES, ERROR = f"{{{STREAM}}}features", f"{{{STREAM}}}error"
RESULT, VERIFY = f"{{{DIALBACK}}}result", f"{{{DIALBACK}}}verify"

NUMBERS = itertools.count(1)
TAG = re.compile(rb"<(?:\?[^>]*\?|/?[^\s/>?!]+(?:[^>\"']|\"[^\"]*\"|'[^']*')*)>")


class Closed(Exception):
    """The other side ended the connection."""


def dialback_key(secret, receiving, originating, stream_id):
    """XEP-0185, written again from its text."""
    key = hashlib.sha256(secret.encode()).hexdigest().encode()
    text = f"{receiving} {originating} {stream_id}".encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


class XmlStream:
    """Not for hostile input: what it reads comes from the program under test, or from Prosody."""

    def __init__(self, sock, content=SERVER):
        self.sock, self.content = sock, content
        self.buffer, self.head, self.attrs = b"", b"", {}
        self.raw = b""  # everything read, decrypted
        self.closed_properly = False

    def send(self, text):
        self.sock.sendall(text if isinstance(text, bytes) else text.encode())

    def close(self):
        self.sock.close()

    # -- reading

    def _more(self, end):
        left = end - time.monotonic()
        if left <= 0:
            raise Timeout(f"nothing more came; unread: {self.buffer!r}")
        self.sock.settimeout(left)
        try:
            data = self.sock.recv(65536)
        except (TimeoutError, ssl.SSLWantReadError):
            raise Timeout(f"nothing more came; unread: {self.buffer!r}") from None
        except (ConnectionError, OSError) as e:
            raise Closed(str(e)) from None
        if not data:
            raise Closed(f"end of connection; unread: {self.buffer!r}")
        self.buffer += data
        self.raw += data

    def read_header(self, timeout=WAIT):
        """The attributes of the peer's stream header."""
        end = time.monotonic() + timeout
        while True:
            for m in TAG.finditer(self.buffer):
                if not m.group(0).startswith(b"<?"):
                    self.head = m.group(0)
                    self.buffer = self.buffer[m.end():]
                    root = ET.fromstring(self.head + b"</" + re.match(
                        rb"<([^\s>]+)", self.head).group(1) + b">")
                    assert root.tag == f"{{{STREAM}}}stream", root.tag
                    self.attrs = dict(root.attrib)
                    return self.attrs
            self._more(end)

    def _cut(self):
        """The first whole depth-1 element of the buffer, cut out; b"" for the closing tag."""
        depth, begin = 0, None
        for m in TAG.finditer(self.buffer):
            tag = m.group(0)
            if tag.startswith(b"</"):
                depth -= 1
                if depth < 0:
                    self.buffer = self.buffer[m.end():]
                    return b""
            else:
                if depth == 0:
                    begin = m.start()
                if not tag.endswith(b"/>"):
                    depth += 1
            if depth == 0:
                element, self.buffer = self.buffer[begin:m.end()], self.buffer[m.end():]
                return element
        return None

    def read(self, timeout=WAIT):
        """The next element; None for the closing tag. Raises Closed, Timeout."""
        end = time.monotonic() + timeout
        while (element := self._cut()) is None:
            self._more(end)
        if not element:
            self.closed_properly = True
            return None
        name = re.match(rb"<([^\s>]+)", self.head).group(1)
        return ET.fromstring(self.head + element + b"</" + name + b">")[0]

    def expect(self, tag, timeout=WAIT):
        element = self.read(timeout)
        assert element is not None, f"the stream was closed instead of <{tag}>"
        assert element.tag == tag, ET.tostring(element)
        return element

    def read_error(self, timeout=WAIT):
        """The condition of a stream error; the stream must then be closed in good order."""
        return self.read_error_text(timeout)[0]

    def read_error_text(self, timeout=WAIT):
        """The same with the sentence: (condition, text)."""
        error = self.expect(ERROR, timeout)
        conditions = [c.tag.split("}")[1] for c in error
                      if c.tag.startswith(f"{{{STREAMS}}}") and not c.tag.endswith("}text")]
        assert len(conditions) == 1, ET.tostring(error)
        assert self.read(timeout) is None, "something followed the stream error"
        self.expect_end(timeout)
        return conditions[0], error.findtext(f"{{{STREAMS}}}text")

    def expect_end(self, timeout=WAIT):
        try:
            while True:
                element = self.read(timeout)
                assert element is None, ET.tostring(element)
        except Closed:
            pass

    # -- writing

    def open(self, from_, to, version="1.0", ident=None, content=None, declaration=True,
             dialback=True):
        parts = ["<?xml version='1.0'?>" if declaration else "",
                 f"<stream:stream xmlns='{content or self.content}' xmlns:stream='{STREAM}'"]
        if dialback and (content or self.content) == SERVER:
            parts.append(f" xmlns:db='{DIALBACK}'")
        for key, value in (("from", from_), ("to", to), ("version", version), ("id", ident)):
            if value is not None:
                parts.append(f" {key}='{value}'")
        self.send("".join(parts) + ">")

    def starttls_client(self, name, context=None):
        """STARTTLS towards the other side, without a look at its certificate; or with `context`."""
        self.send(f"<starttls xmlns='{TLS}'/>")
        self.expect(f"{{{TLS}}}proceed")
        if context is None:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.wrap(context, server_hostname=name)

    def wrap(self, context, **kw):
        assert not self.buffer, "bytes in clear before the TLS handshake"
        self.sock.settimeout(WAIT)
        self.sock = context.wrap_socket(self.sock, **kw)

    def ask_result(self, from_, to, key="cafe"):
        self.send(f"<db:result from='{from_}' to='{to}'>{key}</db:result>")

    def ask_verify(self, from_, to, ident, key):
        self.send(f"<db:verify from='{from_}' to='{to}' id='{ident}'>{key}</db:verify>")


def dial(address, from_, to, port=S2S, source=None, features=True, **kw):
    """Connects to the gateway as a remote server would; returns after its header and features."""
    sock = socket.create_connection((address, port), timeout=WAIT,
                                    source_address=(source, 0) if source else None)
    s = XmlStream(sock)
    if from_ is not None or to is not None or kw:
        s.open(from_, to, **kw)
        if features:
            s.read_header()
            s.features = s.expect(FEATURES)
    return s


def authorised(address, from_, to, source=None, tls=False):
    """A stream on which the pair is proven; from_'s RemoteServer must be there to confirm it."""
    s = dial(address, from_, to, source=source)
    if tls:
        s.starttls_client(to)
        s.open(from_, to)
        s.read_header()
        s.expect(FEATURES)
    s.ask_result(from_, to)
    answer = s.expect(RESULT)
    assert answer.get("type") == "valid", ET.tostring(answer)
    return s


STALLS = ("tcp", "header", "features", "result")


class RemoteServer:
    """The server of a remote domain.

    tls: None, "optional", "required"; `context` then has its certificate. stall: the step after
    which it falls silent: "tcp" accepts and reads, "header" sends its header, "features" its
    features, "result" reads the key and never answers, None goes through. verdict: what it answers
    to db:verify ("valid", "invalid", an error condition, None for nothing); result: the same for
    db:result.
    """
    declares_dialback = True  # the namespace, in the stream header

    def __init__(self, address, domain, tls=None, context=None, stall=None, verdict="valid",
                 result="valid", dialback_feature=True, port=S2S):
        self.address, self.domain, self.tls, self.context = address, domain, tls, context
        self.stall, self.verdict, self.result = stall, verdict, result
        self.dialback_feature = dialback_feature
        self.stanzas, self.asked, self.streams = [], [], []
        self.keys = []  # (our stream id, key) of every db:result received
        self.changed = threading.Condition()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, port))
        self.listener.listen(64)
        self.open_sockets = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for s in list(self.open_sockets):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def note(self, where, what):
        with self.changed:
            where.append(what)
            self.changed.notify_all()

    def wait(self, condition, timeout=WAIT, what="the remote server to see it"):
        with self.changed:
            if not self.changed.wait_for(condition, timeout):
                raise Timeout(f"waited {timeout:g} s for {what}; stanzas: "
                              f"{[ET.tostring(e) for _, e in self.stanzas]}, asked: {self.asked}")

    def expect_stanza(self, ident, timeout=WAIT):
        def find():
            return next((e for _, e in self.stanzas if e.get("id") == ident), None)

        self.wait(lambda: find() is not None, timeout, f"stanza {ident} to arrive")
        return find()

    # -- one thread a connection

    def _accept(self):
        while True:
            try:
                sock, peer = self.listener.accept()
            except OSError:
                return
            self.open_sockets.add(sock)
            threading.Thread(target=self._serve, args=(sock, peer[0]), daemon=True).start()

    def _serve(self, sock, peer):
        s = XmlStream(sock)
        self.note(self.streams, (peer, s))
        try:
            if self.stall == "tcp":
                self._swallow(s)
            self._begin(s)
            while True:
                element = s.read(timeout=600)
                if element is None:
                    s.send("</stream:stream>")
                    return
                self._element(s, peer, element)
        except (Closed, Timeout, OSError, AssertionError):
            pass
        finally:
            self.open_sockets.discard(sock)
            s.close()

    def _begin(self, s):
        self._greet(s, secure=False)

    def _swallow(self, s):
        while True:
            s._more(time.monotonic() + 600)

    def _greet(self, s, secure):
        s.read_header(timeout=600)
        s.ident = f"id{next(NUMBERS)}"
        s.secure = secure
        s.open(self._domain(s), s.attrs.get("from"), ident=s.ident,
               dialback=self.declares_dialback)
        if self.stall == "header":
            self._swallow(s)
        s.send(f"<stream:features>{self._features(s)}</stream:features>")
        if self.stall == "features":
            self._swallow(s)

    def _domain(self, _):
        return self.domain

    def _features(self, s):
        features = ""
        if self.tls and not s.secure:
            inner = "<required/>" if self.tls == "required" else ""
            features += f"<starttls xmlns='{TLS}'>{inner}</starttls>"
        if self.dialback_feature:
            features += "<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>"
        return features

    def _element(self, s, peer, element):
        if element.tag == f"{{{TLS}}}starttls":
            if not self.tls:
                s.send(f"<failure xmlns='{TLS}'/></stream:stream>")
                raise Closed("no TLS here")
            s.send(f"<proceed xmlns='{TLS}'/>")
            s.wrap(self.context, server_side=True)
            self.open_sockets.add(s.sock)
            self._greet(s, secure=True)
        elif element.tag in (RESULT, VERIFY):
            self._dialback(s, element)
        elif element.tag.startswith(f"{{{SERVER}}}"):
            self.note(self.stanzas, (peer, element))

    def _dialback(self, s, element):
        kind = "result" if element.tag == RESULT else "verify"
        self.note(self.asked, (kind, element.get("from"), element.get("to"), element.get("id")))
        if kind == "result":
            self.note(self.keys, (s.ident, (element.text or "").strip()))
        answer = self.result if kind == "result" else self.verdict
        if self.stall == "result" and kind == "result":
            self._swallow(s)
        if answer is None:
            return
        ident = f" id='{element.get('id')}'" if element.get("id") else ""
        head = f"<db:{kind} from='{element.get('to')}' to='{element.get('from')}'{ident}"
        if answer in ("valid", "invalid"):
            s.send(f"{head} type='{answer}'/>")
        else:
            s.send(f"{head} type='error'><error type='cancel'><{answer} xmlns='{STANZAS}'/>"
                   f"</error></db:{kind}>")


def message(from_, to, ident, body="words", extra=""):
    return (f"<message from='{from_}' to='{to}' id='{ident}' type='chat'{extra}>"
            f"<body>{body}</body></message>")


def stanza_error(element):
    """(condition, text) of an error stanza read as an element."""
    error = next((c for c in element if c.tag.endswith("}error")), None)
    if error is None:
        return None, None
    condition = next((c.tag.split("}")[1] for c in error if not c.tag.endswith("}text")), None)
    return condition, next((c.text for c in error if c.tag.endswith("}text")), None)
