#!/usr/bin/env python3
"""pave-bench on a real cluster: verified loads through the client and over NBD, a ramp, plots, and a comparison of the few
systems that every machine has. What is measured is not judged here, only that it is measured and told."""
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cluster import BUILD, OVER, SCALE, Cluster, Failure, main, run, wait_for  # noqa: E402

BENCH = BUILD / "bench" / "pave-bench"
CALLS_CAN_BE_COUNTED = os.geteuid() == 0 and Path("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id").exists()


def bench(cluster, *args):
    return json.loads(run(BENCH, "--cluster", cluster.dir, "--json", *OVER, *args).stdout)


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
        expect("what they do not have in common is not told of both", all(result[k] is None for k in ("rw", "bs", "depth")))
        expect("reads and writes are counted apart", result["reads"]["operations"] and result["writes"]["operations"])
        expect(f"the nodes' CPU time is counted: {names}", names.count("pave-node") == 3 and "pave-bench" in names)
        expect("plots are there", all((Path(plots) / n).stat().st_size > 1000 for n in ("latency.svg", "throughput.svg")))

        expect(f"all blocks are verified, and some while it ran: {result['verified_blocks']}", result["verified_blocks"] > 65536)
        done = run(BENCH, "--cluster", cluster.dir, "--volume", "v", "--rw", "randread", "--verify", "--seconds", "1", *OVER, check=False)
        expect(f"to verify what nobody wrote is refused: {done}", done.returncode == 2 and "--fill" in done.stderr)

        result = bench(cluster, "--volume", "v", "--rw", "randrw", "--seconds", "1", "--trace")
        expect(f"the trace tells of both: {result['trace']}", all(result["trace"][k]["told"] > 0 for k in ("reads", "writes")))
        expect(f"the slowest are explained: {result['slowest']}", any("us" in s["where"] for s in result["slowest"]))

        for options in ([], ["--json"]):
            with open("/dev/full", "w", encoding="ascii") as full:
                done = subprocess.run([BENCH, "--cluster", cluster.dir, "--volume", "v", "--seconds", "1", *options, *OVER], stdout=full,
                                      stderr=subprocess.PIPE, text=True, timeout=60 * SCALE, check=False)
            expect(f"a result that cannot be written is no success: {done}", done.returncode == 1 and "cannot be written" in done.stderr)

        uri = cluster.attach("v")
        # As README has it: the cluster is in the environment. One beside it whose name only begins so is none of it.
        beside = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"{cluster.dir}-beside/x"])
        done = subprocess.run([BENCH, "--nbd", uri, "--seconds", "1", "--json", *OVER], capture_output=True, text=True, timeout=60 * SCALE, check=True,
                              env={**os.environ, "PAVE_CLUSTER": str(cluster.dir)})
        names = [p["name"] for p in json.loads(done.stdout)["processes"]]
        expect(f"the cluster's processes are counted over NBD: {names}", names.count("pave-node") == 3 and "pave-attach" in names)
        load = subprocess.Popen([sys.executable, "-c", "while True: pass", f"{cluster.dir}-beside/x"])
        names = [p["name"] for p in bench(cluster, "--nbd", uri, "--seconds", "1")["processes"]]
        for process in (beside, load):
            process.kill()
            process.wait()
        expect(f"and no others: {names}", not any("python" in n for n in names))
        result = bench(cluster, "--nbd", uri, "--rw", "randrw", "--fill", "--verify", "--seconds", "1")
        expect("NBD was loaded", result["over"] == "nbd" and result["operations"] > 0 and result["verified"])
        expect("pave-attach is counted", any(p["name"] == "pave-attach" for p in result["processes"]))
        result = bench(cluster, "--nbd", uri, "--seconds", "1", "--ramp", "depth=1..4", "--svg", plots)
        expect("three steps and a knee", [s["step"] for s in result["steps"]] == [1, 2, 4] and result["knee"] in (1, 2, 4))
        told = [s["jobs"][0]["depth"] for s in result["steps"]]
        expect(f"each says its own depth, and there is none of all: {told}, {result['depth']}", told == [1, 2, 4] and result["depth"] is None)
        rates = bench(cluster, "--nbd", uri, "--seconds", "1", "--ramp", "rate=100..400:3")
        told = [(s["jobs"][0]["rate"], s["jobs"][0]["arrivals"]) for s in rates["steps"]]
        expect(f"each says its own rate: {told}", told == [(100, "poisson"), (200, "poisson"), (400, "poisson")])
        sweep = (Path(plots) / "sweep.svg").read_text()
        expect("the sweep has its knee", f"the knee is at depth {result['knee']:,.0f}" in sweep)


