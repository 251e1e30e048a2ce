"""The control socket and sallyportctl: every command against programs that carry traffic, who may
do what, and clients that nobody would wish for."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import labnet
import pytest
from conftest import Inside
from ctl import Ctl
from labnet import Net, program, wait_for
from peers import RemoteServer, authorised, message

RAW, DEAD = 41, 43
READER, OPERATOR, ADMIN = 61001, 61002, 61003
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="other users need root")


class Echo(RemoteServer):
    """A remote server that answers pings, on a stream of its own."""

    def note(self, where, what):
        super().note(where, what)
        if where is self.stanzas and what[1].tag.endswith("}iq") and what[1].get("type") == "get":
            threading.Thread(target=self._pong, args=(what[1],), daemon=True).start()

    def _pong(self, iq):
        s = authorised(self.gateway, self.domain, iq.get("from"))
        s.send(f"<iq type='result' id='{iq.get('id')}' from='{iq.get('to')}' "
               f"to='{iq.get('from')}'/>")


@pytest.fixture(scope="module")
def folder():
    path = tempfile.mkdtemp(prefix="sp-", dir="/tmp")  # a socket's path has room for 107 bytes
    os.chmod(path, 0o755)
    yield Path(path)
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def us(lab, folder):
    services = {d: [(h, labnet.S2S, 10)] for d, h in (("alpha.lab", Net.ALPHA), ("raw.lab", RAW),
                                                      ("dead.lab", DEAD))}
    lab.dns(services)
    remote = lab.at_end(Echo(lab.ip(RAW), "raw.lab"))
    extra = (f'events = {{ file = "{folder}/events.jsonl"; }};\n'
             f'control : {{ socket = "{folder}/c.sock"; mode = "0666"; operate = ["{OPERATOR}"]; '
             f'admin = ["{ADMIN}"]; }};\n')
    router = lab.router
    lab.router = lambda *a, **kw: router(*a, control=f"{folder}/r.sock", **kw)
    made = Inside(lab, mode="tls-optional", extra=extra, control=None,
                  timeouts={"close": "500ms"}, peers=[
        {"domain": "raw.lab", "policy": "allow"}, {"domain": "dead.lab", "policy": "allow"},
        {"domain": "routed.test", "route": "127.0.0.9:5269"}])
    remote.gateway = made.address
    made.remote = remote
    return made


@pytest.fixture(scope="module")
def ctl(us, folder):
    return Ctl(folder / "c.sock")


@pytest.fixture(scope="module")
def rctl(us, folder):
    return Ctl(folder / "r.sock", "-r")


@pytest.fixture(scope="module")
def load(us):
    """Messages both ways for as long as this file's tests run."""
    traffic = Load(us)
    yield traffic
    traffic.stop()


class Load:
    def __init__(self, us):
        self.us, self.sent, self.running = us, 0, True
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while self.running:
            self.us.user.message("j@raw.lab", f"load-{self.sent}", "x" * 200)
            self.sent += 1
            time.sleep(0.005)  # a rate, not a wait

    def arrived(self):
        return sum(1 for _, e in self.us.remote.stanzas if (e.get("id") or "")[:5] == "load-")

    def goes_on(self):
        """Something sent from now on arrives."""
        before = self.sent + 1
        self.us.remote.expect_stanza(f"load-{before}")

    def stop(self):
        self.running = False
        self.thread.join()


def settled(us, load):
    load.goes_on()
    s = authorised(us.address, "raw.lab", "alpha.lab")
    s.send(message("a@raw.lab", us.user.jid, f"in-{id(s)}"))
    us.user.expect(kind="message", id=f"in-{id(s)}")
    return s


# ---- every command -----------------------------------------------------------------------------

