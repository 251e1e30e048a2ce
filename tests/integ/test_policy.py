"""Who may talk to whom: lists, directions, entries with an end, files, an allow list on trial,
federation off, routes, and what a reload says that it will do. Real streams."""
import datetime
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import labnet
import pytest
from conftest import Inside
from ctl import Ctl
from labnet import Net, program, wait_for
from peers import RESULT, RemoteServer, authorised, dial, message, stanza_error

RAW, TWO = 41, 43
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def folder():
    path = tempfile.mkdtemp(prefix="sp-", dir="/tmp")  # a socket's path has room for 107 bytes
    os.chmod(path, 0o755)
    yield Path(path)
    shutil.rmtree(path)


class Us(Inside):
    """The gateway, and its policy section as the tests need it."""

    def __init__(self, lab, folder):
        super().__init__(lab, mode="tls-optional", control=folder / "c.sock",
                         timeouts={"close": "500ms", "connect": "1s", "queue": "4s"})
        self.ctl = Ctl(folder / "c.sock")
        self.base = self.gateway.conf.read_text()
        self.n = 0

    def settings(self, peers="", more="", privacy="allow-list"):
        """The text of the configuration with these entries in it."""
        text = re.sub(r"^peers .*$", lambda m: f"peers = ({peers});\n{more}", self.base, flags=re.M)
        return text.replace('"allow-list"', f'"{privacy}"')

    def use(self, *args, **kw):
        self.gateway.conf.write_text(self.settings(*args, **kw))
        return self.ctl.ok("config", "reload")["changes"]

    def sends(self, to):
        """The stanza's id."""
        self.n += 1
        self.user.message(f"j@{to}", f"m{self.n}", "words")
        return f"m{self.n}"

    def refused(self, to):
        return self.bounce(self.sends(to))

    def hears(self, stream, domain):
        self.n += 1
        stream.send(message(f"j@{domain}", self.user.jid, f"m{self.n}"))
        self.user.expect(kind="message", id=f"m{self.n}")

    def result(self, domain, local="alpha.lab"):
        """What a stranger without a key is told, before anybody is asked: a condition."""
        s = dial(self.address, None, local)
        s.ask_result(domain, local)
        answer = s.expect(RESULT)
        s.close()
        return answer.get("type"), stanza_error(answer)[0]

    def refusals(self):
        return {(r["rule"], r.get("entry")): r for r in self.ctl.ok("policy")["refusals"]}


@pytest.fixture(scope="module")
def us(lab, folder):
    hosts = (("alpha.lab", Net.ALPHA), ("raw.lab", RAW), ("two.lab", TWO))
    lab.dns({d: [(h, labnet.S2S, 10)] for d, h in hosts},
            extra=[f"host-record=way.routed.lab,{lab.ip(TWO)}"])
    made = Us(lab, folder)
    made.raw = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
    made.two = lab.at_end(RemoteServer(lab.ip(TWO), "two.lab"))
    return made


ALLOW_RAW = '{ domain = "raw.lab"; policy = "allow"; }'


def test_nobody_then_one(us):
    assert us.refused("raw.lab")[0] == "not-allowed"
    assert us.result("raw.lab") == ("error", "not-allowed")
    s = dial(us.address, "raw.lab", "alpha.lab", features=False)
    s.read_header()
    assert s.read_error() == "policy-violation"
    row = us.refusals()[("not on the allow list", None)]
    assert (row["count"], row["from_outside"]) == (3, 2)
    assert (row["local"], row["peer"]) == ("alpha.lab", "raw.lab") and row["last"][:2] == "20"
    assert us.use(ALLOW_RAW)[0]["key"] == "peers[raw.lab]"
    us.raw.expect_stanza(us.sends("raw.lab"))
    us.hears(authorised(us.address, "raw.lab", "alpha.lab"), "raw.lab")
    assert us.refused("two.lab")[0] == "not-allowed"
    assert "RULE" in us.ctl.text("policy")


