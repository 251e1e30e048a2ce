"""Scale-out: two gateways in front of two ejabberd nodes that are one cluster, under load.

    users -- node1 ==+== gateway1 ----+
             ||      X                +-- raw.lab: played by sockets
    users -- node2 ==+== gateway2 ----+

Each gateway joins both nodes by the same name, with links of equal priority. Users log in at a node
of their own and, while that is down, at the other one. All talk with raw.lab in both directions; a
node and a gateway are killed in turn and come back. Every message must arrive once, or come back as
an error once, or be one of the few that the killed process had in its hands and in its sockets.
"""
import itertools
import threading
import time
from collections import Counter, namedtuple

import ejabberd
import pytest
from actors import Ended, ServerUser
from conftest import ALLOW_ALL, ask_books
from labnet import LINK, S2S, WAIT, Net, Proc, Timeout, tool, wait_for
from linkworld import dump
from manylinks import (Flow, Outgoing, by_sender, ids_outside, message, numbers,
                       wait_all_sent)
from peers import RemoteServer, authorised, stanza_error

DOMAIN, COMPONENT = "alpha.lab", "edge.alpha.lab"
NODES, GATEWAYS, RAW = (32, 33), (Net.ALPHA, 13), 41
USERS = 3    # on each node
RATE = 40    # messages a second from each user, and to each user
SENDERS = 24 # outside, so that each gateway uses all its links
SETTLE = 2   # seconds after which what has not come to its end is lost
# What one kill may take with it: what was on its way through that one process. At RATE it is a
# tenth of a second of the traffic of one node, both ways.
LOST = 25
Fate = namedtuple("Fate", "sent arrived bounced lost")  # the last three: sorted numbers


class Member:
    """A user of the cluster: at home on one node, on the next one while that is down."""

    def __init__(self, addresses, name):
        self.addresses, self.name, self.bare = addresses, name, f"{name}@{DOMAIN}"
        self.lock, self.sessions = threading.RLock(), []
        self._log_in(register=True)

    def _log_in(self, register=False):
        end = time.monotonic() + WAIT
        for address in itertools.cycle(self.addresses):
            try:
                self.sessions.append(ServerUser(address, DOMAIN, self.name, register=register))
                self.at = address
                return
            except (OSError, Ended, AssertionError) as e:
                if time.monotonic() > end:
                    raise Timeout(f"{self.name} cannot log in: {e!r}") from None
                time.sleep(0.02)  # the pace of a client that tries again

    def go_home(self):
        """Logs out in good order, and in again where it belongs."""
        with self.lock:
            session = self.sessions[-1]
            session.send("</stream:stream>")
            with session.arrived:
                assert session.arrived.wait_for(lambda: session.over, WAIT), "no closing tag"
            session.close()
            self._log_in()
            assert self.at == self.addresses[0]

    def send(self, text):
        """What cannot be given to one stream whole is given to the next."""
        with self.lock:
            while True:
                if self.sessions[-1].over:
                    self._log_in()
                try:
                    self.sessions[-1].send(text)
                    return
                except OSError:
                    self._log_in()

    def say(self, text):
        """The server says who it is from."""
        self.send("<message" + text[text.index(" to="):])

    def ids(self, errors=False):
        return [s.get("id") for session in self.sessions for s in list(session.stanzas)
                if s.kind == "message" and (s.get("type") == "error") == errors]

    def close(self):
        with self.lock:
            self.sessions[-1].close()


