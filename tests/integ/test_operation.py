"""Start, check, reload, stop: what an operator and a service manager rely on."""
import re
import signal
import subprocess
import time

import labnet
import pytest
from conftest import Inside
from labnet import Net, program
from peers import RemoteServer, authorised, message

RAW = 41
BROKEN = '''federation = true;
security_mode = "tls-requird";
privacy_mode = "allow-list";
listn = { s2s = ["127.0.0.1:5269"]; };
domains = ( { name = "alpha.lab"; } );
links = ( { name = "core"; address = "nonsense"; component = "edge.alpha.lab";
            secret_file = "does-not-exist"; } );
timeouts = { auth = "forever"; };
'''


@pytest.fixture(scope="module")
def us(lab):
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)], "raw.lab": [(RAW, labnet.S2S, 10)]})
    lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
    return Inside(lab, mode="no-tls", peers=[{"domain": "raw.lab", "policy": "allow"}])


def run(name, *args):
    return subprocess.run([program(name), *map(str, args)], capture_output=True, text=True,
                          timeout=20)


def works(us, ident):
    s = authorised(us.address, "raw.lab", "alpha.lab")
    s.send(message("a@raw.lab", us.user.jid, ident))
    us.user.expect(kind="message", id=ident)
    s.close()


# ---- exit codes --------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["sallyport", "sallyport-router"])
def test_usage(name):
    r = run(name, "--no-such-option")
    assert r.returncode == 64 and "--help" in r.stderr
    r = run(name, "--help")
    assert r.returncode == 0 and r.stdout and not r.stderr
    r = run(name, "--version")
    assert r.returncode == 0 and re.search(r"\d+\.\d+\.\d+", r.stdout)


@pytest.mark.parametrize("name", ["sallyport", "sallyport-router"])
def test_missing_file(lab, name):
    r = run(name, *labnet.root_option(), "-c", lab.dir / "conf" / "no-such-file.conf")
    assert r.returncode == 66 and "no-such-file.conf" in r.stderr


def test_check_names_every_error(lab):
    conf = lab.conf("broken.conf", BROKEN)
    r = run("sallyport", "-t", "-c", conf)
    assert r.returncode == 78
    said = r.stdout + r.stderr
    for line, words in ((2, "tls-required"), (4, "listen"), (6, "address"), (7, "secret_file"),
                        (8, "auth")):
        assert re.search(rf"broken\.conf:{line}:.*{words}", said), said
    assert re.search(r"\b[5-9] errors", said), said


def test_user_that_does_not_exist(us):
    """A start that fails after binding ends at once, although the inside could be reached."""
    text = us.gateway.conf.read_text()
    text = re.sub(r'"[^"]*:5269"', f'"{us.lab.ip(RAW + 9)}:5269"', text)
    other = us.lab.conf("no-user.conf", text + 'user = "no-such-user";\n')
    began = time.monotonic()
    r = run("sallyport", "-c", other)
    assert r.returncode == 78 and "no-such-user" in r.stderr, r
    assert time.monotonic() - began < 3


def test_check_of_a_good_file(us):
    r = run("sallyport", "-t", "-c", us.gateway.conf)
    assert r.returncode == 0, r.stdout + r.stderr


def test_start_with_a_broken_file(lab):
    r = run("sallyport", *labnet.root_option(), "-c", lab.conf("broken.conf", BROKEN))
    assert r.returncode == 78


def test_readable_secret_is_refused(lab, us):
    text = us.gateway.conf.read_text()
    secret = lab.dir / "conf" / "open.secret"
    secret.write_text("x\n")
    secret.chmod(0o644)
    conf = lab.conf("open-secret.conf", re.sub(r'(component = [^;]*; secret_file = )"[^"]*"',
                                               rf'\1"{secret}"', text))
    r = run("sallyport", "-t", "-c", conf)
    assert r.returncode == 78 and "open.secret" in r.stdout + r.stderr


def test_address_in_use(us):
    r = run("sallyport", *labnet.root_option(), "-c", us.gateway.conf)
    assert r.returncode == 69 and us.address in r.stderr


# ---- reload ------------------------------------------------------------------------------------

