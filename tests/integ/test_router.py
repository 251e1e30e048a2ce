"""The inside link: two gateways on one router, whoever dials, and links that are cut."""
import re
import signal
import subprocess
import time

import labnet
import pytest
from actors import InsideUser
from cable import vanish
from conftest import ALLOW_ALL, new_lab
from labnet import LINK, Net, wait_for
from linkworld import dump
from peers import RemoteServer, authorised, message, stanza_error
from pki import Pki

RAW, SECOND = 41, 13
SENDERS = 24
DEAD, MARGIN = 3.0, 1.5  # seconds: timeouts.dead, and on top of it


class Pair:
    """alpha.lab with two gateways that share the dialback secret; they dial the router."""

    def __init__(self, lab):
        self.lab = lab
        lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10), (SECOND, labnet.S2S, 20)],
                 "raw.lab": [(RAW, labnet.S2S, 10)]})
        self.raw = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
        self.addresses = [lab.ip(Net.ALPHA), lab.ip(SECOND)]
        self.start()
        self.user = lab.user("user", Net.ALPHA_LINK, "alpha.lab", "romeo")
        self.user.wait_connected()

    def start(self):
        self.router = self.lab.router("router", Net.ALPHA_LINK, "alpha.lab", gateways=2)
        self.gateways = [
            self.lab.gateway(f"gateway{i + 1}", "alpha.lab", host, Net.ALPHA_LINK, edge=i + 1,
                             mode="no-tls", peers=ALLOW_ALL)
            for i, host in enumerate((Net.ALPHA, SECOND))]

    def send_from(self, sender, ident):
        self.user.command(f"raw <message from='{sender}@alpha.lab/x' to='j@raw.lab' id='{ident}' "
                          "type='chat'><body>x</body></message>")

    def gateway_of(self, ident):
        """The address of the gateway that brought a stanza out."""
        self.raw.expect_stanza(ident)
        return next(peer for peer, e in self.raw.stanzas if e.get("id") == ident)


class DialledPair(Pair):
    """The same, but the gateways listen, and the router dials them. On one link both know each
    other by what --auth-info prints, on the other one by a root and the password."""

    def start(self):
        lab, pki = self.lab, Pki(self.lab.dir / "pki" / "links")
        own = [pki.self_signed("own1", "edge1.alpha.lab"), pki.signed("own2", "edge2.alpha.lab")]
        router = [pki.self_signed("router1", "router.alpha.lab"),
                  pki.signed("router2", "router.alpha.lab")]
        root = {"ca_file": pki.root().cert, "secret_file": lab.secret("edge")}
        self.router_links = [
            {"name": f"edge{i + 1}", "role": "gateway", "transport": "dial",
             "address": f"{a}:{LINK}", "component": f"edge{i + 1}.alpha.lab",
             **router[i].settings()} for i, a in enumerate(self.addresses)]
        self.router_links[0].update(auth="tls", authlist=[f"sha256:{own[0].key_hash()}"])
        self.router_links[1].update(auth="tls+password", peer_name="edge2.alpha.lab", **root)
        router_conf = self.write_router(self.router_links)
        listed = re.findall("key SHA-256: .*", auth_info("sallyport-router", router_conf)["edge1"])
        doors = [{"auth": "tls", "authlist": listed},
                 {"auth": "tls+password", "peer_name": "router.alpha.lab", **root}]
        self.gateways = []
        for i, host in enumerate((Net.ALPHA, SECOND)):
            link = {"name": "core", "transport": "accept", "component": f"edge{i + 1}.alpha.lab",
                    "listen": [f"{self.addresses[i]}:{LINK}"], **own[i].settings(), **doors[i]}
            conf = lab.conf(f"gateway{i + 1}.conf", labnet.gateway_conf(**lab.gateway_settings(
                "alpha.lab", host, 0, mode="no-tls", peers=ALLOW_ALL, links=[link])))
            self.gateways.append(lab.start_gateway(f"gateway{i + 1}", conf, host))
        shown = auth_info("sallyport", self.gateways[0].conf)["core"]
        self.router_links[0]["authlist"] = re.findall("key SHA-1: .*", shown)
        self.router = lab.start_router("router", self.write_router(self.router_links),
                                       Net.ALPHA_LINK)
        for g in self.gateways:
            g.wait_log(labnet.LOG_LINK_UP)

    def write_router(self, links):
        im = {"name": "im", "role": "server", "transport": "accept", "component": "alpha.lab",
              "domains": ["alpha.lab"], "secret_file": self.lab.secret("alpha.lab-im")}
        return self.lab.conf("router.conf", labnet.router_conf(
            listen=[f"{self.lab.ip(Net.ALPHA_LINK)}:{LINK}"], links=[*links, im],
            timeouts={"connect": "1s", "close": "1s"}))


