"""Builds and runs a Dockerfile on a machine without a Docker engine.

`Engine` gives the commands `docker build`, `docker run`, ... something to talk to: podman's API
service over a store and a run state of its own. Nothing of the machine's own podman or Docker is
read or changed, and nothing is left mounted or running after close(). Where there is no docker
client, podman takes the same words; either way what a person would have to know about this machine
is in environment and configuration files, so that the commands stay those of the manual.

The base image is made here from the distribution's own packages, so that no image registry is
needed: `debian:bookworm-slim` is debootstrap's smallest variant without documentation, as is the
image of that name elsewhere.
"""
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
from labnet import LabError, Proc, Timeout, relative, wait_for  # noqa: E402

SUITE = "bookworm"
BASE = f"localhost/debian:{SUITE}-slim"
NEEDED = ("podman", "runc", "debootstrap")  # programs, and the packages of the same names
DOCUMENTATION = "usr/share/doc usr/share/info usr/share/locale usr/share/man usr/share/lintian"
DPKG_RULES = "".join(f"path-exclude /{d}/*\n" for d in DOCUMENTATION.split()) + \
    "path-include /usr/share/doc/*/copyright\npath-include /usr/share/locale/locale.alias\n"
APT_RULES = ('DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };\n'
             'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\nAcquire::Languages "none";\n')


def missing():
    """Debian packages that have to be installed first."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in NEEDED if not shutil.which(name, path=path)]


def output(argv, **kw):
    r = subprocess.run([str(a) for a in argv], capture_output=True, text=True, **kw)
    if r.returncode != 0:
        raise LabError(f"{' '.join(map(str, argv[:4]))} ...: exit {r.returncode}\n"
                       f"{(r.stderr or r.stdout).strip()[-2000:]}")
    return r.stdout


def apt_sources():
    """(address, suite) of every source of the distribution that this machine's apt uses."""
    form = "$(CREATED_BY)|$(ORIGIN)|$(COMPONENT)|$(REPO_URI)|$(RELEASE)"
    rows = [line.split("|") for line in
            output(["apt-get", "indextargets", "--format", form]).splitlines()]
    found = [(uri, release) for created, origin, component, uri, release in rows
             if created == "Packages" and origin == "Debian" and component == "main"
             and release.split("-")[0] == SUITE]
    if not any(release == SUITE for _, release in found):
        raise LabError(f"apt of this machine knows no source of Debian {SUITE}; "
                       "run 'apt-get update' if it has one")
    return list(dict.fromkeys(found))


def proxy_environment():
    """The proxy of this machine's apt for debootstrap and for what the image's build downloads."""
    text = output(["apt-config", "shell", "P", "Acquire::http::Proxy"]).strip()
    value = text.partition("=")[2].strip("'\"")
    return {"http_proxy": value} if value and value != "DIRECT" else {}


