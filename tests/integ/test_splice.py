"""A splice of sallyport-router: bytes between a gateway that listens with TLS and a server that
listens in clear. Both ends are sockets of the test; at last the server is a real jabberd2, whose
protocol the router does not speak."""
import hashlib
import os
import signal
import socket
import ssl
import threading
import time

import jabberd2
import labnet
import pytest
from labnet import LINK, WAIT, Net, wait_for
from linkworld import dump
from pki import Pki

NAME = "jabberd2"
SERVER_HOST, SERVER_PORT = 33, 5347
LOG_UP, LOG_DOWN, LOG_FAILED = (rf"\bsplice\.{e}\b" for e in ("up", "down", "failed"))
BUFFER = 64 * 1024
MEGABYTES, BEYOND = 4 << 20, 24 << 20  # what the kernel's buffers may hold, and what not


class End:
    """A listener that takes one connection after the other; with a context, under TLS."""

    def __init__(self, address, port, context=None):
        self.context, self.taken, self.failed = context, [], []
        self.accepted = 0
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((address, port))
        self.sock.listen(8)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                s, _ = self.sock.accept()
            except OSError:
                return
            self.accepted += 1
            s.settimeout(WAIT)
            try:
                self.taken.append(self.context.wrap_socket(s, server_side=True,
                                                           suppress_ragged_eofs=False)
                                  if self.context else s)
            except (OSError, ssl.SSLError) as e:
                self.failed.append(e)
                s.close()

    def take(self):
        wait_for(lambda: self.taken, what="a connection")
        return self.taken.pop(0)

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        for s in self.taken:
            s.close()


class Bench:
    """The router with one splice, and the two ends, which a test may replace."""

    def __init__(self, lab, **settings):
        self.lab, self.pki = lab, Pki(lab.dir / "pki" / "splice")
        self.own = self.pki.self_signed("router", "router.alpha.lab")
        self.theirs = self.pki.self_signed("gateway", "edge.alpha.lab")
        self.at = {"gateway": (lab.ip(Net.ALPHA), LINK),
                   "server": (lab.ip(SERVER_HOST), SERVER_PORT)}
        self.conf = self.write(**settings)
        self.gateway = self.server = self.router = None

    def write(self, **settings):
        splice = {"name": NAME, "gateway": "%s:%d" % self.at["gateway"],
                  "server": "%s:%d" % self.at["server"], **self.own.settings(),
                  "store_file": self.pki.store("theirs", self.theirs), **settings}
        splice = {k: v for k, v in splice.items() if v is not None}
        return self.lab.conf("router.conf", labnet.router_conf(
            listen=[], links=[], timeouts={"auth": "3s", "connect": "1s"},
            extra=f"splices = {labnet._objects([splice])};\n"
                  f'limits = {{ buffer = "{BUFFER}"; }};\n'))

    def listen(self, which, context=None):
        if which == "gateway" and context is None:
            context = self.theirs.context()
            context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # a cut end is not a proper one
        end = self.lab.at_end(End(*self.at[which], context))
        setattr(self, which, end)
        return end

    def start(self):
        self.router = self.lab.spawn("router", [labnet.program("sallyport-router"), "-c", self.conf]
                                     + labnet.root_option())
        return self

    def up(self):
        """Both far ends of the splice, through which the gateway has sent a line feed."""
        since = self.router.log_size() if self.router.log().count("splice.down") else 0
        gateway, server = self.gateway.take(), self.server.take()
        gateway.sendall(b"\n")
        assert receive(server, 1) == b"\n"
        self.router.wait_log(LOG_UP, since)
        return gateway, server

    def alarms(self):
        return {a["kind"] for a in dump(self.router, "alarm.standing", subject=NAME)}

    def status(self):
        return dump(self.router, "splice.status", splice=NAME)[0]


@pytest.fixture
def bench(fresh_lab):
    return Bench(fresh_lab)


@pytest.fixture
def ready(bench):
    bench.listen("gateway")
    bench.listen("server")
    return bench.start()


def receive(sock, n):
    data = b""
    while len(data) < n:
        more = sock.recv(min(65536, n - len(data)))
        assert more, f"the end after {len(data)} of {n} bytes"
        data += more
    return data


