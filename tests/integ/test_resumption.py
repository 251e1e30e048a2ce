"""Does a real server resume our TLS sessions, and does it still know us then? Prosody and ejabberd
that demand a valid certificate; each stream is closed for want of use, and the next one is made."""
import ejabberd
import prosody
import pytest
from certified import logfmt, srv
from conftest import SHORT, Inside
from labnet import S2S, Net, wait_for
from remotes import REMOTES

START = {"prosody": lambda lab: prosody.start(lab, encryption=True, secure_auth=True),
         "ejabberd": lambda lab: ejabberd.start(lab, mode="tls-required")}
STREAMS = 2


def zone(lab, remote):
    lines = srv(lab, remote.domain, (remote.host, S2S, 10, False))
    if remote.literal_srv:
        lines.append(ejabberd.srv_record(lab, "alpha.lab", Net.ALPHA, False))
    else:
        lines += srv(lab, "alpha.lab", (Net.ALPHA, S2S, 10, False))
    lab.dns({}, lines)


def events(gateway, name, since):
    return [logfmt(line) for line in gateway.log(since).splitlines()
            if f" {name} " in line and " dir=out " in line]


@pytest.mark.parametrize("server", sorted(START))
def test_streams_again_and_again(fresh_lab, server, record_property):
    lab, remote = fresh_lab, REMOTES[server]
    if not remote.usable():
        pytest.skip(f"{server} is not installed, or needs root")
    zone(lab, remote)
    START[server](lab)
    us = Inside(lab, mode="tls-required", timeouts={**SHORT, "idle": "1s", "keepalive": "1s"},
                peers=[{"domain": remote.domain, "policy": "allow", "auth": ["external"]}])
    juliet, ways = lab.at_end(remote.user(lab)), []
    for i in range(STREAMS):
        since = us.gateway.log_size()
        us.user.message(juliet.jid, f"out-{i}", "words")
        assert juliet.expect("message", id=f"out-{i}").body == "words"
        (up,) = events(us.gateway, "tls.up", since)
        (state,) = events(us.gateway, "s2s.state", since)
        ways.append((up.get("resumed"), state["to"], state["mech"]))
        wait_for(lambda: events(us.gateway, "s2s.closed", since), what="the end of the stream",
                 detail=us.gateway.log_tail)
    record_property("ways", ways)
    print(server, ways)
    # Resumed or not: the certificates prove both sides, every time.
    assert {w[1:] for w in ways} == {("CONNECTED", "external")}
    assert ways[0][0] is None