def mounts_below(folder):
    """Mount points inside a folder, deepest first."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].replace("\\040", " ")
        if point.startswith(f"{folder}/"):
            points.append(point)
    return sorted(points, key=len, reverse=True)


class Engine:
    def __init__(self, folder, cli=None):
        self.dir = Path(folder).resolve()
        self.cli = cli or ("docker" if shutil.which("docker") else "podman")
        self.dir.mkdir(parents=True, exist_ok=True)
        self.lock = open(self.dir / "lock", "w", encoding="ascii")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"another run uses {relative(self.dir)}") from None
        self.temporary = Path(tempfile.mkdtemp(prefix="sallyport-container-"))
        self.service = None
        self._configure()
        self._end_all()  # what a run that was killed has left

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def _configure(self):
        """All that podman needs to be told about a machine with few rights and no systemd."""
        limits = ", ".join(f'"{name}={min(hard, most)}:{min(hard, most)}"'
                           for name, hard, most in (("nofile", self._hard("NOFILE"), 4096),
                                                    ("nproc", self._hard("NPROC"), 4096)))
        files = {
            "containers.conf":
                f"[containers]\ndefault_ulimits = [{limits}]\npids_limit = 0\n"
                'log_driver = "k8s-file"\n'
                f'[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nlock_type = "file"\n'
                f'events_logger = "file"\nexit_command_delay = 20\n'
                f'tmp_dir = "{self.dir}/run/libpod"\n',
            "storage.conf":
                f'[storage]\ndriver = "overlay"\ngraphroot = "{self.dir}/store"\n'
                f'runroot = "{self.dir}/run"\n',
            "registries.conf": "unqualified-search-registries = []\n",
            "config.json": "{}\n",  # of the docker client; podman looks for it, too
        }
        for name, text in files.items():
            (self.temporary / name).write_text(text)
        self.env = {k: v for k, v in os.environ.items()
                    if not k.startswith(("DOCKER_", "CONTAINER", "BUILDAH_", "NOTIFY_"))}
        self.env |= proxy_environment() | {
            "CONTAINERS_CONF": f"{self.temporary}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{self.temporary}/storage.conf",
            "CONTAINERS_REGISTRIES_CONF": f"{self.temporary}/registries.conf",
            "BUILDAH_ISOLATION": "chroot", "BUILDAH_FORMAT": "docker", "DOCKER_BUILDKIT": "0",
            "DOCKER_CONFIG": str(self.temporary),
            "DOCKER_HOST": f"unix://{self.temporary}/podman.sock",
        }

    @staticmethod
    def _hard(name):
        """Asking for more than the own hard limit is what a machine with few rights refuses."""
        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
        return sys.maxsize if hard == resource.RLIM_INFINITY else hard

    # -- commands

    def podman(self, *args, **kw):
        return output(["podman", *args], env=self.env, **kw)

    def argv(self, *args):
        return [self.cli, *map(str, args)]

    def run(self, *args, **kw):
        """`docker ARGS`, finished, whatever its exit code is."""
        return subprocess.run(self.argv(*args), env=self.env, capture_output=True, text=True, **kw)

    def docker(self, *args):
        """What `docker ARGS` prints; it must not fail."""
        return output(self.argv(*args), env=self.env)

    def inspect(self, kind, name):
        return json.loads(self.docker(kind, "inspect", name))[0]

    # -- life

    def start(self, log):
        """The service that the docker client talks to. Layers of older builds are given up."""
        self.podman("image", "prune", "-f", "--filter", "until=6h")
        if self.cli == "podman":
            return
        socket_file = self.temporary / "podman.sock"
        self.service = Proc("podman", ["podman", "system", "service", "-t", "0",
                                       f"unix://{socket_file}"], log, env=self.env)

        def ready():
            if not self.service.alive():
                raise LabError(f"podman's service ended\n{self.service.log_tail()}")
            return socket_file.exists() and self.run("version").returncode == 0

        wait_for(ready, 20, "podman's service", self.service.log_tail)

    def has_image(self, name):
        return subprocess.run(["podman", "image", "exists", name], env=self.env,
                              check=False).returncode == 0

    def base_image(self):
        """Makes and imports the base image, unless that has been done; True when it was."""
        if self.has_image(BASE):
            return False
        archive = self.dir / f"{SUITE}-slim.tar"
        if not archive.exists():
            self._bootstrap(archive)
        self.podman("import", "-q", "-c", 'CMD ["bash"]', archive, BASE)
        return True

    def _bootstrap(self, archive):
        root, sources = self.dir / "rootfs", apt_sources()
        mirror = next(uri for uri, release in sources if release == SUITE)
        output(["debootstrap", "--variant=minbase", SUITE, root, mirror], env=self.env)
        self._slim(root)
        (root / "etc/apt/sources.list").write_text(
            "".join(f"deb {uri} {release} main\n" for uri, release in sources))
        partial = archive.with_suffix(".partial")
        output(["tar", "-C", root, "--numeric-owner", "-cf", partial, "."])
        partial.rename(archive)
        shutil.rmtree(root)

    @staticmethod
    def _slim(root):
        (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(DPKG_RULES)
        (root / "etc/apt/apt.conf.d/slim").write_text(APT_RULES)
        for folder in DOCUMENTATION.split():
            for path in sorted((root / folder).rglob("*"), reverse=True):
                if path.is_symlink() or path.is_file():
                    if path.name not in ("copyright", "locale.alias"):
                        path.unlink()
                elif not any(path.iterdir()):
                    path.rmdir()
        for folder in ("var/lib/apt/lists", "var/cache/apt", "var/log"):
            for path in (root / folder).rglob("*"):
                if path.is_file():
                    path.unlink()
        (root / "etc/resolv.conf").write_text("")
        (root / "etc/hostname").write_text("")

    def _monitors(self):
        """Process ids of conmon, which podman starts beside each container, over our store."""
        store, found = f"{self.dir}/store/".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argv[0].endswith(b"conmon") and any(a.startswith(store) for a in argv):
                found.append(int(entry.name))
        return found

    def _end_monitors(self):
        """They end with their containers; those of `docker exec` stay a while, and are ended."""
        try:
            wait_for(lambda: not self._monitors(), 1)
        except Timeout:
            for pid in self._monitors():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def _end_all(self):
        subprocess.run(["podman", "rm", "-f", "-a", "-t", "0"], env=self.env, check=False,
                       capture_output=True)
        self._end_monitors()
        self._unmount()

    def _unmount(self):
        for point in mounts_below(self.dir):
            subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)
        left = mounts_below(self.dir)
        if left:
            raise LabError(f"cannot unmount {left[0]}")
        for folder in ("run", "rootfs"):
            shutil.rmtree(self.dir / folder, ignore_errors=True)

    def close(self):
        """Every container, the service and all mounts end; images stay for the next run."""
        if self.service:
            self.service.stop()
        self._end_all()
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.lock.close()
