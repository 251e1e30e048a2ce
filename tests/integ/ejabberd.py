"""A real ejabberd as the remote server.

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
from pathlib import Path

from labnet import C2S, DNS_PORT, S2S, Net, Proc, tool, wait_for

HOST, EPMD_PORT = 32, 4369
STARTTLS = {"no-tls": "false", "tls-optional": "optional", "tls-required": "required"}


def usable():
    """Its start script wants root, or its own user."""
    return os.geteuid() == 0 and shutil.which(
        "ejabberdctl", path=os.environ.get("PATH", "") + ":/usr/sbin")


def _tuple(address):
    return "{" + address.replace(".", ",") + "}"


def _own(path):
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


def srv_record(lab, domain, host):
    """A line for lab.dns(extra=...) by which ejabberd finds the server of a domain."""
    return f"srv-host=_xmpp-server._tcp.{domain},{lab.ip(host)},{S2S},10,0"


class Ejabberd(Proc):
    """The start script; its children carry the lab's address for epmd in their environment."""

    def __init__(self, lab, name, argv, home, address, env):
        self.home, self.mark = home, f"ERL_EPMD_ADDRESS={address}".encode()
        super().__init__(name, argv, lab.log(name), lab.detach, env=env, cwd=home)

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


def start(lab, domain="ejabberd.lab", host=HOST, mode="tls-optional", name="ejabberd"):
    """Returns the process once it listens; whoever logs in is registered by Client.register."""
    ip, home = lab.ip(host), _home(lab, name)
    cert, key = lab.certificate(domain)
    (home / "both.pem").write_bytes(cert.read_bytes() + key.read_bytes())
    (home / "ca.pem").write_bytes(lab.ca.read_bytes())
    (home / "inetrc").write_text(
        "{resolv_conf, \"\"}.\n{hosts_file, \"\"}.\n{lookup, [file, dns]}.\n"
        f"{{nameserver, {_tuple(lab.ip(Net.DNS))}, {DNS_PORT}}}.\n")  # after what empties the list
    conf = lab.conf(f"{name}.yml", f'''
loglevel: debug
hosts: ["{domain}"]
certfiles: ["{home}/both.pem"]
ca_file: "{home}/ca.pem"
s2s_use_starttls: {STARTTLS[mode]}
s2s_access: all
outgoing_s2s_families: [ipv4]
auth_method: internal
registration_timeout: infinity
listen:
  - {{port: {C2S}, ip: "{ip}", module: ejabberd_c2s, access: all, starttls: false}}
  - {{port: {S2S}, ip: "{ip}", module: ejabberd_s2s_in}}
modules:
  mod_disco: {{}}
  mod_ping: {{}}
  mod_register: {{ip_access: all, access: all, welcome_message: {{}}}}
  mod_roster: {{}}
  mod_s2s_dialback: {{}}
''')
    shutil.copy(conf, home / "ejabberd.yml")  # the lab's copy stays for the reader
    (home / "ejabberdctl.cfg").write_text(
        f"INET_DIST_INTERFACE={ip}\n"
        "ERL_OPTIONS='-kernel logger_level debug'\n"
        "POLL=true\n")
    _own(home)
    env = dict(os.environ, ERL_EPMD_ADDRESS=ip, ERL_EPMD_PORT=str(EPMD_PORT), HOME=str(home))
    argv = [tool("ejabberdctl"), "--config-dir", home, "--config", home / "ejabberd.yml",
            "--ctl-config", home / "ejabberdctl.cfg", "--logs", home / "log",
            "--spool", home / "spool", "--node", f"lab{lab.net.n}@localhost", "foreground"]
    proc = lab.adopt(Ejabberd(lab, name, argv, home, ip, env))
    proc.wait_listening(ip, C2S, timeout=60)
    proc.wait_listening(ip, S2S, timeout=30)
    return proc
