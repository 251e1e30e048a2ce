"""Alarms about what no single stream shows: DNS that answers nobody, a domain that cannot be
reached for long, a queue that is nearly full. Each is raised once and cleared by itself."""
import signal

import labnet
from conftest import ALLOW_ALL, SHORT, Inside
from labnet import Net
from peers import RemoteServer

DEAD, LATE, STALLED = 71, 72, 73


def reload(gateway):
    since = gateway.log_size()
    gateway.signal(signal.SIGHUP)
    gateway.wait_log(r"config\.reloaded", since)


def inside(lab, **more):
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)], "late.lab": [(LATE, labnet.S2S, 10)],
             "stalled.lab": [(STALLED, labnet.S2S, 10)]})
    more.setdefault("timeouts", {})
    more["timeouts"] = {**SHORT, "peer_failing": "1s", **more["timeouts"]}
    return Inside(lab, mode="no-tls", dns_timeout="1s", peers=ALLOW_ALL, **more)


def test_dns_unusable(fresh_lab):
    us = inside(fresh_lab)
    good = us.gateway.conf.read_text()
    us.gateway.edit(r"servers = \[[^\]]*\]", f'servers = ["{fresh_lab.ip(DEAD)}:53"]')
    reload(us.gateway)
    since = us.gateway.log_size()
    for n in range(3):
        us.user.message(f"j@name{n}.lab", f"lost-{n}", "?")
        us.bounce(f"lost-{n}")
    line = us.gateway.wait_log(r"alarm\.raised kind=dns\.unusable .*", since)
    assert "subject=resolver" in line
    us.gateway.conf.write_text(good)
    reload(us.gateway)
    us.user.message("j@nowhere.lab", "answered", "?")
    us.bounce("answered")
    us.gateway.wait_log(r"alarm\.cleared kind=dns\.unusable", since)


def test_peer_failing(fresh_lab):
    us = inside(fresh_lab)
    since, n = us.gateway.log_size(), 0
    while "kind=peer.failing" not in us.gateway.log(since):
        us.user.message("j@late.lab", f"try-{n}", "?")
        us.bounce(f"try-{n}")
        n += 1
    assert n > 1, "one failure is not long"
    line = us.gateway.wait_log(r"alarm\.raised kind=peer\.failing subject=late\.lab .*", since)
    assert "refused" in line
    server = RemoteServer(fresh_lab.ip(LATE), "late.lab")
    fresh_lab.at_end(server)
    reload(us.gateway)  # ends the back-off, as an operator would
    us.user.message("j@late.lab", "there", "!")
    server.expect_stanza("there")
    us.gateway.wait_log(r"alarm\.cleared kind=peer\.failing subject=late\.lab", since)
    assert us.gateway.log(since).count("alarm.raised kind=peer.failing") == 1


def test_queue_near_full(fresh_lab):
    server = RemoteServer(fresh_lab.ip(STALLED), "stalled.lab", stall="header")
    fresh_lab.at_end(server)
    us = inside(fresh_lab, limits={"queue_total": "1M", "queue_bytes": "1M"},
                timeouts={"auth": "6s"})
    since = us.gateway.log_size()
    for n in range(9):
        us.user.message("j@stalled.lab", f"row-{n}", "x" * 100000)
    us.gateway.wait_log(r"alarm\.raised kind=queue\.near-full subject=outward", since)
    us.bounce("row-8")
    us.gateway.wait_log(r"alarm\.cleared kind=queue\.near-full subject=outward", since)