def what_it_cost_is_told():
    with Cluster("--device-size", "1GiB", "--permit-lifetime", "3s") as cluster:
        cluster.pave("volume", "create", "v", "--size", "256MiB", "--chunk-size", "64MiB")
        calls = ["--calls"] if CALLS_CAN_BE_COUNTED else []
        result = bench(cluster, "--volume", "v", "--rw", "randrw", "--seconds", str(4 * SCALE), *calls)
        expect(f"permits of 3 s are renewed in 4: {result['permits_renewed']}", result["permits_renewed"] >= 2)
        counts = [result.get(k) for k in ("read_retries", "reconciled_blocks", "resyncs", "repairs", "freezes")]
        expect(f"what may have made it slow is counted: {counts}", all(isinstance(n, int) for n in counts))
        expect("the host's calls of the ring are counted", result["host_enter_calls_per_op"] > 0)
        names = ("pave-bench", "pave-node", "pave-node", "pave-node", "pave-pd")
        processes = [p for p in result["processes"] if p["name"] in names]
        expect(f"every process is told: {result['processes']}", sorted(p["name"] for p in processes) == sorted(names))
        total = sum(p["cpu_us_per_op"] for p in result["processes"])
        expect(f"together they make the sum: {total}", abs(total - result["cpu_us_per_op"]) < 0.01)
        for p in processes:
            threads = p["threads"]
            expect(f"each process uses CPU time and is switched: {p}", p["cpu_us_per_op"] > 0 and p["switches_per_op"] > 0)
            expect(f"and so do its threads, no more than it: {p}",
                   threads and 0 < sum(t["cpu_us_per_op"] for t in threads) <= p["cpu_us_per_op"] * 1.02 + 0.01)
            if calls:
                expect(f"it makes system calls: {p}", p["calls_per_op"] > 0)
        host = next(p for p in processes if p["name"] == "pave-bench")
        # The ring's calls are among those that the kernel counts; over TCP nothing else makes any by the operation.
        over_tcp = all(c["transport"] == "tcp" for c in result["wire"]["connections"])
        if calls:
            expect(f"the kernel counts what the reactor does: {host}, {result['host_enter_calls_per_op']}",
                   0.9 * result["host_enter_calls_per_op"] <= host["calls_per_op"] and
                   (not over_tcp or host["calls_per_op"] <= 1.5 * result["host_enter_calls_per_op"] + 0.5))

        command = (BENCH, "--cluster", cluster.dir, "--volume", "v", "--rw", "randrw", "--seconds", "1", "--trace", *calls, *OVER)

        def table():
            return run(*command).stdout

        def table_of_one_that_was_stopped():
            bench = cluster.start(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            wait_for("the load to run", lambda: bench.poll() is not None or cpu_seconds(bench.pid) > 0.1 * SCALE)
            if bench.poll() is None:
                cluster.kill(bench.pid, signal.SIGSTOP)
                time.sleep(0.3)
                cluster.kill(bench.pid, signal.SIGCONT)
            return bench.communicate(timeout=60 * SCALE)[0]

        text = table()
        for line in (r"^all: random reads and writes \(70 % reads\), 4 ?KiB, depth 32, \d+\.\d s: \d+/s, [\d.]+ MiB/s$",
                     r"^  read +mean +[\d.]+  p50 +[\d.]+  p99 +[\d.]+  p99\.9 +[\d.]+  p99\.99 +[\d.]+  max +[\d.]+ us$",
                     r"^  write +mean +[\d.]+  p50", r"^  pave-node +\d+ +[\d.]+ us CPU, +[\d.]+ context switches.* an operation$",
                     r"^  all processes +[\d.]+ us CPU .* io_uring_enter an operation, \d+ permits$",
                     r"^  write +mean [\d.]+ us: host queue [\d.]+, network [\d.]+, node queue [\d.]+, log [\d.]+, answer",
                     r"^  slowest moments, and what else happened then:$", r"^ +[\d.]+ us at +[\d.]+ s  (read|write)  \S"):
            expect(f"the table has {line}:\n{text}", re.search(line, text, re.MULTILINE))
        if calls:
            expect(f"and system calls:\n{text}", re.search(r"^  pave-node .*, +[\d.]+ system calls an operation$", text, re.MULTILINE))
        wait_for("a slow moment of which the cause is told", lambda: re.search(
            r"^ +[\d.]+ us at +[\d.]+ s  (read|write)  .*this process did not run", table_of_one_that_was_stopped(), re.MULTILINE))
        # Not where the host itself stood still for longer than its slowest operations took.
        wait_for("a slow operation whose way is told",
                 lambda: re.search(r"^ +[\d.]+ us at +[\d.]+ s  (read|write)  .*us, node ", table(), re.MULTILINE))


def progress_is_shown():
    with Cluster("--device-size", "1GiB") as cluster:
        cluster.pave("volume", "create", "v", "--size", "128MiB", "--chunk-size", "64MiB")
        ours, theirs = pty.openpty()
        load = cluster.start(BENCH, "--cluster", cluster.dir, "--volume", "v", "--seconds", str(4 * SCALE), "--json", *OVER,
                             stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        shown = b""
        os.set_blocking(ours, False)

        def more():
            nonlocal shown
            try:
                shown += os.read(ours, 4096)
            except OSError:  # nothing yet, or the end
                pass
            return re.search(rb"\rrunning +1/1 +[1-9]\d* ops/s +[1-9]\d* ops", shown)

        wait_for("a line of progress while it runs", more, 60)
        expect("it ends well", load.wait(60 * SCALE) == 0)
        os.close(ours)
        # Not less than was asked for, in silence.
        for options in (("--range", "256MiB"), ("--start", "127MiB", "--range", "2MiB"), ("--start", "256MiB")):
            done = run(BENCH, "--cluster", cluster.dir, "--volume", "v", "--seconds", "1", *options, *OVER, check=False)
            expect(f"a range beyond the volume is refused: {options}: {done.returncode} {done.stderr}",
                   done.returncode == 2 and "the volume at 134217728" in done.stderr)
        # Whoever ends it is told, with what was measured until then, and the volume is let go.
        state = lambda: cluster.pave("volume", "show", "v", parse=True)["state"]  # noqa: E731
        ours, theirs = pty.openpty()
        load = cluster.start(BENCH, "--cluster", cluster.dir, "--volume", "v", "--seconds", "600", *OVER, stdout=subprocess.PIPE,
                             stderr=theirs, text=True)
        os.close(theirs)
        shown = b""
        os.set_blocking(ours, False)
        wait_for("a line of progress while it runs", more, 60)
        load.send_signal(signal.SIGINT)
        out = load.communicate(timeout=60 * SCALE)[0]
        wait_for(f"an end before its time being told: {shown}", lambda: more() and b"it ends before its time" in shown, 10)
        os.close(ours)
        expect(f"it fails, and says what it has: {load.returncode} {out}", load.returncode == 1 and out.startswith("ended before its time"))
        expect("and the volume is detached", state() == "detached")


def any_server_can_be_loaded():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sock")
        server = subprocess.Popen(["nbdkit", "--foreground", "--unix", path, "memory", "64M"])
        try:
            wait_for("nbdkit's socket", path.exists)
            load = ["--nbd", f"nbd+unix:///?socket={path}", "--rw", "randrw", "--fill", "--verify", "--seconds", "1", "--json",
                    "--count", str(path)]
            result = json.loads(run(BENCH, *load).stdout)
            expect("it was loaded and verified", result["operations"] > 0 and result["verified"])
            expect("what it used is counted", any(p["name"] == "nbdkit" and p["cpu_us_per_op"] > 0 for p in result["processes"]))
        finally:
            server.terminate()
            server.wait(60)
        # One that forgets what was written.
        path.unlink(missing_ok=True)
        server = subprocess.Popen(["nbdkit", "--foreground", "--unix", path, "null", "64M"])
        try:
            wait_for("nbdkit's socket", path.exists)
            done = run(BENCH, *load, check=False)
            expect(f"what is not what was written is found: exit {done.returncode}: {done.stderr}",
                   done.returncode == 1 and "blocks are not what was written" in done.stderr)
        finally:
            server.terminate()
            server.wait(60)


def it_can_be_ended():
    """Whatever the server does: by a signal while it greets, by a second one while operations are under way; and what was measured is told."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sock")
        silent = socket.socket(socket.AF_UNIX)
        silent.bind(str(path))
        silent.listen()
        load = subprocess.Popen([BENCH, "--nbd", f"nbd+unix:///?socket={path}"], stderr=subprocess.PIPE, text=True)
        time.sleep(1)
        load.terminate()
        expect("a signal ends the wait for a greeting", ended(load, 5) not in (None, 0))
        silent.close()
        path.unlink()
        server = subprocess.Popen(["nbdkit", "--foreground", "--unix", path, "memory", "64M"])
        try:
            wait_for("nbdkit's socket", path.exists)
            load = subprocess.Popen([BENCH, "--nbd", f"nbd+unix:///?socket={path}", "--seconds", "600", "--json"],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            time.sleep(2)
            load.send_signal(signal.SIGINT)
            out, err = load.communicate(timeout=20 * SCALE)
            result = json.loads(out)
            expect(f"what was measured is told: {load.returncode} {err}", load.returncode == 1 and "before its time" in err and
                   result["interrupted"] is True and result["operations"] > 0 and 0.5 < result["seconds"] < 30)
            load = subprocess.Popen([BENCH, "--nbd", f"nbd+unix:///?socket={path}", "--seconds", "1", "--ramp", "depth=1..1024"],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            time.sleep(2.7)
            load.send_signal(signal.SIGINT)
            out, err = load.communicate(timeout=20 * SCALE)
            expect(f"so are the steps of a ramp: {out}", load.returncode == 1 and re.search(r"^ +1 +\d+", out, re.MULTILINE) and "the knee" not in out)
            load = subprocess.Popen([BENCH, "--nbd", f"nbd+unix:///?socket={path}", "--seconds", "600"], stderr=subprocess.PIPE, text=True)
            time.sleep(1)
            server.send_signal(signal.SIGSTOP)
            for _ in range(2):
                time.sleep(0.5)
                load.send_signal(signal.SIGINT)
            code = ended(load, 5)
            expect(f"a second signal ends it: {code}", code == 1)
        finally:
            server.send_signal(signal.SIGCONT)
            server.terminate()
            server.wait(60)


def ended(process, seconds):
    try:
        return process.wait(seconds * SCALE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def nothing_counts_but_the_load():
    with Cluster("--device-size", "1GiB") as cluster:
        cluster.pave("volume", "create", "v", "--size", "256MiB", "--chunk-size", "64MiB")
        burner = subprocess.Popen([sys.executable, "-c", "while True: pass", "burns beside"])
        held = subprocess.Popen([BENCH, "--cluster", cluster.dir, "--volume", "v", "--rate", "20", "--seconds", "1", "--hold", "--json", "--count",
                                 "burns beside", *OVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        burnt = []
        for seconds in (1, 4):
            expect("it is held", "held" in held.stderr.readline())
            if burnt:
                burnt.append(cpu_seconds(burner.pid))
            time.sleep(seconds)
            burnt = burnt or [cpu_seconds(burner.pid)]
            held.stdin.write("\n")
            held.stdin.flush()
        result = json.loads(held.communicate(timeout=60 * SCALE)[0])
        burner.kill()
        burner.wait()
        used = next(p["cpu_us_per_op"] for p in result["processes"] if "python" in p["name"]) * result["operations"] / 1e6
        expect(f"what is used while it is held is not the load's: {used} s, {burnt}", used < burnt[1] - burnt[0] + 0.1)
        if CALLS_CAN_BE_COUNTED:
            result = bench(cluster, "--volume", "v", "--rate", "20", "--seconds", "1", "--calls")
            host = next(p for p in result["processes"] if p["name"] == "pave-bench")
            expect(f"the bench's own reading of /proc is not the load's: {host}, {result['host_enter_calls_per_op']}",
                   host["calls_per_op"] <= 1.5 * result["host_enter_calls_per_op"] + 2)


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
                       (["--nbd", "nbd://192.0.2.1:10809/v"], 1), (["--rw", "backwards"], 2), (["--cluster", "127.0.0.1:1", "--volume", "v"], 2), (["compare", "--seconds", "0"], 2)):
        done = run(BENCH, *args, check=False)
        expect(f"pave-bench {' '.join(args)}: exit {done.returncode}, not {code}: {done.stderr}", done.returncode == code)
        expect(f"{args}: a line on stderr", done.stderr.strip() != "")


def systems_are_compared():
    with tempfile.TemporaryDirectory() as folder:
        # An emulated machine has no time for all of them.
        ours = ("pave", "pave-nbd", "qemu-nbd", "nbdkit") if SCALE == 1 else ("pave",)
        options = ["--systems", ",".join(("limit", *ours)), "--workloads", "write32,read32", "--repeat", "2", "--seconds", "1", "--sustained", "1",
                   "--size", "128", "--device-size", "512", "--raw", f"{folder}/raw.json", "--report", folder, "--dir", f"{folder}/data"]
        done = run(BENCH, "compare", *options, "--budget", "3", check=False)
        expect(f"the budget ends the first piece: exit {done.returncode}: {done.stderr}", done.returncode == 75)
        run(BENCH, "compare", *options, "--resume")
        raw = json.loads(Path(folder, "raw.json").read_text())
        seen = sorted((m["system"], m["work"], m["round"]) for m in raw["measurements"])
        want = sorted((s, w, r) for r in (0, 1) for s, w in (("limit3", "write32"), ("limit3-dsync", "write32"), ("limit1", "read32"),
                                                             *((s, w) for s in ours for w in ("write32", "read32"))))
        expect(f"each is measured once a round: {seen}", seen == want)
        text = Path(folder, "RESULTS.md").read_text()
        expect("the report has the targets", "limit3-dsync" in text and "not measured" in text)
        # What was measured can be written again without saying how it was; other settings are no continuation of it.
        Path(folder, "RESULTS.md").write_text("lost")
        run(BENCH, "compare", "--report-only", "--raw", f"{folder}/raw.json", "--report", folder)
        expect("the same report", Path(folder, "RESULTS.md").read_text() == text)
        done = run(BENCH, "compare", "--report-only", "--raw", f"{folder}/none.json", "--report", folder, check=False)
        expect(f"nothing is no report: {done}", done.returncode == 1 and "none.json" in done.stderr and "Traceback" not in done.stderr and
               Path(folder, "RESULTS.md").read_text() == text)
        for other in ("--sustained", "--device-size", "--seconds"):
            done = run(BENCH, "compare", *options, other, "1024" if other == "--device-size" else "2", "--resume", check=False)
            expect(f"{other} of another measurement is told: {done}", done.returncode == 1 and f"with other settings ({other[2:]}" in done.stderr)


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


main([loads_are_verified, what_it_cost_is_told, progress_is_shown, any_server_can_be_loaded, it_can_be_ended, nothing_counts_but_the_load, slow_operations_are_traced,
      what_cannot_be_is_refused, systems_are_compared, a_peer_that_fails_is_told_and_ends_nothing])