def test_looking(us, ctl, load):
    s = settled(us, load)
    status = ctl.ok("status")
    assert status["program"] == "sallyport" and status["state"] == "running"
    assert (status["links"], status["links_up"]) == (1, 1) and status["streams_in"] >= 1
    streams = ctl.ok("streams")["streams"]
    mine = f"{s.sock.getsockname()[0]}:{s.sock.getsockname()[1]}"
    row = next(r for r in streams if r["addr"] == mine)
    assert row["dir"] == "in" and row["peer"] == "raw.lab" and row["local"] == "alpha.lab"
    assert (row["tls"], row["mech"], row["stanzas"], row["pairs"]) == ("none", "dialback", 1, 1)
    assert row["bytes_in"] > 100 and row["age"] >= 0
    out = next(r for r in streams if r["dir"] == "out" and r["state"] == "READY")
    assert out["addr"] == f"{us.lab.ip(RAW)}:{labnet.S2S}" and out["stanzas"] > 0
    assert ctl.ok("streams", "nobody.lab")["streams"] == []
    pairs = ctl.ok("pairs", "raw.lab")["pairs"]
    assert {(p["dir"], p["state"], p["mech"]) for p in pairs} >= {
        ("in", "valid", "dialback"), ("out", "valid", "dialback")}
    peer = ctl.ok("peers", "raw.lab")["peers"][0]
    assert peer["state"] == "READY" and peer["policy"] == "allow" and peer["in"] >= 1
    link = ctl.ok("links")["links"][0]
    assert link["link"] == "core" and link["state"] == "up" and link["protocol"] == "component"
    assert {t["dir"] for t in ctl.ok("links")["traffic"]} == {"in", "out"}
    routes = ctl.ok("routes")
    assert routes["used"] and routes["routes"][0]["peer"] == "routed.test"
    assert re.search(r"alpha-gateway\.conf:\d+$", routes["routes"][0]["origin"])
    s.close()


def test_state_of_tls(us, ctl, load):
    s = authorised(us.address, "raw.lab", "alpha.lab", tls=True)
    row = next(r for r in ctl.ok("streams", "raw.lab")["streams"]
               if r["addr"].endswith(f":{s.sock.getsockname()[1]}"))
    assert row["state"] == "SECURE" and row["tls"].startswith("TLSv1.") and row["cipher"]
    assert row["cert"] == "none"
    s.close()


def test_counters_balance(us, ctl, load):
    for words in (("counters",), ("counters", "--balance")):
        rows = ctl.ok(*words)["stanzas"]
        assert [r["dir"] for r in rows] == ["in", "out"]
        for r in rows:
            assert r["balance"] == "ok"
            assert r["received"] + r["authored"] == sum(
                r[c] for c in ("delivered", "bounced", "dropped", "waiting", "writing"))
    assert ctl.ok("counters")["counters"]["streams_in"] >= 1


def test_queue_of_a_peer_that_stalls(us, ctl, load):
    stalled = RemoteServer(us.lab.ip(DEAD), "dead.lab", stall="header")
    us.user.message("j@dead.lab", "waits", "x")
    rows = wait_for(lambda: [q for q in ctl.ok("queues")["queues"] if q["peer"] == "dead.lab" and
                             q["waits_for"] == "NEGOTIATING"])
    assert rows[0]["stanzas"] == 1
    assert ctl.ok("close", "dead.lab")["closed"] == 1
    stalled.close()
    us.bounce("waits")


def test_dns_and_certificates(us, ctl, load):
    dns = ctl.ok("dns")
    assert dns["servers"] == [us.lab.dns_server]
    assert any(t["domain"] == "raw.lab" and t["port"] == labnet.S2S for t in dns["targets"])
    assert "forgotten" in ctl.ok("dns", "flush")
    cert = ctl.ok("certs")["certificates"][0]
    assert cert["domain"] == "alpha.lab" and len(cert["sha256"]) == 95 and cert["until"] > "2026"
    assert "password only" in ctl.ok("auth-info")["identities"][0]["proof"]


