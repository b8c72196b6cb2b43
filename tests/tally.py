"""Counts the outcome of `meson test`: prints "PASSED FAILED", then a line for each test that did not pass.

A test program that uses TAP-less libcheck counts as one. A skip is printed and counted as a failure: this
project has no test that may skip silently."""
import json
import sys

passed, bad = 0, []
with open(sys.argv[1], encoding="utf-8") as log:
    for line in log:
        test = json.loads(line)
        if test["result"] == "OK":
            passed += 1
        else:
            bad.append(f'{test["name"]} ({test["result"]})')
print(passed, len(bad))
for name in bad:
    print(name)
