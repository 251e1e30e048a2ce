"""A real jabberd2: as the remote server (`start`) its router, session manager, s2s and c2s; as the
organisation's own behind a gateway (`start_inside`) the same without s2s, whose place is free.

Accounts are registered by the clients themselves (XEP-0077) in a Berkeley DB. Its resolver, udns,
is pointed at the lab's by environment variables.
"""
import base64
import glob
import hashlib
import os
import re
import shutil

from actors import SASL, STREAM, Actor, Cutter
from labnet import C2S, DNS_PORT, LINK, S2S, Net

HOST, ROUTER_PORT = 33, 5347
MODULES = next(iter(glob.glob("/usr/lib/*/jabberd2")), None)

GATEWAY = "gateway"  # a user of the router that may do what s2s does, and no more,
CLERK = "clerk"      # and one that cannot have the default route; both with the secret "edge"

ROUTER = '''<router><id>router</id><log type='stdout'/>
<local><ip>{ip}</ip><port>{router}</port>{router_pem}
<users>{conf}/jabberd2-users.xml</users></local>
<aci><acl type='all'><user>jabberd</user></acl>
<acl type='bind'><user>{gateway}</user><user>{clerk}</user></acl>
<acl type='default-route'><user>{gateway}</user></acl></aci></router>'''
USERS = '''<users><user><name>jabberd</name><secret>{secret}</secret></user>
<user><name>{gateway}</name><secret>{edge}</secret></user>
<user><name>{clerk}</name><secret>{edge}</secret></user></users>'''
JOIN = '''<router><ip>{ip}</ip><port>{router}</port><user>jabberd</user><pass>{secret}</pass>
<retry><init>20</init><lost>{lost}</lost><sleep>1</sleep></retry></router><log type='stdout'/>'''
S2S_CONF = '''<s2s><id>s2s</id>{join}
<local><ip>{ip}</ip><port>{s2s}</port>{pem}</local>
<io><limits><stanzasize>0</stanzasize></limits></io>
<check><interval>1</interval><queue>10</queue></check>
<lookup><srv>xmpp-server</srv><bad-host-timeout>1</bad-host-timeout><no-cache/></lookup>
<security>{require}</security></s2s>'''
C2S_CONF = '''<c2s><id>c2s</id>{join}
<local>{accounts}<ip>{ip}</ip><port>{c2s}</port></local>
<io><limits><stanzas>0</stanzas><stanzasize>0</stanzasize></limits></io>
<authreg><path>{modules}</path><module>db</module>
<mechanisms><sasl><plain/></sasl></mechanisms><db><path>{data}</path></db></authreg></c2s>'''
CHAINS = {
    "in-sess": "validate roster iq-ping disco offline presence deliver",
    "in-router": "session validate presence",
    "pkt-sm": "iq-ping disco presence",
    "pkt-user": "roster presence disco deliver offline",
    "pkt-router": "session disco",
    "user-load": "active roster",
    "user-create": "active",
}
SM_CONF = '''<sm><id>sm</id>{join}<local>{domains}</local>
<storage><path>{modules}</path><driver>db</driver><db><path>{store}</path></db></storage>
<modules><path>{modules}</path>{chains}</modules>
<user><auto-create/></user></sm>'''


def binary(part):
    return shutil.which(f"jabberd2-{part}", path="/usr/sbin:/usr/bin")


def usable():
    return binary("router")


def _chains():
    def modules(names):
        return "".join(f"<module>{name}</module>" for name in names.split())

    return "".join(f"<chain id='{chain}'>{modules(names)}</chain>"
                   for chain, names in CHAINS.items())


def _words(lab, domain, host, router_port, more_domains=(), lost=0):
    """What fills the configuration files; makes the directories that they name.

    lost: how often the parts look for a router that has gone."""
    domains = (domain, *more_domains)
    data = lab.dir / "jabberd2"
    store = data / "store"
    store.mkdir(parents=True, exist_ok=True)
    cert, key = lab.certificate(domain)
    both = lab.dir / "conf" / "jabberd2.pem"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    both.chmod(0o600)
    words = {"ip": lab.ip(host), "router": router_port, "s2s": S2S, "c2s": C2S, "domain": domain,
             "conf": lab.dir / "conf", "data": data, "store": store, "modules": MODULES,
             "domains": "".join(f"<id>{d}</id>" for d in domains),
             "accounts": "".join(f"<id register-enable='true'>{d}</id>" for d in domains),
             "lost": lost, "chains": _chains(),
             "secret": lab.secret("jabberd2").read_text().strip(),
             "gateway": GATEWAY, "clerk": CLERK, "edge": lab.secret("edge").read_text().strip(),
             "pem": f"<pemfile>{both}</pemfile>", "router_pem": "", "require": ""}
    words["join"] = JOIN.format(**words)
    return words


