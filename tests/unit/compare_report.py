#!/usr/bin/env python3
"""The report of pave-bench compare, from measurements that are made up here: verdicts are right, what was not measured is
said to be so, plots are XML with all their parts."""
import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))
from comparing import machine, report, svg, targets  # noqa: E402
from comparing.systems import WORKS  # noqa: E402

RATES = {"limit3-dsync": 10000, "limit3": 30000, "limit1": 60000, "pave": 20000, "pave-nbd": 15000, "qemu-nbd": 20000}


def measurement(system, work, number, scale=1.0):
    m = {"system": system, "work": work, "round": number, "iops": RATES[system] * scale, "mib_per_s": 80, "seconds": 10,
         "operations": 1000, "mean_us": 400, "p50_us": 300, "p99_us": 900, "p99_9_us": 1400, "p99_99_us": 2000,
         "cpu_us": 15 if "pave" in system else 20, "kernel_cpu_us": 5 if "pave" in system else 30, "machine_cpu_us": 60}
    if system == "pave":
        m |= {"curve": [[50, 300], [99, 900], [100, 2000]], "timeline": [[i / 10, 20000, 80, 900] for i in range(20)]}
    return m


def made_up():
    raw = {"begun": 1.8e9, "machine": "a machine", "missing": {"ceph": "it is not installed: apt-get install ceph-osd"},
           "settings": {"size": 2**31, "device_size": 2**32, "seconds": 10}, "systems": {}, "measurements": []}
    for system in RATES:
        raw["systems"][system] = {"replicas": 1, "durability": "a durability"}
        for work in WORKS:
            for number, scale in enumerate((1.0, 0.5, 4.0)):  # one machine, now slow, now fast: ratios stay
                raw["measurements"].append(measurement(system, work.name, number, scale))
    return raw


def check(what, condition):
    if not condition:
        print(f"FAIL {what}")
        sys.exit(1)


def kernel_threads_are_told_apart():
    """A worker that ends takes nothing from what the others used."""
    with tempfile.TemporaryDirectory() as folder:
        machine.PROC = Path(folder)

        def thread(pid, name, seconds):
            Path(folder, str(pid)).mkdir(exist_ok=True)
            Path(folder, str(pid), "comm").write_text(f"{name}\n")
            Path(folder, str(pid), "schedstat").write_text(f"{seconds * 10**9:.0f} 0 0\n")

        thread(7, "kworker/0:1", 50)
        thread(8, "jbd2/vda1-8", 1)
        thread(20, "pave-node", 9)
        before = machine.kernel_threads()
        shutil.rmtree(Path(folder, "7"))
        thread(8, "jbd2/vda1-8", 3)
        thread(9, "kworker/1:2", 0.5)
        thread(20, "pave-node", 12)
        used = machine.kernel_threads_seconds_since(before)
        check(f"2 s and 0.5 s of kernel threads: {used}", abs(used - 2.5) < 1e-6)
        machine.PROC = Path("/proc")


def a_quick_one_overwrites_nothing():
    """Whether all works is not to be taken for what was measured."""
    loader = importlib.machinery.SourceFileLoader("compare", str(BENCH / "compare"))
    compare = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare", loader))
    loader.exec_module(compare)

    def arguments(*args):
        sys.argv = ["compare", *args]
        return compare.arguments()

    long, quick, told = arguments(), arguments("--quick"), arguments("--quick", "--report", "there", "--raw", "raw")
    check("the long one's report is in the bench folder", long.report == BENCH)
    check(f"a quick one's is not: {quick.report}, {quick.raw}", quick.report != BENCH and quick.raw != long.raw)
    check("but where it was asked for", (told.report, told.raw) == (Path("there"), Path("raw")))


def what_cannot_be_plotted_is_told():
    """A load of which nothing ended has plots without lines; what is no result is named."""
    check("no curve is a plot without one", "polyline" not in svg.latency_curve("none", {}))
    with tempfile.TemporaryDirectory() as folder:
        for text in ("[]", "{}", '{"steps": []}', "no JSON"):
            Path(folder, "x.json").write_text(text)
            done = subprocess.run([BENCH / "plot.py", f"{folder}/x.json", folder], capture_output=True, text=True, check=False)
            check(f"{text} is no result: {done}", done.returncode == 1 and "Traceback" not in done.stderr and
                  f"{folder}/x.json: no result of pave-bench --json" in done.stderr)


