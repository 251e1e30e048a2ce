#!/usr/bin/python3
"""Two real servers and two real users: Prosody behind a gateway, ejabberd in the world outside.

    romeo -- Prosody + mod_sallyport -- sallyport ==== S2S, TLS ==== ejabberd -- juliet
              inside.lab       (XEP-0114)  :7400          :5269        ejabberd.lab

security_mode is tls-required. Prosody has no S2S module: what leaves it can only leave through the
gateway. Prints a table; exit 0 only if everything arrived and nothing crossed in clear.
Option: --dir DIR (default build/lab-servers).
"""
import argparse
import os
import signal
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integ")]
import ejabberd  # noqa: E402
import labnet  # noqa: E402
from actors import ServerUser  # noqa: E402
from labnet import C2S, LINK, S2S, LabError, Net, relative, tool  # noqa: E402

INSIDE, OUTSIDE, EDGE = "inside.lab", "ejabberd.lab", "edge.inside.lab"
SAMPLES = 20
ADAPTERS = labnet.ROOT / "xcp" / "adapters"


def component(lab, name):
    return f'''
Component "{name}"
  component_secret = "{lab.secret("edge").read_text().strip()}"
  validate_from_addresses = false
  component_conflict_resolve = "kick_old"
  disco_hidden = true
'''


def start_prosody(lab, gateways=(EDGE,), disabled="s2s", users=(f"romeo@{INSIDE}",),
                  options="", more=""):
    """The organisation's own server, as xcp/adapters/README.md says. Without gateways it has not
    the module. options: further settings; more: further hosts and components."""
    ip, data = lab.ip(Net.PROSODY), lab.dir / "prosody"
    for user in users:
        name, domain = user.split("@")
        accounts = data / domain.replace(".", "%2e") / "accounts"
        accounts.mkdir(parents=True, exist_ok=True)
        (accounts / f"{name}.dat").write_text('return { ["password"] = "secret"; };\n')
    conf = lab.conf("prosody.cfg.lua", f'''
run_as_root = true
pidfile = "{data}/prosody.pid"
data_path = "{data}"
interfaces = {{ "{ip}" }}
c2s_ports = {{ {C2S} }}
c2s_direct_tls_ports = {{}}
http_ports = {{}}
https_ports = {{}}
modules_enabled = {{ "saslauth", "disco", "roster", "ping", "c2s", "presence", "message", "iq",
                    {'"sallyport"' if gateways else ""} }}
modules_disabled = {{ "{disabled}" }}
s2s_ports = {{ {S2S} }}
s2s_direct_tls_ports = {{}}
authentication = "internal_plain"
allow_unencrypted_plain_auth = true
c2s_require_encryption = false
log = {{ debug = "*console" }}

plugin_paths = {{ "{ADAPTERS}" }}
component_ports = {{ {LINK} }}
component_interfaces = {{ "{ip}" }}
federation_gateways = {{ {", ".join(f'"{g}"' for g in gateways)} }}
{options}
VirtualHost "{INSIDE}"
{"".join(component(lab, g) for g in gateways)}{more}''')
    proc = lab.spawn("prosody", [tool("prosody"), "--config", conf, "-F"])
    proc.wait_listening(ip, C2S)
    proc.wait_listening(ip, LINK)
    return proc


def start(lab):
    """Returns the users: romeo of the inside server, juliet of the remote one."""
    if not ejabberd.usable():
        raise LabError("ejabberd is not installed (run 'make deps'), or this is not root")
    lab.dns({OUTSIDE: [(ejabberd.HOST, S2S, 10)]},
            extra=[ejabberd.srv_record(lab, INSIDE, Net.ALPHA)])
    ejabberd.start(lab, OUTSIDE, mode="tls-required")
    start_prosody(lab)
    link = {"name": "core", "address": f"{lab.ip(Net.PROSODY)}:{LINK}", "component": EDGE,
            "secret_file": lab.secret("edge")}
    lab.gateway("gateway", INSIDE, Net.ALPHA, Net.PROSODY, mode="tls-required", links=[link],
                peers=[{"domain": OUTSIDE, "policy": "allow"}])
    romeo = lab.at_end(ServerUser(lab.ip(Net.PROSODY), INSIDE, "romeo"))
    juliet = lab.at_end(ServerUser(lab.ip(ejabberd.HOST), OUTSIDE, "juliet", register=True))
    return romeo, juliet


class Row:
    def __init__(self, sender, receiver):
        self.sender, self.receiver = sender, receiver
        self.first, self.established, self.faults = None, None, []
        self.passed = {"message": False, "subscription": False, "ping": False, "error": False}

    def step(self, name, action):
        try:
            action()
            self.passed[name] = True
        except (AssertionError, LabError) as e:
            self.faults.append(f"{self.sender.bare} -> {self.receiver.bare}: {name}: {e}")


