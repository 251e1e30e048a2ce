"""The inside link: two gateways on one router, and links that are cut."""
import signal
import time

import labnet
import pytest
from conftest import ALLOW_ALL
from labnet import Net, wait_for
from peers import RemoteServer, authorised, message, stanza_error

RAW, SECOND = 41, 13
SENDERS = 24


class Pair:
    """alpha.lab with two gateways that share the dialback secret."""

    def __init__(self, lab):
        lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10), (SECOND, labnet.S2S, 20)],
                 "raw.lab": [(RAW, labnet.S2S, 10)]})
        self.raw = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
        self.router = lab.router("router", Net.ALPHA_LINK, "alpha.lab", gateways=2)
        self.user = lab.user("user", Net.ALPHA_LINK, "alpha.lab", "romeo")
        self.user.wait_connected()
        self.addresses = [lab.ip(Net.ALPHA), lab.ip(SECOND)]
        self.gateways = [
            lab.gateway(f"gateway{i + 1}", "alpha.lab", host, Net.ALPHA_LINK, edge=i + 1,
                        mode="no-tls", peers=ALLOW_ALL)
            for i, host in enumerate((Net.ALPHA, SECOND))]

    def send_from(self, sender, ident):
        self.user.command(f"raw <message from='{sender}@alpha.lab/x' to='j@raw.lab' id='{ident}' "
                          "type='chat'><body>x</body></message>")

    def gateway_of(self, ident):
        """The address of the gateway that brought a stanza out."""
        self.raw.expect_stanza(ident)
        return next(peer for peer, e in self.raw.stanzas if e.get("id") == ident)


@pytest.fixture(scope="module")
def pair(lab):
    return Pair(lab)


def test_a_sender_stays_on_one_gateway(pair):
    ways = {}
    for turn in range(3):
        for n in range(SENDERS):
            pair.send_from(f"u{n}", f"affine-{turn}-{n}")
    for turn in range(3):
        for n in range(SENDERS):
            ways.setdefault(n, set()).add(pair.gateway_of(f"affine-{turn}-{n}"))
    assert all(len(w) == 1 for w in ways.values()), ways
    assert {next(iter(w)) for w in ways.values()} == set(pair.addresses)


def test_order_of_one_sender(pair):
    for i in range(50):
        pair.send_from("u1", f"order-{i}")
    pair.raw.expect_stanza("order-49")
    got = [e.get("id") for _, e in pair.raw.stanzas if e.get("id").startswith("order-")]
    assert got == [f"order-{i}" for i in range(50)]


def test_either_gateway_brings_stanzas_in(pair):
    for i, address in enumerate(pair.addresses):
        s = authorised(address, "raw.lab", "alpha.lab")
        s.send(message("a@raw.lab", pair.user.jid, f"in-{i}"))
        pair.user.expect(kind="message", id=f"in-{i}")
        s.close()


def test_failover(pair):
    """A gateway dies: everything goes through the other one."""
    dead, alive = pair.gateways
    since = pair.router.log_size()
    dead.kill()
    pair.router.wait_log(r"\bedge1\b", since)
    for n in range(SENDERS):
        pair.send_from(f"u{n}", f"failover-{n}")
    for n in range(SENDERS):
        assert pair.gateway_of(f"failover-{n}") == pair.addresses[1]
    s = authorised(pair.addresses[1], "raw.lab", "alpha.lab")
    s.send(message("a@raw.lab", pair.user.jid, "in-after-failover"))
    pair.user.expect(kind="message", id="in-after-failover")
    s.close()
    assert alive.alive() and pair.router.alive()


def test_gateway_that_returns_is_used_again(pair, lab):
    gw = lab.start_gateway("gateway1b", pair.gateways[0].conf, Net.ALPHA)
    gw.wait_log(labnet.LOG_LINK_UP)
    tries = iter(range(10000))

    def back():
        n = next(tries)
        pair.send_from(f"u{n}", f"return-{n}")
        return pair.gateway_of(f"return-{n}") == pair.addresses[0]

    wait_for(back, what="a sender to be given to the returned gateway")