def test_explain(us, ctl, load):
    yes = ctl.ok("explain", "alpha.lab", "raw.lab")
    assert yes["verdict"] == "allow" and yes["rule"] == "peer entry allows"
    assert re.search(r"alpha-gateway\.conf:\d+$", yes["origin"]) and yes["links"] == ["core"]
    assert ctl.ok("explain", "alpha.lab", "evil.example")["rule"] == "not on the allow list"
    assert ctl.ok("explain", "alpha.lab", "routed.test")["way"] == "127.0.0.9:5269"
    assert ctl.ok("explain", "beta.lab", "raw.lab")["verdict"] == "deny"
    assert ctl.error("explain", "alpha.lab")[:2] == (64, None)
    assert ctl.error("explain", "alpha.lab", "a b")[:2] == (64, "usage")


def test_close_a_stream(us, ctl, load):
    s = settled(us, load)
    row = next(r for r in ctl.ok("streams")["streams"]
               if r["addr"].endswith(f":{s.sock.getsockname()[1]}"))
    assert ctl.ok("close", row["id"])["closed"] == 1
    s.read_error()
    assert s.closed_properly
    assert ctl.error("close", 4000000)[:2] == (1, "not-found")
    out = ctl.ok("close", "raw.lab")["closed"]
    assert out >= 1
    load.goes_on()  # on a new stream
    s.close()


def test_block(us, ctl, load):
    s = settled(us, load)
    since = us.gateway.log_size()
    assert ctl.ok("block", "RAW.lab", "for", "1h") == {"blocked": "raw.lab", "for": 3600}
    assert ctl.ok("explain", "alpha.lab", "raw.lab")["rule"] == "blocked by the operator"
    us.gateway.wait_log(r"peer\.blocked .*peer=raw\.lab", since)
    us.user.message("j@raw.lab", "to-blocked", "?")
    assert us.bounce("to-blocked")[0] == "not-allowed"
    s.read_error()
    row = ctl.ok("peers", "raw.lab")["peers"][0]
    assert row["policy"] == "deny" and 3500 < row["blocked_for"] <= 3600
    assert ctl.ok("unblock", "raw.lab") == {"unblocked": "raw.lab"}
    assert ctl.error("unblock", "raw.lab")[:2] == (1, "not-found")
    settled(us, load).close()
    # One that ends by itself.
    ctl.ok("block", "*.lab", "for", "1s")
    assert ctl.ok("explain", "alpha.lab", "raw.lab")["verdict"] == "deny"
    wait_for(lambda: ctl.ok("explain", "alpha.lab", "raw.lab")["verdict"] == "allow")
    load.goes_on()
    for bad in (("block", "not a domain"), ("block", "*"), ("block", "a.lab", "for", "soon"),
                ("block", "a.lab", "for", "9999d")):
        assert ctl.error(*bad)[:2] == (64, "usage"), bad


def test_retry(us, ctl, load):
    assert ctl.error("retry", "never.seen")[:2] == (1, "not-found")
    us.user.message("j@dead.lab", "nobody-there", "?")
    us.bounce("nobody-there")
    honest = RemoteServer(us.lab.ip(DEAD), "dead.lab")
    assert ctl.ok("retry", "dead.lab")["peer"] == "dead.lab"
    us.user.message("j@dead.lab", "now", "?")
    honest.expect_stanza("now")
    honest.close()
    ctl.run("close", "dead.lab")


def test_ping(us, ctl, load):
    pong = ctl.ok("ping", "somebody@raw.lab/phone")
    assert pong["answer"] == "pong" and 0 <= pong["took"] < 10
    assert "pong" in ctl.text("ping", "raw.lab", "from", "alpha.lab")
    code, word, text = ctl.error("ping", "j@evil.example")
    assert (code, word) == (1, "failed") and "allow list" in text
    assert ctl.error("ping", "x@alpha.lab")[:2] == (1, "failed")
    assert ctl.error("ping", "raw.lab", "from", "beta.lab")[:2] == (1, "failed")
    assert ctl.error("ping", "@")[:2] == (64, "usage")
    code, word, text = ctl.error("ping", "dead.lab")
    assert code == 1 and us.lab.ip(DEAD) in text
    # Who does not wait for the answer takes nothing with him.
    assert ctl.run("ping", "silent.lab", options=["-t", "1"]).returncode in (1, 75)


