"""sallyportctl import: Debian's own configuration files of other servers become configurations that
`sallyport -t` accepts; the firewall sheet, offline and from a running gateway."""
import json
import re
import subprocess
from pathlib import Path

import labnet
import pytest
from labnet import Net, program
from conftest import Inside

FILES = {
    "prosody": ["/etc/prosody/prosody.cfg.lua", "/etc/prosody/conf.avail/localhost.cfg.lua",
                "/etc/prosody/conf.avail/example.com.cfg.lua"],
    "ejabberd": ["/etc/ejabberd/ejabberd.yml"],
    "jabberd2": [f"/etc/jabberd2/{f}.xml" for f in ("s2s", "sm", "c2s", "router", "router-users")],
}
LISTING = """*c xConfiguration Domains Domain 1 Name: "alpha.lab"
xConfiguration XCP Config SecurityMode: "TLS required"
Privacy mode: Allow list
Use static routes: On
xConfiguration XCP StaticRoute 1 Domain: "beta.lab"
xConfiguration XCP StaticRoute 1 Address: "192.0.2.7"
"""


def ctl(*words):
    return subprocess.run([program("sallyportctl"), *map(str, words)], capture_output=True,
                          text=True, timeout=30)


def checks(text, folder):
    """Writes the configuration with the secrets that it names; `sallyport -t`."""
    conf = folder / "sallyport.conf"
    conf.write_text(text)
    for name in re.findall(r'^[^#]*secret_file = "([^"]+)"', text, re.M):
        secret = folder / name
        secret.write_text("0123456789abcdef0123456789abcdef\n")
        secret.chmod(0o600)
    return subprocess.run([program("sallyport"), "-t", "-c", conf, *labnet.root_option()],
                          capture_output=True, text=True, timeout=30)


def readable(names):
    missing = [n for n in names if not Path(n).exists()]
    if missing:
        pytest.skip(f"not there: {', '.join(missing)}")
    try:
        for n in names:
            Path(n).read_bytes()
    except PermissionError as e:
        pytest.skip(str(e))


@pytest.mark.parametrize("dialect, expected", [
    ("prosody", ['name = "conference.example.com"', "example.com is not enabled",
                 'security_mode = "tls-required"', "s2s_secure_auth", 'privacy_mode = "off"']),
    ("ejabberd", ['name = "localhost"; subdomains = true', 'security_mode = "tls-required"',
                  '"[::]:5269"', "/etc/ejabberd/ejabberd.pem", 'stanza_size = "524288"']),
    ("jabberd2", ['name = "localhost.localdomain"', 'protocol = "jabberd2"', 'user = "jabberd"',
                  'address = "127.0.0.1:5347"', 'queue = "60s"']),
])
def test_debian_files(dialect, expected, tmp_path):
    readable(FILES[dialect])
    r = ctl("import", dialect, *FILES[dialect])
    assert r.returncode == 0 and not r.stderr, r
    for words in expected:
        assert words in r.stdout, words
    # Every remark of a line names it rightly: the file has so many lines.
    for name, number in re.findall(r"^#   (/\S+):(\d+): ", r.stdout, re.M):
        assert 1 <= int(number) <= len(Path(name).read_text().splitlines())
    assert checks(r.stdout, tmp_path).returncode == 0


def test_expressway(tmp_path):
    listing = tmp_path / "listing.txt"
    listing.write_text(LISTING)
    r = ctl("import", "expressway", listing)
    assert r.returncode == 0 and not r.stderr, r
    assert '{ domain = "beta.lab"; route = "192.0.2.7:5269"; }' in r.stdout
    assert checks(r.stdout, tmp_path).returncode == 0


def test_bad_use(tmp_path):
    broken = tmp_path / "broken.xml"
    broken.write_text("<s2s><local></s2s>")
    assert ctl("import").returncode == 64
    assert ctl("import", "openfire", broken).returncode == 64
    assert ctl("import", "prosody").returncode == 64
    missing = ctl("import", "prosody", tmp_path / "none.lua")
    assert missing.returncode == 66 and "none.lua" in missing.stderr
    r = ctl("import", "jabberd2", broken)
    assert (r.returncode, r.stdout) == (78, "") and "broken.xml:1: mismatched tag" in r.stderr
    huge = tmp_path / "huge.lua"
    huge.write_text("-" * (1 << 21))
    assert ctl("import", "prosody", huge).returncode == 66
    assert ctl("-c", tmp_path / "none.conf", "firewall").returncode == 66
    assert ctl("-c", broken, "firewall").returncode == 78


def test_firewall(lab):
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)]})
    socket = lab.dir / "c.sock"
    us = Inside(lab, control=socket, peers=[{"domain": "beta.lab", "policy": "allow"},
                                            {"domain": "r.lab", "route": "127.0.0.9:5270"}])
    running = ctl("-s", socket, "--json", "firewall")
    offline = ctl("-c", us.gateway.conf, "--json", "firewall")
    assert running.returncode == offline.returncode == 0, (running, offline)
    flows = json.loads(running.stdout)["ok"]["flows"]
    assert flows == json.loads(offline.stdout)["ok"]["flows"]
    seen = {tuple(f[k] for k in ("dir", "proto", "source", "destination", "port")) for f in flows}
    own = us.address
    assert seen == {("in", "tcp", "any", own, "5269"), ("out", "tcp", own, "127.0.0.9", "5270"),
                    ("out", "tcp", own, "any", "5269"), ("out", "tcp", own, "any", "SRV"),
                    ("out", "udp", "gateway", lab.ip(Net.DNS), "5353"),
                    ("out", "tcp", "gateway", lab.ip(Net.DNS), "5353"),
                    ("out", "tcp", "gateway", lab.ip(Net.ALPHA_LINK), "7400")}
    table = ctl("-s", socket, "firewall").stdout.splitlines()
    assert table[0].split() == ["DIR", "PROTO", "SOURCE", "DESTINATION", "PORT", "WHY"]
    assert len(table) == len(flows) + 1
