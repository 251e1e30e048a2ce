"""A real ejabberd: as the remote server (`start`), or as the organisation's own behind a gateway
(`start_inside`), where it has no S2S at all.

Its SRV queries go to the lab's resolver, which an inetrc file names. Addresses it asks of the C
library, whose resolver cannot be redirected without root; so the lab's SRV record for it has an
address in dotted form as its target (`srv_record`), for which nobody needs to be asked.

It runs as its own user, as Debian's start script demands, with an epmd of its own on the lab's
address; that daemon outlives its node and is ended here by its process id.
"""
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from labnet import C2S, DIRECT, DNS_PORT, LINK, ROOT, S2S, LabError, Net, Proc, tool, wait_for

HOST = 32
CHECK_NOT = "    check_from: false\n"  # the gateway does it
ADAPTERS = ROOT / "xcp" / "adapters"
STANZA_SIZE = 524288  # of its S2S listener, in Debian's file
STARTTLS = {"no-tls": "false", "tls-optional": "optional", "tls-required": "required"}


def usable():
    """Its start script wants root, or its own user."""
    return os.geteuid() == 0 and shutil.which(
        "ejabberdctl", path=os.environ.get("PATH", "") + ":/usr/sbin")


def _tuple(address):
    return "{" + address.replace(".", ",") + "}"


def own(path):
    """ejabberd's user must read and write below `path`, and pass through its parents."""
    user = pwd.getpwnam("ejabberd")
    for p in [path, *path.rglob("*")]:
        os.chown(p, user.pw_uid, user.pw_gid)


def _home(lab, name):
    """A directory that the user ejabberd can reach whoever owns the lab's; removed at the end."""
    home = Path("/tmp") / f"sallyport-{name}-{lab.net.n}-{os.getpid()}"
    shutil.rmtree(home, ignore_errors=True)
    for sub in ("log", "spool"):
        (home / sub).mkdir(parents=True)
    return home


def srv_record(lab, domain, host, direct_tls=False):
    """A line for lab.dns(extra=...) by which ejabberd finds the server of a domain."""
    service, port = ("_xmpps-server", DIRECT) if direct_tls else ("_xmpp-server", S2S)
    return f"srv-host={service}._tcp.{domain},{lab.ip(host)},{port},10,0"