def test_config(us, ctl, load):
    settings = {s["key"]: s for s in ctl.ok("config", "show")["settings"]}
    assert settings["security_mode"]["value"] == '"tls-optional"'
    assert settings["timeouts.auth"]["origin"] == "default"
    assert "secret" not in settings["dialback.secret_file"]["value"].replace(".secret", "")
    assert [s["key"] for s in ctl.ok("config", "show", "log.")["settings"]] == [
        "log.level", "log.format", "log.rate"]
    good = us.gateway.conf.read_text()
    other = us.lab.conf("other.conf", good.replace('"tls-optional"', '"no-tls"'))
    check = ctl.ok("config", "check", other)
    assert check["fine"] and {"key": "security_mode", "old": "tls-optional", "new": "no-tls",
                              "restart": "no"} in check["changes"]
    bad = us.lab.conf("bad.conf", good.replace('"tls-optional"', '"tls-optinal"'))
    r = ctl.run("config", "check", bad)
    assert r.returncode == 78 and "did you mean" in r.stdout and "bad.conf:2" in r.stdout
    os.mkfifo(us.lab.dir / "conf" / "fifo")
    r = ctl.run("config", "check", us.lab.dir / "conf" / "fifo")  # must not hold up the loop
    assert r.returncode == 78
    load.goes_on()
    us.gateway.conf.write_text(good.replace('"tls-optional"', '"no-tls"').replace(
        'rate = 0', 'rate = 1000'))
    changes = {c["key"]: (c["old"], c["new"]) for c in ctl.ok("config", "reload")["changes"]}
    assert changes == {"security_mode": ("tls-optional", "no-tls"), "log.rate": ("0", "1000")}
    us.gateway.conf.write_text(bad.read_text())
    code, word, text = ctl.error("config", "reload")
    assert (code, word) == (78, "configuration") and "tls-optinal" in text
    us.gateway.conf.write_text(good)
    assert len(ctl.ok("config", "reload")["changes"]) == 2
    assert ctl.ok("config", "reload")["changes"] == []


def test_restart_alarm(us, ctl, load):
    good = us.gateway.conf.read_text()
    us.gateway.conf.write_text(good + 'user = "nobody";\n')
    assert ctl.ok("config", "reload")["changes"][0]["restart"] == "needed"
    alarm = ctl.ok("alarms")["alarms"][0]
    assert (alarm["kind"], alarm["subject"]) == ("config.restart", "user")
    us.gateway.conf.write_text(good)
    ctl.ok("config", "reload")
    assert ctl.ok("alarms")["alarms"] == []


def test_log_level(us, ctl, load):
    assert ctl.ok("log", "level", "error") == {"module": "(all)", "level": "error"}
    assert ctl.ok("log", "level", "control", "debug")["module"] == "control"
    since = us.gateway.log_size()
    ctl.ok("status")
    us.gateway.wait_log(r"control\.request .*command=status", since)
    assert "s2s." not in us.gateway.log(since)
    assert ctl.error("log", "level", "loud")[:2] == (64, "usage")
    assert ctl.error("log", "level", "Not.A.Name", "info")[:2] == (1, "failed")
    ctl.ok("config", "reload")
    assert ctl.ok("status")["log_level"] == "debug"