def chat(row, number):
    """One message; the milliseconds that it took."""
    a, b = row.sender, row.receiver
    ident, body = f"chat-{a.domain}-{number}", f"secret words {number} of {a.bare}"
    began = time.monotonic()
    a.send(a.stanza("message", b.jid, ident, f"<body>{body}</body>", "chat"))
    got = b.expect("message", id=ident)
    took = 1000 * (time.monotonic() - began)
    assert (got.get("from"), got.body) == (a.jid, body), f"it arrived changed: {got}"
    return took


def messages(row):
    row.first = chat(row, 0)
    row.established = labnet.median([chat(row, i + 1) for i in range(SAMPLES)])


def subscription(row):
    a, b = row.sender, row.receiver
    a.send(a.stanza("presence", b.bare, "ask", type_="subscribe"))
    b.expect("presence", type="subscribe", from_=a.bare)
    b.send(b.stanza("presence", a.bare, "grant", type_="subscribed"))
    a.expect("presence", type="subscribed", from_=b.bare)
    a.expect("presence", type=None, from_=b.jid)  # what the subscription is for


def ping(row):
    a, b = row.sender, row.receiver
    a.send(a.stanza("iq", b.domain, "ping", "<ping xmlns='urn:xmpp:ping'/>", "get"))
    a.expect("iq", type="result", id="ping", from_=b.domain)


def unknown_user(row):
    a, b = row.sender, row.receiver
    a.send(a.stanza("message", f"nobody@{b.domain}", "lost", "<body>?</body>", "chat"))
    got = a.expect("message", type="error", id="lost")
    assert got.condition == "service-unavailable", got


STEPS = {"message": messages, "subscription": subscription, "ping": ping, "error": unknown_user}


def judge_wire(conversations):
    """(words for the table, faults): no message may be readable between the organisations."""
    faults = []
    text = ", ".join(sorted({c.tls or "clear" for c in conversations})) or "none seen"
    if not conversations or not all(c.tls and c.application_data for c in conversations):
        faults.append(f"wire: the connections were {text}")
    if any(b"secret words" in c.sent + c.received for c in conversations):
        faults.append("wire: a message was readable")
    return text, faults


def print_table(rows, text):
    def ms(value):
        return "-" if value is None else f"{value:.1f}"

    head = ("direction", *STEPS, "wire", "first ms", "established ms")
    lines = [head] + [
        (f"{r.sender.bare} -> {r.receiver.bare}",
         *("ok" if r.passed[name] else "FAILED" for name in STEPS), text, ms(r.first),
         ms(r.established)) for r in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    print()
    for i, line in enumerate(lines):
        print("  ".join(word.ljust(w) for word, w in zip(line, widths)).rstrip())
        if i == 0:
            print("  ".join("-" * w for w in widths))


def print_where(lab):
    here = relative(lab.dir)
    print("\nWhere to look next:")
    for what, where in (("the gateway", "logs/gateway.log, conf/gateway.conf"),
                        ("Prosody, inside", "logs/prosody.log, conf/prosody.cfg.lua"),
                        ("ejabberd, outside", "logs/ejabberd.log, conf/ejabberd.yml"),
                        ("packets", "capture/federation.pcap")):
        print(f"  {what + ':':19}{here}/{where}")
    print(f"  {'the module:':19}{relative(ADAPTERS)}/README.md")


def run(directory):
    began = time.monotonic()
    with labnet.Lab(directory) as lab:
        print(f"lab: Prosody ({INSIDE}) behind a gateway, ejabberd ({OUTSIDE}) without one, on "
              f"{lab.net.block}; security_mode = tls-required", flush=True)
        romeo, juliet = start(lab)
        capture = lab.capture("federation")
        rows = [Row(romeo, juliet), Row(juliet, romeo)]
        for row in rows:
            for name, action in STEPS.items():
                row.step(name, lambda row=row, action=action: action(row))
        capture.stop()
        text, faults = judge_wire(capture.conversations())
        faults += [f for row in rows for f in row.faults]
        faults += [f"{p.name} did not live to the end\n{p.log_tail()}" for p in lab.procs
                   if not p.alive()]
    print_table(rows, text)
    for fault in faults:
        print(f"FAULT {fault}")
    print_where(lab)
    print(f"\n{sum(not r.faults for r in rows)} of {len(rows)} directions as promised, "
          f"{time.monotonic() - began:.1f} s")
    return 1 if faults else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", default=os.path.join(labnet.ROOT, "build", "lab-servers"))
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return run(args.dir)
    except LabError as e:
        print(f"lab-servers: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab-servers: interrupted, everything was ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
