"""A real server that federates with everybody, as it came, behind a link with protocol "s2s": its
DNS leads every name to the gateway's inside address.

    romeo -- server -- a redirecting DNS
               ||
             gateway ==== raw.lab, any.lab: played by sockets
           INNER | ALPHA
"""
import re
import shutil
import signal
import textwrap
from dataclasses import dataclass
from typing import Callable

import ejabberd
import labnet
import prosody
from actors import ServerUser
from conftest import ALLOW_ALL
from labnet import C2S, DNS_PORT, S2S, Net, tool
from twenty import Played, Scene

DOMAIN, PRIVATE = "inside.lab", "private.lab"
ROOMS = f"conference.{DOMAIN}"
INNER, INNER_DNS, SERVER, RAW, ANY, THIRD, FOURTH = 14, 54, 33, 41, 42, 43, 44
LINK = "core"


# ---- DNS servers that know one answer ------------------------------------------------------------

def dnsmasq(lab, port=DNS_PORT, lines=None):
    """Every name has this address, and nothing else. lines: another's who says so."""
    ip = lab.ip(INNER_DNS)
    lines = lines or (f"listen-address={ip}\nbind-interfaces\nno-resolv\n"
                      f"address=/#/{lab.ip(INNER)}\nlocal=/#/\n")
    conf = lab.conf("inner-dns.conf", f"{lines}port={port}\nno-hosts\nlog-queries\nuser=root\n"
                    f"log-facility=-\npid-file={lab.dir / 'inner-dns.pid'}\n")
    proc = lab.spawn("inner-dns", [tool("dnsmasq"), "-d", f"--conf-file={conf}"])
    proc.wait_listening(ip, port)
    return proc


def unbound(lab, port=DNS_PORT):
    """Every name has this address and, as a service, this port: also as that of direct TLS."""
    ip = lab.ip(INNER_DNS)
    conf = lab.conf("inner-dns.conf", f'''
server:
  interface: {ip}@{port}
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  use-syslog: no
  logfile: ""
  log-queries: yes
  username: ""
  chroot: ""
  directory: ""
  module-config: "iterator"
  local-zone: "." redirect
  local-data: ". 60 IN A {lab.ip(INNER)}"
  local-data: ". 60 IN SRV 0 0 {S2S} gateway.example."
remote-control:
  control-enable: no
''')
    # It takes brackets in a path for a pattern.
    proc = lab.spawn("inner-dns", [tool("unbound"), "-d", "-p", "-c", conf.name], cwd=conf.parent)
    proc.wait_listening(ip, port)
    return proc


# ---- what the manual says ------------------------------------------------------------------------

class Recipe:
    """A page in docs/inside, or a section of it: the code blocks, with what the lab calls else."""

    def __init__(self, lab, page, heading=None):
        text = (labnet.ROOT / "docs" / "inside" / page).read_text()
        if heading:
            section = rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)"
            text = re.search(section, text, re.M | re.S).group(1)
        blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.M | re.S)
        self.blocks = [self._here(lab, textwrap.dedent(b)) for b in blocks]

    @staticmethod
    def _here(lab, text):
        for there, host in (("10.0.1.53", INNER_DNS), ("10.0.1.5", INNER), ("10.0.0.5", SERVER),
                            ("192.0.2.7", Net.ALPHA)):
            text = re.sub(rf"(?<![\d.]){re.escape(there)}(?![\d.])", lab.ip(host), text)
        for there, here in (("alpha.lab", DOMAIN), ("partner.example", "raw.lab"),
                            ("/etc/", f"{lab.dir}/etc/")):
            text = text.replace(there, here)
        return text

    def block(self, mark):
        """The one that has this text."""
        found, = [b for b in self.blocks if mark in b]
        return found


def recipe_conf(lab, recipe):
    """Nothing is added that has to do with the inside."""
    return recipe + f'''
security_mode = "tls-optional";
peers    = ( {{ domain = "*"; policy = "allow"; }} );
dns      = {{ servers = ["{lab.dns_server}"]; }};
outbound = {{ source = ["{lab.ip(Net.ALPHA)}"]; deny_networks = []; }};
timeouts = {{ close = "1s"; }};
log      = {{ level = "debug"; rate = 0; }};
'''


# ---- servers -------------------------------------------------------------------------------------

def start_prosody(lab, encryption=True, federation=None, **options):
    """Its defaults: TLS must be there, certificates need not be good."""
    cert, key = lab.certificate(ROOMS)
    ssl = f'  ssl = {{ certificate = "{cert}", key = "{key}" }}\n'
    more = f'VirtualHost "{PRIVATE}"\n{ssl}Component "{ROOMS}" "muc"\n{ssl}'
    return prosody.start(lab, DOMAIN, SERVER, encryption, ("romeo", f"stranger@{PRIVATE}"),
                         resolver=f"{lab.ip(INNER_DNS)}@{DNS_PORT}", more=more,
                         c2s_limit=1024 * 1024, federation=federation, **options)