def test_reload_of_a_broken_file_changes_nothing(us):
    good = us.gateway.conf.read_text()
    since = us.gateway.log_size()
    us.gateway.edit(r'^security_mode\s*=\s*"[^"]*"', 'security_mode = "tls-requird"')
    us.gateway.signal(signal.SIGHUP)
    line = us.gateway.wait_log(r"tls-requird", since)
    assert re.search(r"\b(error|warn)\b", line), line
    assert not re.search(labnet.LOG_MODE_CHANGED, us.gateway.log(since))
    works(us, "after-broken-reload")
    us.gateway.conf.write_text(good)
    since = us.gateway.set_mode("tls-optional")
    line = us.gateway.wait_log(labnet.LOG_MODE_CHANGED, since)
    assert "no-tls" in line and "tls-optional" in line, line
    works(us, "after-repair")
    since = us.gateway.set_mode("no-tls")
    us.gateway.wait_log(labnet.LOG_MODE_CHANGED, since)


def test_reload_of_the_allow_list(us):
    """A domain taken off the list is refused from then on, also on its running stream."""
    s = authorised(us.address, "raw.lab", "alpha.lab")
    us.gateway.edit(r'(domain = "raw\.lab"; policy = )"allow"', r'\1"deny"')
    since = us.gateway.log_size()
    us.gateway.signal(signal.SIGHUP)
    us.gateway.wait_log(r"config\.changed", since)
    us.user.message("j@raw.lab", "to-denied", "?")
    condition, _, text = us.bounce("to-denied")
    assert condition in ("not-allowed", "policy-violation"), text
    try:
        s.send(message("a@raw.lab", us.user.jid, "from-denied"))
        while s.read() is not None:
            pass
    except Exception as e:
        assert type(e).__name__ in ("Closed", "Timeout", "BrokenPipeError", "ConnectionResetError")
    assert us.user.seen(id="from-denied") == []
    s.close()
    us.gateway.edit(r'(domain = "raw\.lab"; policy = )"deny"', r'\1"allow"')
    since = us.gateway.log_size()
    us.gateway.signal(signal.SIGHUP)
    us.gateway.wait_log(r"config\.changed", since)
    works(us, "allowed-again")


def test_router_reload_keeps_links(us):
    us.router.signal(signal.SIGHUP)
    us.router.wait_log(r"config\.")
    works(us, "after-router-reload")


# ---- stop --------------------------------------------------------------------------------------

def test_terminate_when_idle(fresh_lab):
    lab = fresh_lab
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)]})
    us = Inside(lab, mode="no-tls")
    began = time.monotonic()
    us.gateway.signal(signal.SIGTERM)
    assert us.gateway.wait() == 0
    us.router.signal(signal.SIGTERM)
    assert us.router.wait() == 0
    assert time.monotonic() - began < 5


def test_terminate_with_streams_and_queued_stanzas(fresh_lab):
    """The stream is closed in good order, what waits for a stalled peer comes back, exit 0."""
    lab = fresh_lab
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)], "raw.lab": [(RAW, labnet.S2S, 10)],
             "stall.lab": [(RAW + 1, labnet.S2S, 10)]})
    honest = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
    stalled = lab.at_end(RemoteServer(lab.ip(RAW + 1), "stall.lab", stall="features"))
    us = Inside(lab, mode="no-tls", peers=[{"domain": "*", "policy": "allow"}],
                timeouts={"drain": "2s", "close": "1s", "auth": "20s", "queue": "20s"})
    s = authorised(us.address, "raw.lab", "alpha.lab")
    us.user.message("j@raw.lab", "sent", "on its way")
    honest.expect_stanza("sent")
    for i in range(5):
        us.user.message("j@stall.lab", f"queued-{i}", "?")
    stalled.wait(lambda: stalled.streams, what="the gateway to dial the stalled peer")
    began = time.monotonic()
    us.gateway.signal(signal.SIGTERM)
    for i in range(5):
        us.bounce(f"queued-{i}")
    assert us.gateway.wait() == 0
    assert time.monotonic() - began < 8
    assert s.read_error() == "system-shutdown"
    assert s.closed_properly
    s.close()


def test_second_signal_ends_it_now(fresh_lab):
    lab = fresh_lab
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)], "stall.lab": [(RAW, labnet.S2S, 10)]})
    stalled = lab.at_end(RemoteServer(lab.ip(RAW), "stall.lab", stall="result"))
    us = Inside(lab, mode="no-tls", peers=[{"domain": "*", "policy": "allow"}],
                timeouts={"drain": "60s", "close": "60s", "auth": "60s", "queue": "60s"})
    us.user.message("j@stall.lab", "queued", "?")
    stalled.wait(lambda: stalled.keys, what="a stream that waits for the stalled peer")
    since = us.gateway.log_size()
    us.gateway.signal(signal.SIGTERM)
    us.gateway.wait_log(r"drain", since)  # two signals at once would be one
    us.bounce("queued")
    assert us.gateway.alive()
    us.gateway.signal(signal.SIGTERM)
    assert us.gateway.wait(8) == 0
