#!/usr/bin/python3
"""Checks the rules of the source tree that a compiler does not: include direction, banned
functions, sizes, and layout. Prints file:line: what, exits 1 when there is anything to print.

    lint.py             check
    lint.py --shape     count functions and their lengths
"""
import argparse
import bisect
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_LINES, FILE_LINES, COLUMNS = 100, 800, 100
TEST_FILE_LINES = 1200  # tables of cases, one module each

# What a folder may include of ours, beside itself. The first entry that matches wins; a file that
# belongs to a higher level than its folder (a driver) is named by a pattern of its own.
BASE = {"core/base"}
PURE1 = BASE | {"core/stream", "core/xml", "core/tls", "dns:pure", "config"}
PURE2 = PURE1 | {"gateway/proto", "gateway/policy", "xcp:pure"}
PURE3 = PURE2 | {"gateway/route"}
DRIVERS = PURE3 | {"core/control", "core/daemon", "core/net", "dns", "xcp", "gateway"}
LAYERS = [
    # (files of the layer, its name, what it may include)
    (r"core/base/", "core/base", BASE),
    (r"core/xml/", "core/xml", BASE | {"core/xml"}),
    (r"core/tls/", "core/tls", BASE | {"core/tls"}),
    (r"core/stream/", "core/stream", BASE | {"core/stream", "core/xml", "core/tls"}),
    (r"core/control/", "core/control", BASE | {"core/control"}),
    (r"core/net/", "core/net", BASE | {"core/net", "core/control", "core/stream", "core/xml",
                                       "core/tls"}),
    (r"core/daemon/", "core/daemon", BASE | {"core/daemon", "core/net", "core/control",
                                             "core/stream", "core/xml", "core/tls", "config"}),
    (r"ctl/", "ctl", BASE | {"ctl", "core/control", "config"}),
    (r"config/", "config", BASE | {"config", "core/xml"}),
    (r"dns/(cares|resolver)[^/]*\.[ch]$", "dns", BASE | {"dns", "dns:pure", "core/net",
                                                         "core/xml"}),
    (r"dns/", "dns:pure", BASE | {"dns:pure", "core/xml"}),
    (r"xcp/router[^/]*\.[ch]$", "xcp", PURE2 | {"core/control", "core/daemon", "core/net", "xcp"}),
    (r"xcp/", "xcp:pure", BASE | {"xcp:pure", "core/stream", "core/xml", "core/tls", "config"}),
    (r"gateway/policy/", "gateway/policy", PURE1 | {"gateway/policy"}),
    (r"gateway/proto/", "gateway/proto", PURE1 | {"gateway/policy", "gateway/proto",
                                                         "xcp:pure"}),
    (r"gateway/route/", "gateway/route", PURE3),
    (r"gateway/main\.c$", "gateway", DRIVERS | {"ctl"}),  # -t asks the gateway that runs
    (r"gateway/[^/]+$", "gateway", DRIVERS),
]
# A header outside the tree -> the files that may know it.
LIBRARIES = [
    (r"uv\.h|uv/.*",
     r"core/net/|core/daemon/|dns/(cares|resolver)|gateway/[^/]+\.[ch]$|xcp/router"),
    (r"expat\.h|expat_external\.h", r"core/xml/(framer|parser|writer)|ctl/import_xml\.c"),
    (r"yaml\.h", r"ctl/import_yaml\.c"),
    (r"openssl/.*", r"core/tls/|core/base/(digest|env)\.c$"),
    (r"ares.*\.h|arpa/nameser.*|resolv\.h", r"dns/"),
    (r"libconfig\.h", r"config/"),
    (r"strophe\.h", r"core/xml/writer|core/stream/bounce|tests/lab/"),
]
# The top of a program may know every library: it prints their versions.
MAINS = ("gateway/main.c", "xcp/router_main.c", "ctl/main.c")
BANNED = ("gets strcpy strcat sprintf vsprintf strtok atoi atol atoll rand srand alloca setjmp "
          "longjmp system popen").split()
ALLOCATORS = "malloc calloc realloc free strdup strndup asprintf vasprintf reallocarray".split()
PRODUCT = ("core/", "config/", "dns/", "xcp/", "gateway/", "ctl/")
KEYWORDS = {"if", "for", "while", "switch", "return", "sizeof", "do", "else"}


def source_files():
    """What git knows or would add, so that nothing generated is looked at."""
    r = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"],
                       capture_output=True, text=True)
    if r.returncode == 0:
        names = r.stdout.splitlines()
    else:
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*.*")]
    return sorted(n for n in names if n.endswith((".c", ".h", ".py")) and (ROOT / n).exists()
                  and not n.startswith("build/"))


def blank(text):
    """The text with comments, strings and character constants as spaces, lines kept."""
    pattern = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)

    def hide(m):
        s = m.group(0)
        if s[0] in "\"'":
            return s[0] + " " * (len(s) - 2) + s[-1]
        return re.sub(r"[^\n]", " ", s)

    return pattern.sub(hide, text)


class Source:
    def __init__(self, name):
        self.name = name
        self.text = (ROOT / name).read_text(encoding="utf-8")
        self.lines = self.text.split("\n")
        if self.lines[-1] == "":
            self.lines.pop()
        self.code = blank(self.text)
        self.starts = [m.start() + 1 for m in re.finditer("\n", self.text)]

    def line(self, offset):
        return bisect.bisect_right(self.starts, offset) + 1

    def layer(self):
        return layer_of(self.name)


