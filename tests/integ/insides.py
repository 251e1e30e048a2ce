"""The real servers that can stand behind the gateway, and an organisation with one of them.

    romeo -- server --(a cable)-- gateway ==== raw.lab, any.lab: played by sockets
             :7400                        ==== beta.lab: behind a second gateway

The server also has a domain that the gateway does not serve. With an adapter it has a component of
its own, too, that speaks for as many users as a test needs; without one, remote domains are listed
on both sides as partners. The router of jabberd2 needs neither.
"""
import re
import shutil
from dataclasses import dataclass, field
from typing import Callable

import ejabberd
import jabberd2
import servers
from actors import InsideUser, ServerUser
from cable import Cable
from conftest import ALLOW_ALL
from labnet import LINK, LOG_LINK_UP, S2S, Net, wait_for
from twenty import Played, Scene

DOMAIN, PRIVATE, ROOMS = servers.INSIDE, "private.lab", f"conference.{servers.INSIDE}"
MANY = f"many.{DOMAIN}"  # the component
EDGES = (f"edge1.{DOMAIN}", f"edge2.{DOMAIN}")
STANZA_SIZE = 256 * 1024  # the default of the gateway; what Prosody is told to take here, too
RAW, ANY, SECOND, CABLE = 41, 42, 13, 51
PARTNERS = ("raw.lab", "any.lab", "beta.lab", "nowhere.lab")  # the last has no server


@dataclass(frozen=True)
class InsideServer:
    name: str
    host: int
    usable: Callable
    start: Callable     # lab -> process
    register: bool      # its users register themselves
    notices: str        # what it logs before the name of a gateway whose stream has ended
    link: dict = field(default_factory=dict)  # how the gateway joins; None takes a setting away
    streams: int = 1    # that the gateway keeps to it
    names: tuple = EDGES  # that gateways join by


def _start_prosody(lab, gateways, more):
    return servers.start_prosody(
        lab, gateways, users=(f"romeo@{DOMAIN}", f"stranger@{PRIVATE}"),
        options=f"component_stanza_size_limit = {STANZA_SIZE}\n"
                f"c2s_stanza_size_limit = {4 * STANZA_SIZE}\n",
        more=f'{more}\nComponent "{ROOMS}" "muc"\nVirtualHost "{PRIVATE}"\n')


def _prosody(lab):
    return _start_prosody(lab, EDGES, servers.component(lab, MANY))


def _plain_prosody(lab):
    """Every partner is a component, whose sender Prosody checks."""
    secret = lab.secret("edge").read_text().strip()
    return _start_prosody(lab, (), "".join(
        f'Component "{p}"\n  component_secret = "{secret}"\n' for p in PARTNERS))


def _ejabberd(lab):
    """Two names, each for itself: by default every stream would have the routes of all."""
    return ejabberd.start_inside(lab, (DOMAIN, PRIVATE), (*EDGES, MANY), gateways=EDGES,
                                 listener="    global_routes: false\n"
                                          f"    max_stanza_size: {2 * STANZA_SIZE}\n")


def _plain_ejabberd(lab):
    """One stream has the routes of all names; ejabberd checks that senders are among them."""
    return ejabberd.start_inside(lab, (DOMAIN, PRIVATE), (EDGES[0], *PARTNERS))


def _jabberd2(lab):
    """Its router, which has the others as `parts`."""
    parts = jabberd2.start_inside(lab, DOMAIN, more_domains=(PRIVATE,))
    parts["router"].parts = parts
    return parts["router"]


PROSODY = InsideServer("prosody", Net.PROSODY, lambda: shutil.which("prosody"), _prosody, False,
                       "component disconnected: ")
EJABBERD = InsideServer("ejabberd", ejabberd.HOST, ejabberd.usable, _ejabberd, True,
                        "Route unregistered: ")
