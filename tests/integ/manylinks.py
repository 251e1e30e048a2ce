"""Several insides of one gateway, played by sockets, and numbered messages through them.

`Insider` is a FakeRouter that knows its streams by the names that joined, keeps the size of what
comes, and closes a stream on which a stanza is too large for it, as real servers do. `Site` is a
gateway with any number of links and raw.lab outside. `Flow` sends numbered messages of many
senders.
"""
import signal
import threading
import time
from collections import Counter, namedtuple
from xml.parsers import expat

from actors import Cutter
from conftest import ALLOW_ALL
from fakes import FakeRouter
from labnet import LINK, S2S, WAIT, Net, Timeout, gateway_conf, wait_for
from peers import STREAMS, Closed, RemoteServer, authorised

RAW, ANY, FIRST_INSIDE = 41, 42, 61
# name: of the stream; stream: its number, streams that came up later have larger ones
Came = namedtuple("Came", "when kind attrs name size stream")


class Insider(FakeRouter):
    """limit: bytes of the largest stanza that it takes. `refused`: sizes of larger ones."""

    def __init__(self, address, secret, limit=None):
        self.limit, self.refused, self.by_name, self.raw = limit, [], {}, []
        self.errors = []  # stream errors that came, as bytes
        self.ends = 0     # streams that are over and read to their end
        self.live = []    # those that are not, the oldest first
        self.streams = 0  # that there have been
        super().__init__(address, secret)

    def _read(self, s):
        name, cutter = s.attrs["to"], Cutter()
        with self.changed:
            self.streams += 1
            s.number, self.by_name[name] = self.streams, s
            self.live.append(s)
            self.changed.notify_all()
        s.sock.settimeout(None)
        data = s.head + s.buffer
        try:
            while data:
                if not self._take(s, name, cutter, data):
                    return
                self.reading.wait()
                data = s.sock.recv(262144)
        except (expat.ExpatError, OSError):
            pass  # hung up in the middle of a word
        finally:
            with self.changed:
                self.live = [other for other in self.live if other is not s]
                self.ends += 1
                self.changed.notify_all()

    def _take(self, s, name, cutter, data):
        elements = cutter.feed(data)
        found = [Came(time.monotonic(), kind, attrs, name, len(raw), s.number)
                 for raw in elements for kind, attrs in [start_of(raw)]]
        self.errors += [raw for raw, c in zip(elements, found) if c.kind == "stream:error"]
        for raw in elements:
            self.heard(s, raw)
        stanzas = [c for c in found if c.kind in ("message", "presence", "iq")]
        counted = [c for c in stanzas if not c.attrs.get("id", "").startswith("flood")]
        with self.changed:
            self.flood += len(stanzas) - len(counted)
            self.heads += counted
            for c in counted:
                self.by_id.setdefault(c.attrs.get("id"), []).append(c)
            self.changed.notify_all()
        too_large = [c.size for c in stanzas if self.limit and c.size > self.limit]
        if self.limit and len(cutter.data) > self.limit + 1024:  # of one that is not whole yet
            too_large.append(len(cutter.data))
        if too_large:
            self.refused += too_large
            s.send(f"<stream:error><policy-violation xmlns='{STREAMS}'/></stream:error>"
                   "</stream:stream>")
        elif cutter.over:
            with self.sending:  # nothing is said behind it, nor elsewhere before all has been read
                s.over = True
                s.send("</stream:stream>")
                s.sock.settimeout(WAIT)
                while s.sock.recv(65536):
                    pass
        return not too_large and not cutter.over

    def heard(self, s, raw):
        """For those who answer: one element of a stream, as bytes."""

    def wait_joined(self, *names):
        """Streams of these names are up; of all that the gateway knows, if none is given."""
        self.wait_up()
        self.wait(lambda: set(names) <= set(self.by_name), what=f"streams {names}")

    def say(self, text, name=None):
        """On the stream of a name, or on the oldest one, so that order is kept when another takes
        its place. Waits while there is none, as a server does that has a queue."""
        def find():
            some = [s for s in self.live if name in (None, s.attrs["to"])]
            return some[0] if some and not getattr(some[0], "over", False) else None

        while True:
            self.wait(find, what="a stream to speak on")
            with self.sending:
                s = find()
                if s is not None:
                    s.sock.settimeout(None)
                    s.send(text)
                    return

    def hang_up(self):
        with self.changed:
            self.live = [s for s in self.live if s is not self.stream]
        super().hang_up()

    def end_in_order(self):
        """Closes its streams as a server that stops: what still comes is read."""
        for s in list(self.live):
            try:
                s.send("</stream:stream>")
            except OSError:
                pass


