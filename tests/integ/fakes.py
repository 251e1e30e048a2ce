"""An inside that does as it is told, a DNS server that keeps silent, and looks at a process.

`FakeRouter` is the listening side of the gateway's link (XEP-0114) as a socket and a thread: it
keeps the order in which stanzas came, can stop reading, hang up, and stay away.
"""
import hashlib
import os
import re
import socket
import threading
import time

import labnet
from labnet import LINK, WAIT, Net, Timeout, wait_for
from peers import STREAM, Closed, XmlStream

COMPONENT = "jabber:component:accept"
STANZA = re.compile(rb"<(message|presence|iq)\b([^>]*)>")
ATTRIBUTE = re.compile(rb"\b([a-z]+)=(?:'([^']*)'|\"([^\"]*)\")")


class FakeRouter:
    """What the gateway dials. `heads` are the start tags of all stanzas that came, as
    (seconds of the monotonic clock, kind, {attribute: value}); their contents are not kept. Those
    whose id begins with "flood" are only counted."""

    def __init__(self, address, secret, port=LINK):
        self.address, self.port, self.secret = address, port, secret
        self.heads, self.by_id, self.flood = [], {}, 0
        self.changed = threading.Condition()
        self.stream, self.ups, self.listener = None, 0, None
        self.reading = threading.Event()
        self.reading.set()
        self.sending = threading.Lock()
        self.open()

    def open(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Small buffers, so that an inside that stops reading is felt at once.
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.listener.bind((self.address, self.port))
        self.listener.listen(8)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def away(self):
        """Hangs up without a word and refuses connections until open()."""
        _shut(self.listener)
        self.hang_up()

    def hang_up(self):
        stream, self.stream = self.stream, None
        if stream:
            _shut(stream.sock)

    def close(self):
        self.reading.set()
        self.away()

    def stop_reading(self):
        self.reading.clear()

    def go_on_reading(self):
        self.reading.set()

    # -- the link

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        s = XmlStream(sock, COMPONENT)
        try:
            to = s.read_header()["to"]
            ident = os.urandom(8).hex()
            s.send(f"<?xml version='1.0'?><stream:stream xmlns='{COMPONENT}' "
                   f"xmlns:stream='{STREAM}' from='{to}' id='{ident}'>")
            digest = hashlib.sha1((ident + self.secret).encode()).hexdigest()
            assert s.read().text == digest
            s.send("<handshake/>")
            with self.changed:
                self.stream, self.ups = s, self.ups + 1
                self.changed.notify_all()
            self._read(s)
        except (Closed, Timeout, OSError):
            pass
        finally:
            sock.close()

    def _read(self, s):
        rest = s.buffer
        s.sock.settimeout(None)
        while True:
            self.reading.wait()
            data = s.sock.recv(262144)
            if not data:
                return
            rest += data
            if rest.endswith(b"</stream:stream>"):
                s.send("</stream:stream>")
            found = list(STANZA.finditer(rest))
            now = time.monotonic()
            heads = [(now, m.group(1).decode(), _attributes(m.group(2))) for m in found
                     if b"id='flood" not in m.group(2)]
            self.flood += len(found) - len(heads)
            rest = rest[found[-1].end():] if found else rest
            cut = rest.rfind(b"<")  # a start tag that is not whole yet
            rest = rest[cut:] if cut >= 0 else b""
            if heads:
                with self.changed:
                    self.heads += heads
                    for h in heads:
                        self.by_id.setdefault(h[2].get("id"), []).append(h)
                    self.changed.notify_all()

    # -- for tests

    def wait_up(self, ups=1, timeout=WAIT):
        with self.changed:
            if not self.changed.wait_for(lambda: self.ups >= ups and self.stream, timeout):
                raise Timeout(f"waited {timeout:g} s for link number {ups}")

    def send(self, text):
        with self.sending:
            self.stream.sock.settimeout(None)
            self.stream.send(text)

    def message(self, to, ident, body="words", from_="romeo@alpha.lab/lab"):
        self.send(f"<message from='{from_}' to='{to}' id='{ident}' type='chat'>"
                  f"<body>{body}</body></message>")

    def seen(self, **attrs):
        """The heads whose attributes are all as given (`from_` is from), in order of arrival."""
        attrs = {k.rstrip("_"): v for k, v in attrs.items()}
        some = self.by_id.get(attrs["id"], ()) if "id" in attrs else self.heads
        return [h for h in list(some)
                if all(h[2].get(k) == v for k, v in attrs.items())]

    def wait(self, condition, timeout=WAIT, what="the inside to see it"):
        with self.changed:
            if not self.changed.wait_for(condition, timeout):
                raise Timeout(f"waited {timeout:g} s for {what}; the last heads: "
                              f"{self.heads[-5:]}")

    def expect(self, timeout=WAIT, **attrs):
        self.wait(lambda: self.seen(**attrs), timeout, f"a stanza with {attrs}")
        return self.seen(**attrs)[0]


def _attributes(text):
    return {k.decode(): (a or b).decode() for k, a, b in ATTRIBUTE.findall(text)}


def _shut(sock):
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()


class Edge:
    """A gateway for alpha.lab whose inside is a FakeRouter."""

    def __init__(self, lab, **settings):
        self.lab = lab
        secret = lab.secret("alpha.lab-edge").read_text().strip()
        self.inside = lab.at_end(FakeRouter(lab.ip(Net.ALPHA_LINK), secret))
        self.gateway = lab.gateway("alpha-gateway", "alpha.lab", Net.ALPHA, Net.ALPHA_LINK,
                                   **settings)
        self.inside.wait_up()
        self.address, self.jid = lab.ip(Net.ALPHA), "romeo@alpha.lab/lab"
        self.secret = lab.secret("alpha.lab-dialback").read_text().strip()

    def bounced(self, ident, timeout=WAIT):
        """The time at which the error for this stanza came inside."""
        return self.inside.expect(timeout, type="error", id=ident)[0]


class SilentDns:
    """Names with the word "silent" in them get no answer; the rest asks dnsmasq."""

    def __init__(self, address, upstream, port=labnet.DNS_PORT):
        self.upstream, self.asked = upstream, []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, port))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                query, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            if b"silent" in query.lower():
                self.asked.append(_question(query))
                continue
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as up:
                up.settimeout(5)
                try:
                    up.sendto(query, self.upstream)
                    self.sock.sendto(up.recv(4096), peer)
                except OSError:
                    pass  # it is gone, or we are

    def domains(self):
        """The domains that were asked for, whatever the record."""
        return {re.sub(r"^(_[a-z-]+\._tcp\.)", "", name) for name in list(self.asked)}

    def close(self):
        _shut(self.sock)


def _question(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    return ".".join(labels)


# ---- looking at a process ------------------------------------------------------------------------

def memory(proc):
    """Resident bytes."""
    with open(f"/proc/{proc.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu(proc):
    """Seconds of processor time so far."""
    with open(f"/proc/{proc.pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(proc):
    return len(os.listdir(f"/proc/{proc.pid}/fd"))


class Peak:
    """The largest growth of a process's memory while the block runs."""

    def __init__(self, proc):
        self.proc, self.grown = proc, 0

    def __enter__(self):
        self.before, self.over = memory(self.proc), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def look(self):
        self.grown = max(self.grown, memory(self.proc) - self.before)

    def _run(self):
        while not self.over.wait(0.02):
            self.look()

    def __exit__(self, *exc):
        self.over.set()
        self.thread.join()
        self.look()


def ended(s, timeout):
    """Whether the other side closes this socket within the time; what it says first is dropped."""
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        s.settimeout(left)
        try:
            if not s.recv(65536):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True
    return False


def descriptors_back(proc, number, timeout):
    wait_for(lambda: descriptors(proc) <= number, timeout,
             f"{proc.name} to have no more than {number} descriptors")
