"""xcp/adapters: mod_sallyport.lua in a real Prosody and mod_sallyport.erl in a real ejabberd, whose
gateways are played by bare components; the latter in a bare Erlang node too."""
import os
import shutil
from pathlib import Path

import ejabberd
import labnet
import pytest
import servers
from actors import InsideUser, ServerUser
from labnet import Net

HERE = Path(__file__).resolve().parent

GATEWAYS = ("edge1.inside.lab", "edge2.inside.lab")


@pytest.fixture
def prosody(fresh_lab):
    if not shutil.which("prosody"):
        pytest.skip("prosody is not installed")
    fresh_lab.proc = servers.start_prosody(fresh_lab, GATEWAYS)
    return fresh_lab


def join(lab, name):
    secret = lab.secret("edge").read_text().strip()
    return lab.at_end(InsideUser(lab.ip(Net.PROSODY), name, secret))


def romeo(lab):
    return lab.at_end(ServerUser(lab.ip(Net.PROSODY), servers.INSIDE, "romeo"))


def send(user, ident, kind="message", **kw):
    user.send(user.stanza(kind, "juliet@any.example", ident, "<x xmlns='urn:example:x'/>", **kw))


def leave(lab, gateway, name):
    since = lab.proc.log_size()
    gateway.close()
    lab.proc.wait_log(rf"{name.split('.')[0]}.*disconnected|component disconnected: {name}", since)


def test_order_of_preference_and_failover(prosody):
    user, second = romeo(prosody), join(prosody, GATEWAYS[1])
    send(user, "to-second")
    second.expect("message", id="to-second", from_=user.jid, to="juliet@any.example")
    first = join(prosody, GATEWAYS[0])
    send(user, "to-first")
    first.expect("message", id="to-first")
    leave(prosody, first, GATEWAYS[0])
    send(user, "to-second-again")
    second.expect("message", id="to-second-again")
    assert [s.get("id") for s in second.stanzas] == ["to-second", "to-second-again"]


def test_without_a_gateway(prosody):
    user = romeo(prosody)
    send(user, "lost", kind="iq", type_="get")
    got = user.expect("iq", id="lost", type="error")
    assert got.condition == "remote-server-timeout"
    assert got.child("error").get("type") == "wait"
    for kind in ("error", "result"):
        send(user, f"silent-{kind}", kind="iq", type_=kind)
    send(user, "after")
    user.expect("message", id="after", type="error")
    assert not [s for s in user.stanzas if (s.get("id") or "").startswith("silent")]


def test_either_gateway_delivers(prosody):
    user = romeo(prosody)
    for name in GATEWAYS:
        gateway = join(prosody, name)
        gateway.send(f"<message from='juliet@any.example/x' to='{user.jid}' id='{name}'>"
                     "<body>words</body></message>")
        got = user.expect("message", id=name)
        assert (got.get("from"), got.body) == ("juliet@any.example/x", "words")


def test_nothing_between_others(prosody):
    """A stanza between two foreign domains goes nowhere, and is not answered into the gateway as if
    it were ours."""
    user, gateway = romeo(prosody), join(prosody, GATEWAYS[0])
    gateway.send("<message from='a@one.example' to='b@two.example' id='foreign'/>")
    send(user, "fence")
    gateway.expect("message", id="fence")
    assert not [s for s in gateway.stanzas if s.get("type") == "error"]


def test_nothing_by_s2s(fresh_lab):
    """Also with mod_s2s loaded, and also without a gateway, Prosody dials nobody."""
    if not shutil.which("prosody"):
        pytest.skip("prosody is not installed")
    fresh_lab.proc = servers.start_prosody(fresh_lab, GATEWAYS, disabled="none")
    fresh_lab.proc.wait_listening(fresh_lab.ip(Net.PROSODY), labnet.S2S)
    user = romeo(fresh_lab)
    send(user, "without")
    assert user.expect("message", id="without", type="error").condition == "remote-server-timeout"
    gateway = join(fresh_lab, GATEWAYS[0])
    send(user, "with")
    gateway.expect("message", id="with")
    assert "s2sout" not in fresh_lab.proc.log()


