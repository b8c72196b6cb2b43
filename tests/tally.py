"""Counts the outcome of `meson test`: prints "PASSED FAILED", then a line for each test that did not pass.

A test program that uses TAP-less libcheck counts as one. A skip is printed and counted as a failure: this project has no test that may skip
silently. But in a guest one may (suite guest-integration): what cannot be tried over RDMA is listed, and counts as neither."""
import json
import sys

passed, failed, others = 0, 0, []
with open(sys.argv[1], encoding="utf-8") as log:
    for line in log:
        test = json.loads(line)
        if test["result"] == "OK":
            passed += 1
            continue
        failed += test["result"] != "SKIP" or "guest-integration" not in test["name"]
        others.append(f'{test["name"]} ({test["result"]})')
print(passed, failed)
for name in others:
    print(name)
