"""A splice of sallyport-router: bytes between a gateway that listens with TLS and a server that
listens in clear. Both ends are sockets of the test; at last the server is a real jabberd2, whose
protocol the router does not speak."""
import hashlib
import os
import select
import signal
import socket
import ssl
import threading
import time

import jabberd2
import labnet
import pytest
from actors import InsideUser
from cable import vanish
from labnet import LINK, WAIT, Net, wait_for
from linkworld import dump
from pki import Pki

NAME = "jabberd2"
SERVER_HOST, SERVER_PORT = 33, 5347
LOG_UP, LOG_DOWN, LOG_FAILED = (rf"\bsplice\.{e}\b" for e in ("up", "down", "failed"))
BUFFER = 64 * 1024
MEGABYTES, BEYOND = 4 << 20, 24 << 20  # what the kernel's buffers may hold, and what not
DEAD, MARGIN = 3.0, 1.5  # seconds: timeouts.dead, and on top of it
TIMEOUTS = {"auth": "3s", "connect": "1s", "close": "2s", "dead": f"{DEAD:g}s"}


class End:
    """A listener that takes one connection after the other; with a context, under TLS."""

    def __init__(self, address, port, context=None):
        self.context, self.taken, self.failed = context, [], []
        self.all = []
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
                if self.context:
                    s = self.context.wrap_socket(s, server_side=True, suppress_ragged_eofs=False)
            except (OSError, ssl.SSLError) as e:
                self.failed.append(e)
                s.close()
                continue
            self.taken.append(s)
            self.all.append(s)

    def take(self):
        wait_for(lambda: self.taken, what="a connection")
        return self.taken.pop(0)

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        self.hang_up()

    def hang_up(self):
        for s in self.all:
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
            listen=[], links=[], timeouts=TIMEOUTS,
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
    """What the test leaves open is closed, so that the router need not wait for it."""
    made = Bench(fresh_lab)
    yield made
    for end in (made.gateway, made.server):
        if end:
            end.hang_up()


@pytest.fixture
def ready(bench):
    bench.listen("gateway")
    bench.listen("server")
    return bench.start()


def receive(sock, n):
    data = bytearray()
    while len(data) < n:
        more = sock.recv(min(65536, n - len(data)))
        assert more, f"the end after {len(data)} of {n} bytes"
        data += more
    return bytes(data)


LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def push(sock, data):
    """How much of it the kernel takes at once."""
    sent = 0
    sock.setblocking(False)
    try:
        while sent < len(data):
            sent += sock.send(data[sent:sent + 16384])
    except LATER:
        pass
    sock.settimeout(WAIT)
    return sent


def exchange(sock, data, wanted):
    """Sends the data and receives `wanted` bytes, by turns: a TLS socket is for one thread."""
    got, data = bytearray(), memoryview(data)
    while True:
        data = data[push(sock, data):]
        sock.setblocking(False)
        try:
            while len(got) < wanted:
                got += sock.recv(65536) or pytest.fail("an end")
        except LATER:
            pass
        sock.settimeout(WAIT)
        if not data and len(got) >= wanted:
            return bytes(got)
        select.select([sock], [sock] if data else [], [], WAIT)


def test_bytes_both_ways(ready):
    gateway, server = ready.up()
    up, down = os.urandom(MEGABYTES), os.urandom(MEGABYTES)
    got = {}

    def run(k, sock, data):
        got[k] = exchange(sock, data, MEGABYTES)

    ends = [threading.Thread(target=run, args=args)
            for args in (("down", gateway, up), ("up", server, down))]
    for t in ends:
        t.start()
    for t in ends:
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
    data, sent = os.urandom(BEYOND), 0

    def stands():
        nonlocal sent
        sent += push(gateway, data[sent:])
        before = ready.status()
        time.sleep(0.3)  # in which a splice that moves would have moved
        after = ready.status()
        return after["in_bytes"] == before["in_bytes"] and int(after["waiting_in"]) >= BUFFER

    wait_for(stands, timeout=20, what="the splice to stand still")
    assert sent < BEYOND
    assert int(ready.status()["waiting_in"]) <= 2 * BUFFER + 2 * 65536
    server.sendall(b"the other direction goes on")
    assert receive(gateway, 27) == b"the other direction goes on"
    rest_of_it = threading.Thread(target=exchange, args=(gateway, data[sent:], 0))
    rest_of_it.start()
    assert receive(server, BEYOND) == data
    rest_of_it.join(WAIT)
    assert not rest_of_it.is_alive()


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
    identity = (bench.theirs if reason.startswith("self")
                else bench.pki.signed("s", "edge.alpha.lab"))
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
    ready.router.wait_log(r"config\.reloaded", since)
    ready.router.wait_log(LOG_DOWN, since)
    assert dump(ready.router, "splice.status") == []
    secret = ready.lab.secret("im").read_text().strip()
    InsideUser(ready.lab.ip(Net.ALPHA_LINK), "alpha.lab", secret).close()  # it listens at once


