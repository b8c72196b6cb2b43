#!/usr/bin/env python3
"""pave-bench on a real cluster: verified loads through the client and over NBD, a ramp, plots, and a comparison of the few
systems that every machine has. What is measured is not judged here, only that it is measured and told."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cluster import BUILD, OVER, SCALE, Cluster, Failure, main, run  # noqa: E402

BENCH = BUILD / "bench" / "pave-bench"


def bench(cluster, *args):
    return json.loads(run(BENCH, "--cluster", cluster.dir, "--json", *OVER, *args).stdout)


def expect(what, condition):
    if not condition:
        raise Failure(what)


def loads_are_verified():
    with Cluster("--device-size", "1GiB") as cluster, tempfile.TemporaryDirectory() as plots:
        cluster.pave("volume", "create", "v", "--size", "256MiB", "--chunk-size", "64MiB")
        result = bench(cluster, "--volume", "v", "--fill", "--verify", "--seconds", "1", "--svg", plots,
                       "--job", "name=w,rw=randwrite,bs=4KiB:3/64KiB:1,depth=8,range=128MiB",
                       "--job", "name=r,rw=randrw,zipf=1.1,rate=500,depth=16,start=128MiB")
        names = [p["name"] for p in result["processes"]]
        expect("both jobs ran", all(j["operations"] > 0 for j in result["jobs"]))
        expect("reads and writes are counted apart", result["reads"]["operations"] and result["writes"]["operations"])
        expect(f"the nodes' CPU time is counted: {names}", names.count("pave-node") == 3 and "pave-bench" in names)
        expect("plots are there", all((Path(plots) / n).stat().st_size > 1000 for n in ("latency.svg", "throughput.svg")))

        result = bench(cluster, "--volume", "v", "--rw", "randrw", "--seconds", "1", "--trace")
        expect(f"the trace tells of both: {result['trace']}", all(result["trace"][k]["told"] > 0 for k in ("reads", "writes")))
        expect(f"the slowest are explained: {result['slowest']}", any("us" in s["where"] for s in result["slowest"]))

        uri = cluster.attach("v")
        result = bench(cluster, "--nbd", uri, "--rw", "randrw", "--fill", "--verify", "--seconds", "1")
        expect("NBD was loaded", result["over"] == "nbd" and result["operations"] > 0 and result["verified"])
        expect("pave-attach is counted", any(p["name"] == "pave-attach" for p in result["processes"]))
        result = bench(cluster, "--nbd", uri, "--seconds", "1", "--ramp", "depth=1..4")
        expect("three steps and a knee", [s["step"] for s in result["steps"]] == [1, 2, 4] and result["knee"] in (1, 2, 4))


def slow_operations_are_traced():
    with Cluster("--device-size", "1GiB") as cluster:
        cluster.pave("volume", "create", "v", "--size", "256MiB", "--chunk-size", "64MiB")
        uri = cluster.attach("v")
        load = cluster.start(BENCH, "--nbd", uri, "--rw", "randrw", "--fill", "--verify", "--seconds", "6", stdout=subprocess.DEVNULL)
        trace = cluster.pave("trace", "v", "--seconds", "4", "--slowest", "5", parse=True)
        expect("the load went well meanwhile", load.wait(120 * SCALE) == 0)
        expect(f"writes tell their times: {trace['writes']}", trace["writes"]["told"] > 0)
        expect("five of the slowest, slowest first", len(trace["slowest"]) == 5 and
               trace["slowest"] == sorted(trace["slowest"], key=lambda o: -o["total_us"]))
        for op in trace["slowest"]:
            parts = op["parts_us"]
            expect(f"all the time is accounted for: {op}", parts and abs(sum(parts.values()) - op["total_us"]) < 1)
            expect(f"a node is named: {op}", op["node"] in cluster.nodes())
        expect("the log takes time", trace["writes"]["parts_us"]["log"] > 0)
        table = cluster.pave("trace", "v", "--seconds", "1").stdout
        expect(f"an idle volume says so: {table}", "no operation" in table)
        cluster.pave("detach", "v")
        done = cluster.pave("trace", "v", check=False)
        expect("what is not attached cannot be traced", done.returncode == 4 and "not attached" in done.stderr)


def what_cannot_be_is_refused():
    for args, code in ((["--volume", "v"], 2), (["--nbd", "nbd+unix:///v?socket=/nonexistent"], 4), (["--nbd", "http://x"], 1),
                       (["--nbd", "nbd://192.0.2.1:10809/v"], 1), (["--rw", "backwards"], 2), (["compare", "--seconds", "0"], 2)):
        done = run(BENCH, *args, check=False)
        expect(f"pave-bench {' '.join(args)}: exit {done.returncode}, not {code}: {done.stderr}", done.returncode == code)
        expect(f"{args}: a line on stderr", done.stderr.strip() != "")


def systems_are_compared():
    with tempfile.TemporaryDirectory() as folder:
        options = ["--systems", "limit,pave", "--workloads", "write32,read32", "--repeat", "2", "--seconds", "1", "--sustained", "1",
                   "--size", "128", "--device-size", "512", "--raw", f"{folder}/raw.json", "--report", folder, "--dir", f"{folder}/data"]
        done = run(BENCH, "compare", *options, "--budget", "3", check=False)
        expect(f"the budget ends the first piece: exit {done.returncode}: {done.stderr}", done.returncode == 75)
        run(BENCH, "compare", *options, "--resume")
        raw = json.loads(Path(folder, "raw.json").read_text())
        seen = sorted((m["system"], m["work"], m["round"]) for m in raw["measurements"])
        want = sorted((s, w, r) for r in (0, 1) for s, w in (("limit3", "write32"), ("limit3-dsync", "write32"), ("limit1", "read32"),
                                                             ("pave", "write32"), ("pave", "read32")))
        expect(f"each is measured once a round: {seen}", seen == want)
        text = Path(folder, "RESULTS.md").read_text()
        expect("the report has the targets", "limit3-dsync" in text and "not measured" in text)


def a_peer_that_fails_is_told_and_ends_nothing():
    with tempfile.TemporaryDirectory() as folder:
        bin = Path(folder, "bin")
        bin.mkdir()
        # One does not start, the other hangs up.
        Path(bin, "qemu-nbd").write_text("#!/bin/sh\nexit 3\n")
        Path(bin, "nbdkit").write_text('#!/bin/sh\nwhile [ "$1" != --unix ]; do shift; done\n'
                                       "exec python3 -c 'import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\n"
                                       "while True: s.accept()[0].close()' \"$2\"\n")
        for program in bin.iterdir():
            program.chmod(0o755)
        done = subprocess.run([BENCH, "compare", "--systems", "limit,qemu-nbd,nbdkit", "--workloads", "read32,seqread", "--repeat", "1",
                               "--seconds", "1", "--size", "128", "--device-size", "512", "--raw", f"{folder}/raw.json",
                               "--report", folder, "--dir", f"{folder}/data"], capture_output=True, text=True, timeout=200 * SCALE, check=False,
                              env={**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"})
        expect(f"the run goes on: exit {done.returncode}: {done.stderr}", done.returncode == 0)
        raw = json.loads(Path(folder, "raw.json").read_text())
        expect("the others are measured", sorted(m["work"] for m in raw["measurements"] if m["system"] == "limit1") == ["read32", "seqread"])
        text = Path(folder, "RESULTS.md").read_text()
        expect("who did not start is told, and why", "| qemu-nbd | - | not measured: it did not start: qemu-nbd ended with exit code 3" in text)
        expect("who failed is told, and where", "| nbdkit | - | failed in round 1, read32" in text)


main([loads_are_verified, slow_operations_are_traced, what_cannot_be_is_refused, systems_are_compared, a_peer_that_fails_is_told_and_ends_nothing])
