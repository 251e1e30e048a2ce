#!/usr/bin/python3
"""CPU time per stanza and per stream of the gateway and of other servers, side by side in one run.

    bench.py [--quick] [--servers a,b] [--workloads x,y] [--modes plain,tls] [--rounds N]

What is measured and how to read the table: docs/performance.md. Every figure is the median of the
rounds (three); in each round the servers take turns, so that what else the machine does meets all.
Servers that are not installed are named and left out.
"""
import argparse
import json
import os
import platform
import re
import signal
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lab")]

import servers as peers  # noqa: E402
from labnet import ROOT, Lab, LabError, tool  # noqa: E402

DOMAINS = 4000
# Which of the domains r0000 ... each workload uses.
MEMORY_FIRST, NEW_FIRST = 1000, 2000
IDLE_SECONDS = 8  # how long streams are left alone before they count as idle
STANZAS_MIN, STANZAS_MAX, RUN_SECONDS = 500, 2_000_000, 60


class Stream:
    """Stanzas on established streams."""

    def __init__(self, name, title, way, streams, kind="message", single=False, quick=False,
                 modes=("tls",)):
        self.name, self.title, self.way, self.streams = name, title, way, streams
        self.kind, self.quick, self.modes = kind, quick, modes
        # In flight per stream: enough to keep every buffer busy, too little to fill a queue.
        self.batch = 1 if single else 40
        self.window = 1 if single else 2000 if streams == 1 else 120
        if kind == "large":
            self.batch, self.window = 10, max(20, self.window // 10)
        self.unit, self.scale = "µs/stanza", 1e6

    def line(self, count):
        return (f"run {self.way} 0 {self.streams} {count} {self.batch} {self.window} {self.kind} "
                f"{RUN_SECONDS}")

    def prepare(self, load, target):
        """Streams up, caches warm; how many stanzas use `target` seconds of CPU or 4 of time."""
        have = load.command("stat")["opened"]
        relay = load.server.inside == "relay"
        have //= 2 if relay else 1
        if have < self.streams and (relay or self.way != "out"):
            load.command(f"open {have} {self.streams - have} 10 30")
        load.command(self.line(self.streams))
        count = 50 * self.streams if self.streams > 1 else 1000
        while True:
            cpu, got = load.measured(self.line(count))
            wall = got["us"] / 1e6
            if cpu >= 0.1 or wall >= 0.5 or count >= STANZAS_MAX:
                break
            count *= 4
        count = int(count * min(target / max(cpu, 0.01), 4 / max(wall, 0.001)))
        return max(STANZAS_MIN, min(STANZAS_MAX, count))

    def measure(self, load, count):
        """(CPU seconds per stanza, stanzas per second)."""
        cpu, got = load.measured(self.line(count))
        n = count * (2 if self.way == "both" else 1)
        return cpu / n, n / (got["us"] / 1e6)


BOTH = ("plain", "tls")
STREAMS = [
    Stream("W1.1", "W1 in, 1 stream", "in", 1, quick=True, modes=BOTH),
    Stream("W1.50", "W1 in, 50 streams", "in", 50, quick=True, modes=BOTH),
    Stream("W1.50c1", "W1 in, 50 streams, one stanza per write", "in", 50, single=True),
    Stream("W1.presence", "W1 in, 1 stream, presence 155 B", "in", 1, "presence"),
    Stream("W1.large", "W1 in, 1 stream, 4.2 kB", "in", 1, "large"),
    Stream("W2.1", "W2 out, 1 domain", "out", 1, quick=True, modes=BOTH),
    Stream("W2.50", "W2 out, 50 domains", "out", 50, quick=True, modes=BOTH),
    Stream("W2.50c1", "W2 out, 50 domains, one stanza per write", "out", 50, single=True),
    Stream("W2.large", "W2 out, 1 domain, 4.2 kB", "out", 1, "large"),
    Stream("W3.50", "W3 both ways, 50 streams", "both", 50),
]
OTHERS = {"W4": "new authenticated streams", "W5": "memory of idle streams",
          "names": "a million element names"}


def text_of(fmt, value):
    return "–" if value is None else format(value, fmt)


class Bench:
    def __init__(self, lab, args):
        self.lab, self.args = lab, args
        self.results = {}  # (workload title, mode) -> {server title: value}
        self.rates, self.notes, self.servers = {}, [], []
        for cls in peers.ALL:
            if args.servers and cls.short not in args.servers and \
                    cls.title.split()[0].lower() not in args.servers:
                continue
            why = cls.missing()
            if why:
                self.note(f"{cls.title}: left out, {why}")
            else:
                self.servers.append(cls(lab))
        self.deadline = time.monotonic() + args.limit

    def note(self, text):
        self.notes.append(text)
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def say(self, text):
        print(f"[{time.monotonic() - self.args.began:5.0f} s] {text}", file=sys.stderr, flush=True)

    def wanted(self, name):
        return not self.args.workloads or any(
            name == w or name.startswith(w + ".") for w in self.args.workloads)

    def dns(self):
        ip, shorts = self.lab.ip(53), [s for s in self.servers if s.inside != "relay"]
        lines = ["no-resolv", "no-hosts", "bind-interfaces", f"listen-address={ip}",
                 f"port={peers.DNS_PORT}", "local=/lab/", "local-ttl=600", "log-facility=-",
                 f"pid-file={self.lab.dir / 'dns.pid'}"]
        if os.geteuid() == 0:
            lines.append("user=root")
        for s in shorts:
            lines.append(f"host-record=world.{s.suffix},{s.world}")
            lines += [f"srv-host=_xmpp-server._tcp.r{i:04}.{s.suffix},world.{s.suffix},"
                      f"{peers.S2S},0,0" for i in range(DOMAINS)]
        conf = self.lab.conf("dns.conf", "\n".join(lines) + "\n")
        proc = self.lab.spawn("dns", [tool("dnsmasq"), "-d", f"--conf-file={conf}"])
        proc.wait_listening(ip, peers.DNS_PORT)

    # -- one server up, with its world

    def up(self, server, tls):
        """A fresh server with a fresh load; None, with a note, when that does not work."""
        load = None
        try:
            if server.inside != "component":
                load = peers.Load(server, tls, self.args.limit)
            server.start()
            load = load or peers.Load(server, tls, self.args.limit)
            load.command("inside 30")
            return load
        except LabError as e:
            self.note(f"{server.title}: {e}")
            if load:
                load.stop()
            server.stop()
            return None

    def down(self, loads):
        for load in loads:
            load.stop()
            load.server.stop()

    def store(self, title, mode, unit, server, values, rate=None):
        row = self.results.setdefault((title, mode, unit), {})
        row[server.title] = statistics.median(values)
        if rate:
            self.rates.setdefault((title, mode, unit), {})[server.title] = rate

    def attempt(self, load, what, function):
        """function(), or None with a note."""
        if time.monotonic() > self.deadline:
            raise LabError(f"the limit of {self.args.limit} s is reached; see --limit")
        try:
            return function()
        except (LabError, BrokenPipeError) as e:
            self.note(f"{what}: {e}" if load.server.alive() else
                      f"{what}: {load.server.title} ended ({e})")
            return None

    # -- workloads

    def streams(self, w, loads, mode):
        self.say(f"{w.title}, {mode}")
        counts, values, rates = {}, {}, {}
        for load in list(loads):
            counts[load] = self.attempt(load, w.title, lambda: w.prepare(load, self.args.target))
        for _ in range(self.args.rounds):
            for load in loads:
                got = counts[load] and self.attempt(
                    load, w.title, lambda: w.measure(load, counts[load]))
                if got:
                    values.setdefault(load, []).append(got[0] * w.scale)
                    rates.setdefault(load, []).append(got[1])
                else:
                    counts[load] = None
        for load in list(loads):
            if load in values:
                self.store(w.title, mode, w.unit, load.server, values[load],
                           statistics.median(rates[load]))
            if counts[load] is None:  # what is under way would disturb what follows
                loads.remove(load)
                self.down([load])

    def new_streams(self, loads, mode):
        """W4: CPU per authenticated stream, the first time and again; under TLS also with peers
        that give tickets, so that the server may resume when it dials them again."""
        n = self.args.new_streams
        self.say(f"W4, {mode}")
        ways = (("", 0), (", tickets", 2)) if mode == "tls" else (("", 0),)
        values, resumed = {}, {}
        for r in range(self.args.rounds):
            for load in loads:
                for w, (what, tickets) in enumerate(ways):
                    self.attempt(load, "W4", lambda: load.command(f"tickets {tickets}"))
                    first = NEW_FIRST + (len(ways) * r + w) * n
                    self.first_and_again(load, first, n, what, values, resumed)
        for (title, load), v in values.items():
            self.store(title, mode, "ms/stream", load.server, v)
        for load, number in resumed.items():
            self.note(f"{load.server.title} resumed {number} of the {self.args.rounds * n} sessions"
                      " that peers with tickets could have resumed")

    def first_and_again(self, load, first, n, what, values, resumed):
        for title in (f"W4 first contact{what}", f"W4 repeated{what}"):
            before = load.command("stat")["resumed"]
            got = self.attempt(load, title, lambda: load.measured(f"open {first} {n} 10 60"))
            if not got:
                continue
            values.setdefault((title, load), []).append(got[0] / n * 1e3)
            self.attempt(load, title, lambda: load.command("close 20"))
            if what and "repeated" in title:
                more = load.command("stat")["resumed"] - before
                resumed[load] = resumed.get(load, 0) + more

    def memory(self, loads, mode):
        """W5: resident memory that idle authenticated streams add to a fresh server."""
        self.say(f"W5, {mode}")
        n = self.args.idle_streams
        for load in loads:
            def one():
                load.command("open 0 5 5 20")
                load.command("close 10")
                before = load.server.rss()
                load.command(f"open {MEMORY_FIRST} {n} 10 120")
                load.command("drop")  # what the server keeps open towards our domains
                time.sleep(IDLE_SECONDS)
                grown = (load.server.rss() - before) / n
                load.command("close 60")
                return grown
            got = self.attempt(load, "W5", one)
            if got is not None:
                self.store(f"W5 idle stream ({n})", mode, "KiB/stream", load.server, [got])

    def names(self, loads, mode):
        """Does a million different element names on one stream make the server grow?"""
        self.say("element names")
        for load in loads:
            def one():
                if load.command("stat")["opened"] < 1:
                    load.command("open 0 1 1 20")
                load.command("run in 0 1 4000 40 400 message 60")
                before = load.server.rss()
                load.command("run in 0 1 40000 40 400 names 120")
                return (load.server.rss() - before) / 1024
            got = self.attempt(load, "names", one)
            if got is not None:
                self.store("10⁶ element names: growth", mode, "MiB", load.server, [got])

    def phase(self, mode):
        xmpp = [s for s in self.servers if s.inside != "relay"]
        if self.wanted("W5") and not self.args.quick:
            loads = [u for u in (self.up(s, mode == "tls") for s in xmpp) if u]
            self.memory(loads, mode)
            self.down(loads)
        if self.wanted("W4") and not self.args.quick:
            loads = [u for u in (self.up(s, mode == "tls") for s in xmpp) if u]
            self.new_streams(loads, mode)
            self.down(loads)
        todo = [w for w in STREAMS if self.wanted(w.name) and mode in w.modes and
                (w.quick or not self.args.quick)]
        names = self.wanted("names") and not self.args.quick and mode == "tls"
        if not todo and not names:
            return
        loads = [u for u in (self.up(s, mode == "tls") for s in self.servers) if u]
        for w in todo:
            self.streams(w, loads, mode)
        if names:
            self.names([u for u in loads if u.server.inside != "relay"], mode)
        self.down(loads)

    # -- the table

    def table(self):
        titles = [s.title for s in self.servers]
        base = peers.Sallyport.title
        lines = ["| workload | mode | unit | " + " | ".join(titles) + " |",
                 "|---|---|---|" + "---|" * len(titles)]
        for (title, mode, unit), row in self.results.items():
            cells = []
            for t in titles:
                v, cell = row.get(t), "–"
                if v is not None:
                    cell = text_of(".2f" if v < 10 else ".1f", v)
                    if t != base and row.get(base) and row[base] > 0 and unit != "MiB":
                        cell += f" ({v / row[base]:.1f}×)"
                cells.append(cell)
            lines.append(f"| {title} | {mode} | {unit} | " + " | ".join(cells) + " |")
        if self.rates:
            lines += ["", "Throughput, thousand stanzas per second of wall time:", "",
                      "| workload | mode | " + " | ".join(titles) + " |",
                      "|---|---|" + "---|" * len(titles)]
            for (title, mode, _), row in self.rates.items():
                cells = [text_of(".1f", row[t] / 1000 if t in row else None) for t in titles]
                lines.append(f"| {title} | {mode} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def machine():
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", info)
    # Family and model tell the class where a virtual machine hides the name.
    ids = [re.search(rf"^{k}\s*: (.*)", info, re.M) for k in ("cpu family", "model")]
    kernel = platform.release().split("-")[0]
    load = os.getloadavg()
    return (f"{os.cpu_count()} cores, {model.group(1).strip() if model else platform.machine()}"
            f" (family {ids[0].group(1)}, model {ids[1].group(1)}), Linux {kernel}, "
            f"load average {load[0]:.1f}" if all(ids) else f"{os.cpu_count()} cores")


def arguments():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true",
                   help="only W1 and W2 with 1 and 50 streams; less than three minutes")
    p.add_argument("--servers", type=lambda s: s.lower().split(","), default=[],
                   help="of: " + ", ".join(c.title.split()[0].lower() for c in peers.ALL))
    p.add_argument("--workloads", type=lambda s: s.split(","), default=[],
                   help="of: " + ", ".join([w.name for w in STREAMS] + list(OTHERS)) +
                   "; W1 means all W1.*")
    p.add_argument("--modes", type=lambda s: s.split(","), default=["plain", "tls"])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--idle-streams", type=int, default=1000)
    p.add_argument("--new-streams", type=int, default=150)
    p.add_argument("--limit", type=int, default=1800, help="seconds for everything")
    p.add_argument("--run-dir", type=Path, default=ROOT / "build" / "bench")
    p.add_argument("--json", type=Path, help="write the figures there too")
    args = p.parse_args()
    args.target = 0.3 if args.quick else 0.8  # CPU seconds of one measurement
    args.began = time.monotonic()
    wants_new = not args.quick and (not args.workloads or "W4" in args.workloads)
    new_last = NEW_FIRST + 2 * args.rounds * args.new_streams
    if args.rounds < 1 or wants_new and new_last > DOMAINS or \
            MEMORY_FIRST + args.idle_streams > NEW_FIRST:
        p.error("there are not that many domains")
    return args


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with Lab(args.run_dir) as lab:
            lab.dir.chmod(0o755)
            bench = Bench(lab, args)
            if not bench.servers:
                raise LabError("no server to measure")
            bench.dns()
            try:
                for mode in args.modes:
                    bench.phase(mode)
            finally:
                print(f"\n{machine()}; medians of {args.rounds}; (n×) is the ratio to sallyport\n")
                print(bench.table())
                for n in bench.notes:
                    print(f"\nNote: {n}")
                if args.json:
                    args.json.write_text(json.dumps(
                        [{"workload": t, "mode": m, "unit": u, "values": row,
                          "rates": bench.rates.get((t, m, u), {})}
                         for (t, m, u), row in bench.results.items()], indent=1) + "\n")
    except LabError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    return 1 if not bench.results else 0


if __name__ == "__main__":
    sys.exit(main())
