"""Own certificates and secrets while the gateway runs: files that are replaced, by better ones and
by worse ones; their end; what a resumed session may not carry over; two gateways of one domain
whose dialback secrets differ."""
import re
import signal
import ssl
import subprocess
import types

import labnet
import pytest
from certified import CertifiedServer, Organisation, client_context, dial_tls, external_stream, srv
from conftest import ALLOW_ALL, SHORT
from labnet import S2S, Net, Site, wait_for
from peers import NUMBERS, Closed, message
from pki import Pki

LOCAL, REMOTE, OWN_ROOT = "alpha.lab", "good.lab", "own-root.lab"
DAY = 24 * 3600
# What is wrong with the files of each domain when they are replaced.
WORSE = {
    "names.alpha.lab": r"not issued for (names|more)\.alpha\.lab, as the one that is served is",
    "key.alpha.lab": "key does not match the certificate",
    "over.alpha.lab": "expired on ",
    "early.alpha.lab": "not valid before ",
    "self.alpha.lab": "self-signed, which the one that is served is not",
    "half.alpha.lab": "holds no readable certificate in PEM form",
}
# Seconds that are left at the start, and the words for that.
ENDING = {"month.alpha.lab": (29 * DAY, "30 days or less"), "day.alpha.lab": (DAY - 60, "1 day or"),
          "ends.alpha.lab": (DAY + 12, "7 days or less"), "past.alpha.lab": (-60, "expired on")}


class World(Organisation):
    def __init__(self, lab):
        pki = self.pki = Pki(lab.dir / "pki" / "world")
        self.files, self.lab, self.made = lab.dir / "own", lab, 0
        self.files.mkdir()
        for name in (LOCAL, "chat.alpha.lab", *WORSE):
            self.install(name, self.fresh(name))
        for name, (left, _) in ENDING.items():
            self.install(name, self.fresh(name, seconds=left))
        self.root_file = lab.dir / "pki" / "trusted.pem"
        self.root_file.write_bytes(pki.root("private").cert.read_bytes())
        self.servers, zone = {}, srv(lab, LOCAL, (Net.ALPHA, S2S, 10, False))
        for i, (domain, root) in enumerate(((REMOTE, "root"), (OWN_ROOT, "private"))):
            self.servers[domain] = lab.at_end(CertifiedServer(
                lab.ip(60 + i), pki.signed(domain, domain, root), trust=pki.root().cert))
            zone += srv(lab, domain, (60 + i, S2S, 10, False))
        lab.dns({}, zone)
        names = (LOCAL, "chat.alpha.lab", "made.alpha.lab", *WORSE, *ENDING)
        super().__init__(
            lab, mode="tls-required", timeouts=SHORT, ca=pki.root().cert, tls={"watch": "1s"},
            domains=[self.domain(n) for n in names],
            peers=[*ALLOW_ALL, {"domain": OWN_ROOT, "ca_file": self.root_file,
                                "auth": ["external"]}])

    def fresh(self, domain, seconds=90 * DAY, san=None, root="root"):
        """A certificate for a domain and one name more."""
        self.made += 1
        more = san or f"DNS:{domain},DNS:more.{domain.split('.', 1)[1]}"
        return self.pki.issue(f"{domain}-{self.made}", more, root=root, cn=f"{domain}-{self.made}",
                              days=(-9, seconds / DAY))

    def path(self, domain):
        return self.files / f"{domain}.pem", self.files / f"{domain}.key"

    def install(self, domain, identity):
        """As tools for renewal do it: written aside and put in place."""
        for new, old in zip((identity.key, identity.cert), self.path(domain)[::-1]):
            aside = old.with_suffix(".new")
            aside.write_bytes(new.read_bytes())
            aside.replace(old)

    def domain(self, name, **more):
        cert, key = self.path(name)
        return {"name": name, **({"certificate": cert, "key": key} if cert.exists() else {})}

    def shown(self, domain):
        """The subject of what a new stream is shown."""
        s = dial_tls(self.address, None, domain, client_context())
        der = s.sock.getpeercert(binary_form=True)
        s.close()
        text = subprocess.run([labnet.tool("openssl"), "x509", "-inform", "der", "-noout",
                               "-subject", "-nameopt", "RFC2253"], input=der, capture_output=True)
        return text.stdout.decode().strip().removeprefix("subject=CN=")

    def logged(self, pattern, since=0):
        return self.gateway.wait_log(pattern, since)

    def standing(self):
        """{(kind, subject): text} of the alarms."""
        since = self.dump()
        return {(k, s.strip('"')): t for k, s, t in re.findall(
            r'alarm\.standing kind=(\S+) subject=("[^"]*"|\S+) .*msg="(.*)"$',
            self.gateway.log(since), re.M)}

    def dump(self):
        since = self.gateway.log_size()
        self.gateway.signal(signal.SIGUSR2)
        self.logged(r"state\.streams", since)
        wait_for(lambda: "state.link.probes" in self.gateway.log(since), what="the whole state")
        return since


