"""The servers that are measured side by side, each started from a configuration of its own.

All stand before the same world: the domains rNNNN.XX.lab and the inside domain in.XX.lab, both
played by bench-load, where XX is the server's short name. Every server takes TLS when it is offered
and does without when not, so that the load decides. None limits the rate of traffic; dialback
without a look at certificates; logging as each distribution's default has it (info, to a file).
"""
import os
import shutil
import signal
import subprocess
from pathlib import Path

from labnet import LabError, Proc, gateway_conf, program, root_option

S2S, COMPONENT, LINK, DNS_PORT = 5269, 5347, 7400, 53
SECRET = "secret"


def find(*names):
    """The first of these programs that is installed."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return found
    return None


def children(pid):
    """pid and all its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found = [pid]
    for p in found:
        found += parents.get(p, [])
    return found


class Server:
    title, short, host = "", "", 0
    inside = "component"  # who connects on the inside: "accept": the server dials us
    binary = ()

    def __init__(self, lab):
        self.lab, self.procs = lab, []
        self.suffix = f"{self.short}.lab"
        self.domain = f"in.{self.suffix}"
        self.address, self.world = lab.ip(self.host), lab.ip(self.host + 1)
        self.dir = lab.dir / self.short
        self.dir.mkdir(exist_ok=True)

    @classmethod
    def missing(cls):
        return None if find(*cls.binary) else f"{cls.binary[0]} is not installed"

    def certificate(self):
        return self.lab.certificate(self.domain)

    def pem(self):
        """Key and certificate in one file."""
        path = self.dir / "server.pem"
        if not path.exists():
            cert, key = self.certificate()
            path.write_text(key.read_text() + cert.read_text())
        return path

    def resolv_conf(self):
        return self.lab.conf("resolv.conf", f"nameserver {self.lab.ip(53)}\n")

    def spawn(self, name, argv, **kw):
        proc = self.lab.spawn(f"{self.short}-{name}", argv, **kw)
        self.procs.append(proc)
        return proc

    def isolated(self, name, argv, mount=None):
        """A program that starts others or changes its user: all end with the shell that is the
        first process of their namespace. mount: (file, over what)."""
        unshare = [find("unshare"), "--pid", "--mount", "--fork", "--kill-child=KILL", "sh", "-c"]
        before = f"mount --bind {mount[0]} {mount[1]} && " if mount else ""
        return self.spawn(name, unshare + [f'{before}"$@"; exit $?', "sh"] + [str(a) for a in argv])

    def start(self):
        raise NotImplementedError

    def stop(self):
        for p in reversed(self.procs):
            p.kill()
            self.lab.procs.remove(p)
        self.procs.clear()

    def pids(self):
        return [pid for p in self.procs for pid in children(p.pid)]

    def alive(self):
        return bool(self.procs) and all(p.alive() for p in self.procs)

    def cpu(self):
        """Seconds of user and system time of all its processes."""
        ticks = 0
        for pid in self.pids():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def rss(self):
        """KiB."""
        total = 0
        for pid in self.pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in status.splitlines()
                         if line.startswith("VmRSS:"))
        return total

    def load_options(self, tls):
        at = f"{self.world}:{LINK}" if self.inside == "accept" else f"{self.address}:{COMPONENT}"
        return ["--server", f"{self.address}:{S2S}", "--inside", self.inside, "--inside-at", at]


class Sallyport(Server):
    title, short, host, inside = "sallyport", "sp", 10, "accept"

    @classmethod
    def missing(cls):
        try:
            program("sallyport")
        except LabError as e:
            return str(e)
        return None

    def start(self):
        cert, key = self.certificate()
        many = {k: 20000 for k in ("connections", "connections_per_source", "unauthenticated")}
        text = gateway_conf(
            domains=[{"name": self.domain, "certificate": cert, "key": key}],
            links=[{"name": "core", "address": f"{self.world}:{LINK}",
                    "component": f"edge.{self.suffix}",
                    "secret_file": self.lab.secret("bench-link", SECRET)}],
            listen=[f"{self.address}:{S2S}"], dns=[f"{self.lab.ip(53)}:{DNS_PORT}"],
            privacy="off", source=[self.address], ca=self.lab.ca, limits=many)
        text = text.replace('level = "debug"', 'level = "info"').replace("rate = 0", "rate = 1000")
        conf = self.lab.conf("sallyport.conf", text)
        proc = self.spawn("server", [program("sallyport"), "-c", conf] + root_option())
        proc.wait_listening(self.address, S2S)