def start_ejabberd(lab, mode="no-tls"):
    """Its default is no TLS, Debian's file demands it. Its DNS server stands at the usual port."""
    return ejabberd.start(lab, DOMAIN, SERVER, mode, more_domains=(PRIVATE,),
                          modules="  mod_muc: {}\n", resolver=lab.ip(INNER_DNS))


@dataclass(frozen=True)
class InsideServer:
    name: str
    usable: Callable
    start: Callable
    dns_port: int
    register: bool


PROSODY = InsideServer("prosody", lambda: shutil.which("prosody"), start_prosody, DNS_PORT, False)
EJABBERD = InsideServer("ejabberd", ejabberd.usable, start_ejabberd, 53, True)


def gateway(lab, links, **settings):
    """A gateway whose links are given without what they have in common."""
    links = [{"name": LINK, "protocol": "s2s", "address": f"{lab.ip(SERVER)}:{S2S}",
              "listen": [f"{lab.ip(INNER)}:{S2S}"], **link} for link in links]
    values = {"mode": "tls-optional", "peers": ALLOW_ALL, "timeouts": {"close": "1s"},
              "domains": [{"name": DOMAIN, "subdomains": True}], "links": links, **settings}
    return start_gateway(lab, labnet.gateway_conf(
        **lab.gateway_settings(DOMAIN, Net.ALPHA, SERVER, **values)),
        [link["listen"][0].rsplit(":", 1)[0] for link in links])


def start_gateway(lab, text, doors=None):
    """text: its configuration. doors: the own addresses of its links."""
    gw = lab.start_gateway("gateway", lab.conf("gateway.conf", text), Net.ALPHA)
    for door in doors or [lab.ip(INNER)]:
        gw.wait_listening(door, S2S)
    return gw


class Office:
    """The organisation and its neighbours. dns: one of the above. link: further settings of the
    link; options: of the server; conf: the gateway's configuration as a text; settings: else."""

    def __init__(self, lab, server, dns=dnsmasq, link=(), options=(), conf=None,
                 **settings):
        self.lab, self.server, self.scenes = lab, server, 0
        lab.dns({**{name: [(Net.ALPHA, S2S, 10)] for name in (DOMAIN, ROOMS)},
                 "raw.lab": [(RAW, S2S, 10)], "any.lab": [(ANY, S2S, 10)],
                 "third.lab": [(THIRD, S2S, 10)], "fourth.lab": [(FOURTH, S2S, 10)]})
        dns(lab, port=server.dns_port)
        self.proc = server.start(lab, **dict(options))
        self.address, self.inner = lab.ip(Net.ALPHA), lab.ip(INNER)
        self.gateway = start_gateway(lab, conf) if conf else gateway(lab, [dict(link)], **settings)
        self.romeo = self.user("romeo", DOMAIN)
        self.raw = lab.at_end(Played(lab, RAW, "raw.lab", self.address))
        self.any = lab.at_end(Played(lab, ANY, "any.lab", self.address))
        self.third = lab.at_end(Played(lab, THIRD, "third.lab", self.address))
        self.fourth = lab.at_end(Played(lab, FOURTH, "fourth.lab", self.address))

    def user(self, name, domain):
        return self.lab.at_end(ServerUser(self.lab.ip(SERVER), domain, name,
                                          register=self.server.register))

    def scene(self, outside=None, **more):
        outside = outside or self.raw
        self.scenes += 1
        return Scene(self.romeo, outside, self.any, self.gateway,
                     room=f"room-{outside.domain}@{ROOMS}",
                     count=1000 * self.scenes,  # each has ids of its own
                     stranger_refused=rf"s2s\.refused .*link={LINK} .*reason=invalid-from", **more)

    def events(self, name, since=0):
        """The lines of an event on streams of the link, as {key: value}."""
        lines = re.findall(rf"^.* {re.escape(name)} .*\blink={LINK}\b.*$", self.gateway.log(since),
                           re.M)
        return [dict(re.findall(r"(\w+)=(\"[^\"]*\"|\S+)", line)) for line in lines]

    def reload(self, pattern=None, replacement=None):
        """Another configuration, or none; the offset from which to read the log."""
        since = self.gateway.log_size()
        if pattern:
            self.gateway.edit(pattern, replacement)
        self.gateway.signal(signal.SIGHUP)
        self.gateway.wait_log(r"config\.reloaded", since)
        return since

    def leave(self):
        """Everybody at once, so that nobody waits for anybody's farewell."""
        self.proc.kill()
        for player in (self.raw, self.any, self.third, self.fourth):
            player.hang_up()

    def restart_server(self):
        """Once more what was killed; its users have to come anew."""
        self.proc = self.lab.spawn(f"{self.server.name}-again", self.proc.argv)
        for port in (C2S, S2S):
            self.proc.wait_listening(self.lab.ip(SERVER), port)
        self.romeo.close()
        self.romeo = ServerUser(self.lab.ip(SERVER), DOMAIN, "romeo")
        self.lab.at_end(self.romeo)