def test_one_way_only(us):
    us.use('{ domain = "raw.lab"; policy = "allow"; direction = "in"; comment = "a feed"; },'
           '{ domain = "two.lab"; policy = "allow"; direction = "out"; }')
    # In: its key is verified by asking it, which needs a stream out; nobody may write on that.
    s = authorised(us.address, "raw.lab", "alpha.lab")
    us.hears(s, "raw.lab")
    assert us.refused("raw.lab")[0] == "not-allowed"
    us.hears(s, "raw.lab")  # the stream that asks and the one that writes have survived that
    # Out: our key is verified by asking us, on a stream that is let in for it.
    us.two.expect_stanza(us.sends("two.lab"))
    assert us.result("two.lab") == ("error", "not-allowed")
    ask = dial(us.address, "two.lab", "alpha.lab")
    ask.ask_verify("two.lab", "alpha.lab", "some-id", "no-key")
    assert ask.read().get("type") == "invalid"
    ask.close()
    e = us.ctl.ok("explain", "alpha.lab", "raw.lab")
    assert (e["verdict"], e["direction"], e["comment"]) == ("allow", "in", "a feed")
    assert e["out"] == "not on the allow list"
    assert us.ctl.ok("explain", "alpha.lab", "two.lab")["direction"] == "out"


def test_pairs(us):
    """Of two local domains one may; what waits for the other ends, and what flows goes on."""
    domains = re.search(r"^domains .*$", us.base, re.M).group(0)
    both = domains.replace("(", '( { name = "other.alpha.lab"; },', 1)
    base, us.base = us.base, us.base.replace(domains, both)
    us.use('{ domain = "raw.lab"; policy = "allow"; local = "other.alpha.lab"; }')
    assert us.refused("raw.lab")[0] == "not-allowed"
    assert us.result("raw.lab") == ("error", "not-allowed")
    s = authorised(us.address, "raw.lab", "other.alpha.lab")
    assert us.result("raw.lab", "other.alpha.lab")[1] != "not-allowed"
    us.use('{ domain = "raw.lab"; policy = "allow"; local = ["other.alpha.lab", "alpha.lab"]; }')
    us.raw.expect_stanza(us.sends("raw.lab"))
    s.ask_result("raw.lab", "alpha.lab")
    assert s.expect(RESULT).get("type") == "valid"
    effects = [c.get("effect") for c in us.use(
        '{ domain = "raw.lab"; policy = "allow"; local = "alpha.lab"; }')]
    assert effects == [effects[0]] and "with raw.lab ended" in effects[0]
    assert s.read_error() == "policy-violation"  # it had a pair that may not be any more
    us.raw.expect_stanza(us.sends("raw.lab"))
    us.base = base
    us.use(ALLOW_RAW)


def test_an_entry_ends(us):
    now = datetime.datetime.now(datetime.timezone.utc)
    us.use(f'{{ domain = "raw.lab"; policy = "allow"; until = "{(now + DAY).date()}"; }}')
    us.raw.expect_stanza(us.sends("raw.lab"))
    s = authorised(us.address, "raw.lab", "alpha.lab")
    soon = now + datetime.timedelta(seconds=3)
    us.use(f'{{ domain = "raw.lab"; policy = "allow"; until = "{soon:%Y-%m-%dT%H:%M:%S}Z"; }}')
    us.hears(s, "raw.lab")
    assert us.ctl.ok("policy")["dated"][0]["over"] == "no"
    assert s.read_error() == "policy-violation"  # when its time has come
    assert us.refused("raw.lab")[0] == "not-allowed"
    alarm, = us.ctl.ok("alarms")["alarms"]
    assert (alarm["kind"], alarm["subject"]) == ("policy.expired", "raw.lab")
    assert us.ctl.ok("policy")["dated"][0]["over"] == "yes"
    us.ctl.ok("config", "reload")  # it is still there, and still over
    assert len(us.ctl.ok("alarms")["alarms"]) == 1
    check = us.ctl.ok("config", "check", us.gateway.conf)
    assert check["fine"] and "this entry is over and does not count" in check["problems"][0]
    us.use(ALLOW_RAW)
    assert us.ctl.ok("alarms")["alarms"] == []
    us.raw.expect_stanza(us.sends("raw.lab"))