def layer_of(name):
    for pattern, layer, allowed in LAYERS:
        if re.match(pattern, name):
            return layer, allowed
    return None, None


def functions(src):
    """(name, first line, number of lines) of every function with a body."""
    out = []
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: re.sub(r"[^\n]", " ", m.group(0)),
                  src.code, flags=re.M)
    depth, begin = 0, None
    for m in re.finditer(r"[{}]", code):
        if m.group(0) == "{":
            if depth == 0:
                begin = m.start()
            depth += 1
            continue
        depth -= 1
        if depth != 0:
            continue
        before = code[:begin]
        head = before[max(before.rfind(c) for c in ";}") + 1:]
        called = re.search(r"\b([A-Za-z_]\w*)\s*\((?:[^()]|\([^()]*\))*\)\s*$", head)
        if called and "=" not in head and called.group(1) not in KEYWORDS:
            first = src.line(len(before) - len(head) + len(head) - len(head.lstrip()))
            out.append((called.group(1), first, src.line(m.start()) - first + 1))
    return out


def check_includes(src, report):
    own, allowed = src.layer()
    seen_own_header = None
    for number, line in enumerate(src.lines, 1):
        m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not m:
            continue
        kind, header = m.groups()
        if kind == '"':
            if seen_own_header is None:
                seen_own_header = header
            if "/" not in header or not (ROOT / header).exists():
                report(src, number, f'"{header}" is not written from the root')
            elif allowed is not None:
                target = layer_of(header)[0]
                if target not in allowed and target != own:
                    report(src, number, f"{own} may not include {header}")
        if src.name.startswith(PRODUCT) and src.name not in MAINS:
            for library, users in LIBRARIES:
                if re.fullmatch(library, header) and not re.match(users, src.name):
                    report(src, number, f"<{header}> has no place here")
    if src.name.endswith(".c") and src.name.startswith(PRODUCT):
        mine = [src.name[:-2] + ".h", src.name[:-2] + "_priv.h"]
        exists = [h for h in mine if (ROOT / h).exists()]
        first = next((re.match(r'\s*#\s*include\s*[<"]([^>"]+)', ln).group(1)
                      for ln in src.lines if re.match(r"\s*#\s*include", ln)), None)
        if exists and first not in exists:
            report(src, 1, f"its own header {exists[0]} does not come first")


def check_banned(src, report):
    names = list(BANNED)
    if src.name.startswith(PRODUCT) and src.name != "core/base/mem.c":
        names += ALLOCATORS
    if src.name.startswith("tests/"):
        names = [n for n in names if n not in ("setjmp", "longjmp")]
    for m in re.finditer(r"(?<![\w.>])(" + "|".join(names) + r")\s*\(", src.code):
        report(src, src.line(m.start()), f"{m.group(1)}() is banned")


def check_layout(src, report):
    for number, line in enumerate(src.lines, 1):
        if "\t" in line:
            report(src, number, "tab")
        if line != line.rstrip():
            report(src, number, "trailing white space")
        if len(line) > COLUMNS:
            report(src, number, f"{len(line)} columns")
        m = re.search(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b", line)
        if m:
            report(src, number, m.group(1))
    if not src.text.endswith("\n"):
        report(src, len(src.lines), "no newline at the end")
    limit = TEST_FILE_LINES if src.name.startswith("tests/") else FILE_LINES
    if len(src.lines) > limit:
        report(src, limit, f"{len(src.lines)} lines in a file")
    if src.name.endswith(".h"):
        guard = re.sub(r"\W", "_", src.name).upper()
        if not re.search(rf"^#ifndef {guard}\n#define {guard}$", src.text, re.M):
            report(src, 1, f"no include guard {guard}")


def check(sources):
    findings = []

    def report(src, number, text):
        findings.append(f"{src.name}:{number}: {text}")

    for src in sources:
        check_layout(src, report)
        if src.name.endswith(".py"):
            continue
        check_includes(src, report)
        check_banned(src, report)
        for name, first, length in functions(src):
            if length > FUNCTION_LINES:
                report(src, first, f"{name}() has {length} lines")
    return findings


def shape(sources, title):
    sizes = sorted((n, name, src.name) for src in sources for name, _, n in functions(src))
    if not sizes:
        return f"{title}: no functions"
    lengths = [n for n, _, _ in sizes]
    p90 = lengths[min(len(lengths) - 1, int(len(lengths) * 0.9))]
    biggest = max(sources, key=lambda s: len(s.lines))
    return (f"{title}: {len(sources)} files, {sum(len(s.lines) for s in sources)} lines; "
            f"{len(lengths)} functions, median {statistics.median(lengths):g}, p90 {p90}, "
            f"max {lengths[-1]} ({sizes[-1][1]} in {sizes[-1][2]}), "
            f"{sum(n > FUNCTION_LINES for n in lengths)} above {FUNCTION_LINES}; "
            f"largest file {len(biggest.lines)} ({biggest.name})")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="store_true")
    args = parser.parse_args()
    sources = [Source(n) for n in source_files()]
    product = [s for s in sources if s.name.startswith(PRODUCT)]
    if args.shape:
        print(shape(product, "product"))
        print(shape([s for s in sources if s not in product and s.name.endswith(".c")], "tests"))
        return 0
    findings = check(sources)
    for f in findings:
        print(f)
    print(f"lint: {len(sources)} files, {len(findings)} findings")
    print(shape(product, "shape"))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
