"""sallyportctl for one socket, as a user of one's choice."""
import json
import shutil
import subprocess
from pathlib import Path

from labnet import program


class Ctl:
    """sallyportctl for one socket."""

    def __init__(self, path, *options, uid=None, folder=None):
        self.path, self.options, self.uid = path, options, uid
        # A copy where every user can reach it.
        self.program = (folder or Path(path).parent) / "sallyportctl"
        if not self.program.exists():
            shutil.copy(program("sallyportctl"), self.program)

    def run(self, *words, options=()):
        drop = {} if self.uid is None else {"user": self.uid, "group": self.uid,
                                            "extra_groups": []}
        return subprocess.run([self.program, "-s", self.path, *self.options, *options,
                               *map(str, words)], capture_output=True, text=True, timeout=30,
                              cwd="/", **drop)

    def ok(self, *words):
        """The "ok" object."""
        r = self.run(*words, options=["--json"])
        assert r.returncode == 0, (words, r)
        return json.loads(r.stdout)["ok"]

    def error(self, *words):
        """(exit code, the stable word, the sentence)"""
        r = self.run(*words, options=["--json"])
        assert r.returncode != 0, (words, r)
        e = json.loads(r.stdout)["error"] if r.stdout else {"code": None, "text": r.stderr}
        return r.returncode, e["code"], e["text"]

    def text(self, *words):
        r = self.run(*words)
        assert r.returncode == 0 and not r.stderr, (words, r)
        return r.stdout
