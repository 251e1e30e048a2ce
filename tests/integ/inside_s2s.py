"""A real server that federates with everybody, as it came, behind a link with protocol "s2s": its DNS
leads every name to the gateway's inside address.

    romeo -- server -- a redirecting DNS
               ||
             gateway ==== raw.lab, any.lab: played by sockets
           INNER | ALPHA
"""
import re
import shutil
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
INNER, INNER_DNS, SERVER, RAW, ANY = 14, 54, 33, 41, 42
LINK = "im"


# ---- DNS servers that know one answer ------------------------------------------------------------

def dnsmasq(lab, port=DNS_PORT):
    """Every name has this address, and nothing else."""
    ip = lab.ip(INNER_DNS)
    lines = ["no-resolv", "no-hosts", "bind-interfaces", f"listen-address={ip}", f"port={port}",
             f"address=/#/{lab.ip(INNER)}", "local=/#/", "cache-size=0", "log-queries",
             "log-facility=-", f"pid-file={lab.dir / 'inner-dns.pid'}", "user=root"]
    conf = lab.conf("inner-dns.conf", "\n".join(lines) + "\n")
    proc = lab.spawn("inner-dns", [tool("dnsmasq"), "-d", f"--conf-file={conf}"])
    proc.wait_listening(ip, port)
    return proc


def unbound(lab, port=DNS_PORT):
    """Every name has this address and, as a service, this port: also as the service of direct TLS."""
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


# ---- servers -------------------------------------------------------------------------------------

def start_prosody(lab, encryption=True, **options):
    """Its defaults: TLS must be there, certificates need not be good."""
    cert, key = lab.certificate(ROOMS)
    ssl = f'  ssl = {{ certificate = "{cert}", key = "{key}", cafile = "{lab.ca}" }}\n'
    more = f'''VirtualHost "{PRIVATE}"
{ssl}Component "{ROOMS}" "muc"
{ssl}'''
    return prosody.start(lab, DOMAIN, SERVER, encryption, ("romeo", f"stranger@{PRIVATE}"),
                         resolver=f"{lab.ip(INNER_DNS)}@{DNS_PORT}", more=more,
                         c2s_limit=1024 * 1024, **options)


def start_ejabberd(lab, mode="no-tls"):
    """Its default is no TLS. Its DNS server has to stand at the usual port."""
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
    conf = lab.conf("gateway.conf", labnet.gateway_conf(
        **lab.gateway_settings(DOMAIN, Net.ALPHA, SERVER, **values)))
    gw = lab.start_gateway("gateway", conf, Net.ALPHA)
    for link in links:
        gw.wait_listening(*link["listen"][0].rsplit(":", 1)[:1], S2S)
    return gw


class Office:
    """The organisation and its neighbours. dns: one of the above. link: further settings of the link;
    options: of the server; settings: of the gateway."""

    def __init__(self, lab, server, dns=dnsmasq, link=(), options=(), world=(), **settings):
        self.lab, self.server = lab, server
        lab.dns({**{name: [(Net.ALPHA, S2S, 10)] for name in (DOMAIN, ROOMS)},
                 "raw.lab": [(RAW, S2S, 10)], "any.lab": [(ANY, S2S, 10)], **dict(world)})
        dns(lab, port=server.dns_port)
        self.proc = server.start(lab, **dict(options))
        self.address, self.inner = lab.ip(Net.ALPHA), lab.ip(INNER)
        self.gateway = gateway(lab, [dict(link)], **settings)
        self.romeo = self.user("romeo", DOMAIN)
        self.raw = lab.at_end(Played(lab, RAW, "raw.lab", self.address))
        self.any = lab.at_end(Played(lab, ANY, "any.lab", self.address))

    def user(self, name, domain):
        return self.lab.at_end(ServerUser(self.lab.ip(SERVER), domain, name,
                                          register=self.server.register))

    def scene(self, outside=None, **more):
        outside = outside or self.raw
        return Scene(self.romeo, outside, self.any, self.gateway,
                     room=f"room-{outside.domain}@{ROOMS}",
                     stranger_refused=rf"s2s\.refused .*link={LINK} .*reason=invalid-from", **more)

    def events(self, name, since=0):
        """The lines of an event on streams of the link, as {key: value}."""
        lines = re.findall(rf"^.* {re.escape(name)} .*\blink={LINK}\b.*$", self.gateway.log(since),
                           re.M)
        return [dict(re.findall(r"(\w+)=(\"[^\"]*\"|\S+)", line)) for line in lines]

    def restart_server(self):
        """Once more what was killed; its users have to come anew."""
        self.proc = self.lab.spawn(f"{self.server.name}-again", self.proc.argv)
        for port in (C2S, S2S):
            self.proc.wait_listening(self.lab.ip(SERVER), port)
        self.romeo.close()
        self.romeo = ServerUser(self.lab.ip(SERVER), DOMAIN, "romeo")
        self.lab.at_end(self.romeo)