def test_bytes_both_ways(ready):
    gateway, server = ready.up()
    up, down = os.urandom(MEGABYTES), os.urandom(MEGABYTES)
    writers = [threading.Thread(target=s.sendall, args=(data,))
               for s, data in ((gateway, up), (server, down))]
    got = {}
    readers = [threading.Thread(target=lambda s=s, k=k: got.update({k: receive(s, MEGABYTES)}))
               for s, k in ((server, "up"), (gateway, "down"))]
    for t in writers + readers:
        t.start()
    for t in writers + readers:
        t.join(60)
    assert hashlib.sha256(got["up"]).digest() == hashlib.sha256(up).digest()
    assert hashlib.sha256(got["down"]).digest() == hashlib.sha256(down).digest()
    status = ready.status()
    assert (status["state"], int(status["in_bytes"]), int(status["out_bytes"])) == \
        ("up", MEGABYTES + 1, MEGABYTES)
    assert ready.alarms() == set()


def test_what_the_gateway_says_first(bench):
    """It does not wait for the server, which comes up later."""
    bench.listen("gateway")
    bench.listen("server")
    bench.start()
    gateway = bench.gateway.take()
    gateway.sendall(b"<stream:stream>")
    assert receive(bench.server.take(), 15) == b"<stream:stream>"


def test_slow_reader(ready):
    """The router keeps a bounded part; the rest waits at the sender."""
    gateway, server = ready.up()
    data = os.urandom(BEYOND)
    sent = threading.Thread(target=gateway.sendall, args=(data,))
    sent.start()

    def stands():
        before = ready.status()
        time.sleep(0.3)  # in which a splice that moves would have moved
        after = ready.status()
        return after["in_bytes"] == before["in_bytes"] and int(after["waiting_in"]) >= BUFFER

    wait_for(stands, timeout=20, what="the splice to stand still")
    assert sent.is_alive()
    assert int(ready.status()["waiting_in"]) <= 2 * BUFFER + 2 * 65536
    server.sendall(b"the other direction goes on")
    assert receive(gateway, 27) == b"the other direction goes on"
    assert receive(server, BEYOND) == data
    sent.join(WAIT)
    assert not sent.is_alive()


def test_the_server_ends_first(ready):
    """Its last words reach the gateway, and the gateway's answer reaches it."""
    gateway, server = ready.up()
    server.sendall(b"</stream:stream>")
    server.shutdown(socket.SHUT_WR)
    assert receive(gateway, 16) == b"</stream:stream>"
    assert gateway.recv(1) == b""  # a proper end of TLS: else this raises
    gateway.sendall(b"bye")
    gateway.unwrap().close()
    assert receive(server, 3) == b"bye" and server.recv(1) == b""
    ready.router.wait_log(LOG_DOWN)


def test_the_gateway_ends_first(ready):
    gateway, server = ready.up()
    gateway.sendall(b"last words")
    gateway.close()
    assert receive(server, 10) == b"last words" and server.recv(1) == b""
    server.close()
    line = ready.router.wait_log(LOG_DOWN)
    assert "in_bytes=11 " in line
    again = ready.up()  # and it is dialled again
    again[0].sendall(b"x")
    assert receive(again[1], 1) == b"x"
    assert ready.alarms() == set()


def test_a_broken_side_ends_both(ready):
    gateway, server = ready.up()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    ready.router.wait_log(LOG_DOWN)
    with pytest.raises((ssl.SSLError, OSError)):
        assert gateway.recv(1), "closed as if all were well"


def test_redialled_with_back_off(bench):
    bench.start()
    line = bench.router.wait_log(r"\bsplice\.retry\b")
    assert 0.8 <= float(line.split("in=")[1].split()[0]) <= 1.2
    assert "splice.connect" in bench.alarms()
    bench.listen("gateway")
    gateway = bench.gateway.take()
    bench.router.wait_log(rf"{LOG_FAILED}.*\breason=server\b")  # nobody there yet
    assert bench.alarms() >= {"splice.server"}
    with pytest.raises((ssl.SSLError, OSError)):
        gateway.recv(1) or gateway.sendall(b"x") or gateway.recv(1) or pytest.fail("still open")
    bench.listen("server")
    bench.gateway.taken.clear()
    wait_for(lambda: bench.server.accepted, timeout=20, what="the server to be dialled")
    bench.up()
    assert bench.alarms() == set()