class Ejabberd(Proc):
    """The start script; its children carry the place of its modules in their environment."""

    def __init__(self, lab, name, home, ip, env, namespace=()):
        self.home, self.env, self.ip, self.node = home, env, ip, f"{name}@{ip}"
        self.mark = f"CONTRIB_MODULES_PATH={home}/modules".encode()
        self.script = [tool("ejabberdctl"), "--config-dir", home, "--config", home / "ejabberd.yml",
                       "--ctl-config", home / "ejabberdctl.cfg", "--logs", home / "log",
                       "--spool", home / "spool", "--node", self.node]
        super().__init__(name, [*namespace, *self.script, "foreground"], lab.log(name), lab.detach,
                         env=env, cwd=home)

    def again(self, lab):
        """The same node once more, after its end; not waited for."""
        return lab.adopt(Ejabberd(lab, self.name, self.home, self.ip, self.env))

    def wait_users(self):
        """Until they can log in."""
        self.wait_listening(self.ip, C2S, timeout=60)

    def control(self, *command):
        """Runs ejabberdctl on the node; what it prints."""
        done = subprocess.run([*map(str, self.script), *command], env=self.env, cwd=self.home,
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise LabError(f"ejabberdctl {command[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def pids(self):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if self.mark in (entry / "environ").read_bytes().split(b"\0"):
                        yield int(entry.name)
                except OSError:
                    continue

    def _end(self, sig):
        for pid in list(self.pids()):
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                continue

    def kill(self):
        self._end(signal.SIGKILL)
        self.popen.wait()

    def stop(self, timeout=5.0):
        """The node, its helpers, its epmd and the start script at once."""
        self._end(signal.SIGKILL)
        wait_for(lambda: self.popen.poll() is not None and not list(self.pids()), timeout,
                 "ejabberd and its epmd to end")
        shutil.rmtree(self.home, ignore_errors=True)
        return self.popen.returncode


def _epmd_port(lab, host):
    """One for each node: epmd also takes the loopback address, whatever address it is given."""
    return 10000 + 100 * lab.net.n + host


def _own_resolver(lab, name, resolver):
    """What starts a program for which there is no other DNS server than this one."""
    conf = lab.conf(f"{name}.resolv.conf", f"nameserver {resolver}\n")
    return [tool("unshare"), "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"',
            conf]


def _launch(lab, name, host, home, yml, resolver=None, cluster=None, loglevel="debug"):
    """Runs ejabberd with this configuration. resolver: the address of a DNS server that answers
    everything; without it SRV queries go to the lab's. cluster: (addresses, port) of an epmd that
    runs already; without it the node starts its own, which ends with it."""
    ip = lab.ip(host)
    (home / "inetrc").write_text(
        "{resolv_conf, \"\"}.\n{hosts_file, \"\"}.\n{lookup, [file, dns]}.\n"
        f"{{nameserver, {_tuple(lab.ip(Net.DNS))}, {DNS_PORT}}}.\n")  # after what empties the list
    if resolver:
        shutil.copy("/etc/ejabberd/inetrc", home)
    lab.conf(f"{name}.yml", yml)  # stays for the reader
    (home / "ejabberd.yml").write_text(yml)
    (home / "ejabberdctl.cfg").write_text(
        f"INET_DIST_INTERFACE={ip}\n"
        f"ERL_OPTIONS='-kernel logger_level {loglevel} -pa {home}/beams'\n"
        "POLL=true\n")
    own(home)
    epmd, port = cluster or (ip, _epmd_port(lab, host))
    env = dict(os.environ, ERL_EPMD_ADDRESS=epmd, ERL_EPMD_PORT=str(port),
               HOME=str(home), CONTRIB_MODULES_PATH=str(home / "modules"))
    namespace = _own_resolver(lab, name, resolver) if resolver else ()
    return lab.adopt(Ejabberd(lab, name, home, ip, env, namespace))


def start(lab, domain="ejabberd.lab", host=HOST, mode="tls-optional", name="ejabberd",
          more_domains=(), modules="", resolver=None, direct_tls=False):
    """Returns the process once it listens; whoever logs in is registered by ServerUser."""
    ip, home = lab.ip(host), _home(lab, name)
    door = f'  - {{port: {DIRECT}, ip: "{ip}", module: ejabberd_s2s_in, tls: true}}\n' \
        if direct_tls else ""
    cert, key = lab.certificate(domain)
    (home / "both.pem").write_bytes(cert.read_bytes() + key.read_bytes())
    (home / "ca.pem").write_bytes(lab.ca.read_bytes())
    proc = _launch(lab, name, host, home, f'''
loglevel: debug
hosts: [{", ".join((domain, *more_domains))}]
certfiles: ["{home}/both.pem"]
ca_file: "{home}/ca.pem"
s2s_use_starttls: {STARTTLS[mode]}
s2s_access: all
outgoing_s2s_families: [ipv4]
auth_method: internal
registration_timeout: infinity
listen:
  - {{port: {C2S}, ip: "{ip}", module: ejabberd_c2s, access: all, starttls: false}}
  - {{port: {S2S}, ip: "{ip}", module: ejabberd_s2s_in, max_stanza_size: {STANZA_SIZE}}}
{door}modules:
  mod_disco: {{}}
  mod_ping: {{}}
  mod_register: {{ip_access: all, access: all, welcome_message: {{}}}}
  mod_roster: {{}}
  mod_s2s_dialback: {{}}
{modules}''', resolver)
    proc.wait_users()
    proc.wait_listening(ip, S2S, timeout=30)
    return proc


def compile_adapter(directory, *sources):
    """erlc over the module, and over what a test adds, against the ejabberd of the system."""
    lib = next(Path("/usr/lib").glob("*/ejabberd-*/ebin")).parent.parent
    argv = [tool("erlc"), "-Wall", "-Werror", "-o", directory, ADAPTERS / "mod_sallyport.erl",
            *sources]
    done = subprocess.run([str(a) for a in argv], env=dict(os.environ, ERL_LIBS=str(lib)),
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"erlc: {done.stdout}{done.stderr}")
    return lib


def start_inside(lab, *args, **kw):
    """As launch_inside; returns the process once users and gateways can join."""
    proc = launch_inside(lab, *args, **kw)
    proc.wait_users()
    proc.wait_listening(proc.ip, LINK, timeout=30)
    return proc


def launch_inside(lab, domains, components, gateways=None, host=HOST, name="ejabberd",
                  listener="", s2s_access="none", cluster=None, loglevel="debug"):
    """The organisation's own server for `domains`, each with chat rooms; `components` may join at
    7400. gateways: the option of xcp/adapters/mod_sallyport.erl; without it that is not loaded.
    listener: more lines for the listener of components."""
    ip, home = lab.ip(host), _home(lab, name)
    adapter = ""
    if gateways:
        (home / "beams").mkdir()
        compile_adapter(home / "beams")
        adapter = f"  mod_sallyport: {{gateways: [{', '.join(gateways)}]}}\n"
        listener += CHECK_NOT
    secret = lab.secret("edge").read_text().strip()
    joining = "".join(f"      {c}: {{password: \"{secret}\"}}\n" for c in components)
    return _launch(lab, name, host, home, f'''
loglevel: {loglevel}
hosts: [{", ".join(domains)}]
s2s_access: {s2s_access}
auth_method: internal
registration_timeout: infinity
listen:
  - {{port: {C2S}, ip: "{ip}", module: ejabberd_c2s, access: all, starttls: false}}
  -
    port: {LINK}
    ip: "{ip}"
    module: ejabberd_service
{listener}    hosts:
{joining}modules:
  mod_disco: {{}}
  mod_muc: {{}}
  mod_ping: {{}}
  mod_register: {{ip_access: all, access: all, welcome_message: {{}}}}
  mod_roster: {{}}
{adapter}''', cluster=cluster, loglevel=loglevel)