def test_files(us):
    allow, deny = us.lab.conf("allow.txt", "# partners\nraw.lab\n"), us.lab.conf("deny.txt", "")
    files = f'allow_file = "{allow}"; deny_file = "{deny}";'
    us.use('{ domain = "two.lab"; policy = "allow"; direction = "in"; },'
           '{ domain = "gone.lab"; policy = "deny"; comment = "spam"; }', files)
    us.raw.expect_stanza(us.sends("raw.lab"))
    e = us.ctl.ok("explain", "alpha.lab", "raw.lab")
    assert e["rule"] == "allow_file" and e["origin"].endswith("allow.txt:2")
    text = us.ctl.text("policy", "export", "allow")
    assert text == "# not in this form: two.lab, they to us only\nraw.lab\n"
    assert us.ctl.text("policy", "export", "deny") == "gone.lab  # spam\n"
    # What was exported is a list again; a reload tells what has changed in it, and does it.
    allow.write_text(text.replace("raw.lab", "*.elsewhere.lab"))
    deny.write_text("raw.lab\n")
    changes = {c["key"]: c for c in us.ctl.ok("config", "reload")["changes"]}
    assert set(changes) == {"allow_file", "deny_file"}
    assert changes["allow_file"]["new"].endswith("(1: +*.elsewhere.lab -raw.lab)")
    assert re.search(r"\d streams? with raw\.lab ended", " ".join(
        c.get("effect", "") for c in changes.values()))
    assert us.refused("raw.lab")[0] == "not-allowed"
    assert us.refusals()[("deny_file", "raw.lab")]["count"] >= 1
    allow.write_text("raw.lab\n")
    r = us.ctl.run("config", "reload")
    assert r.returncode == 78 and "on the deny list, too" in r.stderr
    us.use(ALLOW_RAW)


def test_on_trial(us):
    """Nothing is refused but what is denied; what would be is told once a pair, and proposed."""
    us.use('{ domain = "two.lab"; policy = "deny"; }', "privacy_shadow = true;")
    since = us.gateway.log_size()
    us.raw.expect_stanza(us.sends("raw.lab"))
    us.raw.expect_stanza(us.sends("raw.lab"))
    s = authorised(us.address, "raw.lab", "alpha.lab")
    us.hears(s, "raw.lab")
    assert us.refused("two.lab")[0] == "not-allowed"
    row, = us.ctl.ok("policy")["would_be_refused"]
    assert (row["local"], row["peer"], row["in"], row["out"]) == ("alpha.lab", "raw.lab", 1, 2)
    assert len(re.findall(r"policy\.shadow", us.gateway.log(since))) == 1
    assert "policy.shadow" in {e["kind"] for e in us.ctl.ok("events")["events"]}
    assert us.ctl.ok("counters")["counters"]["shadow_passed"] == 3
    drop_in = us.lab.dir / "conf" / "drop-ins"
    drop_in.mkdir()
    (drop_in / "proposed.conf").write_text(us.ctl.text("policy", "propose"))
    # The proposal as a drop-in, the trial over: what was seen still passes, on the same streams.
    changes = us.use('{ domain = "two.lab"; policy = "deny"; }', f'include_dir = "{drop_in}";')
    assert not any("effect" in c for c in changes), changes
    us.hears(s, "raw.lab")
    us.raw.expect_stanza(us.sends("raw.lab"))
    assert "Nothing was seen" in us.ctl.text("policy", "propose")
    s.close()
    us.use(ALLOW_RAW)


def test_federation_off(us):
    us.raw.expect_stanza(us.sends("raw.lab"))
    s = authorised(us.address, "raw.lab", "alpha.lab")
    off = us.settings(ALLOW_RAW).replace("federation        = true", "federation = false")
    us.gateway.conf.write_text(off)
    change, = us.ctl.ok("config", "reload")["changes"]
    assert change["key"] == "federation" and change["effect"].startswith("listening ends, ")
    assert "1 stream with raw.lab ended" in change["effect"] or "2 streams" in change["effect"]
    s.read_error()
    condition, _, text = us.refused("raw.lab")
    assert condition == "policy-violation" and "federation is off" in text
    wait_for(lambda: not labnet_listens(us))
    assert us.ctl.ok("explain", "alpha.lab", "raw.lab")["verdict"] == "off"
    us.use(ALLOW_RAW)
    us.raw.expect_stanza(us.sends("raw.lab"))
    authorised(us.address, "raw.lab", "alpha.lab").close()