class Prosody(Server):
    title, short, host, binary = "Prosody", "pr", 20, ("prosody",)

    def start(self):
        cert, key = self.certificate()
        conf = self.lab.conf("prosody.cfg.lua", f'''
run_as_root = true
pidfile = "{self.dir}/prosody.pid"
data_path = "{self.dir}"
interfaces = {{ "{self.address}" }}
s2s_ports = {{ {S2S} }}
c2s_ports = {{}}
s2s_direct_tls_ports = {{}}
c2s_direct_tls_ports = {{}}
component_ports = {{ {COMPONENT} }}
component_interfaces = {{ "{self.address}" }}
http_ports = {{}}
https_ports = {{}}
modules_enabled = {{ "disco", "roster", "saslauth", "tls", "dialback", "ping", "s2s" }}
modules_disabled = {{ "s2s_auth_certs_none" }}
s2s_require_encryption = false
s2s_secure_auth = false
ssl = {{ certificate = "{cert}", key = "{key}", cafile = "{self.lab.ca}" }}
unbound = {{ resolvconf = false, hoststxt = false, forward = "{self.lab.ip(53)}@{DNS_PORT}" }}
log = {{ info = "*console" }}
VirtualHost "host.{self.suffix}"
Component "{self.domain}"
  component_secret = "{SECRET}"
''')
        proc = self.spawn("server", [find("prosody"), "--config", conf, "-F"])
        proc.wait_listening(self.address, S2S)
        proc.wait_listening(self.address, COMPONENT)


class Ejabberd(Server):
    title, short, host, binary = "ejabberd", "ej", 30, ("ejabberdctl",)

    @classmethod
    def missing(cls):
        if os.geteuid() != 0:
            return "starting ejabberd as its own user needs root"
        return super().missing()

    def start(self):
        for sub in ("logs", "spool"):
            shutil.rmtree(self.dir / sub, ignore_errors=True)
            (self.dir / sub).mkdir()
        (self.dir / "inetrc").write_text('{lookup,["file","native"]}.\n')  # the package's
        (self.dir / "ejabberdctl.cfg").write_text(
            f"INET_DIST_INTERFACE={self.address}\nERL_DIST_PORT=5210\n"
            f"ERLANG_NODE=bench{self.lab.net.n}@localhost\n")
        (self.dir / "ejabberd.yml").write_text(f'''
hosts: ["host.{self.suffix}"]
loglevel: info
certfiles: ["{self.pem()}"]
ca_file: "{self.lab.ca}"
listen:
  - {{ port: {S2S}, ip: "{self.address}", module: ejabberd_s2s_in, max_stanza_size: 524288 }}
  - port: {COMPONENT}
    ip: "{self.address}"
    module: ejabberd_service
    shaper: none
    hosts: {{ "{self.domain}": {{ password: "{SECRET}" }} }}
s2s_use_starttls: optional
outgoing_s2s_families: [ipv4]
outgoing_s2s_ipv4_address: "{self.address}"
modules:
  mod_s2s_dialback: {{}}
''')
        subprocess.run(["chown", "-R", "ejabberd:ejabberd", str(self.dir)], check=True)
        d = self.dir
        proc = self.isolated("server", [
            find("setpriv"), "--reuid=ejabberd", "--regid=ejabberd", "--clear-groups", "env",
            f"HOME={d}", find("ejabberdctl"), "--config-dir", d, "--config", d / "ejabberd.yml",
            "--logs", d / "logs", "--spool", d / "spool", "foreground"],
            mount=(self.resolv_conf(), "/etc/resolv.conf"))
        proc.wait_listening(self.address, S2S, timeout=40)
        proc.wait_listening(self.address, COMPONENT, timeout=40)


