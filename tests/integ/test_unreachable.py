"""Remote domains that cannot be reached or stop answering: every stanza comes back to its sender,
in bounded time, with a condition and a sentence that names the step that failed."""
import re
import socket
import ssl
import threading
import time

import labnet
import pytest
from conftest import ALLOW_ALL, SHORT, Inside
from labnet import Net
from peers import STALLS, RemoteServer, dial, message

BOUND = 9.0  # of everything below: the sum of the configured times, with room for a slow machine
STALL = {name: 41 + i for i, name in enumerate(STALLS)}
PLAIN, TLS_ONLY, REFUSED, FALLBACK, FAILURE, INVALID, ODD_DNS = 60, 61, 62, 63, 64, 65, 54


class OddDns:
    """Names that begin with a word of their own get an odd answer; the rest asks dnsmasq."""

    ODD = ((b"servfail", 2), (b"refused-dns", 5), (b"silent", None))

    def __init__(self, address, upstream):
        self.upstream = upstream
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, labnet.DNS_PORT))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                query, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            name = query[12:].lower()
            rcode = next((r for word, r in self.ODD if word in name), -1)
            if rcode == -1:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as up:
                    up.settimeout(5)
                    up.sendto(query, self.upstream)
                    self.sock.sendto(up.recv(4096), peer)
            elif rcode is not None:
                question = query[12:query.index(b"\0", 12) + 5]
                self.sock.sendto(query[:2] + bytes([0x81, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 0])
                                 + question, peer)

    def close(self):
        self.sock.close()


def server_context(lab, domain):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*lab.certificate(domain))
    return context


@pytest.fixture(scope="module")
def world(lab):
    services = {f"stall-{n}.lab": [(h, labnet.S2S, 10)] for n, h in STALL.items()}
    services.update({
        "alpha.lab": [(Net.ALPHA, labnet.S2S, 10)], "absent-service.lab": None,
        "plain.lab": [(PLAIN, labnet.S2S, 10)], "tls.lab": [(TLS_ONLY, labnet.S2S, 10)],
        "refused.lab": [(REFUSED, labnet.S2S, 10)], "failure.lab": [(FAILURE, labnet.S2S, 10)],
        "invalid.lab": [(INVALID, labnet.S2S, 10)],
        "second.lab": [(REFUSED, labnet.S2S, 10), (FALLBACK, labnet.S2S, 20)],
    })
    lab.dns(services)
    lab.at_end(OddDns(lab.ip(ODD_DNS), (lab.ip(Net.DNS), labnet.DNS_PORT)))
    servers = {n: RemoteServer(lab.ip(h), f"stall-{n}.lab", stall=n) for n, h in STALL.items()}
    servers["plain"] = RemoteServer(lab.ip(PLAIN), "plain.lab")
    servers["invalid"] = RemoteServer(lab.ip(INVALID), "invalid.lab", result="invalid")
    servers["second"] = RemoteServer(lab.ip(FALLBACK), "second.lab")
    servers["tls"] = RemoteServer(lab.ip(TLS_ONLY), "tls.lab", tls="required",
                                  context=server_context(lab, "tls.lab"))
    for s in servers.values():
        lab.at_end(s)
    us = Inside(lab, mode="tls-optional", timeouts=SHORT, dns_timeout="1500ms",
                dns=[f"{lab.ip(ODD_DNS)}:{labnet.DNS_PORT}"], peers=ALLOW_ALL)
    return us, servers


@pytest.fixture
def us(world):
    return world[0]


def bounced(us, to, ident, condition, words):
    us.user.message(to, ident, "is anybody there?")
    began = time.monotonic()
    got, _, text = us.bounce(ident, BOUND)
    assert got == condition, text
    assert re.search(words, text, re.I), f"the text does not name the step: {text!r}"
    return time.monotonic() - began


@pytest.mark.parametrize("domain", ["nx-domain.lab", "servfail.lab", "refused-dns.lab",
                                    "silent.lab", "absent-service.lab"])
def test_dns(us, domain):
    bounced(us, f"j@{domain}", f"dns-{domain}", "remote-server-not-found", r"\b(DNS|SRV)\b")
    # The back-off that follows keeps the cause.
    us.user.message(f"j@{domain}", f"again-{domain}", "?")
    assert us.bounce(f"again-{domain}", 1.0)[0] == "remote-server-not-found"


def test_dns_trouble_of_one_name_does_not_delay_another(us, world):
    us.user.message("j@silent-2.lab", "slow", "?")
    us.user.message("j@plain.lab", "quick", "!")
    world[1]["plain"].expect_stanza("quick", timeout=1.4)
    assert us.user.seen(id="slow") == []
    us.bounce("slow")


def test_tcp_refused(us):
    bounced(us, "j@refused.lab", "tcp-refused", "remote-server-timeout", r"refused")


def test_next_target_when_the_first_refuses(us, world):
    us.user.message("j@second.lab", "second-target", "hello")
    world[1]["second"].expect_stanza("second-target")
    assert us.user.seen(id="second-target", type="error") == []


@pytest.mark.parametrize("step", STALLS)
def test_stalled_outgoing_stream(us, step):
    bounced(us, f"j@stall-{step}.lab", f"stall-{step}", "remote-server-timeout", r".")