# ---- xcp/adapters/mod_sallyport.erl --------------------------------------------------------------

ERLANG_PORT = 4370


def erlang_node(lab, host, *arguments):
    """A node of its own, found by its address alone: no epmd."""
    ip = lab.ip(host)
    listen = "{" + ip.replace(".", ",") + "}"
    return [labnet.tool("erl"), "-noinput", "-name", f"test@{ip}", "-setcookie", "test",
            "-start_epmd", "false", "-erl_epmd_port", str(ERLANG_PORT), "-kernel",
            "inet_dist_use_interface", listen, "-pa", lab.dir, *arguments]


def test_ejabberd_module_by_itself(fresh_lab):
    """tests/integ/adapter_test.erl: every decision of the module, on two bare Erlang nodes."""
    if not shutil.which("erlc"):
        pytest.skip("Erlang's compiler is not installed")
    lib = ejabberd.compile_adapter(fresh_lab.dir, HERE / "adapter_test.erl")
    env = dict(os.environ, ERL_LIBS=str(lib), HOME=str(fresh_lab.dir),
               ERL_CRASH_DUMP_BYTES="0")
    other = fresh_lab.spawn("other", erlang_node(fresh_lab, 62), env=env)
    other.wait_listening(fresh_lab.ip(62), ERLANG_PORT)
    run = f"adapter_test:run('test@{fresh_lab.ip(62)}'), halt()."
    node = fresh_lab.spawn("node", erlang_node(fresh_lab, 61, "-eval", run), env=env)
    assert node.wait() == 0, node.log_tail(40)
    assert "passed 10" in node.log()


def test_installed_by_ejabberdctl(fresh_lab):
    """As xcp/adapters/README.md says, into a server that runs and federates by itself. From then on
    it dials nobody, though it still may."""
    if not ejabberd.usable():
        pytest.skip("ejabberd is not installed, or this is not root")
    dns = fresh_lab.dns({})
    server = fresh_lab.proc = ejabberd.start_inside(
        fresh_lab, (servers.INSIDE,), GATEWAYS[:1], listener=ejabberd.CHECK_NOT, s2s_access="all")
    romeo = fresh_lab.at_end(ServerUser(fresh_lab.ip(ejabberd.HOST), servers.INSIDE, "romeo",
                                        register=True))
    romeo.send(romeo.stanza("message", "juliet@before.lab", "before", "<body>x</body>"))
    dns.wait_log(r"query\[SRV\] _xmpp-server\._tcp\.before\.lab")

    source = server.home / "modules" / "sources" / "mod_sallyport"
    (source / "src").mkdir(parents=True)
    shutil.copy(ejabberd.ADAPTERS / "mod_sallyport.spec", source)
    shutil.copy(ejabberd.ADAPTERS / "mod_sallyport.erl", source / "src")
    ejabberd.own(server.home)
    server.control("module_install", "mod_sallyport")
    with open(server.home / "ejabberd.yml", "a", encoding="utf-8") as conf:
        conf.write(f"  mod_sallyport: {{gateways: {GATEWAYS[0]}}}\n")
    server.control("reload_config")

    romeo.send(romeo.stanza("message", "juliet@without.lab", "without", "<body>x</body>"))
    got = romeo.expect("message", id="without", type="error")
    assert got.condition == "remote-server-timeout", got
    secret = fresh_lab.secret("edge").read_text().strip()
    gateway = fresh_lab.at_end(InsideUser(fresh_lab.ip(ejabberd.HOST), GATEWAYS[0], secret))
    romeo.send(romeo.stanza("message", "juliet@with.lab", "with", "<body>x</body>"))
    got = gateway.expect("message", id="with", from_=romeo.jid, to="juliet@with.lab")
    assert got.body == "x"
    assert "with.lab" not in dns.log() and "without.lab" not in dns.log()
