"""A real Prosody as the remote server, and a client of it."""
import base64
import socket
import threading

from labnet import C2S, DIRECT, DNS_PORT, S2S, WAIT, Net, Timeout, tool
from peers import FEATURES, Closed, XmlStream

CLIENT = "jabber:client"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"


def start(lab, domain="prosody.lab", host=Net.PROSODY, encryption=False, users=("juliet",),
          name="prosody", resolver=None, secure_auth=False, without=(), more="",
          c2s_limit=256 * 1024, federation=None, direct_tls=False):
    """encryption: whether Prosody refuses federation in clear. users: with a domain, of a further
    host of `more`. resolver: a DNS server instead of the lab's, address@port. without: modules.
    c2s_limit: the largest stanza that it takes from its own users. federation: all that concerns
    other servers, with its resolver and its CA, as a text instead of all these. direct_tls: other
    servers may begin with TLS, too."""
    data = lab.dir / name
    for user in users:
        node, _, at = user.partition("@")
        accounts = data / (at or domain).replace(".", "%2e") / "accounts"
        accounts.mkdir(parents=True, exist_ok=True)
        (accounts / f"{node}.dat").write_text('return { ["password"] = "secret"; };\n')
    cert, key = lab.certificate(domain)
    disabled = "".join(f', "{m}"' for m in without)
    ip, required = lab.ip(host), "true" if encryption else "false"
    federation = federation or f'''
s2s_require_encryption = {required}
s2s_secure_auth = {"true" if secure_auth else "false"}
unbound = {{ resolvconf = false, hoststxt = false,
            forward = "{resolver or f'{lab.ip(Net.DNS)}@{DNS_PORT}'}" }}
ssl = {{ cafile = "{lab.ca}" }}'''
    conf = lab.conf(f"{name}.cfg.lua", f'''
run_as_root = true
pidfile = "{data}/prosody.pid"
data_path = "{data}"
interfaces = {{ "{ip}" }}
s2s_ports = {{ {S2S} }}
c2s_ports = {{ {C2S} }}
s2s_direct_tls_ports = {{ {DIRECT if direct_tls else ""} }}
s2s_direct_tls_ssl = {{ certificate = "{cert}", key = "{key}" }}
c2s_direct_tls_ports = {{}}
component_ports = {{}}
http_ports = {{}}
https_ports = {{}}
modules_enabled = {{ "saslauth", "tls", "dialback", "disco", "roster", "ping", "c2s", "s2s",
                    "presence", "message", "iq", "stanza_debug" }}
modules_disabled = {{ "s2s_auth_certs_none"{disabled} }}
authentication = "internal_plain"
allow_unencrypted_plain_auth = true
c2s_require_encryption = false
c2s_stanza_size_limit = {c2s_limit}
{federation}
log = {{ debug = "*console" }}
VirtualHost "{domain}"
  ssl = {{ certificate = "{cert}", key = "{key}" }}
{more}''')
    proc = lab.spawn(name, [tool("prosody"), "--config", conf, "-F"])
    proc.wait_listening(ip, S2S)
    proc.wait_listening(ip, C2S)
    return proc


class Client:
    """A logged-in, available user; a thread reads what comes."""

    def __init__(self, address, domain, user, password="secret"):
        self.stream = s = XmlStream(socket.create_connection((address, C2S), WAIT), CLIENT)
        self.bare, self.jid = f"{user}@{domain}", f"{user}@{domain}/lab"
        s.open(None, domain)
        s.read_header()
        s.expect(FEATURES)
        token = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        s.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{token}</auth>")
        s.expect(f"{{{SASL}}}success")
        s.open(None, domain)
        s.read_header()
        s.expect(FEATURES)
        s.send(f"<iq type='set' id='bind'><bind xmlns='{BIND}'><resource>lab</resource></bind>"
               "</iq>")
        s.expect(f"{{{CLIENT}}}iq")
        s.send("<presence/>")
        self.stanzas, self.arrived = [], threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            while (element := self.stream.read(timeout=600)) is not None:
                with self.arrived:
                    self.stanzas.append(element)
                    self.arrived.notify_all()
        except (Closed, Timeout, OSError):
            pass

    def send(self, text):
        self.stream.send(text)

    def message(self, to, ident, body):
        self.send(f"<message to='{to}' id='{ident}' type='chat'><body>{body}</body></message>")

    def expect(self, kind, timeout=WAIT, **attrs):
        """The first stanza of a kind whose attributes are all as given ("from_" is from)."""
        attrs = {k.rstrip("_"): v for k, v in attrs.items()}

        def find():
            return next((e for e in self.stanzas if e.tag == f"{{{CLIENT}}}{kind}"
                         and all(e.get(k) == v for k, v in attrs.items())), None)

        with self.arrived:
            if not self.arrived.wait_for(lambda: find() is not None, timeout):
                raise Timeout(f"{self.bare} waited {timeout:g} s for {kind} {attrs}; got "
                              f"{[(e.tag, dict(e.attrib)) for e in self.stanzas]}")
            return find()

    def close(self):
        self.stream.close()
