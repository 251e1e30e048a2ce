"""TLS from the first byte (XEP-0368), both ways: what is said in clear, which certificate is shown,
and which of the targets is dialled."""
import socket
import ssl

import labnet
import pytest
from certified import (ALPN, CertifiedServer, Organisation, ask_result, client_context,
                       dial_direct, dial_tls, external, offers, srv)
from conftest import SHORT
from labnet import DIRECT, S2S, Net
from peers import Closed, RemoteServer, XmlStream, message
from pki import Pki

LOCAL, OTHER = "alpha.lab", "beta.lab"
# Of the direct targets: nothing listens, it speaks in clear, its certificate is that of another
# domain, it has never heard of the ALPN name.
NOBODY, CLEAR, FORGED, OTHER_ALPN = 90, 67, 70, 74


class InClear(RemoteServer):
    def _begin(self, s):
        s.open(self.domain, LOCAL, ident="1")
        super()._begin(s)


class World(Organisation):
    """Each remote domain has its way to be found: targets are (host, port, priority, direct)."""
    ZONE = {
        "direct.lab": [(61, DIRECT, 10, True)],
        "both.lab": [(62, DIRECT, 10, True), (63, S2S, 20, False)],
        "later.lab": [(64, DIRECT, 20, True), (65, S2S, 10, False)],
        "dead.lab": [(NOBODY, DIRECT, 10, True), (66, S2S, 20, False)],
        "clear.lab": [(CLEAR, DIRECT, 10, True), (68, S2S, 20, False)],
        "absent.lab": [(69, S2S, 10, False)],
        "untrusted.lab": [(FORGED, DIRECT, 10, True), (71, S2S, 20, False)],
        "plain.lab": [(72, DIRECT, 10, True), (73, S2S, 20, False)],
        "alpn.lab": [(OTHER_ALPN, DIRECT, 10, True), (75, S2S, 20, False)],
    }

    def __init__(self, lab):
        self.lab, self.pki = lab, Pki(lab.dir / "pki" / "world")
        self.own, self.servers = {}, {}
        zone = [line for d in self.DOMAINS for line in srv(
            lab, d, (Net.ALPHA, S2S, 20, False), (Net.ALPHA, DIRECT, 10, True))]
        for domain, targets in self.ZONE.items():
            self.own[domain] = self.pki.signed(domain, domain)
            zone += srv(lab, domain, *targets)
            for host, _, _, direct in targets:
                if host not in (NOBODY, CLEAR, FORGED, OTHER_ALPN):
                    self.serve(host, self.own[domain], direct)
        zone.append("srv-host=_xmpps-server._tcp.absent.lab")
        self.servers[CLEAR] = lab.at_end(InClear(lab.ip(CLEAR), "clear.lab", port=DIRECT))
        self.serve(FORGED, self.pki.signed("forged", "elsewhere.lab"), True)
        self.serve(OTHER_ALPN, self.own["alpn.lab"], True, alpn=["xmpp-client"])
        self.serve(80, self.pki.signed("routed.lab", "routed.lab"), True, port=6000)
        lab.dns({}, zone)
        super().__init__(lab, mode="tls-required", timeouts=SHORT, ca=self.pki.root().cert,
                         dialback_timeout="2s", direct_tls=[f"{lab.ip(Net.ALPHA)}:{DIRECT}"],
                         peers=[{"domain": "*", "policy": "allow"},
                                {"domain": "untrusted.lab", "auth": ["external"]},
                                {"domain": "plain.lab", "security_mode": "no-tls"},
                                {"domain": "routed.lab", "route": f"{lab.ip(80)}:6000",
                                 "direct_tls": True}])

    def serve(self, host, identity, direct, **kw):
        self.servers[host] = self.lab.at_end(CertifiedServer(
            self.lab.ip(host), identity, direct=direct, trust=self.lab.ca, **kw))

    def delivers(self, domain, ident, host):
        self.send(f"j@{domain}", ident)
        self.servers[host].expect_stanza(ident)
        return self.servers[host]


@pytest.fixture(scope="module")
def world(lab):
    return World(lab)


# ---- we dial the peer ----------------------------------------------------------------------------

def test_direct_tls_outbound(world):
    """SNI is the domain, not the target; ALPN says what is spoken."""
    server = world.delivers("direct.lab", "direct-1", 61)
    hello, = server.hellos
    assert (hello.sni, hello.alpn) == ("direct.lab", [ALPN])
    stream, name = server.auths[0]
    assert stream.sock.selected_alpn_protocol() == ALPN and name == LOCAL
    assert server.ways("direct.lab") == ["external"]
    world.gateway.wait_log(r"s2s\.connected .*peer=direct\.lab .*tls=direct")


def test_alpn_may_be_ignored(world):
    """A server that selects no protocol is spoken to all the same (XEP-0368 3)."""
    server = world.delivers("alpn.lab", "alpn-1", OTHER_ALPN)
    assert server.hellos[0].alpn == [ALPN] and server.ways("alpn.lab") == ["external"]


def test_starttls_says_the_domain_and_no_alpn(world):
    """XEP-0368 is about TLS from the first byte; RFC 6120 13.7.2 asks for the name with both."""
    server = world.delivers("absent.lab", "absent-1", 69)
    hello, = server.hellos
    assert (hello.sni, hello.alpn) == ("absent.lab", [])