def _launch(lab, words, parts):
    """Writes the files and runs the parts; their processes once all have joined the router."""
    texts = {"router": ROUTER, "users": USERS, "sm": SM_CONF, "s2s": S2S_CONF, "c2s": C2S_CONF}
    for part, text in texts.items():
        lab.conf(f"jabberd2-{part}.xml", text.format(**words)).chmod(0o600)
    env = dict(os.environ, NAMESERVERS=lab.ip(Net.DNS), RES_OPTIONS=f"port:{DNS_PORT}")
    procs = {}
    for part in parts:
        procs[part] = lab.spawn(f"jabberd2-{part}", [binary(part), "-c",
                                                     lab.dir / "conf" / f"jabberd2-{part}.xml"],
                                env=env)
        if part == "router":
            procs[part].wait_listening(words["ip"], words["router"])
    names = {"sm": words["domain"], "s2s": "s2s", "c2s": "c2s"}
    for part in parts[1:]:
        procs["router"].wait_log(rf"\[{re.escape(names[part])}\] online")
    if "c2s" in parts:
        procs["c2s"].wait_listening(words["ip"], C2S)
    return procs


def start(lab, domain="jabberd2.lab", host=HOST, mode="tls-optional"):
    """Its four processes; returns that of s2s once everything has joined."""
    words = _words(lab, domain, host, ROUTER_PORT)
    if mode == "no-tls":
        words["pem"] = ""
    words["require"] = "<require_tls/>" if mode == "tls-required" else ""
    procs = _launch(lab, words, ("router", "sm", "s2s", "c2s"))
    procs["s2s"].wait_listening(lab.ip(host), S2S)
    return procs["s2s"]


def start_inside(lab, domain, host=HOST, pem=None, more_domains=(), parts=("router", "sm", "c2s")):
    """The router on the link's port, sm and c2s; a gateway may join as GATEWAY with the secret
    lab.secret("edge"). pem: certificate and key with which the router offers STARTTLS. Returns the
    processes by name."""
    words = _words(lab, domain, host, LINK, more_domains, lost=20)
    if pem:
        words["router_pem"] = f"<pemfile>{pem}</pemfile>"
    return _launch(lab, words, parts)


# ---- by hand -------------------------------------------------------------------------------------

N = "http://jabberd.jabberstudio.org/ns/component/1.0"


class Part(Actor):
    """Joins the router under a name, as sm and c2s do; what comes is in `stanzas`."""

    def __init__(self, address, name, secret, user=CLERK, port=LINK):
        super().__init__(address, port)
        self.name = self.jid = name
        self._begin()
        self.send(f"<auth xmlns='{SASL}' mechanism='DIGEST-MD5'/>")
        challenge = base64.b64decode(self._next().element.text).decode()
        answer = base64.b64encode(digest_md5(user, secret, challenge).encode()).decode()
        self.send(f"<response xmlns='{SASL}'>{answer}</response>")
        answer = self._next()
        assert answer.kind == "success", answer
        self._begin()
        self._run()
        self.bind(name)

    def _begin(self):
        """To the features; a stream of routes has no default namespace."""
        self.cutter, self.backlog = Cutter(), []
        self.send(f"<?xml version='1.0'?><stream:stream xmlns:stream='{STREAM}' version='1.0'>")
        while self.cutter.header is None:
            self._more()
        features = self._next()
        assert features.kind == "features", features

    def bind(self, name):
        since = self.mark()
        self.send(f"<bind xmlns='{N}' name='{name}'/>")
        answer = self.expect("bind", since=since)
        assert answer.get("error") is None, answer

    def unbind(self, name):
        self.send(f"<unbind xmlns='{N}' name='{name}'/>")

    def route(self, to, inner, extra=""):
        self.send(f"<route xmlns='{N}' from='{self.name}' to='{to}'{extra}>{inner}</route>")


def digest_md5(user, secret, challenge):
    """RFC 2831, 2.1.2, for qop auth."""
    def md5(data):
        return hashlib.md5(data).digest()

    given = dict(re.findall(r'(\w+)="?([^",]*)"?', challenge))
    cnonce, uri = "abcdef0123456789", "jabberd-router/router"
    first = (md5(f"{user}:{given['realm']}:{secret}".encode())
             + f":{given['nonce']}:{cnonce}".encode())
    words = [md5(first).hex(), given["nonce"], "00000001", cnonce, "auth",
             md5(f"AUTHENTICATE:{uri}".encode()).hex()]
    response = md5(":".join(words).encode()).hex()
    return (f'charset=utf-8,username="{user}",realm="{given["realm"]}",nonce="{given["nonce"]}",'
            f'nc=00000001,cnonce="{cnonce}",digest-uri="{uri}",response={response},qop=auth')
