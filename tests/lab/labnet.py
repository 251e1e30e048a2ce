"""The pieces of a federation laboratory on loopback addresses, for lab.py and tests/integ.

A `Lab` owns a run directory, a block of addresses 127.17.N.0/24 that no other running lab uses, and
every process started in it. Nothing here waits for a time to pass: `wait_for` polls a condition and
raises `Timeout` with what was waited for and, where there is one, the end of the log.
"""
import collections
import ctypes
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("SALLYPORT_BIN", ROOT / "build" / "bin"))
MODES = ("no-tls", "tls-optional", "tls-required")
S2S, DIRECT, LINK, DNS_PORT, C2S = 5269, 5270, 7400, 5353, 5222  # DIRECT: S2S, TLS first
WAIT = 10.0
PR_SET_PDEATHSIG = 1

# What the programs log; the only names of events that the lab depends on.
LOG_MODE_CHANGED = r"config\.changed\b.*\bkey=security_mode\b"
LOG_LINK_UP = r"\blink\.up\b"


class LabError(Exception):
    """Something that the reader can act on; printed without a traceback."""


class Timeout(LabError, AssertionError):
    pass


def wait_for(condition, timeout=WAIT, what="a condition", detail=None):
    """Polls until condition() is true and returns its value."""
    end = time.monotonic() + timeout
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            more = detail() if callable(detail) else detail
            raise Timeout(f"waited {timeout:g} s for {what}" + (f"\n{more}" if more else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def relative(path):
    try:
        return str(Path(path).resolve().relative_to(ROOT))
    except ValueError:
        return str(path)


def program(name):
    path = BIN / name
    if not path.exists():
        raise LabError(f"{relative(path)} is not there; run 'make' first")
    return str(path)


def tool(name):
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise LabError(f"{name} is not installed; run 'make deps'")
    return found


# ---- addresses ---------------------------------------------------------------------------------

def listening(address, port, proto="tcp"):
    """True when somebody listens there; asks the kernel, so that no connection is made."""
    want = f"{struct.unpack('<I', socket.inet_aton(address))[0]:08X}:{port:04X}"
    state = "0A" if proto == "tcp" else "07"
    with open(f"/proc/net/{proto}", encoding="ascii") as table:
        next(table)
        return any(f[1] == want and f[3] == state for f in (line.split() for line in table))


class Net:
    """127.17.N.0/24: a lock socket keeps N ours as long as this process lives."""
    DNS, ALPHA, ALPHA_LINK, BETA, BETA_LINK, PROSODY = 53, 11, 12, 21, 22, 31

    def __init__(self, first=1):
        for n in [*range(first, 250)]:
            if self._take(n):
                return
        raise LabError("no free block of addresses in 127.17.0.0/16")

    def _take(self, n):
        lock = socket.socket()
        try:
            lock.bind((f"127.17.{n}.254", 5299))
            lock.listen()
        except OSError:
            lock.close()
            return False
        self.n, self.lock = n, lock
        # A lab left running by `lab.py up` holds no lock, but it listens.
        used = [(self.DNS, DNS_PORT), (self.ALPHA, S2S), (self.BETA, S2S), (self.PROSODY, S2S)]
        if any(listening(self.ip(h), p) for h, p in used):
            lock.close()
            return False
        return True

    def ip(self, host):
        return f"127.17.{self.n}.{host}"

    @property
    def block(self):
        return f"127.17.{self.n}.0/24"

    def close(self):
        self.lock.close()


# ---- processes ---------------------------------------------------------------------------------

def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Proc:
    """A child in a session of its own; its output goes to a log file that can be waited on."""

    def __init__(self, name, argv, log, detach=False, **kw):
        self.name, self.argv, self.log_path = name, [str(a) for a in argv], Path(log)
        with open(self.log_path, "ab") as out:
            kw.setdefault("stdout", out)
            self.popen = subprocess.Popen(
                self.argv, stderr=out, start_new_session=True,
                stdin=kw.pop("stdin", subprocess.DEVNULL),
                preexec_fn=None if detach else _die_with_parent, **kw)

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def log(self, since=0):
        with open(self.log_path, "rb") as f:
            f.seek(since)
            return f.read().decode("utf-8", "replace")

    def log_size(self):
        return self.log_path.stat().st_size

    def log_tail(self, lines=15):
        tail = self.log().splitlines()[-lines:]
        return "\n".join([f"--- {relative(self.log_path)}"] + tail)

    def wait_log(self, pattern, since=0, timeout=WAIT):
        regex = re.compile(pattern)

        def found():
            for line in self.log(since).splitlines():
                if regex.search(line):
                    return line
            if not self.alive():
                raise LabError(f"{self.name} ended with {self.popen.returncode}\n{self.log_tail()}")
            return None

        return wait_for(found, timeout, f"{self.name} to log /{pattern}/", self.log_tail)

    def wait_listening(self, address, port, proto="tcp", timeout=WAIT):
        def ready():
            if not self.alive():
                raise LabError(f"{self.name} ended with {self.popen.returncode}\n{self.log_tail()}")
            return listening(address, port, proto)

        wait_for(ready, timeout, f"{self.name} to listen on {address}:{port}", self.log_tail)

    def signal(self, sig):
        self.popen.send_signal(sig)

    def wait(self, timeout=WAIT):
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Timeout(f"{self.name} did not end within {timeout:g} s\n{self.log_tail()}") \
                from None

    def kill(self):
        """Ends it at once, without good order."""
        if self.alive():
            self.popen.kill()
        self.popen.wait()

    def stop(self, timeout=5.0):
        """TERM, and KILL when that does not help; the exit code."""
        if self.alive():
            self.popen.terminate()
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.popen.wait()


class LabUser(Proc):
    """tests/lab/lab_user.c: commands in, events out."""

    def __init__(self, name, address, domain, secret_file, user, log, detach=False, fifo=None):
        self.domain, self.bare = domain, f"{user}@{domain}"
        self.jid = f"{self.bare}/lab"
        self.events, self.arrived = [], threading.Condition()
        argv = [program("lab-user"), address, domain, secret_file, user]
        if detach:
            # Opened for both directions: the pipe never ends, whoever writes into it.
            fd = os.open(fifo, os.O_RDWR)
            super().__init__(name, argv, log, detach=True, stdin=fd)
            os.close(fd)
            return
        super().__init__(name, argv, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with open(self.log_path, "ab", buffering=0) as log:
            for line in self.popen.stdout:
                log.write(line)
                with self.arrived:
                    self.events.append(json.loads(line))
                    self.arrived.notify_all()

    def command(self, line):
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def message(self, to, ident, text):
        self.command(f"message {to} {ident} {text}")

    def mark(self):
        """A place in the stream of events; give it to expect() as since."""
        return len(self.events)

    def expect(self, timeout=WAIT, since=0, event="stanza", **fields):
        """The first event after `since` whose fields are all as given."""
        def match(e):
            return e["event"] == event and all(e.get(k) == v for k, v in fields.items())

        end = time.monotonic() + timeout
        seen = since
        with self.arrived:
            while True:
                for e in self.events[seen:]:
                    if match(e):
                        return e
                seen = len(self.events)
                left = end - time.monotonic()
                if left <= 0 or not self.arrived.wait(left):
                    got = "\n".join(json.dumps(e) for e in self.events[since:][-10:])
                    raise Timeout(f"{self.name} waited {timeout:g} s for {event} {fields}; got:\n"
                                  f"{got}\n{self.log_tail(3)}")

    def seen(self, event="stanza", since=0, **fields):
        return [e for e in self.events[since:]
                if e["event"] == event and all(e.get(k) == v for k, v in fields.items())]

    def wait_connected(self, since=0):
        self.expect(event="connected", since=since)

    def stop(self, timeout=5.0):
        if self.popen.stdin:
            try:
                self.popen.stdin.close()
            except BrokenPipeError:
                pass
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        return super().stop(timeout)


class Gateway(Proc):
    """A sallyport process and its configuration file."""

    def __init__(self, name, conf, log, listen, detach=False):
        self.conf = Path(conf)
        argv = [program("sallyport"), "-c", conf] + root_option()
        super().__init__(name, argv, log, detach=detach)
        self.wait_listening(*listen)

    def edit(self, pattern, replacement):
        """Edits the configuration file as an operator would; the pattern must occur once."""
        text, n = re.subn(pattern, replacement, self.conf.read_text(), flags=re.M)
        if n != 1:
            raise LabError(f"{relative(self.conf)}: /{pattern}/ occurs {n} times")
        temporary = self.conf.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self.conf)

    def mode(self):
        return re.search(r'^security_mode\s*=\s*"([^"]*)"', self.conf.read_text(), re.M).group(1)

    def set_mode(self, mode):
        """Edits security_mode and sends SIGHUP; the offset from which to read the log."""
        since = self.log_size()
        self.edit(r"^security_mode\s*=\s*\"[^\"]*\"", f'security_mode = "{mode}"')
        self.signal(signal.SIGHUP)
        return since


def root_option():
    return ["--allow-root"] if os.geteuid() == 0 else []


# ---- configuration files -----------------------------------------------------------------------

def _quoted(items):
    return "[" + ", ".join(f'"{i}"' for i in items) + "]"


def _group(settings):
    def value(v):
        if isinstance(v, bool):
            return "true" if v else "false"
        if isinstance(v, int):
            return str(v)
        return _quoted(v) if isinstance(v, (list, tuple)) else f'"{v}"'

    return "{ " + " ".join(f"{k} = {value(v)};" for k, v in settings.items()) + " }"


def _objects(objects):
    return "(\n" + ",\n".join("  " + _group(o) for o in objects) + "\n)" if objects else "()"


def gateway_conf(*, domains, links, listen, dns, mode="tls-optional", privacy="allow-list",
                 peers=(), secret=None, source=None, ca=None, timeouts=None, limits=None,
                 dialback_timeout="5s", dns_timeout="3s", trust_ad=False, deny=(), auth=None,
                 direct_tls=(), tls=None, previous_secrets=(), control="", extra=""):
    """The text of a gateway's configuration."""
    dialback = {"secret_file": secret} if secret else {}
    if previous_secrets:
        dialback["previous_secret_files"] = previous_secrets
    doors = {"s2s": listen, **({"direct_tls": direct_tls} if direct_tls else {})}
    dialback["timeout"] = dialback_timeout
    lines = [
        "federation        = true;",
        f'security_mode     = "{mode}";        // no-tls | tls-optional | tls-required',
        f'privacy_mode      = "{privacy}";     // off | allow-list | deny-list',
        f"domains  = {_objects(domains)};",
        f"dialback = {_group(dialback)};",
        f"peers    = {_objects(peers)};",
        f"listen   = {_group(doors)};",
        f"links    = {_objects(links)};",
        f"dns      = {_group({'servers': dns, 'timeout': dns_timeout, 'trust_ad': trust_ad})};",
        f"outbound = {{ source = {_quoted(source or [])}; deny_networks = {_quoted(deny)}; }};",
    ]
    if timeouts:
        lines.append(f"timeouts = {_group(timeouts)};")
    if limits:
        lines.append(f"limits   = {_group(limits)};")
    tls = {**({"ca_file": ca} if ca else {}), **(tls or {})}
    if tls:
        lines.append(f"tls      = {_group(tls)};")
    if auth:
        lines.append(f"auth     = {_quoted(auth)};")
    if control is not None:  # the test's `extra` has it
        lines.append(f'control  = {{ socket = "{control}"; }};')
    lines.append('log      = { level = "debug"; format = "logfmt"; rate = 0; };')
    return "\n".join(lines) + "\n" + extra


def router_conf(*, listen, links, timeouts=None, control="", extra=""):
    lines = [f"listen = {{ links = {_quoted(listen)}; }};", f"links  = {_objects(links)};"]
    if timeouts:
        lines.append(f"timeouts = {_group(timeouts)};")
    lines.append(f'control = {{ socket = "{control}"; }};')
    lines.append('log    = { level = "debug"; format = "logfmt"; rate = 0; };')
    return "\n".join(lines) + "\n" + extra


# ---- the lab -----------------------------------------------------------------------------------

class Lab:
    """A run directory, a block of addresses, and the processes in it."""

    def __init__(self, run_dir, detach=False):
        self.dir = Path(run_dir).resolve()
        self.detach = detach
        self.procs, self.captures, self.others = [], [], []
        shutil.rmtree(self.dir, ignore_errors=True)
        for sub in ("logs", "conf", "pki", "capture"):
            (self.dir / sub).mkdir(parents=True)
        self.net = Net()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        for c in self.captures:
            c.stop(wait=False)
        for p in reversed(self.procs):
            p.stop()
        for o in self.others:
            o.close()
        self.procs.clear()
        self.net.close()

    def ip(self, host):
        return self.net.ip(host)

    def log(self, name):
        return self.dir / "logs" / f"{name}.log"

    def conf(self, name, text):
        path = self.dir / "conf" / name
        path.write_text(text)
        return path

    def secret(self, name, text=None):
        path = self.dir / "conf" / f"{name}.secret"
        if not path.exists():
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as f:
                f.write((text or random.SystemRandom().randbytes(16).hex()) + "\n")
        return path

    def adopt(self, proc):
        """This process ends with the lab."""
        self.procs.append(proc)
        return proc

    def at_end(self, thing):
        """thing.close() is called when the lab ends."""
        self.others.append(thing)
        return thing

    def spawn(self, name, argv, **kw):
        return self.adopt(Proc(name, argv, self.log(name), self.detach, **kw))

    # -- public key infrastructure

    def _openssl(self, *args):
        r = subprocess.run([tool("openssl"), *map(str, args)], capture_output=True, text=True)
        if r.returncode != 0:
            raise LabError(f"openssl {args[0]}: {r.stderr.strip()}")

    @property
    def ca(self):
        """The certificate of a small CA, made when first asked for."""
        cert, key = self.dir / "pki" / "ca.pem", self.dir / "pki" / "ca.key"
        if not cert.exists():
            self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                          "-nodes", "-keyout", key, "-out", cert, "-days", "365",
                          "-subj", "/CN=Sallyport lab CA",
                          "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        return cert

    def certificate(self, domain):
        """PEM certificate and key for a domain, signed by the lab's CA."""
        ca, pki = self.ca, self.dir / "pki"
        cert, key, req, ext = (pki / f"{domain}.{e}" for e in ("pem", "key", "csr", "ext"))
        if not cert.exists():
            ext.write_text(f"subjectAltName=DNS:{domain}\nbasicConstraints=critical,CA:FALSE\n"
                           "extendedKeyUsage=serverAuth,clientAuth\n")
            self._openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                          "-nodes", "-keyout", key, "-out", req, "-subj", f"/CN={domain}")
            self._openssl("x509", "-req", "-in", req, "-CA", ca, "-CAkey", pki / "ca.key",
                          "-CAcreateserial", "-out", cert, "-days", "90", "-extfile", ext)
            key.chmod(0o600)
        return cert, key

    # -- servers

    def dns(self, services, extra=(), name="dns"):
        """dnsmasq for *.lab. services: domain -> list of (host number, port, priority) behind its
        SRV records, [] for a domain with no record at all, None for a service declared absent."""
        ip = self.ip(Net.DNS)
        lines = ["no-resolv", "no-hosts", "bind-interfaces", f"listen-address={ip}",
                 f"port={DNS_PORT}", "local=/lab/", "cache-size=0", "log-queries",
                 "log-facility=-", f"pid-file={self.dir / 'dns.pid'}"]
        if os.geteuid() == 0:
            lines.append("user=root")
        for domain, targets in services.items():
            if targets is None:
                lines.append(f"srv-host=_xmpp-server._tcp.{domain}")
            for i, (host, port, priority) in enumerate(targets or ()):
                lines.append(f"srv-host=_xmpp-server._tcp.{domain},host{i}.{domain},{port},"
                             f"{priority},0")
                lines.append(f"host-record=host{i}.{domain},{self.ip(host)}")
        conf = self.conf(f"{name}.conf", "\n".join([*lines, *extra]) + "\n")
        proc = self.spawn(name, [tool("dnsmasq"), "-d", f"--conf-file={conf}"])
        proc.wait_listening(ip, DNS_PORT)
        return proc

    @property
    def dns_server(self):
        return f"{self.ip(Net.DNS)}:{DNS_PORT}"

    def router(self, name, host, domain, gateways=1, **kw):
        """A router for `gateways` gateways and the server of one domain."""
        listen = f"{self.ip(host)}:{LINK}"
        secret = self.secret(f"{domain}-edge")
        links = [{"name": f"edge{i + 1}", "role": "gateway", "transport": "accept",
                  "component": f"edge{i + 1}.{domain}", "secret_file": secret}
                 for i in range(gateways)]
        links.append({"name": "im", "role": "server", "transport": "accept", "component": domain,
                      "domains": [domain], "secret_file": self.secret(f"{domain}-im")})
        conf = self.conf(f"{name}.conf",
                         router_conf(listen=[listen], links=links, **kw))
        return self.start_router(name, conf, host)

    def start_router(self, name, conf, host):
        proc = self.spawn(name, [program("sallyport-router"), "-c", conf] + root_option())
        proc.wait_listening(self.ip(host), LINK)
        return proc

    def user(self, name, host, domain, user):
        fifo = None
        if self.detach:
            fifo = self.dir / f"{name}.in"
            os.mkfifo(fifo, 0o600)
        u = LabUser(name, f"{self.ip(host)}:{LINK}", domain, self.secret(f"{domain}-im"), user,
                    self.log(name), self.detach, fifo)
        return self.adopt(u)

    def gateway_settings(self, domain, host, router_host, edge=1, **kw):
        cert, key = self.certificate(domain)
        settings = {
            "domains": [{"name": domain, "certificate": cert, "key": key}],
            "links": [{"name": "core", "address": f"{self.ip(router_host)}:{LINK}",
                       "component": f"edge{edge}.{domain}",
                       "secret_file": self.secret(f"{domain}-edge")}],
            "listen": [f"{self.ip(host)}:{S2S}"], "dns": [self.dns_server],
            "secret": self.secret(f"{domain}-dialback"), "source": [self.ip(host)], "ca": self.ca,
        }
        settings.update(kw)
        return settings

    def gateway(self, name, domain, host, router_host, edge=1, **kw):
        """A gateway in front of a router; returns once the link between them stands."""
        conf = self.conf(f"{name}.conf", gateway_conf(
            **self.gateway_settings(domain, host, router_host, edge, **kw)))
        gw = self.start_gateway(name, conf, host)
        gw.wait_log(LOG_LINK_UP)
        return gw

    def start_gateway(self, name, conf, host):
        gw = Gateway(name, conf, self.log(name), (self.ip(host), S2S), self.detach)
        return self.adopt(gw)

    def capture(self, name):
        c = Capture(self, self.dir / "capture" / f"{name}.pcap")
        self.captures.append(c)
        return c


class Site:
    """One organisation: domain, router, user, gateway."""

    def __init__(self, lab, domain, host, router_host, user, **kw):
        short = domain.split(".")[0]
        self.domain, self.lab = domain, lab
        self.router = lab.router(f"{short}-router", router_host, domain)
        self.user = lab.user(f"{short}-user", router_host, domain, user)
        self.user_name = f"{user}@{domain}"
        self.gateway = lab.gateway(f"{short}-gateway", domain, host, router_host, **kw)
        self.address = lab.ip(host)
        if not lab.detach:
            self.user.wait_connected()


# ---- what is on the wire -----------------------------------------------------------------------

class Capture:
    """Packets of the lab's port 5269 in a pcap file: by dumpcap, or by a raw socket without it."""

    def __init__(self, lab, path):
        self.path, self.net = Path(path), lab.net
        self.filter = (f"net {lab.net.block} and (tcp port {S2S} or udp port 9)")
        self.dumpcap = shutil.which("dumpcap")
        if self.dumpcap:
            self.proc = Proc("capture", [self.dumpcap, "-q", "-i", "lo", "-f", self.filter, "-P",
                                         "-w", self.path], lab.log("capture"))
        else:
            self.sniffer = Sniffer(self.path, lab.net)
        self.running = True
        try:
            self._marker("start")
        except Timeout as e:
            why = self.proc.log_tail(4) if self.dumpcap else ""
            raise LabError(f"cannot capture packets on lo (root is needed): {e}\n{why}") from None

    def _marker(self, text):
        """Sends datagrams until one is in the file: what came before it is there too."""
        token = f"sallyport-lab {text} {random.random()}".encode()

        def arrived():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.sendto(token, (self.net.ip(1), 9))
            if self.dumpcap and not self.proc.alive():
                raise Timeout("dumpcap ended")
            return self.path.exists() and token in self.path.read_bytes()

        wait_for(arrived, 10, "the capture to run")

    def stop(self, wait=True):
        """Everything sent before this call is in the file when it returns."""
        if not self.running:
            return
        self.running = False
        if wait:
            self._marker("stop")
        if self.dumpcap:
            self.proc.stop()
        else:
            self.sniffer.stop()

    def conversations(self):
        return conversations(self.path)


class Sniffer:
    """A raw socket on lo writing pcap; needs CAP_NET_RAW."""
    ETH_P_IP, PACKET_OUTGOING = 0x0800, 4

    def __init__(self, path, net):
        self.prefix = socket.inet_aton(net.ip(0))[:3]
        try:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        except PermissionError:
            raise LabError("capturing packets on lo needs root (CAP_NET_RAW)") from None
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind(("lo", 0))
        self.socket.settimeout(0.2)
        self.file = open(path, "wb", buffering=0)
        self.file.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 262144, 1))
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ended.is_set():
            try:
                frame, (_, proto, kind, *_rest) = self.socket.recvfrom(262144)
            except TimeoutError:
                continue
            if proto != self.ETH_P_IP or kind == self.PACKET_OUTGOING or len(frame) < 34:
                continue
            if self.prefix not in (frame[26:29], frame[30:33]) or not self._wanted(frame):
                continue
            now = time.time()
            self.file.write(struct.pack("<IIII", int(now), int(now % 1 * 1e6), len(frame),
                                        len(frame)) + frame)

    @staticmethod
    def _wanted(frame):
        at = 14 + (frame[14] & 15) * 4
        ports = struct.unpack_from("!HH", frame, at)
        return (frame[23] == 6 and S2S in ports) or (frame[23] == 17 and 9 in ports)

    def stop(self):
        self.ended.set()
        self.thread.join()
        self.socket.close()
        self.file.close()


