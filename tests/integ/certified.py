"""Peers that prove themselves by a certificate: SASL EXTERNAL, TLS from the first byte, what a
ClientHello says. Written from RFC 6120 6, XEP-0178, XEP-0368 and XEP-0478."""
import base64
import re
import signal
import socket
import ssl
import struct
import xml.etree.ElementTree as ET

from actors import InsideUser
from labnet import DIRECT, LINK, S2S, WAIT, Net, router_conf, wait_for
from peers import FEATURES, RESULT, STANZAS, Closed, RemoteServer, XmlStream, dial, message

SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
LIMITS = "urn:xmpp:stream-limits:0"
SUCCESS, FAILURE, CHALLENGE = (f"{{{SASL}}}{n}" for n in ("success", "failure", "challenge"))
ALPN = "xmpp-server"


# ---- dialling the gateway ------------------------------------------------------------------------

def client_context(identity=None, newest=None):
    """identity: whose certificate is shown; None: none. newest: the highest TLS version."""
    if identity is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context = identity.context(server=False)
    if newest:
        context.maximum_version = newest
    return context


def dial_tls(address, from_, to, context, features=True):
    """STARTTLS, and the header behind it; `features=False` leaves what follows to the caller."""
    s = dial(address, from_, to)
    s.starttls_client(to, context)
    return reopen(s, from_, to, features)


def dial_direct(address, from_, to, context, port=DIRECT, sni=None, features=True):
    s = XmlStream(socket.create_connection((address, port), timeout=WAIT))
    s.wrap(context, server_hostname=sni or to)
    return reopen(s, from_, to, features)


def reopen(s, from_, to, features=True):
    s.open(from_, to)
    s.read_header()
    if features:
        s.features = s.expect(FEATURES)
    return s


def mechanisms(features):
    return [m.text for m in features.iter(f"{{{SASL}}}mechanism")]


def offers(features):
    """What a peer may prove itself by: a set of "external", "dialback"."""
    found = {"external"} if mechanisms(features) == ["EXTERNAL"] else set()
    if features.find("{urn:xmpp:features:dialback}dialback") is not None:
        found.add("dialback")
    return found


def encoded(domain):
    return base64.b64encode(domain.encode()).decode()