# ---- one gateway, its link cut -----------------------------------------------------------------

@pytest.fixture
def single(fresh_lab):
    lab = fresh_lab
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)], "raw.lab": [(RAW, labnet.S2S, 10)]})
    raw = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
    router = lab.router("router", Net.ALPHA_LINK, "alpha.lab")
    user = lab.user("user", Net.ALPHA_LINK, "alpha.lab", "romeo")
    user.wait_connected()
    gateway = lab.gateway("gateway", "alpha.lab", Net.ALPHA, Net.ALPHA_LINK, mode="no-tls",
                          peers=ALLOW_ALL, limits={"hold_time": "4s"})
    return lab, raw, router, user, gateway


def test_link_cut_and_restored(single):
    """What arrives meanwhile is held and delivered in order."""
    lab, _, router, user, gateway = single
    s = authorised(lab.ip(Net.ALPHA), "raw.lab", "alpha.lab")
    since = gateway.log_size()
    router.kill()
    gateway.wait_log(r"\blink\.", since)
    for i in range(10):
        s.send(message("a@raw.lab", "romeo@alpha.lab/lab", f"held-{i}"))
    mark = user.mark()
    lab.start_router("router-again", lab.dir / "conf" / "router.conf", Net.ALPHA_LINK)
    user.wait_connected(since=mark)
    user.expect(kind="message", id="held-9", timeout=15)
    assert [e["id"] for e in user.seen(kind="message")] == [f"held-{i}" for i in range(10)]
    user.message("j@raw.lab", "out-again", "hello")
    single[1].expect_stanza("out-again")
    s.close()


def test_link_stays_down(single):
    """After limits.hold_time the sender outside gets an error; nothing is lost silently."""
    lab, raw, router, _, gateway = single
    s = authorised(lab.ip(Net.ALPHA), "raw.lab", "alpha.lab")
    since = gateway.log_size()
    router.kill()
    gateway.wait_log(r"\blink\.", since)
    began = time.monotonic()
    s.send(message("a@raw.lab", "romeo@alpha.lab/lab", "stranded"))
    error = raw.expect_stanza("stranded", timeout=12)
    condition, text = stanza_error(error)
    assert (error.get("type"), condition) == ("error", "remote-server-timeout"), text
    assert time.monotonic() - began > 2
    s.close()


def test_user_gone_bounces(single):
    """No server for the domain is joined: the remote sender is told."""
    lab, raw, router, user, _ = single
    s = authorised(lab.ip(Net.ALPHA), "raw.lab", "alpha.lab")
    since = router.log_size()
    user.kill()
    router.wait_log(r"\bim\b", since)
    s.send(message("a@raw.lab", "romeo@alpha.lab/lab", "nobody-home"))
    error = raw.expect_stanza("nobody-home")
    assert error.get("type") == "error" and stanza_error(error)[0] == "remote-server-timeout"
    s.close()


def test_router_without_gateway_bounces(single):
    _, _, router, user, gateway = single
    since = router.log_size()
    gateway.kill()
    router.wait_log(r"\bedge1\b", since)
    user.message("j@raw.lab", "no-gateway", "?")
    error = user.expect(kind="message", type="error", id="no-gateway")
    assert error["condition"] in ("remote-server-timeout", "remote-server-not-found")


def test_stopped_router_does_not_stop_dialback(single):
    """The link stands still (SIGSTOP); the gateway goes on answering strangers."""
    lab, _, router, user, gateway = single
    router.signal(signal.SIGSTOP)
    try:
        s = authorised(lab.ip(Net.ALPHA), "raw.lab", "alpha.lab")
        s.send(message("a@raw.lab", user.jid, "paused"))
        authorised(lab.ip(Net.ALPHA), "raw.lab", "alpha.lab").close()
    finally:
        router.signal(signal.SIGCONT)
    user.expect(kind="message", id="paused")
    assert gateway.alive()
    s.close()
