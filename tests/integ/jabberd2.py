"""A real jabberd2: as the remote server (`start`) its router, session manager, s2s and c2s; as the
organisation's own behind a gateway (`start_inside`) the same without s2s, whose place is free.

Accounts are registered by the clients themselves (XEP-0077) in a Berkeley DB. Its resolver, udns,
is pointed at the lab's by environment variables.
"""
import glob
import os
import re
import shutil

from labnet import C2S, DNS_PORT, LINK, S2S, Net

HOST, ROUTER_PORT = 33, 5347
MODULES = next(iter(glob.glob("/usr/lib/*/jabberd2")), None)

GATEWAY = "gateway"  # a user of the router that may do what s2s does, and no more

ROUTER = '''<router><id>router</id><log type='stdout'/>
<local><ip>{ip}</ip><port>{router}</port>{router_pem}
<users>{conf}/jabberd2-users.xml</users></local>
<aci><acl type='all'><user>jabberd</user></acl><acl type='bind'><user>{gateway}</user></acl>
<acl type='default-route'><user>{gateway}</user></acl></aci></router>'''
USERS = '''<users><user><name>jabberd</name><secret>{secret}</secret></user>
<user><name>{gateway}</name><secret>{edge}</secret></user></users>'''
JOIN = '''<router><ip>{ip}</ip><port>{router}</port><user>jabberd</user><pass>{secret}</pass>
<retry><init>20</init><lost>0</lost><sleep>1</sleep></retry></router><log type='stdout'/>'''
S2S_CONF = '''<s2s><id>s2s</id>{join}
<local><ip>{ip}</ip><port>{s2s}</port>{pem}</local>
<io><limits><stanzasize>0</stanzasize></limits></io>
<check><interval>1</interval><queue>10</queue></check>
<lookup><srv>xmpp-server</srv><bad-host-timeout>1</bad-host-timeout><no-cache/></lookup>
<security>{require}</security></s2s>'''
C2S_CONF = '''<c2s><id>c2s</id>{join}
<local><id register-enable='true'>{domain}</id><ip>{ip}</ip><port>{c2s}</port></local>
<io><limits><stanzas>0</stanzas><stanzasize>0</stanzasize></limits></io>
<authreg><path>{modules}</path><module>db</module>
<mechanisms><sasl><plain/></sasl></mechanisms><db><path>{data}</path></db></authreg></c2s>'''
CHAINS = {
    "in-sess": "validate roster iq-ping disco presence deliver",
    "in-router": "session validate presence",
    "pkt-sm": "iq-ping disco presence",
    "pkt-user": "roster presence disco deliver",
    "pkt-router": "session disco",
    "user-load": "active roster",
    "user-create": "active",
}
SM_CONF = '''<sm><id>sm</id>{join}<local><id>{domain}</id></local>
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


def _words(lab, domain, host, router_port):
    """What fills the configuration files; makes the directories that they name."""
    data = lab.dir / "jabberd2"
    store = data / "store"
    store.mkdir(parents=True)
    cert, key = lab.certificate(domain)
    both = lab.dir / "conf" / "jabberd2.pem"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    both.chmod(0o600)
    words = {"ip": lab.ip(host), "router": router_port, "s2s": S2S, "c2s": C2S, "domain": domain,
             "conf": lab.dir / "conf", "data": data, "store": store, "modules": MODULES,
             "chains": _chains(), "secret": lab.secret("jabberd2").read_text().strip(),
             "gateway": GATEWAY, "edge": lab.secret("edge").read_text().strip(),
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
    for name in (words["domain"], *(p for p in parts if p in ("s2s", "c2s"))):
        procs["router"].wait_log(rf"\[{re.escape(name)}\] online")
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


def start_inside(lab, domain, host=HOST, starttls=False):
    """The router on the link's port, sm and c2s; a gateway may join as GATEWAY with the secret
    lab.secret("edge"). starttls: whether the router offers it. Returns the processes by name."""
    words = _words(lab, domain, host, LINK)
    if starttls:
        words["router_pem"] = words["pem"]
    return _launch(lab, words, ("router", "sm", "c2s"))
