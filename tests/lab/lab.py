#!/usr/bin/python3
"""Two domains, each behind its own gateway and router, on loopback addresses.

    lab.py run          every security mode, both directions; a table; exit 0 only if all is as the
                        mode promises
    lab.py up           the same laboratory, left running, to be played with by hand
    lab.py mode MODE    edit security_mode in both gateways of a running lab and reload them
    lab.py down         end the processes that `up` started

Options: --dir DIR (default build/lab).
"""
import argparse
import os
import re
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import labnet  # noqa: E402
from labnet import LabError, Net, Site, relative, wait_for  # noqa: E402

SAMPLES = 20
DEFAULT_DIR = str(labnet.ROOT / "build" / "lab")
# The first admits no stream in clear, the second none with TLS: no stream lives through both.
SWEEP = ("tls-required", "no-tls")


class Row:
    """What was seen in one mode and direction."""

    def __init__(self, mode, sender, receiver):
        self.mode, self.sender, self.receiver = mode, sender, receiver
        self.direction = f"{sender.domain} -> {receiver.domain}"
        self.passed = {"message": False, "presence": False, "iq": False}
        self.wire, self.first, self.established = "?", None, None
        self.tokens, self.faults = [], []
        self.begun = self.ended = 0.0  # wall clock, as in captures

    def fault(self, text):
        self.faults.append(f"{self.mode}, {self.direction}: {text}")

    def ok(self):
        return all(self.passed.values()) and not self.faults


def send_message(row, number):
    """One message; milliseconds from the command to its arrival, by the clock of both users."""
    token = f"lab-{row.mode}-{row.sender.domain}-{number}-{os.urandom(4).hex()}"
    row.tokens.append(token)
    sender, receiver = row.sender.user, row.receiver.user
    sender.message(receiver.jid, token, f"secret words of {token}")
    got = receiver.expect(kind="message", id=token)
    if got.get("body") != f"secret words of {token}" or got["from"] != sender.jid:
        raise LabError(f"message {token} arrived changed: {got}")
    return (got["t"] - sender.expect(event="sent", id=token)["t"]) / 1000


def check_presence(row):
    sender, receiver = row.sender.user, row.receiver.user
    since = receiver.mark()
    sender.command(f"presence {receiver.bare} subscribe")
    receiver.expect(since=since, kind="presence", type="subscribe", **{"from": sender.bare})
    sender.command(f"presence {receiver.bare} available")
    receiver.expect(since=since, kind="presence", type=None, **{"from": sender.jid})


def check_iq(row):
    ident = f"ping-{row.mode}-{row.sender.domain}"
    row.sender.user.command(f"ping {row.receiver.user.jid} {ident}")
    row.sender.user.expect(kind="iq", type="result", id=ident)


def run_direction(row):
    def step(kind, action):
        try:
            action()
            row.passed[kind] = True
        except LabError as e:
            row.fault(f"{kind}: {e}")

    def first():
        row.first = send_message(row, 0)

    def established():
        row.established = labnet.median([send_message(row, i + 1) for i in range(SAMPLES)])

    step("message", first)
    if row.passed["message"]:
        step("presence", lambda: check_presence(row))
        step("iq", lambda: check_iq(row))
        step("message", established)


def judge_wire(row, conversations):
    """Decides from packets alone whether the mode kept its promise in this direction."""
    mine = [c for c in conversations if c.server[0] == row.receiver.address
            and row.begun <= c.time <= row.ended]
    if not mine:
        row.wire = "none seen"
        row.fault("no connection was opened after the reload")
        return
    versions = {c.tls for c in mine}
    visible = any(t.encode() in c.sent + c.received for t in row.tokens for c in mine)
    row.wire = ", ".join(sorted(v or "clear" for v in versions))
    if row.mode == "no-tls":
        if versions != {None} or not visible:
            row.fault("the messages were not in clear on the wire")
        if any(c.offered or c.starttls_sent for c in mine):
            row.fault("starttls was offered or asked for")
        return
    if visible:
        row.fault("a message text was readable on the wire")
    if None in versions or not all(c.application_data for c in mine):
        row.fault("a connection stayed in clear")
    if not all(c.offered and c.starttls_sent and c.proceeded for c in mine):
        row.fault("STARTTLS was not negotiated")
    if any(c.required != (row.mode == "tls-required") for c in mine):
        row.fault("<required/> is wrong for this mode")