def start_of(raw):
    """The name and the attributes of the first tag of these bytes, prefixes as they stand."""
    found = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attrs: found or found.append((name, attrs))
    parser.Parse(raw, False)
    return found[0]


def link(lab, name, host=None, **more):
    """The settings of a link; component=None leaves that out."""
    settings = {"name": name, "address": f"{lab.ip(host)}:{LINK}", "component": f"{name}.edge.lab",
                "secret_file": lab.secret("edge"), **more}
    return {k: v for k, v in settings.items() if v is not None}


class Site:
    """alpha.lab and gamma.lab behind one gateway. `hosts`: an Insider, or whatever `kind` makes,
    for each, by number."""

    def __init__(self, lab, hosts, links, services=(), limit=None, kind=Insider, **settings):
        self.lab, self.address, self.streams = lab, lab.ip(Net.ALPHA), []
        lab.at_end(self)
        lab.dns({**{d: [(Net.ALPHA, S2S, 10)] for d in ("alpha.lab", "gamma.lab")},
                 "raw.lab": [(RAW, S2S, 10)], "any.lab": [(ANY, S2S, 10)], **dict(services)})
        secret = lab.secret("edge").read_text().strip()
        self.insides = [lab.at_end(kind(lab.ip(h), secret, limit)) for h in hosts]
        self.raw = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
        self.any = lab.at_end(RemoteServer(lab.ip(ANY), "any.lab"))
        settings["timeouts"] = {"close": "1s", **settings.get("timeouts", {})}
        self.settings = {"mode": "no-tls", "peers": ALLOW_ALL, "links": links,
                         "domains": [{"name": "alpha.lab"}, {"name": "gamma.lab"}], **settings}
        self.gateway = lab.gateway("gateway", "alpha.lab", Net.ALPHA, hosts[0], **self.settings)
        for inside in self.insides:
            inside.wait_up()

    def stream(self, local, remote="raw.lab"):
        """From outside, with the pair proven."""
        self.streams.append(authorised(self.address, remote, local))
        return self.streams[-1]

    def close(self):
        """The streams from outside hang up, so that the gateway need not wait for their closing
        tags when it stops."""
        for s in self.streams:
            s.close()

    def relink(self, links, **more):
        """Other links, from now on; the size of the log before."""
        self.settings.update(links=links, **more)
        since = self.gateway.log_size()
        temporary = self.gateway.conf.with_suffix(".new")
        temporary.write_text(gateway_conf(**self.lab.gateway_settings(
            "alpha.lab", Net.ALPHA, 0, **self.settings)))
        temporary.replace(self.gateway.conf)
        self.gateway.signal(signal.SIGHUP)
        line = self.gateway.wait_log(r"config\.(re)?loaded\b|config\.rejected", since)
        assert "rejected" not in line, line
        return since


def message(from_, to, ident, body="words"):
    return (f"<message from='{from_}' to='{to}' id='{ident}' type='chat'>"
            f"<body>{body}</body></message>")


class Flow:
    """Numbered messages: `senders` users of a domain take turns, `rate` messages a second in all,
    each number once. send(text): may raise when its stream has gone; then `lost_way` is called, if
    there is one, and must return another one."""

    def __init__(self, what, send, domain, to, senders=8, rate=300, again=None, body="words"):
        self.what, self.send, self.domain, self.to = what, send, domain, to
        self.senders, self.rate, self.again, self.body = senders, rate, again, body
        self.sent, self.doubtful = 0, []  # numbers that were given to a stream that broke
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def ident(self, n):
        return f"{self.what}.{n % self.senders}.{n}"

    def _run(self):
        began = time.monotonic()
        while not self.over.wait(max(0, began + self.sent / self.rate - time.monotonic())):
            n = self.sent
            sender = f"u{n % self.senders}@{self.domain}/x"
            text = message(sender, self.to, self.ident(n), self.body)
            try:
                self.send(text)
            except (Closed, OSError):
                if self.again is None or self.over.is_set():
                    return
                self.doubtful.append(n)
                self.send = self.again()
            self.sent = n + 1

    def wait_sent(self, more):
        wait_all_sent([self], more)

    def stop(self):
        self.over.set()
        self.thread.join(WAIT)
        assert not self.thread.is_alive(), f"{self.what} hangs"


