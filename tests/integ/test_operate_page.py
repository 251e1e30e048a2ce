"""docs/operate.md, typed literally: every command of the page is run in a laboratory, in the order
of the page, and prints what stands there, numbers and times aside.

    test_operate_page.py --write     puts what was printed into the page instead
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lab")]

import labnet  # noqa: E402
from labnet import ROOT, wait_for  # noqa: E402

PAGE = ROOT / "docs" / "operate.md"
LAB = ROOT / "tests" / "lab" / "lab.py"
# What may be typed again until it shows what was expected: it only looks.
LOOKS = re.compile(r"^(tail|sallyportctl .*(status|links|alarms|streams|pairs|peers( \S+)?|events|"
                   r"counters --balance|explain \S+ \S+))$")
SPAN = re.compile(r"\b\d+(\.\d+)? (ms|s|m \d+ s|h \d+ m|d \d+ h)\b")
SETTLES = 15.0


def blocks(text):
    """[(line number, command, [lines of output])]; a command begins with "    $ ", and its output
    goes on over empty lines as long as indented ones follow."""
    found, empty = [], 0
    for number, line in enumerate(text.splitlines()):
        if line.startswith("    $ "):
            found.append((number, line[6:], []))
        elif line.startswith("    ") and found:
            found[-1][2].extend([""] * empty + [line[4:].rstrip()])
        empty = empty + 1 if not line else 0
    return found


def shape(lines):
    """Without times, numbers, hashes of identifiers, and the widths that follow from them."""
    text = "\n".join(lines)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = SPAN.sub("SPAN", text)
    text = re.sub(r"\b[0-9a-f]{16,}\b", "HEX", text)
    text = re.sub(r"\d+", "0", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


class Shell:
    """Bash in the project's folder, with the page's laboratory somewhere else than the reader's."""

    def __init__(self, folder):
        self.folder = folder
        self.env = dict(os.environ, PATH=f"{labnet.BIN}:{os.environ['PATH']}")

    def here(self, command):
        command = command.replace("build/lab/", f"{self.folder}/")
        command = command.replace("build/bin", str(labnet.BIN))
        for word in ("up", "down"):
            command = command.replace(f"make lab-{word}",
                                      f"{sys.executable} {LAB} --dir {self.folder} {word}")
        return command

    def run(self, command):
        r = subprocess.run(["bash", "-c", self.here(command)], cwd=ROOT, env=self.env, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        block = re.search(r"127\.17\.\d+", r.stdout)
        text = r.stdout.replace(str(self.folder), "build/lab").replace(str(ROOT) + "/", "")
        if block:
            text = text.replace(block.group(0), "127.17.1")
        return [line.rstrip() for line in text.rstrip("\n").splitlines()]


def type_page(page, show):
    """Runs all commands; show(number, command, expected, got)."""
    # A short path: a socket's name has room for 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp")) / "lab"
    shell = Shell(folder)
    try:
        for number, command, expected in blocks(page):
            got = shell.run(command)
            quiet = command.startswith(("make ", "export ", "echo ", "sed "))
            if LOOKS.match(command.split(" build/lab/logs")[0].replace("tail -n 1", "tail")):
                def again(command=command, expected=expected):
                    nonlocal got
                    got = shell.run(command)
                    return shape(got) == shape(expected)
                try:
                    wait_for(again, SETTLES if expected else 2.0, "the page's output")
                except labnet.Timeout:
                    pass  # show() judges
            show(number, command, expected, [] if quiet and command[0] != "s" else got)
    finally:
        if (folder / "pids").exists():
            shell.run("make lab-down")
        shutil.rmtree(folder.parent)


def test_page():
    faults = []

    def judge(number, command, expected, got):
        if shape(expected) != shape(got):
            faults.append(f"line {number + 1}: {command}\n--- the page\n" + "\n".join(expected) +
                          "\n--- now\n" + "\n".join(got))

    type_page(PAGE.read_text(), judge)
    assert not faults, "\n\n".join(faults)


def write():
    lines = PAGE.read_text().splitlines()
    printed = {}
    type_page(PAGE.read_text(), lambda number, command, expected, got: printed.update(
        {number: (len(expected), got)}))
    for number in sorted(printed, reverse=True):
        old, got = printed[number]
        after = lines[number + 1 + old:number + 2 + old]
        gap = [""] if got and after and after[0] else []
        lines[number + 1:number + 1 + old] = ["    " + g if g else "" for g in got] + gap
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write()
