"""Two hundred reloads on both sides while both insides talk: every stanza ends exactly once.

Each reload changes the security mode or the lists on one side; two that hold different modes at a
time never exclude each other. Now and then the file is broken and must change nothing.
"""
import re
import signal
import time

import labnet
import pytest
from labnet import Net, Site
from talk import talk

RELOADS, RATE = 200, 150  # a reload each, stanzas a second and direction
# (alpha, beta): one side changes at a time, and neighbours can talk to each other.
MODES = ["tls-optional tls-optional", "tls-required tls-optional", "tls-required tls-required",
         "tls-optional tls-required", "tls-optional tls-optional", "no-tls tls-optional",
         "no-tls no-tls", "tls-optional no-tls"]


class Edits:
    """What an operator does to one configuration file."""

    def __init__(self, gateway, domain):
        self.gateway, self.good, self.n = gateway, gateway.conf.read_text(), 0
        self.domain = domain

    def reload(self, text):
        since = self.gateway.log_size()
        temporary = self.gateway.conf.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self.gateway.conf)
        self.gateway.signal(signal.SIGHUP)
        return since

    def change(self, mode):
        """The mode, and every time another peer and another local domain that nobody uses."""
        self.n += 1
        text = re.sub(r'^(security_mode\s*=\s*)"[^"]*"', rf'\1"{mode}"', self.good, flags=re.M)
        if self.n % 2:
            text = text.replace("peers    = (", 'peers    = (\n  { domain = "passing'
                                f'{self.n}.lab"; policy = "{("allow", "deny")[self.n % 4 // 2]}"; '
                                'security_mode = "no-tls"; },', 1)
        if self.n % 3 == 0:
            text = text.replace("domains  = (", 'domains  = (\n  { name = "passing'
                                f'{self.n}.{self.domain}"; subdomains = true; }},', 1)
        since = self.reload(text)
        self.gateway.wait_log(r"config\.(re)?loaded\b", since)

    def break_(self):
        since = self.reload(self.good.replace("federation        = true;",
                                              'federation = true;\nsecurity_mode = "off";', 1))
        self.gateway.wait_log(r"config\.rejected\b", since)
        assert "config.changed" not in self.gateway.log(since)


@pytest.fixture(scope="module")
def sites(lab):
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)], "beta.lab": [(Net.BETA, labnet.S2S, 10)]})
    return [Site(lab, domain, host, link, user, mode="tls-optional",
                 peers=[{"domain": other, "policy": "allow"}])
            for domain, other, host, link, user in (
                ("alpha.lab", "beta.lab", Net.ALPHA, Net.ALPHA_LINK, "romeo"),
                ("beta.lab", "alpha.lab", Net.BETA, Net.BETA_LINK, "juliet"))]


def test_reloads_under_traffic(sites, record_property):
    alpha, beta = sites
    talkers = talk(alpha, beta, RATE)
    edits = [Edits(s.gateway, s.domain) for s in sites]
    began, modes = time.monotonic(), MODES[0].split()
    try:
        for i in range(RELOADS):
            wanted = MODES[(i + 1) % len(MODES)].split()
            side = 0 if wanted[0] != modes[0] else 1
            if i % 20 == 19:
                edits[1 - side].break_()
            edits[side].change(wanted[side])
            modes = wanted
            talkers[side].see(10)  # at least a few stanzas see each state
    finally:
        for t in talkers:
            t.stop()
    took = time.monotonic() - began
    for talker in talkers:
        n = talker.nothing_lost()
        print(f"{talker.name}: {n} sent and delivered, {RELOADS} reloads in {took:.1f} s")
        record_property(talker.name, n)
    for site in sites:
        log = site.gateway.log()
        assert len(re.findall(r"config\.changed .*key=security_mode", log)) >= RELOADS // 4
        assert site.gateway.alive()
