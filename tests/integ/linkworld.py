"""A gateway and a sallyport-router, and the link between them, whoever dials; nothing else.

The world outside is not there: what passes the link is proven by a ping of romeo's to the gateway's
own name on it, which the gateway answers itself.
"""
import re
import signal
from dataclasses import dataclass, field

import labnet
from actors import InsideUser
from labnet import LINK, S2S, Net

DOMAIN, COMPONENT, ROUTER = "alpha.lab", "edge.alpha.lab", "router.alpha.lab"
PING = "<ping xmlns='urn:xmpp:ping'/>"
SHORT = {"auth": "3s", "close": "1s"}
EDGE = "edge"  # the link's name, on both sides


@dataclass
class Side:
    """The settings of the link on one side, beside its name, transport and addresses."""
    settings: dict = field(default_factory=dict)

    def but(self, **changes):
        """None takes a setting away."""
        merged = {**self.settings, **changes}
        return Side({k: v for k, v in merged.items() if v is not None})


class World:
    """transport: the gateway's. Each world of a laboratory has logs of its own."""
    number = 0
    timeouts = SHORT

    def __init__(self, lab, transport, gateway, router):
        self.lab = lab
        World.number += 1
        self.suffix = f"-{World.number}"
        self.at = lab.ip(Net.ALPHA_LINK)
        self.user, self.pings = None, 0
        self.conf = {}
        self.turn(transport)
        self.start(gateway, router)

    def turn(self, transport):
        """From the next configuration on, this is the gateway's transport."""
        self.transport = transport
        self.listen = self.lab.ip(Net.ALPHA if transport == "accept" else Net.ALPHA_LINK)

    # -- configuration

    def write(self, gateway, router):
        lab, dials = self.lab, self.transport == "dial"
        at = f"{self.listen}:{LINK}"
        where = {"address": at} if dials else {"listen": [at]}
        certificate, key = lab.certificate(DOMAIN)  # so that none has to be made at each reload
        text = labnet.gateway_conf(
            domains=[{"name": DOMAIN, "certificate": certificate, "key": key}],
            listen=[f"{lab.ip(Net.ALPHA)}:{S2S}"], dns=["127.0.0.1:9"], timeouts=self.timeouts,
            dialback_timeout="1s", links=[{"name": EDGE, "transport": self.transport,
                                           "component": COMPONENT, **where, **gateway.settings}])
        self.conf["gateway"] = lab.conf(f"gateway{self.suffix}.conf", text)
        self.conf["router"] = lab.conf(f"router{self.suffix}.conf", self._router_conf(router))

    def _router_conf(self, router):
        where = {"transport": "accept"}
        if self.transport == "accept":
            where = {"transport": "dial", "address": f"{self.listen}:{LINK}"}
        edge = {"name": EDGE, "role": "gateway", "component": COMPONENT, **where, **router.settings}
        im = {"name": "im", "role": "server", "transport": "accept", "component": DOMAIN,
              "domains": [DOMAIN], "secret_file": self.lab.secret("im")}
        return labnet.router_conf(listen=[f"{self.at}:{LINK}"], links=[edge, im],
                                  timeouts=self.timeouts)

    def reload(self, gateway, router):
        """As an operator would on both machines; who dials comes last and tries at once."""
        self.write(gateway, router)
        order = (self.gateway, self.router)
        for proc in order if self.transport == "accept" else reversed(order):
            since = proc.log_size()
            proc.signal(signal.SIGHUP)
            proc.wait_log(r"\bconfig\.(reloaded|rejected)\b", since)

    # -- processes

    def start(self, gateway, router):
        """Who listens comes first, so that who dials does not fail for another reason."""
        self.write(gateway, router)
        order = (self.start_gateway, self.start_router)
        for start in order if self.transport == "accept" else reversed(order):
            start()

    def stop(self):
        self.gateway.stop()
        self.router.stop()

    def start_gateway(self):
        self.gateway = self.lab.start_gateway(f"gateway{self.suffix}", self.conf["gateway"],
                                              Net.ALPHA)

    def start_router(self):
        self.router = self.lab.start_router(f"router{self.suffix}", self.conf["router"],
                                            Net.ALPHA_LINK)

    @property
    def dialler(self):
        return self.gateway if self.transport == "dial" else self.router

    def again(self):
        """Makes who dials dial at once, without waiting for the end of the back-off."""
        self.dialler.signal(signal.SIGHUP)

    def close(self):
        if self.user:
            self.user.close()
        self.stop()

    # -- what there is to see

    def passes(self):
        """A ping there and back."""
        if self.user is None:
            self.user = InsideUser(self.at, DOMAIN, self.lab.secret("im").read_text().strip())
        self.pings += 1
        ident = f"ping-{self.pings}"
        self.user.send(self.user.stanza("iq", COMPONENT, ident, PING, "get"))
        self.user.expect("iq", type="result", id=ident, from_=COMPONENT)


def dump(proc, event, **wanted):
    """The lines of that event that SIGUSR2 prints, as dictionaries."""
    marker, since, at = r"\b(?:state\.streams|router\.status)\b", proc.log_size(), []
    for _ in range(2):  # all lines of the first answer come before the second
        at.append(proc.log_size())
        proc.signal(signal.SIGUSR2)
        proc.wait_log(marker, at[-1])
    answer = re.split(marker, proc.log(since))[1]
    lines = [fields(line) for line in answer.splitlines() if f" {event} " in line]
    return [f for f in lines if all(f.get(k) == v for k, v in wanted.items())]


def fields(line):
    """key=value and key="value" of a logfmt line."""
    return {k: a or b for k, a, b in re.findall(r'(\S+?)=(?:"((?:[^"\\]|\\.)*)"|(\S*))', line)}