def test_reload_to_a_busy_port(ready):
    """Then nothing changes."""
    gateway, server = ready.up()
    address = ready.lab.ip(Net.ALPHA_LINK)
    ready.lab.at_end(End(address, LINK))
    ready.lab.conf("router.conf", labnet.router_conf(
        listen=[f"{address}:{LINK}"],
        links=[{"name": "im", "role": "server", "transport": "accept", "component": "alpha.lab",
                "domains": ["alpha.lab"], "secret_file": ready.lab.secret("im")}]))
    ready.router.signal(signal.SIGHUP)
    line = ready.router.wait_log(r"config\.error")
    ready.router.wait_log(r"config\.rejected")
    assert f"{address}:{LINK}" in line, line
    gateway.sendall(b"still the same")
    assert receive(server, 14) == b"still the same"


def test_not_trusted_any_more(ready):
    """A splice that is up is judged again at each reload, by what the files say then."""
    gateway, _ = ready.up()
    store = ready.pki.store("theirs", ready.own)
    since = ready.router.log_size()
    ready.router.signal(signal.SIGHUP)
    ready.router.wait_log(rf"{LOG_DOWN}.*not trusted", since)
    with pytest.raises((ssl.SSLError, OSError)):
        assert gateway.recv(1), "closed as if all were well"
    ready.router.wait_log(rf"{LOG_FAILED}.*\breason=self-signed-not-in-store\b", since)
    assert ready.alarms() == {"splice.self-signed-not-in-store"}
    assert store == ready.pki.store("theirs", ready.theirs)
    ready.gateway.taken.clear()
    ready.router.signal(signal.SIGHUP)
    ready.up()
    assert ready.alarms() == set()


def test_gateway_that_says_nothing(bench):
    """TLS alone is no proof that somebody is there."""
    bench.listen("gateway")
    bench.listen("server")
    bench.start()
    bench.gateway.take()
    bench.server.take()
    assert bench.status()["state"] == "waiting"
    line = bench.router.wait_log(rf"{LOG_FAILED}.*\breason=down\b")
    assert "says nothing" in line and bench.alarms() == {"splice.down"}
    bench.up()
    assert bench.alarms() == set()


@pytest.mark.parametrize("which", ("gateway", "server"))
def test_its_machine_is_gone(ready, which):
    """Nothing comes any more, not even an end: found within timeouts.dead."""
    gateway, server = ready.up()
    since, began = ready.router.log_size(), time.monotonic()
    vanish(gateway if which == "gateway" else server)
    line = ready.router.wait_log(LOG_DOWN, since)
    assert DEAD / 3 < time.monotonic() - began < DEAD + MARGIN, line
    assert "timed out" in line
    assert ready.alarms() <= {"splice.down"}
    ready.up()
    assert ready.alarms() == set()


def test_stops_in_order(ready):
    """What was read is written, and both are told the end."""
    gateway, server = ready.up()
    up, down = os.urandom(BEYOND), os.urandom(BEYOND)
    sent = {gateway: 0, server: 0}

    def full():
        """Nobody takes more, and the router has some of it in its hands."""
        for s, data in ((gateway, up), (server, down)):
            sent[s] += push(s, data[sent[s]:])
        status = ready.status()
        return int(status["waiting_in"]) and int(status["waiting_out"])

    wait_for(full, what="bytes to wait in the router")
    ready.router.signal(signal.SIGTERM)
    line = ready.router.wait_log(LOG_DOWN)
    got = {}
    readers = [threading.Thread(target=lambda k=k, s=s: got.update({k: rest(s)}))
               for k, s in (("in", server), ("out", gateway))]
    for t in readers:
        t.start()
    for t in readers:
        t.join(WAIT)
    for k, data, early in (("in", up, 1), ("out", down, 0)):
        counted = int(line.split(f"{k}_bytes=")[1].split()[0])
        assert len(got[k]) >= counted - early, line
        assert data.startswith(got[k])
    gateway.close()
    server.close()
    assert ready.router.wait() == 0


def rest(sock):
    """All up to a proper end: else this raises."""
    data = bytearray()
    while more := sock.recv(65536):
        data += more
    return data


def test_stops_without_waiting_for_ever(ready):
    """Neither side says its end: timeouts.close is all they get."""
    gateway, server = ready.up()
    began = time.monotonic()
    ready.router.signal(signal.SIGTERM)
    assert ready.router.wait() == 0
    assert 1.5 < time.monotonic() - began < 4
    assert rest(gateway) == b"" and rest(server) == b""


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
