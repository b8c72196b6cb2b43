#!/usr/bin/env python3
"""House rules that a machine can check, as a test. Exits 1 and names each place that breaks one.

File length, function length, line length, formatting, headers that belong to one module, words that must not be
committed, direction of dependencies, JSON and shell that parse."""
import json
import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 1000
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100
TAB = 8
OWNERS = {"liburing.h": "engine/reactor", "infiniband/verbs.h": "net/rdma", "rocksdb/c.h": "engine/kv",
          "curl/curl.h": "engine/kv"}
# module -> modules that it may include headers of, besides itself
LAYERS = {
    "engine/base": [],
    "engine/reactor": ["engine/base"],
    "engine/disk": ["engine/base", "engine/reactor"],
    "engine/kv": ["engine/base", "engine/reactor"],
    "net": ["engine/base", "engine/reactor"],
    "engine/evidence": ["engine/base", "engine/reactor"],
    "engine/store": ["engine/base", "engine/reactor", "engine/disk", "engine/kv"],
    "engine/pool": ["engine/base", "engine/reactor", "engine/disk", "engine/kv", "engine/store"],
    "engine/node": ["engine/base", "engine/reactor", "engine/disk", "engine/kv", "engine/store", "engine/pool",
                    "engine/evidence", "net"],
    "engine/volume": ["engine/base", "engine/reactor", "engine/evidence", "net"],
    "engine/placement": ["engine/base", "engine/reactor", "engine/kv", "engine/evidence", "net"],
    "engine/attach": ["engine/base", "engine/reactor", "engine/volume", "engine/evidence", "net"],
}
BANNED = [
    (re.compile(r"\.\./shared"), "refers to a folder that is not part of the project"),
    (re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"), "unfinished by its own words"),
    (re.compile(r"\b(strcpy|strcat|sprintf|gets|strtok)\s*\("), "an unbounded string function"),
    (re.compile(r"\bassert\s*\("), "assert(3) vanishes with NDEBUG: use PRE, POST or INVARIANT"),
    (re.compile(r"/work/|/home/\w"), "a path of a machine"),
]
TOP_LEVEL = {"engine", "net", "proto", "tools", "bench", "tests", "meson.build", "meson_options.txt", "README.md",
             "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md"}

problems = []


def problem(path, line, text):
    problems.append(f"{path}:{line}: {text}")


def width(line):
    columns = 0
    for c in line:
        columns += TAB - columns % TAB if c == "\t" else 1
    return columns


def check_functions(path, lines):
    """In this style a function's body opens with a brace in the first column and ends with one."""
    start = None
    for n, line in enumerate(lines, 1):
        if line == "{":
            start = n
        elif line.startswith("}") and start is not None:
            if n - start - 1 > FUNCTION_LINES_MAX:
                problem(path, start, f"function of {n - start - 1} lines, the bound is {FUNCTION_LINES_MAX}")
            start = None


def module_of(path):
    text = str(path)
    return next((m for m in sorted(LAYERS, key=len, reverse=True) if text.startswith(m + "/")), None)


def check_includes(path, lines):
    module = module_of(path)
    for n, line in enumerate(lines, 1):
        m = re.match(r'#include\s+[<"]([^">]+)[">]', line)
        if not m:
            continue
        name = m.group(1)
        owner = OWNERS.get(name)
        if owner and not str(path).startswith((owner + "/", "tests/")):
            problem(path, n, f"{name} belongs to {owner}")
        target = module_of(Path(name))
        if module and target and target != module and target not in LAYERS[module]:
            problem(path, n, f"{module} may not include {name}: dependencies run one way")
        if name.endswith(".c"):
            problem(path, n, "a .c file is included")


def check_c(path, text):
    lines = text.split("\n")
    if len(lines) - 1 > FILE_LINES_MAX:
        problem(path, len(lines), f"{len(lines) - 1} lines, the bound is {FILE_LINES_MAX}")
    if not text.startswith("/*"):
        problem(path, 1, "no head that says what the file is for")
    for n, line in enumerate(lines, 1):
        if width(line) > COLUMNS_MAX:
            problem(path, n, f"{width(line)} columns, the bound is {COLUMNS_MAX}")
    check_functions(path, lines)
    check_includes(path, lines)


def check_format(files):
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *map(str, files)], cwd=TOP, capture_output=True,
                          text=True, check=False)
    seen = set()
    for line in done.stderr.splitlines():
        m = re.match(r"(\S+?):(\d+):\d+: error", line)
        if m and m.group(1) not in seen:
            seen.add(m.group(1))
            problem(m.group(1), m.group(2), "clang-format would change it (first of its places)")


def main():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=TOP, capture_output=True, text=True, check=True)
    files = [Path(f) for f in listed.stdout.splitlines() if (TOP / f).is_file()]
    for path in files:
        if path.parts[0] not in TOP_LEVEL and not path.parts[0].startswith("."):
            problem(path, 1, "nothing else stands at the top of the tree")
        try:
            text = (TOP / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path.suffix in (".c", ".h"):
            check_c(path, text)
        if str(path) != "tests/tidy/tidy.py" and path.name != "LICENSE":
            for n, line in enumerate(text.split("\n"), 1):
                for pattern, why in BANNED:
                    if pattern.search(line) and not (path.suffix in (".md", ".pml", ".sh", "") and "assert" in why):
                        problem(path, n, why)
        if path.suffix == ".json" and "corpus" not in path.parts:
            try:
                json.loads(text)
            except ValueError as e:
                problem(path, 1, f"not JSON: {e}")
        if text.startswith(("#!/bin/sh", "#!/usr/bin/env bash", "#!/bin/bash")):
            shell = "sh" if text.startswith("#!/bin/sh") else "bash"
            done = subprocess.run([shell, "-n", str(TOP / path)], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                problem(path, 1, f"does not parse: {done.stderr.strip()}")
    check_format([f for f in files if f.suffix in (".c", ".h")])
    for p in problems:
        print(p)
    print(f"{len(files)} files, {len(problems)} problems")
    return 1 if problems else 0


sys.exit(main())