PLAIN_PROSODY = InsideServer("prosody", Net.PROSODY, PROSODY.usable, _plain_prosody, False,
                             PROSODY.notices, {"partners": PARTNERS, "component": None},
                             len(PARTNERS))
PLAIN_EJABBERD = InsideServer("ejabberd", ejabberd.HOST, ejabberd.usable, _plain_ejabberd, True,
                              EJABBERD.notices, {"partners": PARTNERS})
JABBERD2 = InsideServer("jabberd2", jabberd2.HOST, jabberd2.usable, _jabberd2, True, "[",
                        {"protocol": "jabberd2", "user": jabberd2.GATEWAY}, names=("gw1", "gw2"))


class Office:
    """The organisation, its neighbours, and one gateway that is up."""

    def __init__(self, lab, server, services=None, **settings):
        """services: more domains, as for Lab.dns; settings: more of the gateways'."""
        self.lab, self.server, self.settings = lab, server, settings
        names = {name: [(Net.ALPHA, S2S, 10), (SECOND, S2S, 20)] for name in (DOMAIN, ROOMS, MANY)}
        lab.dns({**names, "beta.lab": [(Net.BETA, S2S, 10)], "raw.lab": [(RAW, S2S, 10)],
                 "any.lab": [(ANY, S2S, 10)], **(services or {})})
        self.proc = server.start(lab)
        self.address = lab.ip(Net.ALPHA)
        self.cable = lab.at_end(Cable(lab.ip(CABLE), (lab.ip(server.host), LINK)))
        self.gateway = self.start_gateway("gateway1", Net.ALPHA, server.names[0], CABLE)
        self.romeo = self.user("romeo", DOMAIN)
        self.raw = lab.at_end(Played(lab, RAW, "raw.lab", self.address))
        self.any = lab.at_end(Played(lab, ANY, "any.lab", self.address))

    def start_gateway(self, name, host, component, inside):
        link = {"name": "core", "address": f"{self.lab.ip(inside)}:{LINK}",
                "secret_file": self.lab.secret("edge"), "component": component,
                **self.server.link}
        link = {k: v for k, v in link.items() if v is not None}
        gateway = self.lab.gateway(name, DOMAIN, host, inside, mode="tls-optional",
                                   peers=ALLOW_ALL, timeouts={"close": "1s"}, links=[link],
                                   domains=[{"name": DOMAIN, "subdomains": True}], **self.settings)
        self.wait_streams(gateway)
        return gateway

    def wait_streams(self, gateway, since=0):
        """All its streams to the server have come up."""
        wait_for(lambda: len(re.findall(LOG_LINK_UP, gateway.log(since))) >= self.server.streams,
                 what=f"{self.server.streams} streams of {gateway.name}", detail=gateway.log_tail)

    def user(self, name, domain):
        return self.lab.at_end(ServerUser(self.lab.ip(self.server.host), domain, name,
                                          register=self.server.register))

    def join(self, component):
        """A bare component of the server."""
        secret = self.lab.secret("edge").read_text().strip()
        return self.lab.at_end(InsideUser(self.lab.ip(self.server.host), component, secret))

    def beta(self):
        """A user of beta.lab, which has a gateway of ours."""
        lab = self.lab
        lab.router("beta-router", Net.BETA_LINK, "beta.lab")
        lab.gateway("beta-gateway", "beta.lab", Net.BETA, Net.BETA_LINK, mode="tls-optional",
                    peers=ALLOW_ALL)
        secret = lab.secret("beta.lab-im").read_text().strip()
        return lab.at_end(InsideUser(lab.ip(Net.BETA_LINK), "beta.lab", secret, "juliet"))

    def wait_noticed(self, component, since):
        """The server knows that this gateway is gone."""
        self.proc.wait_log(re.escape(self.server.notices + component), since)

    def scene(self, outside, **more):
        return Scene(self.romeo, outside, self.any, self.gateway,
                     room=f"room-{outside.domain}@{ROOMS}", **more)
