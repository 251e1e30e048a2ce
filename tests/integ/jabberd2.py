"""A real jabberd2 as the remote server: its router, session manager, s2s and c2s.

Accounts are registered by the clients themselves (XEP-0077) in a Berkeley DB. Its resolver, udns,
is pointed at the lab's by environment variables.
"""
import glob
import os
import re
import shutil

from labnet import C2S, DNS_PORT, S2S, Net

HOST, ROUTER_PORT = 33, 5347
PARTS = ("router", "sm", "s2s", "c2s")
MODULES = next(iter(glob.glob("/usr/lib/*/jabberd2")), None)

ROUTER = '''<router><id>router</id><log type='stdout'/>
<local><ip>{ip}</ip><port>{router}</port><users>{conf}/jabberd2-users.xml</users></local>
<aci><acl type='all'><user>jabberd</user></acl></aci></router>'''
USERS = '<users><user><name>jabberd</name><secret>{secret}</secret></user></users>'
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


def start(lab, domain="jabberd2.lab", host=HOST, mode="tls-optional"):
    """Its four processes; returns that of s2s once everything has joined."""
    ip, conf, data = lab.ip(host), lab.dir / "conf", lab.dir / "jabberd2"
    store = data / "store"
    store.mkdir(parents=True)
    cert, key = lab.certificate(domain)
    both = conf / "jabberd2.pem"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    both.chmod(0o600)
    words = {"ip": ip, "router": ROUTER_PORT, "s2s": S2S, "c2s": C2S, "domain": domain,
             "conf": conf, "data": data, "store": store, "modules": MODULES, "chains": _chains(),
             "secret": lab.secret("jabberd2").read_text().strip(),
             "pem": "" if mode == "no-tls" else f"<pemfile>{both}</pemfile>",
             "require": "<require_tls/>" if mode == "tls-required" else ""}
    words["join"] = JOIN.format(**words)
    texts = {"router": ROUTER, "users": USERS, "sm": SM_CONF, "s2s": S2S_CONF, "c2s": C2S_CONF}
    for part, text in texts.items():
        lab.conf(f"jabberd2-{part}.xml", text.format(**words)).chmod(0o600)
    env = dict(os.environ, NAMESERVERS=lab.ip(Net.DNS), RES_OPTIONS=f"port:{DNS_PORT}")
    procs = {}
    for part in PARTS:
        procs[part] = lab.spawn(f"jabberd2-{part}", [binary(part), "-c",
                                                     conf / f"jabberd2-{part}.xml"], env=env)
        if part == "router":
            procs[part].wait_listening(ip, ROUTER_PORT)
    for name in (domain, "s2s", "c2s"):
        procs["router"].wait_log(rf"\[{re.escape(name)}\] online")
    procs["s2s"].wait_listening(ip, S2S)
    procs["c2s"].wait_listening(ip, C2S)
    return procs["s2s"]