@pytest.mark.parametrize("domain,host,unused", [("both.lab", 62, 63), ("later.lab", 65, 64)])
def test_the_records_are_one_list(world, domain, host, unused):
    """The lower priority is tried first, whichever service it is of."""
    world.delivers(domain, f"merged-{domain}", host)
    assert world.servers[unused].streams == []


@pytest.mark.parametrize("domain,host,first", [
    ("dead.lab", 66, None), ("clear.lab", 68, CLEAR), ("untrusted.lab", 71, FORGED)])
def test_the_next_target(world, domain, host, first):
    """A target of _xmpps-server that fails is followed by the one with STARTTLS; nothing is said to
    it in clear."""
    server = world.delivers(domain, f"next-{domain}", host)
    assert server.ways(domain) == ["external"]
    if first:
        failed = world.servers[first]
        assert len(failed.streams) == 1
        assert failed.stanzas == failed.asked == []
        assert not any(b"stream" in s.raw for _, s in failed.streams)


def test_no_tls_ignores_the_service(world):
    """A peer of the mode no-tls is not asked by TLS, whatever its records say."""
    since = world.gateway.log_size()
    world.send("j@plain.lab", "no-tls-1")
    condition, text = world.bounce("no-tls-1")
    assert condition == "remote-server-timeout" and "requires TLS" in text
    assert world.servers[72].streams == [] and len(world.servers[73].streams) == 1
    line = world.gateway.wait_log(r"dns\.start domain=plain\.lab", since)
    assert "_xmpps-server" not in line


def test_a_route(world):
    server = world.delivers("routed.lab", "routed-1", 80)
    hello, = server.hellos
    assert (hello.sni, hello.alpn) == ("routed.lab", [ALPN])
    assert server.ways("routed.lab") == ["external"]


# ---- the peer dials us ---------------------------------------------------------------------------

def shown(s):
    """The names in the certificate that we show, read by somebody who believes our authority."""
    return [value for kind, value in s.sock.getpeercert()["subjectAltName"]]


def believing(world, identity=None, alpn=(ALPN,)):
    context = client_context(identity)
    context.load_verify_locations(world.lab.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(list(alpn))
    return context


@pytest.mark.parametrize("alpn,selected", [([ALPN], ALPN), (["xmpp-client", ALPN], ALPN),
                                           ([], None)])
def test_direct_tls_inbound(world, alpn, selected):
    """All of the stream lies inside TLS, and its domain is proven as usual."""
    s = dial_direct(world.address, "direct.lab", LOCAL,
                    believing(world, world.own["direct.lab"], alpn))
    assert s.sock.selected_alpn_protocol() == selected
    assert offers(s.features) == {"external", "dialback"}
    assert s.features.find("{urn:ietf:params:xml:ns:xmpp-tls}starttls") is None
    external(s, "direct.lab", LOCAL)
    ident = f"in-{len(alpn)}"
    s.send(message("a@direct.lab", f"romeo@{LOCAL}", ident))
    world.user.expect("message", id=ident)
    s.close()


def test_dialback_inside_direct_tls(world):
    """Without a certificate; the authority is asked by direct TLS too."""
    s = dial_direct(world.address, "direct.lab", LOCAL, believing(world))
    assert ask_result(s, "direct.lab", LOCAL) == "valid"
    s.send(message("a@direct.lab", f"romeo@{LOCAL}", "in-dialback"))
    world.user.expect("message", id="in-dialback")
    s.close()


def test_a_stream_for_clients_is_refused(world):
    """Who offers only other protocols is at the wrong door (RFC 7301 3.2)."""
    with pytest.raises((ssl.SSLError, ConnectionError, Closed)):
        dial_direct(world.address, "direct.lab", LOCAL, believing(world, alpn=["xmpp-client"]))


@pytest.mark.parametrize("domain", [LOCAL, OTHER])
@pytest.mark.parametrize("way", ["direct", "starttls"])
def test_the_certificate_of_the_name_that_is_asked_for(world, way, domain):
    s = dial_direct(world.address, "direct.lab", domain, believing(world)) if way == "direct" else \
        dial_tls(world.address, "direct.lab", domain, believing(world, alpn=()))
    assert shown(s) == [domain]
    assert offers(s.features) == {"dialback"}
    s.close()


def test_sni_decides_before_the_header(world):
    s = dial_direct(world.address, "direct.lab", LOCAL, believing(world), sni=OTHER)
    assert shown(s) == [OTHER]
    s.close()


def test_an_unknown_name_gets_the_first_certificate(world):
    s = dial_direct(world.address, "direct.lab", LOCAL, believing(world), sni="nobody.lab")
    assert shown(s) == [LOCAL]
    s.close()


def test_in_clear_at_the_door_of_direct_tls(world):
    """Nothing is offered to who does not begin with TLS there: not a word, not even STARTTLS."""
    s = XmlStream(socket.create_connection((world.address, DIRECT), labnet.WAIT))
    s.open("direct.lab", LOCAL)
    with pytest.raises(Closed):
        s.read_header(5)
    assert s.raw == b""
    s.close()