def test_events(us, ctl, load, folder):
    settled(us, load).close()
    events = ctl.ok("events")["events"]
    kinds = {e["kind"] for e in events}
    assert {"start", "link.up", "stream.up", "operator"} <= kinds, kinds
    up = next(e for e in events if e["kind"] == "stream.up" and "alpha.lab" in e["text"])
    assert up["subject"] == "raw.lab"
    follow = subprocess.Popen([ctl.program, "-s", ctl.path, "--json", "events", "--follow"],
                              stdout=subprocess.PIPE, text=True)
    try:
        json.loads(follow.stdout.readline())["ok"]["events"]
        ctl.ok("block", "followed.example", "for", "1m")
        ctl.ok("unblock", "followed.example")
        for line in follow.stdout:
            if json.loads(line)["event"]["subject"] == "followed.example":
                break
    finally:
        follow.terminate()
        follow.wait()
        follow.stdout.close()
    lines = [json.loads(x)["event"] for x in (folder / "events.jsonl").read_text().splitlines()]
    assert lines[-1]["id"] >= events[-1]["id"] and any(e["kind"] == "link.up" for e in lines)


def test_the_router(us, rctl, load):
    assert rctl.ok("status")["links_up"] == 2
    assert {k["role"] for k in rctl.ok("links")["links"]} == {"gateway", "server"}
    routes = {(r["domain"], r["link"], r["state"]) for r in rctl.ok("routes")["routes"]}
    assert routes == {("alpha.lab", "im", "up"), ("(every other domain)", "edge1", "up")}
    assert rctl.ok("counters")["counters"]["in"] > 0
    assert rctl.ok("splices")["splices"] == [] and rctl.ok("alarms")["alarms"] == []
    assert rctl.ok("config", "show", "listen")["settings"]
    assert rctl.ok("config", "check", us.lab.dir / "conf" / "alpha-router.conf")["fine"]
    assert rctl.ok("config", "reload")["changes"] == []
    assert len(rctl.ok("auth-info")["identities"]) == 2
    assert rctl.ok("log", "level", "debug")["level"] == "debug"
    ups = next(k for k in rctl.ok("links")["links"] if k["link"] == "edge1")["ups"]
    assert rctl.ok("close", "edge1")["closed"] == 1
    assert rctl.error("close", "nobody")[:2] == (1, "not-found")
    wait_for(lambda: next(k for k in rctl.ok("links")["links"] if k["link"] == "edge1")["ups"]
             == ups + 1)
    assert "link.down" in rctl.text("events") and "LINK" in rctl.text("links")
    load.goes_on()


def test_tables(us, ctl, load):
    """What people read: every command that only looks, without --json."""
    for words in ("status", "streams", "peers", "pairs", "queues", "links", "routes", "alarms",
                  "counters", "dns", "certs", "config show", "auth-info", "events"):
        assert ctl.text(*words.split()).strip(), words
    assert ctl.run("status", options=["-q"]).stdout == ""
    assert re.match(r"ID +DIR +PEER", ctl.text("streams"))


# ---- exit codes --------------------------------------------------------------------------------

def test_exit_codes(us, ctl, folder):
    none = Ctl(folder / "nobody.sock")
    assert none.run("status").returncode == 3
    (folder / "file.sock").write_text("")
    assert Ctl(folder / "file.sock").run("status").returncode == 3
    r = ctl.run("statsu")
    assert r.returncode == 64 and "did you mean 'status'?" in r.stderr
    assert ctl.run("reload").returncode == 64 and "config reload" in ctl.run("reload").stderr
    assert ctl.run().returncode == 64
    assert ctl.run("streams", "a", "b").returncode == 64
    assert ctl.run("status", options=["--no-such"]).returncode == 64
    assert ctl.run("status", options=["-t", "x"]).returncode == 64
    assert none.run("completion", "bash").returncode == 0
    assert none.run("status", options=["--help"]).returncode == 0
    # By the program's own configuration.
    found = subprocess.run([ctl.program, "-c", us.gateway.conf, "status"], capture_output=True,
                           timeout=20)
    assert found.returncode == 0, found
    assert subprocess.run([ctl.program, "-c", folder / "none.conf", "status"],
                          capture_output=True, timeout=20).returncode == 66
    # Somebody who accepts and says nothing.
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(folder / "mute.sock"))
        mute.listen()
        assert Ctl(folder / "mute.sock").run("status", options=["-t", "1"]).returncode == 75