def labnet_listens(us):
    try:
        dial(us.address, None, None).close()
        return True
    except OSError:
        return False


def test_routes(us):
    """Several, the first reachable counts; names are resolved; one switch for all."""
    dead, alive = f"{us.lab.ip(57)}:5269", f"{us.lab.ip(TWO)}:{labnet.S2S}"
    entry = f'{{ domain = "routed.lab"; route = ["{dead}", "way.routed.lab:{labnet.S2S}"]; }}'
    us.use(entry)
    two = us.two
    two.domain = "routed.lab"
    two.expect_stanza(us.sends("routed.lab"))
    rows = us.ctl.ok("routes")["routes"]
    assert [(r["peer"], r["order"], r["route"], r["used"]) for r in rows] == [
        ("routed.lab", 1, dead, "yes"), ("routed.lab", 2, f"way.routed.lab:{labnet.S2S}", "yes")]
    assert us.ctl.ok("explain", "alpha.lab", "routed.lab")["way"].startswith(f"{dead}, way.")
    tried = [t for t in us.ctl.ok("dns")["targets"] if t["domain"] == "routed.lab"]
    assert [t["now"] for t in tried] == ["no", "yes"]
    changes = {c["key"]: c.get("effect") for c in us.use(entry, "use_static_routes = false;")}
    assert re.fullmatch(r"\d streams? with routed.lab ended", changes["use_static_routes"])
    assert us.refused("routed.lab")[0] == "not-allowed"  # the route's consent has gone with it
    assert {r["used"] for r in us.ctl.ok("routes")["routes"]} == {"no"}
    us.use(entry.replace(dead, alive))
    two.expect_stanza(us.sends("routed.lab"))
    two.domain = "two.lab"
    us.use(ALLOW_RAW)


def test_what_a_reload_would_do(us):
    """The same words from the check, from -t, and from the reload; then the streams do it."""
    us.use(ALLOW_RAW)
    us.raw.expect_stanza(us.sends("raw.lab"))
    s = authorised(us.address, "raw.lab", "alpha.lab")
    wait_for(lambda: len(us.ctl.ok("streams", "raw.lab")["streams"]) == 2)
    stricter = us.settings(ALLOW_RAW).replace('"tls-optional"', '"tls-required"')
    draft = us.lab.conf("draft.conf", stricter)
    expected = "2 streams with raw.lab renewed"
    for path in (draft, draft):
        change, = us.ctl.ok("config", "check", path)["changes"]
        assert (change["key"], change["effect"], change["restart"]) == (
            "security_mode", expected, "no")
    r = subprocess.run([program("sallyport"), "-t", "-c", draft], capture_output=True, text=True,
                       timeout=20)
    assert r.returncode == 0 and "configuration is fine" in r.stdout, r
    assert re.search(rf"^security_mode +tls-optional +tls-required +no +{expected}$", r.stdout,
                     re.M), r.stdout
    us.hears(s, "raw.lab")  # nothing of it has been applied
    since = us.gateway.log_size()
    us.gateway.conf.write_text(stricter)
    us.gateway.signal(signal.SIGHUP)
    line = us.gateway.wait_log(r"config\.changed key=security_mode .*", since)
    assert f'effect="{expected}"' in (line if isinstance(line, str) else us.gateway.log(since))
    assert s.read_error() == "reset"
    gone = us.use("")
    assert {c["key"] for c in gone} == {"security_mode", "peers[raw.lab]"}
    # Without a gateway there is nothing to compare with, and no complaint.
    alone = us.lab.conf("alone.conf", stricter.replace("c.sock", "nobody.sock"))
    r = subprocess.run([program("sallyport"), "-t", "-c", alone], capture_output=True, text=True,
                       timeout=20)
    assert r.returncode == 0 and "Compared" not in r.stdout and r.stderr == "", r