def auth(s, text="=", mechanism="EXTERNAL"):
    """Sends <auth/>; its answer."""
    s.send(f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{text}</auth>")
    return s.read()


def failure(element):
    """(condition, text) of a <failure/>."""
    assert element is not None and element.tag == FAILURE, element
    found = [c.tag.split("}")[1] for c in element if not c.tag.endswith("}text")]
    assert len(found) == 1, ET.tostring(element)
    return found[0], element.findtext(f"{{{SASL}}}text")


def external(s, from_, to, text="="):
    """Proves from_ on this stream; returns after the features of the restarted one."""
    old = s.attrs["id"]
    answer = auth(s, text)
    assert answer is not None and answer.tag == SUCCESS, ET.tostring(answer)
    reopen(s, from_, to)
    assert s.attrs["id"] not in (None, old)
    return s


def external_stream(address, from_, to, identity):
    return external(dial_tls(address, from_, to, client_context(identity)), from_, to)


def ask_result(s, from_, to):
    """The answer to a db:result: "valid", "invalid", or the condition of the error."""
    s.ask_result(from_, to)
    answer = s.expect(RESULT)
    if answer.get("type") != "error":
        return answer.get("type")
    return next(c.tag.split("}")[1] for e in answer for c in e if not c.tag.endswith("}text"))


# ---- being dialled -------------------------------------------------------------------------------

class CertifiedServer(RemoteServer):
    """The server of every domain that is asked for, with the certificate of `identity`.

    offers: what its features name behind TLS. sasl: what it says to <auth/>: "success", "challenge"
    (and then success), a condition, "error" (a condition, then a stream error), "hang-up". limits:
    the inside of its <limits/>. trust: a file of authorities that must vouch for the certificate of
    who dials. direct: TLS from the first byte. After a stanza whose id ends with "-last" it closes
    the stream.
    """
    declares_dialback = False

    def __init__(self, address, identity, offers=("external", "dialback"), sasl="success",
                 limits="", trust=None, direct=False, alpn=(ALPN,), newest=None, tls="required",
                 port=None, **kw):
        context = identity.context()
        context.set_alpn_protocols(list(alpn))
        if newest:
            context.maximum_version = newest
        if trust:
            context.load_verify_locations(trust)
            context.verify_mode = ssl.CERT_OPTIONAL
        self.offers, self.sasl, self.limits, self.direct = set(offers), sasl, limits, direct
        self.declares_dialback = "dialback" in self.offers
        self.auths = []    # (stream, authzid) of every <auth/>, None for an empty one
        self.hellos = []   # ClientHello of every connection
        super().__init__(address, None, tls=tls, context=context,
                         port=port or (DIRECT if direct else S2S), **kw)

    def _begin(self, s):
        if self.direct:
            self._handshake(s)
        self._greet(s, secure=self.direct)

    def _handshake(self, s):
        """The ClientHello is looked at first, as long as it is in one segment."""
        self.note(self.hellos, client_hello(s.sock.recv(65536, socket.MSG_PEEK)))
        s.wrap(self.context, server_side=True)
        self.open_sockets.add(s.sock)
        s.mechanism, s.resumed = None, s.sock.session_reused

    def _domain(self, s):
        return s.attrs.get("to")

    def _features(self, s):
        if not s.secure:
            return super()._features(s) if self.tls else self._plain_features()
        features = f"<limits xmlns='{LIMITS}'>{self.limits}</limits>" if self.limits else ""
        if "external" in self.offers and s.mechanism is None:
            features += (f"<mechanisms xmlns='{SASL}'><mechanism>EXTERNAL</mechanism>"
                         "</mechanisms>")
        return features + self._plain_features()

    def _plain_features(self):
        """Without <errors/>: each domain gets a stream, and so a certificate, of its own."""
        return "<dialback xmlns='urn:xmpp:features:dialback'/>" \
            if "dialback" in self.offers else ""

    def _element(self, s, peer, element):
        if element.tag == "{urn:ietf:params:xml:ns:xmpp-tls}starttls" and self.tls:
            s.send("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            self._handshake(s)
            self._greet(s, secure=True)
        elif element.tag == f"{{{SASL}}}auth":
            self._auth(s, element)
        elif element.tag == f"{{{SASL}}}response":
            self._success(s)
        else:
            super()._element(s, peer, element)
            if element.get("id", "").endswith("-last"):
                s.send("</stream:stream>")

    def _auth(self, s, element):
        assert element.get("mechanism") == "EXTERNAL", element.get("mechanism")
        text = (element.text or "").strip()
        name = base64.b64decode(text).decode() if text not in ("", "=") else None
        self.note(self.auths, (s, name))
        if self.sasl == "hang-up":
            raise Closed("we do not talk about that")
        if self.sasl == "success":
            self._success(s)
        elif self.sasl == "challenge":
            s.send(f"<challenge xmlns='{SASL}'/>")
        elif self.sasl == "error":
            s.send(f"<failure xmlns='{SASL}'><not-authorized/></failure><stream:error>"
                   "<not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
                   "</stream:stream>")
            raise Closed("and off")
        else:
            s.mechanism = "refused"
            s.send(f"<failure xmlns='{SASL}'><{self.sasl}/><text>not this one</text></failure>")

    def _success(self, s):
        s.mechanism = "EXTERNAL"
        s.send(f"<success xmlns='{SASL}'/>")
        self._greet(s, secure=True)

    # -- for tests

    def ways(self, domain):
        """By what each stream for a domain was proven, oldest first: "external", "dialback", or
        None when nothing was."""
        return [self.way(s) for _, s in list(self.streams) if s.attrs.get("to") == domain]

    def way(self, s):
        if getattr(s, "mechanism", None) == "EXTERNAL":
            return "external"
        return "dialback" if any(i == getattr(s, "ident", None) for i, _ in self.keys) else None

    def said_after_tls(self, domain):
        """Whether anything at all came behind a handshake."""
        return any(getattr(s, "secure", False) for _, s in list(self.streams)
                   if s.attrs.get("to") == domain)


# ---- behind the gateway --------------------------------------------------------------------------

class Organisation:
    """alpha.lab and beta.lab behind one router and one gateway, and a user of both."""
    DOMAINS = ("alpha.lab", "beta.lab")

    def __init__(self, lab, **settings):
        self.lab, self.address = lab, lab.ip(Net.ALPHA)
        first, link = self.DOMAINS[0], f"{lab.ip(Net.ALPHA_LINK)}:{LINK}"
        links = [{"name": "edge1", "role": "gateway", "transport": "accept",
                  "component": f"edge1.{first}", "secret_file": lab.secret(f"{first}-edge")},
                 {"name": "im", "role": "server", "transport": "accept", "component": first,
                  "domains": self.DOMAINS, "secret_file": lab.secret("im")}]
        lab.start_router("alpha-router", lab.conf("alpha-router.conf", router_conf(
            listen=[link], links=links)), Net.ALPHA_LINK)
        self.user = lab.at_end(InsideUser(lab.ip(Net.ALPHA_LINK), first,
                                          lab.secret("im").read_text().strip()))
        settings.setdefault("domains", [self.domain(d) for d in self.DOMAINS])
        self.gateway = lab.gateway("alpha-gateway", first, Net.ALPHA, Net.ALPHA_LINK, **settings)

    def domain(self, name, **more):
        cert, key = self.lab.certificate(name)
        return {"name": name, "certificate": cert, "key": key, **more}

    def send(self, to, ident, from_="romeo@alpha.lab/lab", body="words"):
        self.user.send(message(from_, to, ident, body))

    def bounce(self, ident, timeout=WAIT):
        """The error that came back for a stanza, as (condition, text)."""
        got = self.user.expect("message", timeout, type="error", id=ident)
        return got.condition, got.child("error").findtext(f"{{{STANZAS}}}text") or ""

    def received(self, ident):
        return [s for s in list(self.user.stanzas) if s.get("id") == ident]

    def reload(self):
        """As it stands in the file now; the offset of the log from which its effects are."""
        since = self.gateway.log_size()
        self.gateway.signal(signal.SIGHUP)
        self.gateway.wait_log(r"\bconfig\.(reloaded|rejected)\b", since)
        assert "config.rejected" not in self.gateway.log(since), self.gateway.log_tail()
        return since


# ---- on the wire ---------------------------------------------------------------------------------

class Hello:
    """What a client says in clear at the beginning of TLS."""

    def __init__(self, sni, alpn):
        self.sni, self.alpn = sni, alpn


def client_hello(record):
    """RFC 8446 4.1.2; the extensions server_name (0) and application_layer_protocol (16)."""
    assert record[0] == 22 and record[5] == 1, record[:6]
    at = 5 + 4 + 2 + 32
    at += 1 + record[at]                                  # session id
    at += 2 + struct.unpack_from("!H", record, at)[0]     # cipher suites
    at += 1 + record[at]                                  # compression
    end = at + 2 + struct.unpack_from("!H", record, at)[0]
    at, sni, alpn = at + 2, None, []
    while at + 4 <= end:
        kind, size = struct.unpack_from("!HH", record, at)
        body = record[at + 4:at + 4 + size]
        if kind == 0:
            sni = body[5:].decode()
        elif kind == 16:
            names = body[2:]
            while names:
                alpn.append(names[1:1 + names[0]].decode())
                names = names[1 + names[0]:]
        at += 4 + size
    return Hello(sni, alpn)


# ---- the zone ------------------------------------------------------------------------------------

def srv(lab, domain, *targets):
    """Lines for lab.dns(extra=...). A target: (host number, port, priority, direct TLS or not)."""
    lines = []
    for i, (host, port, priority, direct) in enumerate(targets):
        service, name = "_xmpps-server" if direct else "_xmpp-server", f"at{i}.{domain}"
        lines += [f"srv-host={service}._tcp.{domain},{name},{port},{priority},0",
                  f"host-record={name},{lab.ip(host)}"]
    return lines


# ---- the gateway's log ---------------------------------------------------------------------------

def identity_line(gateway, domain, since=0, **fields):
    """The last s2s.identity of a domain whose fields are as given, as a dictionary."""
    def find():
        found = [logfmt(line) for line in gateway.log(since).splitlines()
                 if " s2s.identity " in f" {line} " and f"remote={domain} " in f"{line} "]
        found = [f for f in found if all(f.get(k) == v for k, v in fields.items())]
        return found[-1] if found else None

    return wait_for(find, what=f"s2s.identity of {domain} {fields}", detail=gateway.log_tail)


def logfmt(line):
    return {k: q.replace('\\"', '"') if q else v
            for k, q, v in re.findall(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))', line)}