class Cluster:
    def __init__(self, lab):
        self.lab = lab
        lab.dns({DOMAIN: [(h, S2S, 10) for h in GATEWAYS], "raw.lab": [(RAW, S2S, 10)]})
        self.raw = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
        self.nodes = self._nodes()
        self.gateways = [self._gateway(i) for i in range(2)]
        self.addresses = [lab.ip(h) for h in GATEWAYS]
        homes = [n.ip for n in self.nodes]
        self.users = [lab.at_end(Member((homes[i % 2], homes[1 - i % 2]), f"user{i}"))
                      for i in range(2 * USERS)]
        self.outs = [lab.at_end(Outgoing(a, "raw.lab", DOMAIN))
                     for a in (self.addresses, self.addresses[::-1])]
        self.flows = {}

    def _nodes(self):
        """As ejabberd's documentation says: started alone, then joined, which copies all tables."""
        lab, port = self.lab, 10000 + 100 * self.lab.net.n
        epmd = ",".join(lab.ip(h) for h in NODES)
        daemon = lab.adopt(Proc("epmd", [tool("epmd"), "-address", epmd, "-port", str(port)],
                                lab.log("epmd")))
        daemon.wait_listening(lab.ip(NODES[0]), port)
        nodes = [ejabberd.launch_inside(lab, (DOMAIN,), (COMPONENT,), gateways=(COMPONENT,),
                                        host=h, name=f"node{i + 1}", cluster=(epmd, port),
                                        loglevel="notice")
                 for i, h in enumerate(NODES)]
        for node in nodes:
            node.wait_users()
        nodes[1].control("join_cluster", nodes[0].node)
        for node in nodes:
            node.wait_users()
            node.wait_listening(node.ip, LINK, timeout=30)
        listed = set(nodes[0].control("list_cluster").replace("'", "").split())
        assert listed == {n.node for n in nodes}, listed
        return nodes

    def _gateway(self, i):
        links = [{"name": node.name, "address": f"{node.ip}:{LINK}", "component": COMPONENT,
                  "secret_file": self.lab.secret("edge")} for node in self.nodes]
        gateway = self.lab.gateway(f"gateway{i + 1}", DOMAIN, GATEWAYS[i], NODES[0], mode="no-tls",
                                   peers=ALLOW_ALL, links=links, timeouts={"close": "1s"})
        self.wait_links(gateway)
        return gateway

    def wait_links(self, gateway, since=0, names=("node1", "node2")):
        for name in names:
            gateway.wait_log(rf" link\.up .*link={name}", since, 20)

    # -- load

    def talk(self):
        """A flow from each user and one to each; the remote side uses both gateways."""
        for i, user in enumerate(self.users):
            out = self.outs[i // 2 % 2]
            self.flows[f"to{i}"] = Flow(f"to{i}", out.send, "raw.lab", user.bare, SENDERS, RATE)
            self.flows[f"by{i}"] = Flow(f"by{i}", user.say, DOMAIN, "juliet@raw.lab", 1, RATE)

    def go_on(self, seconds=1):
        wait_all_sent(list(self.flows.values()), int(RATE * seconds))

    def sent(self):
        return {what: flow.sent for what, flow in self.flows.items()}

    def arrivals(self):
        """{flow: ids of what arrived, in order of arrival}, and the same of errors."""
        outside = [ids_outside(self.raw), ids_outside(self.raw, errors=True)]
        arrived, errors = {}, {}
        for i, user in enumerate(self.users):
            arrived[f"to{i}"], errors[f"to{i}"] = user.ids(), outside[1]
            arrived[f"by{i}"], errors[f"by{i}"] = outside[0], user.ids(errors=True)
        return arrived, errors

    def fates(self):
        arrived, errors = self.arrivals()
        return {w: (numbers(arrived[w], w), numbers(errors[w], w)) for w in self.flows}

    def settle(self):
        """{flow: Fate}: each number in one of the three, and once."""
        for flow in self.flows.values():
            flow.stop()

        def all_ended():
            return all(len(a) + len(e) >= self.flows[w].sent for w, (a, e) in self.fates().items())

        wait_for(lambda: not any(books[d][k] for g in self.gateways for books in [ask_books(g)]
                                 for d in ("in", "out") for k in ("waiting", "writing")), 20,
                 "nothing to be under way")
        try:
            wait_for(all_ended, SETTLE)
        except Timeout:
            pass  # some are lost; they are counted
        return {w: self._fate(w, *of) for w, of in self.fates().items()}

    def _fate(self, what, arrived, bounced):
        sent = self.flows[what].sent
        assert len(arrived) == len(set(arrived)), f"{what}: doubled"
        assert len(bounced) == len(set(bounced)), f"{what}: answered twice"
        assert not set(arrived) & set(bounced), f"{what}: arrived and bounced"
        lost = set(range(sent)) - set(arrived) - set(bounced)
        return Fate(sent, sorted(arrived), sorted(bounced), sorted(lost))

    def reasons(self):
        """{condition: how many} of all that bounced."""
        return Counter([stanza_error(e)[0] for _, e in list(self.raw.stanzas)
                        if e.get("type") == "error"]
                       + [s.condition for u in self.users for session in u.sessions
                          for s in list(session.stanzas) if s.get("type") == "error"])

    # -- health

    def healthy(self, what):
        """Each user through each gateway inwards; outwards every user is heard."""
        streams = [self.lab.at_end(authorised(a, "raw.lab", DOMAIN)) for a in self.addresses]
        for i, user in enumerate(self.users):
            for j, s in enumerate(streams):
                s.send(message(f"j{j}@raw.lab/x", user.bare, f"{what}-in-{i}-{j}"))
                user.sessions[-1].expect("message", id=f"{what}-in-{i}-{j}", type="chat")
            user.say(message("", "juliet@raw.lab", f"{what}-out-{i}"))
            assert self.raw.expect_stanza(f"{what}-out-{i}").get("from").startswith(user.bare)
        for s in streams:
            s.close()

    def outwards(self, since):
        """The gateways that brought messages out after a place in raw.stanzas."""
        return {peer for peer, e in self.raw.stanzas[since:] if e.get("id").startswith("by")}

    def inwards(self):
        """[{link: messages that came in by it}] of the gateways."""
        return [{f["link"]: int(f["count"])
                 for f in dump(g, "state.link.traffic", dir="out", kind="message")}
                for g in self.gateways]


def near(numbers_, mark):
    """Those that were sent about the time of the mark."""
    return [n for n in numbers_ if mark - RATE <= n <= mark + RATE]


def test_a_node_and_a_gateway_are_killed_under_load(fresh_lab, record_property):
    if not ejabberd.usable():
        pytest.skip("ejabberd is not installed, or this is not root")
    us = Cluster(fresh_lab)
    us.healthy("before")
    began = time.monotonic()
    us.talk()
    us.go_on()
    assert us.outwards(0) == set(us.addresses)
    calm, _ = us.arrivals()
    assert all(set(links) == {"node1", "node2"} for links in us.inwards())

    marks = [us.sent()]  # node1 is killed
    since = [g.log_size() for g in us.gateways]
    us.nodes[0].kill()
    for g, at in zip(us.gateways, since):
        g.wait_log(r" link\.down .*link=node1", at)
    us.go_on()
    assert {u.at for u in us.users} == {us.nodes[1].ip}
    us.nodes[0] = us.nodes[0].again(us.lab)
    us.nodes[0].wait_users()
    for g, at in zip(us.gateways, since):
        us.wait_links(g, at, ["node1"])
    for user in us.users[::2]:
        user.go_home()
    before = us.inwards()
    us.go_on()
    after = us.inwards()
    assert all(a[n] > b[n] for a, b in zip(after, before) for n in ("node1", "node2"))

    marks.append(us.sent())  # gateway1 is killed
    us.gateways[0].kill()
    us.go_on(0.5)
    here = len(us.raw.stanzas)
    us.go_on(0.5)
    assert us.outwards(here) == {us.addresses[1]}
    us.gateways[0] = us.lab.start_gateway("gateway1-again", us.gateways[0].conf, GATEWAYS[0])
    us.wait_links(us.gateways[0])
    us.go_on()
    here = len(us.raw.stanzas)
    us.go_on()
    assert us.outwards(here) == set(us.addresses)
    fates, seconds = us.settle(), time.monotonic() - began

    us.healthy("after")
    assert {u.at for u in us.users} == {n.ip for n in us.nodes}
    for what, ids in calm.items():
        for sender, got in by_sender(ids, what).items():
            assert got == sorted(got), f"{what}: {sender} is out of order"
    lost = [[(w, n) for w, f in fates.items() for n in near(f.lost, m[w])] for m in marks]
    figures = {"sent": sum(f.sent for f in fates.values()),
               "arrived": sum(len(f.arrived) for f in fates.values()),
               "bounced": sum(len(f.bounced) for f in fates.values()),
               "reasons": dict(us.reasons()),
               "lost_with_node": len(lost[0]), "lost_with_gateway": len(lost[1]),
               "seconds": round(seconds, 1)}
    for name, value in figures.items():
        record_property(name, value)
    print(figures)
    assert sum(map(len, lost)) == sum(len(f.lost) for f in fates.values()), \
        ("lost at another time", {w: f.lost for w, f in fates.items()}, marks)
    assert max(map(len, lost)) <= LOST, lost