class Jabberd2(Server):
    title, short, host, binary = "jabberd2", "jd", 40, ("jabberd2-s2s",)

    @classmethod
    def missing(cls):
        if os.geteuid() != 0:
            return "giving jabberd2 a resolver of its own needs root"
        return super().missing()

    def start(self):
        users = self.lab.conf("router-users.xml", "<users><user><name>jabberd</name>"
                              f"<secret>{SECRET}</secret></user></users>\n")
        router = self.lab.conf("router.xml", f'''<router>
<id>router</id><pidfile>{self.dir}/router.pid</pidfile>
<log type='file'><file>{self.dir}/router.log</file></log>
<local><ip>{self.address}</ip><port>{COMPONENT}</port><users>{users}</users>
<secret>{SECRET}</secret></local>
<io><max_fds>8192</max_fds></io>
<aci><acl type='all'><user>jabberd</user></acl></aci>
</router>
''')
        s2s = self.lab.conf("s2s.xml", f'''<s2s>
<id>s2s</id><pidfile>{self.dir}/s2s.pid</pidfile>
<router><ip>{self.address}</ip><port>{COMPONENT}</port><user>jabberd</user>
<pass>{SECRET}</pass></router>
<log type='file'><file>{self.dir}/s2s.log</file></log>
<local><ip>{self.address}</ip><port>{S2S}</port><origins><ip>{self.address}</ip></origins>
<secret>0123456789abcdef</secret><pemfile>{self.pem()}</pemfile></local>
<io><max_fds>8192</max_fds><limits><stanzasize>524288</stanzasize></limits></io>
<lookup><srv>xmpp-server</srv><bad-host-timeout>0</bad-host-timeout></lookup>
</s2s>
''')
        proc = self.spawn("router", [find("jabberd2-router"), "-c", router])
        proc.wait_listening(self.address, COMPONENT)
        proc = self.isolated("s2s", [find("jabberd2-s2s"), "-c", s2s],
                             mount=(self.resolv_conf(), "/etc/resolv.conf"))
        proc.wait_listening(self.address, S2S)


class HAProxy(Server):
    """No XMPP at all: takes TLS off (or puts it on) and hands bytes over. The lower bound."""
    title, short, host, binary, inside = "HAProxy (relay)", "ha", 50, ("haproxy",), "relay"

    def start(self):
        a, w, pem = self.address, self.world, self.pem()
        conf = self.lab.conf("haproxy.cfg", f'''
global
  nbthread 1
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen in-tls
  bind {a}:{S2S} ssl crt {pem}
  server inside {w}:{LINK}
listen in-clear
  bind {a}:5268
  server inside {w}:{LINK}
listen out-tls
  bind {a}:5267
  server world {w}:{S2S} ssl verify none
listen out-clear
  bind {a}:5266
  server world {w}:{S2S}
''')
        proc = self.spawn("server", [find("haproxy"), "-db", "-f", conf])
        proc.wait_listening(a, 5266)

    def load_options(self, tls):
        into, out = (S2S, 5267) if tls else (5268, 5266)
        return ["--server", f"{self.address}:{into}", "--inside", "relay", "--inside-at",
                f"{self.world}:{LINK}", "--relay-out", f"{self.address}:{out}"]


ALL = [Sallyport, Prosody, Ejabberd, Jabberd2, HAProxy]


class Load:
    """bench-load before one server: commands in, answers out."""

    def __init__(self, server, tls, seconds):
        self.server, self.lab, self.tls = server, server.lab, tls
        cert, key = self.lab.certificate(f"*.{server.suffix}")
        argv = [program("bench-load"), "--suffix", server.suffix, "--listen",
                f"{server.world}:{S2S}", "--cert", str(cert), "--key", str(key), "--secret",
                SECRET, "--limit", str(seconds)] + server.load_options(tls)
        if tls:
            argv.append("--tls")
        self.proc = self.lab.adopt(Proc(
            f"{server.short}-load", argv, self.lab.log(f"{server.short}-load"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1))
        if self.proc.popen.stdout.readline().strip() != "ready":
            raise LabError(self.proc.log_tail())

    def command(self, line):
        """The fields of its answer; LabError when it could not be done."""
        self.proc.popen.stdin.write(line + "\n")
        answer = self.proc.popen.stdout.readline().split()
        if not answer or answer[0] != "ok":
            raise LabError(f"{self.server.title}: {line.split()[0]}: "
                           f"{' '.join(answer[1:]) or 'bench-load ended'}")
        return {k: int(v) for k, v in (f.split("=") for f in answer if "=" in f)}

    def measured(self, line):
        """(CPU seconds of the server, the answer's fields)."""
        before = self.server.cpu()
        fields = self.command(line)
        return self.server.cpu() - before, fields

    def stop(self):
        if self.proc.alive():
            self.proc.signal(signal.SIGKILL)
        self.proc.popen.wait()
        for pipe in (self.proc.popen.stdin, self.proc.popen.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        self.lab.procs.remove(self.proc)