def tcp_segments(path):
    """(time, (source, port), (destination, port), sequence number, flags, payload) of a pcap."""
    data = Path(path).read_bytes()
    at = 24
    while at + 16 <= len(data):
        seconds, micros, length, _ = struct.unpack_from("<IIII", data, at)
        frame = data[at + 16:at + 16 + length]
        at += 16 + length
        if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != 6:
            continue
        tcp = 14 + (frame[14] & 15) * 4
        end = 14 + struct.unpack_from("!H", frame, 16)[0]
        sport, dport, seq, _ack, offset, flags = struct.unpack_from("!HHIIBB", frame, tcp)
        yield (seconds + micros / 1e6, (socket.inet_ntoa(frame[26:30]), sport),
               (socket.inet_ntoa(frame[30:34]), dport), seq, flags,
               frame[tcp + (offset >> 4) * 4:end])


class Conversation:
    """One TCP connection as it was on the wire."""

    def __init__(self, time_, client, server):
        self.time, self.client, self.server = time_, client, server
        self.segments = {client: [], server: []}
        self.first = {}

    def add(self, source, seq, flags, payload):
        base = self.first.setdefault(source, seq + 1 if flags & 2 else seq)
        if payload:
            self.segments[source].append(((seq - base) & 0xffffffff, payload))

    def _bytes(self, source):
        out = b""
        for offset, payload in sorted(self.segments[source]):
            if offset <= len(out) < offset + len(payload):
                out += payload[len(out) - offset:]
        return out

    def read(self):
        """Splits both directions into what was in clear and what was TLS."""
        self.sent, self.received = self._bytes(self.client), self._bytes(self.server)
        self.clear_sent, tls_sent = _split(self.sent, rb"<starttls\b[^>]*?(?:/>|>\s*</starttls>)")
        self.clear_received, tls_received = _split(
            self.received, rb"<proceed\b[^>]*?(?:/>|>\s*</proceed>)")
        self.starttls_sent = bool(re.search(rb"<starttls\b", self.clear_sent))
        self.proceeded = bool(re.search(rb"<proceed\b", self.clear_received))
        self.offered = bool(re.search(rb"<starttls\b", self.clear_received))
        self.required = bool(re.search(rb"<required\b", self.clear_received))
        up, down = _records(tls_sent), _records(tls_received)
        self.tls = _tls_version(down) if up and down else None
        self.application_data = all(any(t == 23 for t, _ in d) for d in (up, down))
        return self