def wait_all_sent(flows, more):
    targets = [(flow, flow.sent + more) for flow in flows]
    wait_for(lambda: all(flow.sent >= n for flow, n in targets), 30,
             f"{more} more messages of {[flow.what for flow in flows]}",
             lambda: str({flow.what: (flow.sent, n) for flow, n in targets}))


def numbers(ids, what):
    """Of ids of a flow, in their order."""
    return [int(i.rsplit(".", 1)[1]) for i in ids if i and i.startswith(what + ".")]


def by_sender(ids, what):
    """{sender: its numbers in order of arrival}"""
    out = {}
    for i in ids:
        if i and i.startswith(what + "."):
            _, sender, n = i.rsplit(".", 2)
            out.setdefault(int(sender), []).append(int(n))
    return out


def ids_inside(inside, errors=False):
    """Of messages: the gateway has probes of its own. In order of arrival, but each stream's before
    those of the streams that came after it: each is read by a thread of its own."""
    return [h.attrs.get("id") for h in sorted(inside.heads, key=lambda h: h.stream)
            if h.kind == "message" and (h.attrs.get("type") == "error") == errors]


def ids_outside(server, errors=False):
    return [e.get("id") for _, e in list(server.stanzas) if (e.get("type") == "error") == errors]


def assert_in_order(ids, what):
    for sender, got in by_sender(ids, what).items():
        assert got == sorted(got), f"{what}: sender {sender} is out of order: {got}"


def assert_once(arrived, bounced, sent, what):
    """Each of the numbers has come to exactly one end; returns (arrived, bounced) as counts."""
    fates = Counter(arrived) + Counter(bounced)
    assert not [n for n, c in fates.items() if c > 1], f"{what}: doubled"
    lost = set(range(sent)) - set(fates)
    assert not lost, f"{what}: {len(lost)} of {sent} lost, first {sorted(lost)[:5]}"
    return len(arrived), len(bounced)


class Outgoing:
    """A remote server's stream to the gateways of a domain, as such a server keeps it: when a
    gateway closes it, it closes too, and says the rest on a new one, to the first address that
    takes it. `hang_ups`: streams that ended without a closing tag."""

    def __init__(self, addresses, from_, to):
        self.addresses, self.from_, self.to = addresses, from_, to
        self.lock, self.stream, self.ended = threading.RLock(), None, False
        self.streams, self.hang_ups = [], 0  # addresses that were used
        with self.lock:
            self._open()

    def _open(self):
        end = time.monotonic() + WAIT
        while True:
            for address in self.addresses:
                try:
                    s = authorised(address, self.from_, self.to)
                except (Closed, Timeout, OSError, AssertionError):
                    continue
                self.stream = s
                self.streams.append(address)
                s.sock.settimeout(None)
                threading.Thread(target=self._watch, args=(s,), daemon=True).start()
                return
            if time.monotonic() > end or self.ended:
                raise Timeout(f"none of {self.addresses} takes a stream from {self.from_}")
            time.sleep(0.05)  # the pace of a server that tries again

    def _watch(self, s):
        """Until the gateway's closing tag, or the end."""
        data = b""
        try:
            while b"</stream:stream>" not in data[-64:]:
                more = s.sock.recv(65536)
                if not more:
                    raise Closed("end")
                data += more
            with self.lock:
                if self.stream is s:
                    self.stream = None
                s.send("</stream:stream>")
        except (Closed, OSError):
            with self.lock:
                if self.stream is s:
                    self.stream = None
                    self.hang_ups += 1

    def send(self, text):
        """What cannot be given to one stream whole is given to the next: nobody can have read
        it."""
        with self.lock:
            while True:
                if self.stream is None:
                    self._open()
                try:
                    self.stream.send(text)
                    return
                except OSError:
                    self.stream = None
                    self.hang_ups += 1

    def close(self):
        self.ended = True
        with self.lock:
            if self.stream:
                self.stream.close()
                self.stream = None