def servers_outlive_ctrl_c():
    """Until compare stops them, in an order by which none is left."""
    with tempfile.TemporaryDirectory() as folder:
        process = machine.start(Path(folder) / "log", "sleep", "60")
        try:
            check("a server gets none of the terminal's signals", os.getpgid(process.pid) != os.getpgid(0))
        finally:
            machine.stop(process)


def main():
    what_cannot_be_plotted_is_told()
    servers_outlive_ctrl_c()
    a_quick_one_overwrites_nothing()
    kernel_threads_are_told_apart()
    raw = made_up()
    rows = {(r.title, r.want.split(",")[0]): r for r in targets.table(raw)}
    row = next(r for r in rows.values() if "limit3-dsync" in r.want and "depth 32" in r.title)
    check("twice limit3-dsync is met", row.met is True and "2.00 of" in row.got)
    check("the kernel's threads count", "CPU 20.0 µs, 0.4 of 50.0 µs" in row.got)
    row = next(r for r in rows.values() if "depth 128" in r.title)
    check("two thirds of limit3 is not met", row.met is False)
    row = next(r for r in rows.values() if r.title.endswith("NBD"))
    check("0.75 of qemu-nbd is not met", row.met is False)
    row = next(r for r in rows.values() if "ceph" in r.want)
    check("what is not installed is not measured", row.met is None and "apt-get install ceph-osd" in row.got)
    row = next(r for r in rows.values() if r.title.startswith("99.9th"))
    check("what did not run is not measured", row.met is None and "not measured" in row.got)

    tail = {**measurement("pave", "tail", 0), "rate": 14000, "knee": 20000, "steps": [
        {"step": s, "iops": s, "all": {"p50_us": 100, "p99_us": 200, "p99_9_us": 300}} for s in (5000, 10000, 20000)]}
    raw["measurements"].append(tail)
    row = next(r for r in targets.table(raw) if r.title.startswith("99.9th"))
    check("1400 of 300 is within five", row.met is True)
    row = next(r for r in targets.table(raw) if r.title.startswith("checks of"))
    check("checks that did not run are not measured", row.met is None)
    for number, off in enumerate((20100, 21000)):
        raw["measurements"].append({**measurement("pave", "checks", number), "system": "checks", "pairs": [
            [[20000, 20.1], [off, 20]], [[10000, 40.2], [off / 2, 40]]] * 2})
    row = next(r for r in targets.table(raw) if r.title.startswith("checks of"))
    check("2.6 % is more than one", row.met is False and "rate -2.6 %" in row.got and "CPU +0.5 %" in row.got and "8 pairs" in row.got)
    for one in raw["measurements"][-2:]:
        one["pairs"] = [[[20000 * k, 20], [20000, 20]] for k in (1.1, 1.1, 1 / 1.1, 1 / 1.1)]
    row = next(r for r in targets.table(raw) if r.title.startswith("checks of"))
    check(f"what is of the order is no difference: {row.got}", row.met is True and row.got.count("from +0.0 to +0.0") == 2)
    with tempfile.TemporaryDirectory() as folder:
        report.write(raw, Path(folder))
        text = (Path(folder) / "RESULTS.md").read_text()
        for plot in Path(folder, "results").glob("*.svg"):
            root = ET.parse(plot).getroot()
            texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
            check(f"{plot.name} has a title, axes and a legend", len(texts) > 8 and "nan" not in plot.read_text())
            check(f"{plot.name} is in the report", f"results/{plot.name}" in text)
        check("every workload has its table", all(f"## {w.title}" in text for w in WORKS))
        check("the spread is told", "20,000 (10,000 to 80,000)" in text)
        check("how long a load had gone on is told, where it is known", "to make up 60 s" not in text)
        raw["settings"]["sustained"] = 60
        report.write(raw, Path(folder))
        check("and is", "to make up 60 s" in (Path(folder) / "RESULTS.md").read_text())
    json.dumps(raw)
    print("ok")


main()