def _split(data, pattern):
    """Clear bytes up to and with the element, TLS records after it."""
    m = re.search(pattern, data)
    if m and data[m.end():m.end() + 1] == b"\x16":
        return data[:m.end()], data[m.end():]
    return data, b""


def _records(data):
    out, at = [], 0
    while at + 5 <= len(data) and 20 <= data[at] <= 23 and data[at + 1] == 3:
        size = struct.unpack_from("!H", data, at + 3)[0]
        out.append((data[at], data[at + 5:at + 5 + size]))
        at += 5 + size
    return out


def _tls_version(records):
    """From the ServerHello: supported_versions (43), else the version it names."""
    hello = next((r for t, r in records if t == 22 and r[:1] == b"\x02"), None)
    if hello is None:
        return None
    version = struct.unpack_from("!H", hello, 4)[0]
    at = 38 + 1 + hello[38] + 3
    end = min(len(hello), at + 2 + struct.unpack_from("!H", hello, at)[0]) \
        if at + 2 <= len(hello) else at
    at += 2
    while at + 4 <= end:
        kind, size = struct.unpack_from("!HH", hello, at)
        if kind == 43 and size == 2:
            version = struct.unpack_from("!H", hello, at + 4)[0]
        at += 4 + size
    return {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}.get(version, f"0x{version:04x}")


def conversations(path):
    """All connections of a capture that were opened while it ran, oldest first."""
    table = collections.OrderedDict()
    for time_, source, destination, seq, flags, payload in tcp_segments(path):
        key = frozenset((source, destination))
        if flags & 0x12 == 0x02:
            table[key] = Conversation(time_, source, destination)
        if key in table:
            table[key].add(source, seq, flags, payload)
    return [c.read() for c in table.values()]


def tshark(path, *args):
    """Lines that tshark prints about a capture, with port 5269 read as XMPP."""
    r = subprocess.run([tool("tshark"), "-n", "-r", str(path), "-d", f"tcp.port=={S2S},xmpp",
                        *args], capture_output=True, text=True)
    if r.returncode != 0:
        raise LabError(f"tshark: {r.stderr.strip()}")
    return r.stdout.splitlines()


def median(values):
    return statistics.median(values)
