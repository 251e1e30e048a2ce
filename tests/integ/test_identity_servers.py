"""Real servers that demand a valid certificate, and have to show one: SASL EXTERNAL both ways, by
STARTTLS and by TLS from the first byte. What was negotiated is a line of identity.txt beside the
laboratories: by our log, and by the server's own words where it has some.
"""
import ejabberd
import prosody
import pytest
from certified import logfmt, srv
from conftest import RUN_DIR, Inside, new_lab
from labnet import DIRECT, S2S, Net, wait_for
from pki import Pki
from remotes import REMOTES

TABLE = RUN_DIR / "identity.txt"
CASES = [(server, way) for server in ("prosody", "ejabberd") for way in ("starttls", "direct")]
START = {
    "prosody": lambda lab: prosody.start(lab, encryption=True, secure_auth=True, direct_tls=True),
    "ejabberd": lambda lab: ejabberd.start(lab, mode="tls-required", direct_tls=True),
}


@pytest.fixture(scope="module", autouse=True)
def table():
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(f"{'server':9} {'dir':3} {'way':8} {'tls':7} {'cipher':28} {'mechanism':9} "
                     "certificate\n")


def zone(lab, remote, direct):
    """Each finds the other by one record only."""
    port = DIRECT if direct else S2S
    lines = srv(lab, remote.domain, (remote.host, port, 10, direct))
    if remote.literal_srv:
        lines.append(ejabberd.srv_record(lab, "alpha.lab", Net.ALPHA, direct))
    else:
        lines += srv(lab, "alpha.lab", (Net.ALPHA, port, 10, direct))
    lab.dns({}, lines)


def stream(gateway, direction):
    """What the log says of the stream on which the pair was proven: {event: fields}."""
    def find():
        lines = [(line.split()[2], logfmt(line)) for line in gateway.log().splitlines()
                 if f" dir={direction} " in line]
        sid = next((f["sid"] for event, f in lines
                    if event == "s2s.state" and f.get("to") == "CONNECTED"), None)
        return sid and [(event, f) for event, f in lines if f.get("sid") == sid]

    return wait_for(find, what=f"a proven pair {direction}", detail=gateway.log_tail)


def check(gateway, remote, direction, way, mechanism="external"):
    events = stream(gateway, direction)
    facts = {event: fields for event, fields in events}
    names = [event for event, _ in events]
    up, state, identity = facts["tls.up"], facts["s2s.state"], facts["s2s.identity"]
    with open(TABLE, "a", encoding="utf-8") as f:
        f.write(f"{remote.name:9} {direction:3} {way:8} {up['tls']:7} {up['cipher']:28} "
                f"{state['mech']:9} {identity['certificate']}\n")
    assert up["tls"] in ("TLSv1.2", "TLSv1.3")
    assert (state["mech"], identity["certificate"]) == (mechanism, "proven")
    first = names.index("s2s.stream.open")
    assert (names.index("tls.up") < first) == (way == "direct"), names


@pytest.mark.parametrize("server,way", CASES, ids=["-".join(c) for c in CASES])
def test_external_both_ways(server, way):
    remote = REMOTES[server]
    if not remote.usable():
        pytest.skip(f"{server} is not installed, or needs root")
    with new_lab(f"identity/{server}-{way}") as lab:
        zone(lab, remote, way == "direct")
        START[server](lab)
        us = Inside(lab, mode="tls-required",
                    direct_tls=[f"{lab.ip(Net.ALPHA)}:{DIRECT}"],
                    peers=[{"domain": remote.domain, "policy": "allow", "auth": ["external"]}])
        juliet = lab.at_end(remote.user(lab))
        us.user.message(juliet.jid, "out", "words")
        assert juliet.expect("message", id="out").body == "words"
        check(us.gateway, remote, "out", way)
        juliet.send(juliet.stanza("message", us.user.jid, "in", "<body>words</body>", "chat"))
        us.user.expect(kind="message", id="in")
        check(us.gateway, remote, "in", way)
        assert "dialback.result" not in us.gateway.log()


# ---- what they do not accept ---------------------------------------------------------------------

def strange(lab, server):
    """The server, and we with a certificate of an authority that it does not know."""
    remote = REMOTES[server]
    if not remote.usable():
        pytest.skip(f"{server} is not installed, or needs root")
    zone(lab, remote, False)
    START[server](lab)
    ours = Pki(lab.dir / "pki" / "ours").signed("alpha", "alpha.lab")
    return Inside(lab, mode="tls-required", domains=[{"name": "alpha.lab", **ours.settings()}],
                  peers=[{"domain": remote.domain, "policy": "allow"}])


def test_prosody_refuses_a_stranger(fresh_lab):
    """With s2s_secure_auth, dialback is not enough; the bounce says what the server said."""
    us = strange(fresh_lab, "prosody")
    us.user.message("juliet@prosody.lab", "refused", "words")
    condition, _, text = us.bounce("refused")
    assert condition == "remote-server-timeout"
    assert text.endswith("Your server's certificate is not trusted"), text


def test_ejabberd_asks_a_stranger_for_dialback(fresh_lab):
    """It offers EXTERNAL to everybody, refuses it, and takes dialback on the same stream."""
    us, remote = strange(fresh_lab, "ejabberd"), REMOTES["ejabberd"]
    juliet = fresh_lab.at_end(remote.user(fresh_lab))
    us.user.message(juliet.jid, "out", "words")
    juliet.expect("message", id="out")
    refused = us.gateway.wait_log(r"sasl\.failed .*dir=out .*reason=not-authorized")
    check(us.gateway, remote, "out", "starttls", mechanism="dialback")
    assert logfmt(refused)["sid"] == dict(stream(us.gateway, "out"))["s2s.state"]["sid"]