def change_mode(sites, mode):
    """As an operator does it: edit both files, SIGHUP; returns when both have logged it."""
    since = [(s.gateway, s.gateway.set_mode(mode)) for s in sites if s.gateway.mode() != mode]
    for gateway, offset in since:
        gateway.wait_log(labnet.LOG_MODE_CHANGED, offset)


def run_mode(lab, sites, mode):
    capture = lab.capture(mode)
    rows = [Row(mode, sites[0], sites[1]), Row(mode, sites[1], sites[0])]
    try:
        for row in rows:
            for step in (*SWEEP, mode):
                change_mode(sites, step)
            row.begun = time.time()
            run_direction(row)
            row.ended = time.time()
    finally:
        capture.stop()
    seen = capture.conversations()
    for row in rows:
        judge_wire(row, seen)
    return rows


def start(lab, mode):
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)], "beta.lab": [(Net.BETA, labnet.S2S, 10)]})
    return [
        Site(lab, "alpha.lab", Net.ALPHA, Net.ALPHA_LINK, "romeo", mode=mode,
             peers=[{"domain": "beta.lab", "policy": "allow"}], control=lab.dir / "alpha.sock"),
        Site(lab, "beta.lab", Net.BETA, Net.BETA_LINK, "juliet", mode=mode,
             peers=[{"domain": "alpha.lab", "policy": "allow"}], control=lab.dir / "beta.sock"),
    ]


# ---- for people --------------------------------------------------------------------------------

