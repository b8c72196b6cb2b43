#!/usr/bin/env python3
"""What engine/ARCHITECTURE.md says of the store is what comes out: figures.py AGING INDEX_MEMORY ARCHITECTURE.md DIR

Write amplification and the tail of latency of an aged store (in virtual time: the same on every machine), 70 and 85 % full, and
what its index takes for each page, in memory and in RocksDB. Shorter runs than those of the tables, so there is some room; who
makes the store better or worse by more than that measures anew and mends the tables."""
import json
import re
import subprocess
import sys

AGING_ARGUMENTS = ["--size", "512MiB", "--segment", "1MiB", "--full", "70,85", "--overwrites", "1", "--json"]
PATTERNS = {"uniform": "uniform", "Zipf (0.99)": "zipf"}
PAGES = {"in order, 1 MiB at a time": "sequential", "the same, then one block in 16 again at random": "one block in 16 again",
         "every block by itself, at random": "random"}
bad = []


def expect(what, condition):
    if not condition:
        bad.append(what)


def number(text):
    return float(text.replace(",", ""))


def aging_table(text):
    """{(pattern, percent): (write amplification, 99.9 % in us)} of the open loops."""
    rows = re.findall(r"^\| ([^|]+?) \| (\d+) % \| 20,000/s, open loop \| ([\d.]+) \| [\d.]+ \| [\d,]+ \| [\d,]+ \| [\d,]+ \| ([\d,]+) \|",
                      text, re.MULTILINE)
    return {(PATTERNS[p], int(full)): (number(wa), number(tail)) for p, full, wa, tail in rows}


def index_table(text):
    """{pattern: (bytes of memory a page, bytes in RocksDB a page)}"""
    rows = re.findall(r"^\| ([^|]+?) \| [\d.]+ GiB \((\d+) B a page\) \| \d+ MiB \| [\d.]+ GiB \((\d+) B a page\) \|", text, re.MULTILINE)
    return {PAGES[p]: (number(memory), number(disk)) for p, memory, disk in rows}


def check_aging(program, table):
    expect(f"the table has 50, 70 and 85 % of both patterns: {table}", set(table) == {(p, f) for p in ("uniform", "zipf") for f in (50, 70, 85)})
    rows = json.loads(subprocess.run([program, *AGING_ARGUMENTS], capture_output=True, text=True, check=True).stdout)
    last = [r for r in rows if r["phase"] == "quarter 4"]
    expect(f"four rows: {last}", len(last) == 4)
    for row in last:
        amplification, tail = table[row["pattern"], min((70, 85), key=lambda full: abs(row["full"] * 100 - full))]
        found = f"{row['pattern']}, {row['full'] * 100:.0f} % full: {row['write_amplification']:.2f}, 99.9 % {row['p999_us']:.0f} us"
        expect(f"write amplification of {amplification}: {found}", 0.85 * amplification <= row["write_amplification"] <= 1.1 * amplification)
        expect(f"99.9 % of {tail} us: {found}", row["p999_us"] <= 2.5 * tail)
        print(found)


def check_index(program, folder, table):
    out = subprocess.run([program, "--dir", folder, "--data", "16GiB"], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^(.+?) +\d+ pages: +([\d.]+) B of memory a page, .* RocksDB +([\d.]+) B a page", out, re.MULTILINE)
    expect(f"a row for each pattern: {out}", {name for name, _, _ in rows} == set(table) and len(table) == 3)
    for name, memory, disk in rows:
        want_memory, want_disk = table.get(name, (0, 0))
        print(f"{name}: {memory} B of memory a page, {disk} B in RocksDB")
        expect(f"{name}: {want_memory} B of memory a page: {memory}", abs(number(memory) - want_memory) <= 0.06 * want_memory)
        expect(f"{name}: {want_disk} B in RocksDB a page: {disk}", abs(number(disk) - want_disk) <= 0.03 * want_disk)


def main():
    aging, index_memory, architecture, folder = sys.argv[1:]
    with open(architecture, encoding="utf-8") as f:
        text = f.read()
    check_aging(aging, aging_table(text))
    check_index(index_memory, folder, index_table(text))
    for what in bad:
        print(f"FAIL {what}")
    return 1 if bad else 0


sys.exit(main())