def test_completion(ctl):
    script = ctl.run("completion", "bash").stdout
    ask = (script + '\nCOMP_WORDS=(sallyportctl config ""); COMP_CWORD=2; _sallyportctl; '
           'echo "${COMPREPLY[@]}"\nCOMP_WORDS=(sallyportctl str); COMP_CWORD=1; _sallyportctl; '
           'echo "${COMPREPLY[@]}"\nCOMP_WORDS=(sallyportctl -r spl); COMP_CWORD=2; _sallyportctl;'
           'echo "${COMPREPLY[@]}"\n')
    r = subprocess.run(["bash", "--norc", "-c", ask], capture_output=True, text=True, timeout=10)
    assert r.stdout.splitlines() == ["show check reload", "streams", "splices"], r


# ---- who may do what ---------------------------------------------------------------------------

@needs_root
def test_privileges(us, ctl, folder):
    reader, operator, admin = (Ctl(folder / "c.sock", uid=u) for u in (READER, OPERATOR, ADMIN))
    for who in (reader, operator, admin):
        assert who.ok("status")["program"] == "sallyport"
    since = us.gateway.log_size()
    for words in ("close 1", "block x.lab", "retry x.lab", "dns flush", "log level debug", "drain",
                  "stop", "config reload", f"config check {us.gateway.conf}", "ping raw.lab"):
        assert reader.error(*words.split())[:2] == (77, "permission"), words
    us.gateway.wait_log(rf"control\.denied uid={READER} .*command=stop", since)
    for words in ("drain", "stop", "config reload", f"config check {us.gateway.conf}"):
        assert operator.error(*words.split())[:2] == (77, "permission"), words
    assert operator.ok("dns", "flush") and admin.ok("config", "reload")["changes"] == []
    assert any(f"uid {OPERATOR}" in e["text"] for e in ctl.ok("events")["events"])
    # A file that is not for others.
    r = Ctl(folder / "r.sock", "-r", uid=READER).run("status")
    assert r.returncode == 77, r
    assert oct((folder / "r.sock").stat().st_mode)[-3:] == "660"


# ---- hostile clients ---------------------------------------------------------------------------

def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(str(path))
    return s


def read_line(s):
    data = b""
    while not data.endswith(b"\n"):
        piece = s.recv(65536)
        if not piece:
            break
        data += piece
    return data


@pytest.mark.parametrize("what", [
    b"x" * 5000, b"\0\xff" * 3000, b"status\0\n", b"\x16\x03\x01\x02\x00\x01\x00\n",
    b"<stream:stream>\n", b"{\"json\":1}\n", b"GET / HTTP/1.1\r\n", b'close "\n', b"\n",
    b" ".join([b"a"] * 40) + b"\n"])
def test_rubbish(us, ctl, load, what):
    with connect(ctl.path) as s:
        s.sendall(what)
        answer = json.loads(read_line(s))
        assert answer["error"]["code"] in ("syntax", "unknown-command", "usage"), answer
    load.goes_on()
    assert ctl.ok("status")


def test_many_lines_at_once(us, ctl, load):
    """Served one by one, all of them; also when the client has closed its side."""
    with connect(ctl.path) as s:
        s.sendall(b"status\nalarms\r\n" * 100)
        s.shutdown(socket.SHUT_WR)
        data = b""
        while piece := s.recv(65536):
            data += piece
    lines = [json.loads(x) for x in data.splitlines()]
    assert len(lines) == 200 and all("ok" in x for x in lines)
    load.goes_on()