def auth_info(name, conf):
    """{link or splice: what is printed below its name}"""
    done = subprocess.run([labnet.program(name), "--auth-info", "-c", conf], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    parts = re.split(r"^(?:link|splice) (\S+)\n", done.stdout, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


@pytest.fixture(scope="module", params=(Pair, DialledPair))
def pair(request):
    with new_lab(f"{request.module.__name__}/{request.param.__name__}") as lab:
        yield request.param(lab)


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
    pair.router.wait_log(r"\blink\.down\b.*\bedge1\b", since)
    for n in range(SENDERS):
        pair.send_from(f"u{n}", f"failover-{n}")
    for n in range(SENDERS):
        assert pair.gateway_of(f"failover-{n}") == pair.addresses[1]
    s = authorised(pair.addresses[1], "raw.lab", "alpha.lab")
    s.send(message("a@raw.lab", pair.user.jid, "in-after-failover"))
    pair.user.expect(kind="message", id="in-after-failover")
    s.close()
    assert alive.alive() and pair.router.alive()


def test_gateway_that_returns_is_used_again(pair):
    gw = pair.lab.start_gateway("gateway1b", pair.gateways[0].conf, Net.ALPHA)
    gw.wait_log(labnet.LOG_LINK_UP)
    tries = iter(range(10000))

    def back():
        n = next(tries)
        pair.send_from(f"u{n}", f"return-{n}")
        return pair.gateway_of(f"return-{n}") == pair.addresses[0]

    wait_for(back, what="a sender to be given to the returned gateway")
    assert not dump(pair.router, "alarm.standing")


def test_by_priority(pair):
    """A reload that cuts no link makes the first gateway a standby: it takes what there is when the
    other one has gone, and until that is back. It goes on bringing stanzas in."""
    standby, preferred = pair.addresses
    conf, since = pair.lab.dir / "conf" / "router.conf", pair.router.log_size()
    conf.write_text(conf.read_text().replace('name = "edge1";', 'name = "edge1"; priority = 10;'))
    pair.router.signal(signal.SIGHUP)
    pair.router.wait_log(r"config\.reloaded\b", since)
    assert "link.down" not in pair.router.log(since)

    def all_by(what, address):
        for n in range(SENDERS):
            pair.send_from(f"u{n}", f"{what}-{n}")
        assert {pair.gateway_of(f"{what}-{n}") for n in range(SENDERS)} == {address}

    all_by("preferred", preferred)
    s = authorised(standby, "raw.lab", "alpha.lab")
    s.send(message("a@raw.lab", pair.user.jid, "in-by-standby"))
    pair.user.expect(kind="message", id="in-by-standby")
    s.close()
    gone = pair.router.log_size()
    pair.gateways[1].kill()
    pair.router.wait_log(r"link\.down .*\bedge2\b", gone)
    all_by("standby", standby)
    pair.lab.start_gateway("gateway2b", pair.gateways[1].conf, SECOND)
    pair.router.wait_log(r"link\.up .*\bedge2\b", gone)
    all_by("back", preferred)


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


# ---- what the router says of itself --------------------------------------------------------------

def test_auth_info(fresh_lab):
    """What the other sides have to know of us, for each link and splice."""
    lab, pki = fresh_lab, Pki(fresh_lab.dir / "pki" / "links")
    made = {"own": pki.self_signed("s", "router.alpha.lab"),
            "signed": pki.signed("r", "router.alpha.lab"),
            "spliced": pki.self_signed("x", "router.alpha.lab")}
    store = pki.store("store", made["own"])
    gateway = {"role": "gateway", "transport": "dial", "address": "127.0.0.1:7400", "auth": "tls",
               "store_file": store}
    links = [{"name": name, "component": f"{name}.alpha.lab", **gateway, **made[name].settings()}
             for name in ("own", "signed")]
    links.append({"name": "im", "role": "server", "transport": "accept", "component": "alpha.lab",
                  "domains": ["alpha.lab"], "secret_file": lab.secret("im")})
    splice = {"name": "spliced", "gateway": "127.0.0.1:7400", "server": "127.0.0.1:5347",
              "store_file": store, **made["spliced"].settings()}
    conf = lab.conf("router.conf", labnet.router_conf(
        listen=[f"{lab.ip(Net.ALPHA_LINK)}:{LINK}"], links=links,
        extra=f"splices = {labnet._objects([splice])};\n"))
    shown = auth_info("sallyport-router", conf)
    assert list(shown) == ["own", "signed", "im", "spliced"]
    assert "by password only" in shown["im"]
    for name, identity in made.items():
        for kind, label in (("sha1", "SHA-1"), ("sha256", "SHA-256")):
            plain = re.search(f"  key {label}: (.*)", shown[name]).group(1)
            assert plain.replace(":", "").lower() == identity.key_hash(kind)
        assert "issued for: router.alpha.lab" in shown[name]
    assert "type: self-signed\n" in shown["own"] and "type: signed by " in shown["signed"]
    lines = [line for text in shown.values() for line in re.findall(r"  (key SHA.*)", text)]
    links[0]["authlist"] = lines  # as they stand
    conf = lab.conf("pasted.conf", labnet.router_conf(listen=["127.0.0.1:7400"], links=links))
    subprocess.run([labnet.program("sallyport-router"), "-t", "-c", conf], check=True)
    # The gateway says the same of the same certificate.
    mine = {"name": "core", "transport": "accept", "component": "own", "listen": ["127.0.0.1:7400"],
            "auth": "tls", "store_file": store, **made["own"].settings()}
    conf = lab.conf("gateway.conf", labnet.gateway_conf(
        domains=[{"name": "alpha.lab"}], links=[mine], listen=["127.0.0.1:5269"],
        dns=["127.0.0.1:9"]))
    assert auth_info("sallyport", conf)["core"] == shown["own"]


def in_vain(address, domain, secret):
    with pytest.raises(AssertionError):
        InsideUser(address, domain, secret)


def test_alarms(fresh_lab):
    """Counted by kind and link, with the first and the last time; the next success clears them."""
    lab, at = fresh_lab, fresh_lab.ip(Net.ALPHA_LINK)
    secret = lab.secret("alpha.lab-im").read_text().strip()
    pki = Pki(lab.dir / "pki" / "links")
    own = pki.self_signed("r", "router.alpha.lab")
    edge = {"name": "edge", "role": "gateway", "transport": "dial", "auth": "tls",
            "address": f"{lab.ip(Net.ALPHA)}:{LINK}", "component": "edge.alpha.lab",
            "store_file": pki.store("store", own), **own.settings()}
    im = {"name": "im", "role": "server", "transport": "accept", "component": "alpha.lab",
          "domains": ["alpha.lab"], "secret_file": lab.secret("alpha.lab-im")}
    router = lab.start_router("router", lab.conf("router.conf", labnet.router_conf(
        listen=[f"{at}:{LINK}"], links=[edge, im])), Net.ALPHA_LINK)
    in_vain(at, "alpha.lab", "wrong")

    def alarm(kind, subject):
        return dump(router, "alarm.standing", kind=kind, subject=subject)

    first = wait_for(lambda: alarm("link.password", "im"), what="the alarm")[0]
    assert first["count"] == "1" and first["first"] == first["last"]
    wait_for(lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) > first["last"],
             what="the next second of the clock")
    in_vain(at, "alpha.lab", "wrong")
    second = wait_for(lambda: [a for a in alarm("link.password", "im") if a["count"] == "2"],
                      what="the second one")[0]
    assert second["first"] == first["first"] < second["last"] and second["msg"]
    refused = wait_for(lambda: alarm("link.connect", "edge"), what="the other one")[0]
    assert int(refused["count"]) >= 1 and "refused" in refused["msg"]
    InsideUser(at, "alpha.lab", secret)
    router.wait_log(r"alarm\.cleared kind=link\.password subject=im count=2\b")
    assert not alarm("link.password", "im") and alarm("link.connect", "edge")


def test_its_machine_is_gone(fresh_lab):
    """Of a gateway and of a server; nothing comes any more, not even an end."""
    lab, at = fresh_lab, fresh_lab.ip(Net.ALPHA_LINK)
    router = lab.router("router", Net.ALPHA_LINK, "alpha.lab", timeouts={"dead": f"{DEAD:g}s"})
    domains = {"im": "alpha.lab", "edge1": "edge1.alpha.lab"}
    secrets = {"im": "alpha.lab-im", "edge1": "alpha.lab-edge"}
    there = {name: InsideUser(at, domain, lab.secret(secrets[name]).read_text().strip())
             for name, domain in domains.items()}
    for user in there.values():
        vanish(user.sock)
    began = time.monotonic()
    for name in there:
        line = router.wait_log(rf"\blink\.down\b.*\blink={name}\b")
        assert DEAD / 3 < time.monotonic() - began < DEAD + MARGIN, line
        assert "timed out" in line
        assert dump(router, "alarm.standing", kind="link.down", subject=name)