def test_back_off_bounces_at_once(us):
    """While the back-off runs a new stanza fails without a new attempt."""
    bounced(us, "j@stall-header.lab", "before-back-off", "remote-server-timeout", r".")
    us.user.message("j@stall-header.lab", "in-back-off", "?")
    us.bounce("in-back-off", 1.0)


def test_many_waiting_stanzas_all_come_back_in_order(us):
    for i in range(30):
        us.user.message("j@stall-tcp.lab", f"wait-{i}", "?")
    us.bounce("wait-29", BOUND)
    back = [e["id"] for e in us.user.seen(type="error") if e["id"].startswith("wait-")]
    assert back == [f"wait-{i}" for i in range(30)]


def test_errors_and_results_are_never_bounced(us):
    us.user.command("raw <message from='romeo@alpha.lab/lab' to='j@refused.lab' type='error' "
                    "id='never'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:"
                    "xmpp-stanzas'/></error></message>")
    us.user.command("raw <iq from='romeo@alpha.lab/lab' to='j@refused.lab' type='result' "
                    "id='never'/>")
    bounced(us, "j@refused.lab", "always", "remote-server-timeout", r".")
    assert us.user.seen(id="never") == []


def test_peer_that_answers_invalid(us):
    """XEP-0220 2.1.1."""
    bounced(us, "j@invalid.lab", "invalid-result", "internal-server-error", r"invalid")


# ---- peers that stall while they are the initiator ---------------------------------------------

def _nothing(us):
    return dial(us.address, None, None)


def _half_header(us):
    s = dial(us.address, None, None)
    s.send("<stream:stream xmlns='jabber:server' ")
    return s


def _header(us):
    return dial(us.address, "plain.lab", "alpha.lab")


def _starttls(us):
    s = dial(us.address, "plain.lab", "alpha.lab")
    s.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    s.expect("{urn:ietf:params:xml:ns:xmpp-tls}proceed")
    return s


@pytest.mark.parametrize("stall", [_nothing, _half_header, _header, _starttls],
                         ids=["connect", "half-a-header", "header", "handshake"])
def test_stalled_incoming_stream(us, stall):
    """It is closed after timeouts.auth, even when single bytes keep trickling in."""
    began = time.monotonic()
    s = stall(us)
    try:
        while time.monotonic() - began < BOUND:
            s.sock.settimeout(0.2)
            try:
                if not s.sock.recv(4096):
                    break
            except TimeoutError:
                s.send(" ")
    except (ConnectionError, BrokenPipeError):
        pass
    took = time.monotonic() - began
    s.close()
    assert 1.0 < took < 6.0


# ---- tls-required ------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def strict(world):
    us = world[0]
    since = us.gateway.set_mode("tls-required")
    us.gateway.wait_log(labnet.LOG_MODE_CHANGED, since)
    yield us
    us.gateway.set_mode("tls-optional")


def test_starttls_stripped(strict, world):
    """A peer, or somebody on the way, that does not offer STARTTLS gets nothing in clear."""
    plain = world[1]["plain"]
    first = len(plain.streams)
    bounced(strict, "j@plain.lab", "stripped", "remote-server-timeout", r"TLS")
    for _, s in plain.streams[first:]:
        assert b"result" not in s.raw and b"anybody" not in s.raw, s.raw


def test_starttls_refused(strict, lab):
    class Refusing(RemoteServer):
        def _greet(self, s, secure):
            self.tls = "required"
            super()._greet(s, secure)
            self.tls = None  # so that <starttls/> is answered with <failure/>

    server = lab.at_end(Refusing(lab.ip(FAILURE), "failure.lab"))
    bounced(strict, "j@failure.lab", "tls-failure", "remote-server-timeout", r"TLS")
    assert all(b"anybody" not in s.raw for _, s in server.streams)


def test_tls_peer_is_served(strict, world):
    strict.user.message("j@tls.lab", "over-tls", "hello")
    world[1]["tls"].expect_stanza("over-tls")


def test_incoming_dialback_in_clear_is_refused(strict):
    s = dial(strict.address, "plain.lab", "alpha.lab")
    offered = s.features.find("{urn:ietf:params:xml:ns:xmpp-tls}starttls")
    assert offered is not None and len(offered) == 1 and offered[0].tag.endswith("}required")
    s.ask_result("plain.lab", "alpha.lab")
    answer = s.read()
    assert answer.get("type") == "error"
    assert any(c.tag.endswith("}policy-violation") for e in answer for c in e)
    s.close()


def test_incoming_stanza_in_clear_ends_the_stream(strict):
    s = dial(strict.address, "plain.lab", "alpha.lab")
    s.send(message("a@plain.lab", "romeo@alpha.lab", "in-clear"))
    assert s.read_error() in ("policy-violation", "not-authorized")
    assert strict.user.seen(id="in-clear") == []
    s.close()


# ---- no-tls ------------------------------------------------------------------------------------

def test_no_tls_towards_a_peer_that_requires_it(world):
    us = world[0]
    since = us.gateway.set_mode("no-tls")
    us.gateway.wait_log(labnet.LOG_MODE_CHANGED, since)
    bounced(us, "j@tls.lab", "tls-unwanted", "remote-server-timeout", r"TLS")
    s = dial(us.address, "plain.lab", "alpha.lab")
    assert s.features.find("{urn:ietf:params:xml:ns:xmpp-tls}starttls") is None
    s.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    assert s.read().tag == "{urn:ietf:params:xml:ns:xmpp-tls}failure"
    s.expect_end()
    s.close()
