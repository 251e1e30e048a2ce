"""A zone that is signed and served by real programs (ldns, nsd), one that is not signed, and a
resolver that checks signatures (unbound)."""
import hashlib
import re
import subprocess

from labnet import DNS_PORT, S2S, LabError, Net, tool
from pki import run

ZONE, UNSIGNED = "signed.lab", "unsigned.lab"
NSD = 54


def tlsa(identity, usage, selector, matching):
    """The right side of a TLSA record, computed without a line of the programs under test."""
    public = run("x509", "-in", identity.cert, "-pubkey", "-noout")
    data = (run("pkey", "-pubin", "-outform", "der", stdin=public) if selector
            else run("x509", "-in", identity.cert, "-outform", "der"))
    if matching:
        data = hashlib.new(("sha256", "sha512")[matching - 1], data).digest()
    return f"{usage} {selector} {matching} {data.hex()}"


class Zones:
    """`add` domains, then `serve`. Each target is a host with its own address."""

    def __init__(self, lab):
        self.lab = lab
        self.lines = {ZONE: [], UNSIGNED: []}
        self.damaged = []

    def add(self, domain, *targets, zone=ZONE, spoil=None):
        """targets: (host number, the right sides of its TLSA records). spoil: "SRV" or "TLSA",
        whose signature is made wrong."""
        lines = self.lines[zone]
        for priority, (host, records) in enumerate(targets):
            name = f"h{host}.{zone}"
            lines.append(f"_xmpp-server._tcp.{domain}. SRV {priority} 0 {S2S} {name}.")
            lines.append(f"{name}. A {self.lab.ip(host)}")
            lines += [f"_{S2S}._tcp.{name}. TLSA {r}" for r in records]
            if spoil == "TLSA":
                self.damaged.append((f"_{S2S}._tcp.{name}.", "TLSA"))
        if spoil == "SRV":
            self.damaged.append((f"_xmpp-server._tcp.{domain}.", "SRV"))

    def _write(self, zone):
        path = self.lab.conf(f"{zone}.zone", "\n".join([
            f"$ORIGIN {zone}.", "$TTL 60",
            f"@ SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 86400 5",
            f"@ NS ns.{zone}.", f"ns A {self.lab.ip(NSD)}", *self.lines[zone]]) + "\n")
        return path

    def _ldns(self, program, *args):
        done = subprocess.run([tool(program), *map(str, args)], cwd=self.lab.dir / "conf",
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise LabError(f"{program}: {done.stderr}")
        return done.stdout.strip()

    def _sign(self, path):
        key = self._ldns("ldns-keygen", "-k", "-a", "ECDSAP256SHA256", "-r", "/dev/urandom", ZONE)
        signed = path.with_suffix(".signed")
        self._ldns("ldns-signzone", "-f", signed, path, key)
        text = signed.read_text()
        for owner, kind in self.damaged:
            text, n = re.subn(rf"^({re.escape(owner)}\s.*\bRRSIG\s+{kind}\s.*\s)(\S)(\S+)$",
                              lambda m: m[1] + ("A" if m[2] != "A" else "B") + m[3], text,
                              flags=re.M)
            assert n == 1, (owner, kind, text)
        signed.write_text(text)
        return signed, self.lab.dir / "conf" / f"{key}.ds"

    def serve(self):
        """Returns the address of the resolver."""
        unsigned = self._write(UNSIGNED)
        signed, anchor = self._sign(self._write(ZONE))
        ip, resolver, conf = self.lab.ip(NSD), self.lab.ip(Net.DNS), self.lab.dir / "conf"
        nsd = self.lab.conf("nsd.conf", f"""server:
    ip-address: {ip}
    port: {DNS_PORT}
    server-count: 1
    username: ""
    database: ""
    zonesdir: "{conf}"
    pidfile: "{conf}/nsd.pid"
    xfrdfile: "{conf}/xfrd.state"
    xfrdir: "{conf}"
    zonelistfile: "{conf}/zone.list"
remote-control:
    control-enable: no
""" + "".join(f"zone:\n    name: {z}\n    zonefile: {f.name}\n"
              for z, f in ((ZONE, signed), (UNSIGNED, unsigned))))
        stubs = "".join(f'stub-zone:\n    name: "{z}"\n    stub-addr: {ip}@{DNS_PORT}\n'
                        for z in (ZONE, UNSIGNED))
        unbound = self.lab.conf("unbound.conf", f"""server:
    interface: {resolver}
    port: {DNS_PORT}
    access-control: 127.0.0.0/8 allow
    do-ip6: no
    do-daemonize: no
    do-not-query-localhost: no
    chroot: ""
    username: ""
    directory: "{conf}"
    pidfile: "{conf}/unbound.pid"
    use-syslog: no
    logfile: ""
    val-log-level: 2
    module-config: "validator iterator"
    trust-anchor-file: "{anchor}"
remote-control:
    control-enable: no
{stubs}""")
        self.lab.spawn("nsd", [tool("nsd"), "-d", "-c", nsd]).wait_listening(ip, DNS_PORT)
        self.lab.spawn("unbound", [tool("unbound"), "-d", "-c", unbound]).wait_listening(
            resolver, DNS_PORT)
        return f"{resolver}:{DNS_PORT}"
