"""Integration tests: real processes on loopback addresses, driven from outside.

Run with Debian's interpreter: /usr/bin/python3 -m pytest tests/integ. Each file has a laboratory of
its own below build/integ/ (logs, configurations, captures stay there) and ends what it started.
"""
import os
import re
import signal
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lab")]

import labnet  # noqa: E402
from labnet import Gateway, Lab, Net  # noqa: E402


RUN_DIR = Path(os.environ.get("SALLYPORT_INTEG_DIR", labnet.ROOT / "build" / "integ"))


LABS = []  # those that are up now


class BookedLab(Lab):
    """A laboratory whose gateways' books are looked at once more when they have ended."""

    def __enter__(self):
        LABS.append(self)
        return self

    def close(self):
        gateways = gateways_of(self)
        super().close()
        if self in LABS:
            LABS.remove(self)
        for g in gateways:
            check_last_books(g)


def new_lab(name):
    return BookedLab(RUN_DIR / name)


@pytest.fixture(scope="module")
def lab(request):
    with new_lab(request.module.__name__) as made:
        yield made


@pytest.fixture
def fresh_lab(request):
    """A laboratory for one test."""
    with new_lab(f"{request.module.__name__}/{request.node.name}") as made:
        yield made


# ---- the books of stanzas ------------------------------------------------------------------------

BOOKS = re.compile(r"state\.stanzas dir=(in|out) (.*) balance=(\w+)$", re.M)


def gateways_of(lab):
    return [p for p in lab.procs if isinstance(p, Gateway)]


def books(gateway, since=0):
    """[(direction, {column: number}, balance)] of the log, oldest first."""
    return [(d, {k: int(v) for k, v in (f.split("=") for f in columns.split())}, balance)
            for d, columns, balance in BOOKS.findall(gateway.log(since))]


def ask_books(gateway):
    """Both directions of a running gateway, {} when it ended meanwhile."""
    since = gateway.log_size()
    gateway.signal(signal.SIGUSR2)
    labnet.wait_for(lambda: not gateway.alive() or len(books(gateway, since)) >= 2,
                    what=f"the books of {gateway.name}", detail=gateway.log_tail)
    found = books(gateway, since)
    assert all(balance == "ok" for _, _, balance in found), (gateway.name, found)
    return {direction: columns for direction, columns, _ in found}


def check_last_books(gateway):
    """A gateway that ended in good order owes nothing: each stanza has come to its end."""
    log = gateway.log()
    assert "balance=WRONG" not in log, gateway.name
    if "gateway.stopped" not in log:
        return
    for direction, columns, _ in books(gateway)[-2:]:
        assert columns["waiting"] == columns["writing"] == 0, (gateway.name, direction, columns)


@pytest.fixture(autouse=True)
def balanced_books(request):
    """After each test every gateway accounts for every stanza it has ever seen."""
    if "fresh_lab" in request.fixturenames:
        request.getfixturevalue("fresh_lab")  # so that it is still up when this one looks
    yield
    for running in list(LABS):
        for g in gateways_of(running):
            if g.alive():
                ask_books(g)
            assert "balance=WRONG" not in g.log(), g.name


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
