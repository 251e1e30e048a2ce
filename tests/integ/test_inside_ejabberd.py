"""A real gateway before a real ejabberd."""
import insides
import pytest
import twenty
from inside_cases import *  # noqa: F401,F403
from inside_cases import way_of
from insides import EDGES
from labnet import LOG_LINK_UP, Net


@pytest.fixture(scope="module")
def office(lab):
    if not insides.EJABBERD.usable():
        pytest.skip("ejabberd is not installed, or needs root")
    return insides.Office(lab, insides.EJABBERD)


# ---- what only ejabberd does: components of one name side by side --------------------------------

SENDERS, TURNS = 24, 3


class Crowd:
    """Many users of the inside: one component speaks for all."""

    def __init__(self, office):
        self.office, self.component = office, office.join(insides.MANY)

    def send(self, n, ident):
        self.component.send(self.component.stanza(
            "message", self.office.raw.jid, ident, "<body>x</body>",
            sender=f"u{n}@{insides.MANY}/x"))

    def ways(self, what):
        """The gateways that each sender's messages took."""
        for turn in range(TURNS):
            for n in range(SENDERS):
                self.send(n, f"{what}-{turn}-{n}")
        return [{way_of(self.office, f"{what}-{turn}-{n}") for turn in range(TURNS)}
                for n in range(SENDERS)]


def test_streams_of_one_name_share_the_senders(office):
    """A sender stays on one, in order; when its gateway dies all go through the other one, and when
    it returns it takes its part again."""
    hosts = (Net.ALPHA, insides.SECOND)
    gateways = [office.start_gateway(f"share{i}", host, EDGES[0], office.server.host)
                for i, host in enumerate(hosts)]
    both = {office.lab.ip(h) for h in hosts}
    crowd = Crowd(office)
    ways = crowd.ways("share")
    assert all(len(w) == 1 for w in ways), ways
    assert set().union(*ways) == both
    for i in range(50):
        crowd.send(1, f"order-{i}")
    office.raw.expect_stanza("order-49")
    assert [i for i in twenty.ids(office.raw) if i.startswith("order-")] == [
        f"order-{i}" for i in range(50)]
    lost = office.proc.log_size()
    gateways[0].kill()
    office.wait_noticed(EDGES[0], lost)
    assert crowd.ways("alone") == [{office.lab.ip(hosts[1])}] * SENDERS
    back = office.lab.start_gateway("share0b", gateways[0].conf, hosts[0])
    back.wait_log(LOG_LINK_UP)
    assert set().union(*crowd.ways("back")) == both