@pytest.mark.parametrize("reason, changes", [
    ("self-signed-not-in-store", lambda b: {"store_file": b.pki.store("own", b.own)}),
    ("unknown-issuer", lambda b: {}),
    ("root-known-certificate-not-in-store", lambda b: {"ca_file": b.pki.root().cert}),
])
def test_untrusted(bench, reason, changes):
    """The gateway is not believed: the server never hears of it."""
    bench.conf = bench.write(**changes(bench))
    identity = bench.theirs if reason.startswith("self") else bench.pki.signed("s", "edge.alpha.lab")
    bench.listen("server")
    bench.listen("gateway", identity.context())
    bench.start()
    bench.router.wait_log(rf"\bsplice\.trust\b.*\breason={reason}\b")
    bench.router.wait_log(rf"{LOG_FAILED}.*\breason={reason}\b")
    retry = bench.router.wait_log(r"\bsplice\.retry\b")
    assert float(retry.split("in=")[1].split()[0]) >= 48  # only an operator can help
    assert bench.alarms() == {f"splice.{reason}"}
    assert bench.server.accepted == 0
    bench.write(store_file=bench.pki.store("of-gateway", identity))  # who helps
    since = bench.router.log_size()
    bench.router.signal(signal.SIGHUP)
    bench.gateway.taken.clear()
    bench.router.wait_log(r"\bsplice\.trust\b.*\breason=store\b", since)
    bench.up()
    assert bench.alarms() == set()


def test_by_key_hash(bench):
    bench.conf = bench.write(store_file=None, authlist=[bench.theirs.key_hash()])
    bench.listen("gateway")
    bench.listen("server")
    bench.start().up()
    bench.router.wait_log(r"\bsplice\.trust\b.*\breason=authlist\b")


def test_our_certificate_is_refused(bench):
    """The gateway does not know the router's certificate."""
    root = bench.pki.root().cert
    bench.listen("server")
    bench.listen("gateway", bench.theirs.context(trust=root))
    bench.start()
    bench.router.wait_log(rf"{LOG_FAILED}.*\breason=certificate-refused\b")
    retry = bench.router.wait_log(r"\bsplice\.retry\b")
    assert float(retry.split("in=")[1].split()[0]) >= 48
    assert bench.alarms() == {"splice.certificate-refused"}


def test_not_tls(bench):
    class Clear:
        """Answers the first bytes with XML."""
        @staticmethod
        def wrap_socket(sock, **_):
            sock.recv(100)
            sock.sendall(b"<stream:stream>")
            return sock

    bench.listen("server")
    bench.listen("gateway", Clear)
    bench.start()
    bench.router.wait_log(rf"{LOG_FAILED}.*\breason=tls\b")
    assert bench.server.accepted == 0


def test_reload_ends_what_changed(ready):
    gateway, server = ready.up()
    since = ready.router.log_size()
    ready.router.signal(signal.SIGHUP)  # nothing changed
    ready.router.wait_log(r"config\.reloaded", since)
    gateway.sendall(b"still the same")
    assert receive(server, 14) == b"still the same"
    ready.write(authlist=[ready.theirs.key_hash()])
    since = ready.router.log_size()
    ready.router.signal(signal.SIGHUP)
    ready.router.wait_log(LOG_DOWN, since)
    ready.up()
    ready.lab.conf("router.conf", labnet.router_conf(
        listen=[f"{ready.lab.ip(Net.ALPHA_LINK)}:{LINK}"],
        links=[{"name": "im", "role": "server", "transport": "accept", "component": "alpha.lab",
                "domains": ["alpha.lab"], "secret_file": ready.lab.secret("im")}]))
    since = ready.router.log_size()
    ready.router.signal(signal.SIGHUP)
    ready.router.wait_log(LOG_DOWN, since)
    assert dump(ready.router, "splice.status") == []


def test_stops_in_order(ready):
    ready.up()
    ready.router.signal(signal.SIGTERM)
    assert ready.router.wait() == 0


# ---- with a real server --------------------------------------------------------------------------

@pytest.mark.skipif(not jabberd2.usable(), reason="jabberd2 is not installed")
def test_jabberd2(bench):
    """Its router greets whoever comes through the splice."""
    jabberd2.start_inside(bench.lab, "alpha.lab", SERVER_HOST)
    bench.at["server"] = (bench.lab.ip(SERVER_HOST), LINK)
    bench.conf = bench.write()
    bench.listen("gateway")
    bench.start()
    gateway = bench.gateway.take()
    gateway.sendall(b"<stream:stream xmlns:stream='http://etherx.jabber.org/streams' "
                    b"version='1.0'>")
    got = b""
    while b"DIGEST-MD5" not in got:
        got += receive(gateway, 1)
    bench.router.wait_log(LOG_UP)
    gateway.sendall(b"</stream:stream>")
    while b"</stream:stream>" not in got:
        got += receive(gateway, 1)
    gateway.close()
    bench.router.wait_log(LOG_DOWN)