@pytest.fixture(scope="module")
def world(lab):
    return World(lab)


# ---- renewal -------------------------------------------------------------------------------------

def test_renewed_under_running_streams(world):
    """Found by the watch; who talks already is not disturbed, in either direction."""
    remote, before = world.servers[REMOTE], world.shown(LOCAL)
    running = external_stream(world.address, REMOTE, LOCAL, world.pki.made[REMOTE])
    world.send(f"j@{REMOTE}", "out-1")
    remote.expect_stanza("out-1")
    streams, since = len(remote.streams), world.gateway.log_size()
    fresh = world.fresh(LOCAL)
    world.install(LOCAL, fresh)
    world.logged(rf'tls\.certificate\.replaced domain={LOCAL} role=both .*subject="?CN={LOCAL}-',
                 since)
    assert world.shown(LOCAL) == f"{LOCAL}-{world.made}" != before
    running.send(message(f"a@{REMOTE}", f"romeo@{LOCAL}", "in-2"))
    world.user.expect("message", id="in-2")
    world.send(f"j@{REMOTE}", "out-2")
    remote.expect_stanza("out-2")
    assert len(remote.streams) == streams, "the running stream was not used"
    running.close()
    log = world.gateway.log(since)
    assert "s2s.closed" not in log.split("tls.certificate.replaced")[0], "a stream was ended"
    assert "config.reloaded" not in log


def test_each_domain_its_own(world):
    """A subdomain with a certificate of its own, another one without any."""
    assert world.shown("chat.alpha.lab").startswith("chat.alpha.lab-")
    assert world.shown("made.alpha.lab") == "made.alpha.lab"
    since = world.dump()
    lines = re.findall(r"state\.certificate .*", world.gateway.log(since))
    assert len(lines) == 3 + len(WORSE) + len(ENDING)
    (made,) = [line for line in lines if "domain=made.alpha.lab" in line]
    (chat,) = [line for line in lines if "domain=chat.alpha.lab" in line]
    assert 'issuer="CN=made.alpha.lab"' in made and "source=self-made" in made
    assert 'issuer="CN=root"' in chat and "source=config" in chat and f"file={world.files}" in chat
    for line in lines:
        assert re.search(r"until=\d{4}-\d\d-\d\dT\S+Z since=\d{4}-\d\d-\d\dT\S+Z", line), line


def test_a_reload_looks_at_once(world):
    """A hook of the tool for renewal need not wait; what we made ourselves stays."""
    made = dial_tls(world.address, None, "made.alpha.lab", client_context())
    key = made.sock.getpeercert(binary_form=True)
    made.close()
    world.install("chat.alpha.lab", world.fresh("chat.alpha.lab"))
    log = world.gateway.log(world.reload())
    assert "tls.certificate.replaced domain=chat.alpha.lab" in log
    assert world.shown("chat.alpha.lab") == f"chat.alpha.lab-{world.made}"
    made = dial_tls(world.address, None, "made.alpha.lab", client_context())
    assert made.sock.getpeercert(binary_form=True) == key
    made.close()


# ---- worse ones ----------------------------------------------------------------------------------