def print_table(rows):
    def ms(value):
        return "-" if value is None else f"{value:.1f}"

    def yes(flag):
        return "ok" if flag else "FAILED"

    head = ("mode", "direction", "message", "presence", "iq", "wire", "first ms", "established ms")
    lines = [head] + [
        (r.mode, r.direction, yes(r.passed["message"]), yes(r.passed["presence"]),
         yes(r.passed["iq"]), r.wire, ms(r.first), ms(r.established)) for r in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    print()
    for i, line in enumerate(lines):
        print("  ".join(text.ljust(w) for text, w in zip(line, widths)).rstrip())
        if i == 0:
            print("  ".join("-" * w for w in widths))
    print("\nfirst ms: one message right after the reload, with DNS, TCP, TLS and dialback both "
          f"ways.\nestablished ms: median of {SAMPLES} messages on the stream that then stands. "
          "wire: read from the packets.")


def print_where(lab_dir):
    print("\nWhere to look next:")
    for what, where in (("gateway logs", "logs/alpha-gateway.log, beta-gateway.log"),
                        ("router and user logs", "logs/"), ("DNS questions", "logs/dns.log"),
                        ("configurations", "conf/"), ("packets", "capture/*.pcap")):
        print(f"  {what + ':':22}{relative(lab_dir)}/{where}")
    print(f"  read a capture:       tshark -n -r {relative(lab_dir)}/capture/tls-required.pcap "
          "-d tcp.port==5269,xmpp")


def command_run(args):
    began = time.monotonic()
    rows = []
    with labnet.Lab(args.dir) as lab:
        sites = start(lab, "tls-optional")
        print(f"lab: alpha.lab and beta.lab on {lab.net.block}, files in {relative(lab.dir)}/")
        for mode in labnet.MODES:
            print(f"  security_mode = {mode}: edited, reloading, sending ...", flush=True)
            rows += run_mode(lab, sites, mode)
        for proc in list(lab.procs):
            if not proc.alive():
                rows[-1].fault(f"{proc.name} did not live to the end\n{proc.log_tail()}")
    print_table(rows)
    faults = [f for r in rows for f in r.faults]
    for fault in faults:
        print(f"FAULT {fault}")
    print_where(args.dir)
    bad = sum(not r.ok() for r in rows)
    print(f"\n{len(rows) - bad} of {len(rows)} rows as promised, "
          f"{time.monotonic() - began:.1f} s")
    return 1 if bad else 0


def start_time(pid):
    """Identifies a process together with its pid; None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2:].split()
    return None if fields[0] == "Z" else fields[19]


def read_pids(lab_dir):
    file = Path(lab_dir) / "pids"
    if not file.exists():
        raise LabError(f"no lab is up in {relative(lab_dir)}")
    entries = [line.split() for line in file.read_text().splitlines()]
    return [(name, int(pid), begun) for name, pid, begun in entries]


def is_up(lab_dir):
    return (Path(lab_dir) / "pids").exists() and any(
        start_time(pid) == begun for _, pid, begun in read_pids(lab_dir))


def command_up(args):
    if is_up(args.dir):
        raise LabError("a lab is already up; 'lab.py down' ends it")
    lab = labnet.Lab(args.dir, detach=True)
    try:
        start(lab, "tls-required")
        for name in ("alpha", "beta"):
            log = lab.log(f"{name}-user")
            wait_for(lambda log=log: '"connected"' in log.read_text(), what=f"{name}-user to join")
        (lab.dir / "pids").write_text("".join(
            f"{p.name} {p.pid} {start_time(p.pid)}\n" for p in lab.procs))
    except BaseException:
        lab.close()
        raise
    lab.net.close()
    here = relative(lab.dir)
    this = relative(__file__) + ("" if args.dir == DEFAULT_DIR else f" --dir {here}")
    print(f"""alpha.lab and beta.lab are up on {lab.net.block}, security_mode = tls-required.

A message from Romeo to Juliet, and what Juliet got:
  echo 'message juliet@beta.lab m1 Good morrow' > {here}/alpha-user.in
  tail -n 1 {here}/logs/beta-user.log
Others: 'presence juliet@beta.lab subscribe', 'ping juliet@beta.lab/lab p1'; Juliet's own commands
go to {here}/beta-user.in.

Another mode: edit security_mode in {here}/conf/alpha-gateway.conf and send the gateway SIGHUP,
  kill -HUP {next(p.pid for p in lab.procs if p.name == 'alpha-gateway')}
or both gateways at once:
  {this} mode no-tls
Watch it:
  tail -f {here}/logs/alpha-gateway.log
Operate it (docs/operate.md):
  sallyportctl -s {here}/alpha.sock status
End it:
  {this} down""")
    return 0


def command_mode(args):
    logs = []
    for name, pid, begun in read_pids(args.dir):
        if not name.endswith("-gateway") or start_time(pid) != begun:
            continue
        conf = Path(args.dir) / "conf" / f"{name}.conf"
        log = Path(args.dir) / "logs" / f"{name}.log"
        text, n = re.subn(r'^security_mode\s*=\s*"[^"]*"', f'security_mode = "{args.mode}"',
                          conf.read_text(), flags=re.M)
        if n != 1:
            raise LabError(f"{relative(conf)}: security_mode occurs {n} times")
        if text == conf.read_text():
            print(f"{name}: security_mode is {args.mode} already")
            continue
        logs.append((name, log, log.stat().st_size))
        conf.write_text(text)
        os.kill(pid, signal.SIGHUP)
    for name, log, size in logs:
        def changed(log=log, size=size):
            return re.search(labnet.LOG_MODE_CHANGED + ".*", log.read_text()[size:])
        print(f"{name}: {wait_for(changed, what=name + ' to reload').group(0)}")
    return 0


def command_down(args):
    entries = [e for e in read_pids(args.dir) if start_time(e[1]) == e[2]]
    for sig in (signal.SIGTERM, signal.SIGKILL):
        for _, pid, begun in reversed(entries):
            if start_time(pid) == begun:
                os.kill(pid, sig)
        try:
            wait_for(lambda: all(start_time(p) != b for _, p, b in entries), 5, "the lab to end")
            break
        except labnet.Timeout:
            continue
    (Path(args.dir) / "pids").unlink()
    print(f"ended {len(entries)} processes")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", default=DEFAULT_DIR)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "up", "down"):
        commands.add_parser(name)
    commands.add_parser("mode").add_argument("mode", choices=labnet.MODES)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if args.command == "run" and is_up(args.dir):
            command_down(args)
        return globals()[f"command_{args.command}"](args)
    except LabError as e:
        print(f"lab: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted, everything was ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
