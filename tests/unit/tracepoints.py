#!/usr/bin/env python3
"""The static tracepoints (engine/base/probe.h) are in the programs, with their arguments, for perf, bpftrace and SystemTap to
find: tracepoints.py yes|no NODE HOST [HOST...]. no: they were built without sys/sdt.h, which is a skip."""
import re
import subprocess
import sys

NODE = {"node_receive", "log_write", "log_durable", "node_answer"}
HOST = {"op_submit", "frame_send", "host_answer", "op_done"}


def tracepoints(program):
    """{name: number of arguments}"""
    text = subprocess.run(["readelf", "--notes", "--wide", program], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"Provider: pave\s+Name: (\w+)\s.*?Arguments: ([^\n]*)", text, re.DOTALL)
    return {name: len(arguments.split()) for name, arguments in found}


def main():
    if sys.argv[1] != "yes":
        print("SKIP built without sys/sdt.h")
        return 77
    for program, want in ((sys.argv[2], NODE), *((p, HOST) for p in sys.argv[3:])):
        found = tracepoints(program)
        for name in sorted(want):
            if found.get(name) != 3:
                print(f"FAIL {program}: tracepoint {name} with 3 arguments: there are {found}")
                return 1
    print("ok")
    return 0


sys.exit(main())
