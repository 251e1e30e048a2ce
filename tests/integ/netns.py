"""Network namespaces of a test: the world, the DMZ and the inside, and the cables between them.

    world --------- dmz --------- inside
      10.17.1.0/24     10.17.2.0/24

Whatever is started or opened in `with zones.dmz:` lives there: processes, sockets, and threads with
the sockets that they will open. A namespace has no name and ends with its last process and socket,
so a test that is killed leaves nothing behind. Needs root.
"""
import ctypes
import os
import subprocess

from conftest import RUN_DIR, BookedLab
from labnet import LabError, Net, tool

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
RAW, SECOND = 41, 13
DOORS = (14, 15)  # where the gateways listen for the inside: their addresses on its side
ADDRESSES = {"world": (Net.DNS, RAW), "dmz": (Net.ALPHA, SECOND), "doors": DOORS,
             "inside": (Net.ALPHA_LINK, Net.PROSODY)}


def _checked(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _here():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


class Namespace:
    """`with` it: the calling thread is in there. Not for two threads at a time."""

    def __init__(self):
        self.before = []
        home = _here()
        try:
            _checked(LIBC.unshare(CLONE_NEWNET))
            self.fd = _here()
            run("ip", "link", "set", "lo", "up")
        finally:
            _checked(LIBC.setns(home, CLONE_NEWNET))
            os.close(home)

    def __enter__(self):
        self.before.append(_here())
        _checked(LIBC.setns(self.fd, CLONE_NEWNET))
        return self

    def __exit__(self, *exc):
        back = self.before.pop()
        _checked(LIBC.setns(back, CLONE_NEWNET))
        os.close(back)

    def run(self, *argv):
        with self:
            return run(*argv)

    @property
    def path(self):
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self):
        os.close(self.fd)


def run(name, *args):
    done = subprocess.run([tool(name), *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{name} {' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout


class Wire:
    """A cable between two namespaces. In each its end is called `name`."""
    WAYS = ("unplugged", "silent")

    def __init__(self, name, near, far):
        self.name, self.near, self.far, self.how = name, near, far, None
        near.run("ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns",
                 far.path)
        for side in (near, far):
            side.run("ip", "link", "set", name, "up")

    def address(self, side, *ips):
        for ip in ips:
            side.run("ip", "address", "add", f"{ip}/24", "dev", self.name)

    def _drop(self, action):
        for side in (self.near, self.far):
            side.run("iptables", "-w", action, "INPUT", "-i", self.name, "-j", "DROP")

    def cut(self, how):
        """unplugged: the far end loses its interface and the near one its carrier; silent: as when
        it is cut behind a switch, or a firewall forgets: packets vanish."""
        self.how = how
        if how == "unplugged":
            self.far.run("ip", "link", "set", self.name, "down")
        else:
            self._drop("-I")

    def mend(self):
        how, self.how = self.how, None
        if how == "unplugged":
            self.far.run("ip", "link", "set", self.name, "up")
        elif how:
            self._drop("-D")


class Zones:
    def __init__(self):
        self.world, self.dmz, self.inside = (Namespace() for _ in range(3))
        self.outer = Wire("outer", self.world, self.dmz)
        self.inner = Wire("inner", self.dmz, self.inside)
        for wire, side, hosts in ((self.outer, self.world, "world"), (self.outer, self.dmz, "dmz"),
                                  (self.inner, self.dmz, "doors"),
                                  (self.inner, self.inside, "inside")):
            wire.address(side, *(self.ip(h) for h in ADDRESSES[hosts]))

    @staticmethod
    def ip(host):
        return f"10.17.{2 if host in ADDRESSES['doors'] + ADDRESSES['inside'] else 1}.{host}"

    # -- the firewall

    RULE = ("INPUT", "-i", "inner", "-p", "tcp", "--syn", "-j", "REJECT", "--reject-with",
            "tcp-reset")

    def forbid_inwards(self):
        """No connection from the DMZ inwards is let through."""
        self.inside.run("iptables", "-w", "-A", *self.RULE)

    def forbidden(self):
        """How many the rule has refused."""
        lines = self.inside.run("iptables", "-w", "-nvxL", "INPUT").splitlines()
        return sum(int(line.split()[0]) for line in lines if "REJECT" in line)

    def close(self):
        for n in (self.world, self.dmz, self.inside):
            n.close()


class ZonedLab(BookedLab):
    """A laboratory whose hosts are in the zones. What it starts is in the zone of the caller."""

    def __init__(self, name):
        super().__init__(RUN_DIR / name)
        self.zones = Zones()

    def ip(self, host):
        return Zones.ip(host)

    def close(self):
        others, self.others = self.others, []
        for o in others:  # before the processes, which then have nobody to wait for
            o.close()
        super().close()
        self.zones.close()


def why_not():
    """Why no zones can be made here; None: they can."""
    try:
        zones = Zones()
    except (LabError, OSError) as e:
        return f"no network namespaces here: {e}"
    try:
        zones.forbid_inwards()
        zones.forbidden()
    except LabError as e:
        return f"no firewall here: {e}"
    finally:
        zones.close()
    return None
