"""A real server that federates with everybody, as it came, behind a link with protocol "s2s": its DNS
leads every name to the gateway's inside address.

    romeo -- server -- a redirecting DNS
               ||
             gateway ==== raw.lab, any.lab: played by sockets
           INNER | ALPHA  prosody.lab or ejabberd.lab: the other real server
"""
import os
import re
import signal
from dataclasses import dataclass
from typing import Callable

import ejabberd
import labnet
import prosody
from actors import ServerUser
from conftest import ALLOW_ALL
from labnet import DNS_PORT, S2S, Net, tool
from twenty import Played, Scene

DOMAIN, PRIVATE = "inside.lab", "private.lab"
ROOMS = f"conference.{DOMAIN}"
INNER, INNER_DNS, SERVER, RAW, ANY = 14, 54, 33, 41, 42


# ---- DNS servers that know one answer ------------------------------------------------------------

def dnsmasq(lab, to=INNER, port=DNS_PORT):
    """Every name has this address, and nothing else."""
    ip = lab.ip(INNER_DNS)
    lines = ["no-resolv", "no-hosts", "bind-interfaces", f"listen-address={ip}", f"port={port}",
             f"address=/#/{lab.ip(to)}", "local=/#/", "cache-size=0", "log-queries",
             "log-facility=-", f"pid-file={lab.dir / 'inner-dns.pid'}", "user=root"]
    conf = lab.conf("inner-dns.conf", "\n".join(lines) + "\n")
    proc = lab.spawn("inner-dns", [tool("dnsmasq"), "-d", f"--conf-file={conf}"])
    proc.wait_listening(ip, port)
    return proc


def unbound(lab, to=INNER, port=DNS_PORT):
    """Every name has this address and, as a service, this port: also the service of direct TLS."""
    ip = lab.ip(INNER_DNS)
    conf = lab.conf("inner-dns.conf", f'''
server:
  interface: {ip}@{port}
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  use-syslog: no
  logfile: ""
  log-queries: yes
  verbosity: 1
  username: ""
  chroot: ""
  directory: "{lab.dir}"
  pidfile: "{lab.dir}/inner-dns.pid"
  module-config: "iterator"
  local-zone: "." redirect
  local-data: ". 60 IN A {lab.ip(to)}"
  local-data: ". 60 IN SRV 0 0 {S2S} gateway.example."
remote-control:
  control-enable: no
''')
    proc = lab.spawn("inner-dns", [tool("unbound"), "-d", "-c", conf])
    proc.wait_listening(ip, port)
    return proc


# ---- servers -------------------------------------------------------------------------------------

def start_prosody(lab, encryption=True, rooms=True, **options):
    """Its defaults are encryption and no secure_auth."""
    resolver = f"{lab.ip(INNER_DNS)}@{DNS_PORT}"
    cert, key = lab.certificate(ROOMS)
    more = f'''VirtualHost "{PRIVATE}"
  ssl = {{ certificate = "{cert}", key = "{key}", cafile = "{lab.ca}" }}
Component "{ROOMS}" "muc"
  ssl = {{ certificate = "{cert}", key = "{key}", cafile = "{lab.ca}" }}
'''
    return prosody.start(lab, DOMAIN, SERVER, encryption, ("romeo", f"stranger@{PRIVATE}"),
                         resolver=resolver, more=more, **options)


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


PROSODY = InsideServer("prosody", lambda: tool("prosody"), start_prosody, DNS_PORT, False)
EJABBERD = InsideServer("ejabberd", ejabberd.usable, start_ejabberd, 53, True)


class Office:
    """The organisation and its neighbours. dns: one of the above. link: further settings of the link;
    options: of the server."""

    def __init__(self, lab, server, dns=dnsmasq, link=None, options=None, settings=None, world=()):
        self.lab, self.server = lab, server
        lab.dns({**{name: [(Net.ALPHA, S2S, 10)] for name in (DOMAIN, ROOMS)},
                 "raw.lab": [(RAW, S2S, 10)], "any.lab": [(ANY, S2S, 10)], **dict(world)})
        dns(lab, port=server.dns_port)
        self.proc = server.start(lab, **(options or {}))
        self.address, self.inner = lab.ip(Net.ALPHA), lab.ip(INNER)
        self.gateway = self.start_gateway(link or {}, settings or {})
        self.romeo = self.user("romeo", DOMAIN)
        self.raw = lab.at_end(Played(lab, RAW, "raw.lab", self.address))
        self.any = lab.at_end(Played(lab, ANY, "any.lab", self.address))

    def start_gateway(self, link, settings):
        lab = self.lab
        links = [{"name": "im", "protocol": "s2s", "address": f"{lab.ip(SERVER)}:{S2S}",
                  "listen": [f"{self.inner}:{S2S}"], **link}]
        values = {"mode": "tls-optional", "peers": ALLOW_ALL, "timeouts": {"close": "1s"},
                  "domains": [{"name": DOMAIN, "subdomains": True}], "links": links, **settings}
        conf = lab.conf("gateway.conf", labnet.gateway_conf(
            **lab.gateway_settings(DOMAIN, Net.ALPHA, SERVER, **values)))
        gateway = lab.start_gateway("gateway", conf, Net.ALPHA)
        gateway.wait_listening(self.inner, S2S)
        return gateway

    def user(self, name, domain):
        return self.lab.at_end(ServerUser(self.lab.ip(SERVER), domain, name,
                                          register=self.server.register))

    def scene(self, outside=None, **more):
        outside = outside or self.raw
        return Scene(self.romeo, outside, self.any, self.gateway,
                     room=f"room-{outside.domain}@{ROOMS}", **more)

    def restart_server(self):
        """Once more what was killed."""
        self.proc = self.lab.spawn(f"{self.proc.name}-again", self.proc.argv)
        for port in (labnet.C2S, S2S):
            self.proc.wait_listening(self.lab.ip(SERVER), port)