def spoil(world):
    """Replaces the files of each domain of WORSE; what was shown before."""
    before = {d: world.shown(d) for d in WORSE}
    world.install("names.alpha.lab", world.fresh("names.alpha.lab", san="DNS:names.alpha.lab"))
    world.path("key.alpha.lab")[1].write_bytes(world.fresh("key.alpha.lab").key.read_bytes())
    world.install("over.alpha.lab", world.fresh("over.alpha.lab", seconds=-DAY))
    world.install("early.alpha.lab", world.pki.issue(
        "early", "DNS:early.alpha.lab,DNS:more.alpha.lab", days=(1, 9)))
    world.install("self.alpha.lab", world.pki.self_signed(
        "self", "self.alpha.lab", san="DNS:self.alpha.lab,DNS:more.alpha.lab"))
    whole = world.fresh("half.alpha.lab").cert.read_bytes()
    world.path("half.alpha.lab")[0].write_bytes(whole[:len(whole) // 2])
    return before


def test_worse_ones_are_refused(world):
    since = world.gateway.log_size()
    before = spoil(world)
    for domain, why in WORSE.items():
        world.logged(rf"tls\.certificate\.kept domain={domain} role=both file=\S+ msg=.*{why}",
                     since)
        world.logged(rf"alarm\.raised kind=tls\.not-replaced subject={domain} .*{why}", since)
    for _ in range(2):  # not even a reload takes them
        assert {d: world.shown(d) for d in WORSE} == before
        standing = world.standing()
        for domain, why in WORSE.items():
            assert re.search(why, standing["tls.not-replaced", domain])
        world.reload()
    log = world.gateway.log(since)
    assert "config.rejected" not in log
    for domain in WORSE:
        assert len(re.findall(rf"certificate\.kept domain={domain} ", log)) == 1, "told again"
    # Each is put right.
    since = world.gateway.log_size()
    for domain in WORSE:
        world.install(domain, world.fresh(domain))
    for domain in WORSE:
        world.logged(rf"alarm\.cleared kind=tls\.not-replaced subject={domain}", since)
    assert not [k for k in world.standing() if k[0] == "tls.not-replaced"]
    for domain in WORSE:
        assert world.shown(domain) != before[domain]


# ---- the end -------------------------------------------------------------------------------------

def test_the_end_is_told(world):
    standing = world.standing()
    for domain, (_, words) in ENDING.items():
        if domain != "ends.alpha.lab":
            assert words in standing["tls.expires", domain]
    # A day before its end; it had been within a week of it at the start.
    world.logged(r"alarm\.raised kind=tls\.expires subject=ends\.alpha\.lab .*7 days or less")
    world.logged(r"tls\.certificate\.expires domain=ends\.alpha\.lab .*left=\"1 day or less\"")
    assert "1 day or less" in world.standing()["tls.expires", "ends.alpha.lab"]
    since = world.gateway.log_size()
    for domain in ENDING:
        world.install(domain, world.fresh(domain))
    for domain in ENDING:
        world.logged(rf"alarm\.cleared kind=tls\.expires subject={domain}", since)
    assert not [k for k in world.standing() if k[0] == "tls.expires"]


# ---- resumption ----------------------------------------------------------------------------------

def hang_up(server):
    """The peer closes every stream that we have to it, in good order."""
    for _, s in list(server.streams):
        try:
            s.send("</stream:stream>")
        except (OSError, Closed):
            pass


def test_resumed_and_judged_anew(world):
    """A session is resumed while the same authorities are trusted, and never past a change."""
    server = world.servers[OWN_ROOT]

    def round_trip():
        """Whether the stream that is made for a stanza resumes; one that is in the time of
        back-off comes back and is sent again."""
        since, sent = world.gateway.log_size(), []

        def arrived():
            if not sent or world.received(sent[-1]):
                sent.append(f"resume-{next(NUMBERS)}")
                world.send(f"j@{OWN_ROOT}", sent[-1])
            return any(e.get("id") == sent[-1] for _, e in list(server.stanzas))

        wait_for(arrived, what="a stanza to arrive", detail=world.gateway.log_tail)
        (line,) = re.findall(r"tls\.up .*", world.gateway.log(since))
        hang_up(server)
        world.logged(r"s2s\.closed ", since)
        return "resumed=yes" in line

    assert [round_trip() for _ in range(3)] == [False, True, True]
    # The same file holds another authority.
    world.root_file.write_bytes(world.pki.root("stranger").cert.read_bytes())
    since = world.reload()
    world.send(f"j@{OWN_ROOT}", "refused")
    condition, text = world.bounce("refused")
    assert condition == "remote-server-timeout" and "issuer unknown" in text, text
    assert "resumed=yes" not in world.gateway.log(since)
    world.root_file.write_bytes(world.pki.root("private").cert.read_bytes())
    since = world.reload()
    assert not round_trip(), "a session from before"
    assert round_trip()
    # Another certificate of ours is shown, not the session that knows the old one.
    since = world.gateway.log_size()
    world.install(LOCAL, world.fresh(LOCAL))
    world.logged(rf"tls\.certificate\.replaced domain={LOCAL}", since)
    assert not round_trip(), "a session that knows our old one"


# ---- two gateways, two secrets -------------------------------------------------------------------

def secret_line(gateway):
    done = subprocess.run([labnet.program("sallyport"), "--auth-info", "-c", gateway.conf],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return re.search(r"^dialback\n  secret: (\S+)$", done.stdout, re.M).group(1)


@pytest.fixture
def pair(fresh_lab):
    """alpha.lab has two gateways: one that speaks, and one that its SRV records name. Both are
    real, and so is the one of beta.lab and delta.lab."""
    lab = fresh_lab
    lab.dns({LOCAL: [(13, S2S, 10)], "beta.lab": [(Net.BETA, S2S, 10)],
             "delta.lab": [(Net.BETA, S2S, 10)]})
    settings = {"mode": "tls-optional", "auth": ["dialback"], "peers": ALLOW_ALL,
                "timeouts": {**SHORT, "queue": "8s"}}
    alpha = Site(lab, LOCAL, Net.ALPHA, Net.ALPHA_LINK, "romeo", **settings)
    lab.router("other-router", 14, LOCAL)
    other = lab.gateway("other-gateway", LOCAL, 13, 14, secret=lab.secret("other"), **settings)
    names = ("beta.lab", "delta.lab")
    beta = Site(lab, "beta.lab", Net.BETA, Net.BETA_LINK, "juliet",
                domains=[{"name": n} for n in names], **settings)
    return types.SimpleNamespace(lab=lab, alpha=alpha, other=other, beta=beta)


def test_two_secrets(pair):
    alpha, other = pair.alpha.gateway, pair.other
    assert secret_line(alpha) != secret_line(other)
    for i, to in enumerate(("juliet@beta.lab", "juliet@delta.lab")):
        pair.alpha.user.message(to, f"refused-{i}", "who are we?")
        got = pair.alpha.user.expect(kind="message", type="error", id=f"refused-{i}")
        assert got["condition"] == "internal-server-error", got
    alarm = alpha.wait_log(r"alarm\.raised kind=dialback\.secret-mismatch .*")
    text = alpha.log()
    assert re.search(r"secret-mismatch subject=alpha\.lab msg=.*another gateway of this domain has "
                     r"another secret; compare .*--auth-info.*last: delta\.lab", text), alarm
    assert "type=invalid" in other.log() and "dialback.verify.answered" not in text
    for secret in (pair.lab.secret(f"{LOCAL}-dialback"), pair.lab.secret("other")):
        for gateway in (alpha, other):
            assert secret.read_text().strip() not in gateway.log()
    # The operator compares, and gives the other one the same secret.
    other.edit(r'secret_file = "[^"]*"(; (?:timeout|previous)[^\n]*)',
               rf'secret_file = "{pair.lab.secret(f"{LOCAL}-dialback")}"\1')
    since = other.log_size()
    other.signal(signal.SIGHUP)
    other.wait_log(r"config\.reloaded", since)
    assert secret_line(alpha) == secret_line(other)

    sent = []

    def delivered():
        if not sent or pair.alpha.user.seen(type="error", id=sent[-1]):
            sent.append(f"again-{len(sent)}")  # after the time of back-off
            pair.alpha.user.message(pair.beta.user.jid, sent[-1], "it is us")
        return pair.beta.user.seen(kind="message", id=sent[-1])

    wait_for(delivered, what="the delivery", detail=alpha.log_tail)
    alpha.wait_log(r"alarm\.cleared kind=dialback\.secret-mismatch subject=alpha\.lab")
