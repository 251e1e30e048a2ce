"""Integration tests: real processes on loopback addresses, driven from outside.

Run with Debian's interpreter: /usr/bin/python3 -m pytest tests/integ. Each file has a laboratory of
its own below build/integ/ (logs, configurations, captures stay there) and ends what it started.
"""
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lab")]

import labnet  # noqa: E402
from labnet import Lab, Net  # noqa: E402


RUN_DIR = Path(os.environ.get("SALLYPORT_INTEG_DIR", labnet.ROOT / "build" / "integ"))


def new_lab(name):
    return Lab(RUN_DIR / name)


@pytest.fixture(scope="module")
def lab(request):
    with new_lab(request.module.__name__) as made:
        yield made


@pytest.fixture
def fresh_lab(request):
    """A laboratory for one test."""
    with new_lab(f"{request.module.__name__}/{request.node.name}") as made:
        yield made


class Inside:
    """alpha.lab: router, user, gateway; what most tests stand before."""

    def __init__(self, lab, **settings):
        self.lab, self.domain = lab, "alpha.lab"
        self.router = lab.router("alpha-router", Net.ALPHA_LINK, self.domain)
        self.user = lab.user("alpha-user", Net.ALPHA_LINK, self.domain, "romeo")
        self.user.wait_connected()
        self.gateway = lab.gateway("alpha-gateway", self.domain, Net.ALPHA, Net.ALPHA_LINK,
                                   **settings)
        self.address = lab.ip(Net.ALPHA)
        self.secret = (lab.dir / "conf" / f"{self.domain}-dialback.secret").read_text().strip()

    def bounce(self, ident, timeout=10.0, kind="message"):
        """The error that came back for a stanza, as (condition, type, text)."""
        got = self.user.expect(timeout, kind=kind, type="error", id=ident)
        return got.get("condition"), got.get("error_type"), got.get("error_text") or ""


@pytest.fixture(scope="session")
def inside():
    return Inside


ALLOW_ALL = [{"domain": "*", "policy": "allow"}]
SHORT = {"auth": "2s", "connect": "1s", "queue": "4s", "close": "1s"}


@pytest.fixture(scope="session")
def allow_all():
    return ALLOW_ALL


@pytest.fixture(scope="session")
def short():
    return dict(SHORT)


def pytest_sessionstart(session):
    for name in ("sallyport", "sallyport-router", "lab-user"):
        if not (labnet.BIN / name).exists():
            pytest.exit(f"{labnet.relative(labnet.BIN / name)} is not there; run 'make' first", 2)
