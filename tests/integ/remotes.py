"""The real servers that can stand on the other side, each with one user, and what each changes.

The fields of `Remote` after `register` are all that the tests make allowance for; docs/interop.md
has the reasons.
"""
import shutil
from dataclasses import dataclass
from typing import Callable

import ejabberd
import jabberd2
import prosody
from actors import ServerUser
from labnet import S2S, Net


@dataclass(frozen=True)
class Remote:
    name: str
    domain: str
    host: int
    usable: Callable
    launch: Callable  # (lab, mode) -> process
    register: bool    # its users register themselves
    reorders: bool = False    # the children of a stanza arrive in another order
    keeps_references: bool = False  # of tabs and line ends in attribute values
    stamps_lang: tuple = ()   # ways ("in": to its user, "out") on which it adds an xml:lang
    literal_srv: bool = False # see ejabberd.py
    breaks_tls_once: bool = False  # its first TLS record that comes in pieces ends the stream
    delivers_subscribed: bool = True  # else its user sees the roster change alone
    unknown_user: str = "service-unavailable"

    def start(self, lab, mode):
        return self.launch(lab, mode)

    def user(self, lab, name="juliet"):
        return ServerUser(lab.ip(self.host), self.domain, name, register=self.register)

    def zone(self, lab, domain, host):
        """Starts a DNS server in which this server and one of ours find each other."""
        services, extra = {self.domain: [(self.host, S2S, 10)]}, []
        if self.literal_srv:
            extra.append(ejabberd.srv_record(lab, domain, host))
        else:
            services[domain] = [(host, S2S, 10)]
        return lab.dns(services, extra)


REMOTES = {r.name: r for r in (
    Remote("prosody", "prosody.lab", Net.PROSODY, lambda: shutil.which("prosody"),
           lambda lab, mode: prosody.start(lab, encryption=mode == "tls-required"), False,
           stamps_lang=("in", "out")),
    Remote("ejabberd", "ejabberd.lab", ejabberd.HOST, ejabberd.usable,
           lambda lab, mode: ejabberd.start(lab, mode=mode), True,
           reorders=True, keeps_references=True, stamps_lang=("in",), literal_srv=True),
    Remote("jabberd2", "jabberd2.lab", jabberd2.HOST, jabberd2.usable,
           lambda lab, mode: jabberd2.start(lab, mode=mode), True,
           delivers_subscribed=False, breaks_tls_once=True),
)}