def test_hostile_crowd(us, ctl, load):
    """200 connections: silent, half a line, never reading, gone in the middle. The operator still
    gets his answer at once, and traffic goes on."""
    crowd = []
    for i in range(200):
        s = connect(ctl.path)
        crowd.append(s)
        try:
            if i % 4 == 1:
                s.sendall(b"stat")
            elif i % 4 == 2:
                s.sendall(b"config show\n" * 300)  # and never reads
            elif i % 4 == 3:
                s.sendall(b"events --follow\n")
                s.close()
        except (BrokenPipeError, ConnectionResetError):
            pass
        if i % 20 == 0:
            began = time.monotonic()
            assert ctl.ok("status")["state"] == "running"
            assert time.monotonic() - began < 3
    load.goes_on()
    for s in crowd:
        s.close()
    descriptors = Path(f"/proc/{us.gateway.pid}/fd")
    wait_for(lambda: len(list(descriptors.iterdir())) < 40, what="the descriptors to be closed")
    assert ctl.ok("status")["state"] == "running"


def test_long_lists_come_in_pages(us, ctl, load):
    """A reply has an end; what does not fit is asked for again, by the program itself."""
    from_rows = ctl.ok("config", "show")["settings"]
    with connect(ctl.path) as s:
        s.sendall(b"config show --from 5\n")
        rest = json.loads(read_line(s))["ok"]["settings"]
    assert rest == from_rows[5:]


# ---- the file and the end ----------------------------------------------------------------------

def test_a_live_socket_is_not_taken(us, folder):
    text = us.gateway.conf.read_text()
    elsewhere = re.sub(r'"[^"]*:5269"\]', f'"{us.lab.ip(99)}:5269"]', text, count=1)
    other = us.lab.conf("second.conf", elsewhere)
    r = subprocess.run([program("sallyport"), *labnet.root_option(), "-c", other],
                       capture_output=True, text=True, timeout=20)
    assert r.returncode == 69 and "in use" in r.stderr, r


def test_a_stale_socket_is_replaced_and_drain_ends(fresh_lab, folder):
    lab = fresh_lab
    path = folder / "d.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)]})
    us = Inside(lab, mode="no-tls", control=path)
    ctl = Ctl(path)
    assert ctl.ok("drain") == {"state": "draining"}
    assert us.gateway.wait() == 0
    assert not path.exists()
    assert ctl.run("status").returncode == 3
    gateway = lab.start_gateway("again", us.gateway.conf, Net.ALPHA)
    assert ctl.ok("stop") == {"state": "stopping"}
    assert gateway.wait() == 0


def test_without_a_socket(fresh_lab, folder):
    """None is wanted; one that is named has to be possible."""
    lab = fresh_lab
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)]})
    us = Inside(lab, mode="no-tls")
    assert subprocess.run([Ctl(folder / "c.sock").program, "-c", us.gateway.conf, "status"],
                          capture_output=True, timeout=10).returncode == 3
    us.gateway.signal(signal.SIGTERM)
    us.gateway.wait()
    us.gateway.edit(r'socket = ""', f'socket = "{folder}/no/such/folder/c.sock"')
    r = subprocess.run([program("sallyport"), *labnet.root_option(), "-c", us.gateway.conf],
                       capture_output=True, text=True, timeout=20)
    assert r.returncode == 69 and "control socket" in r.stderr, r


@needs_root
def test_the_socket_belongs_to_the_programs_user(fresh_lab, folder):
    """Started as root: the missing folder and the socket are made for the user that it becomes."""
    lab = fresh_lab
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)]})
    path = folder / "run" / "c.sock"
    us = Inside(lab, mode="no-tls", control=path, extra='user = "nobody";\n')
    nobody = path.stat().st_uid
    assert nobody != 0 and path.parent.stat().st_uid == nobody
    owner = Ctl(path, uid=nobody, folder=folder)
    assert owner.ok("drain") == {"state": "draining"}
    assert us.gateway.wait() == 0
    assert not path.exists()
