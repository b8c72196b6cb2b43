"""Processes, their CPU time, and fio.

CPU time is that of processes, by the kernel's own accounting: of servers from /proc (user and system time, threads that
have ended included), of load generators from wait4(2); and that of the kernel's threads meanwhile, for what a process
asks for may be done there: the end of an O_DSYNC write is. The machine's whole busy time is kept beside it."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

PROC = Path("/proc")
TICK = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """Something that has to work did not."""


class Missing(Exception):
    """A system that is not installed; the text says how to install it."""


def need(*programs, package):
    missing = [p for p in programs if shutil.which(p) is None]
    if missing:
        raise Missing(f"{', '.join(missing)} is not installed: apt-get install {package}")


def run(*command, timeout=120, check=True, **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout, check=False, **more)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"waited {seconds} s for {what}")
        time.sleep(0.05)


def start(log, *command, **more):
    """A server in the background; its output goes to the file `log`. What ends us all at once, as Ctrl-C does, does not reach it: it is
    stopped in its turn, with what it has started itself."""
    with open(log, "ab") as out:
        return subprocess.Popen([str(c) for c in command], stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True,
                                **more)


def stop(process, seconds=20):
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def pids_naming(text):
    """Of processes whose command line names it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text in (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " "):
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def kernel_threads():
    """Workers, the journal, soft interrupts: {pid: ns} of those that live now."""
    found = {}
    for entry in PROC.iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().startswith(("kworker", "jbd2", "ksoftirqd")):
                found[int(entry.name)] = int((entry / "schedstat").read_text().split()[0])
        except OSError:
            pass
    return found


def kernel_threads_seconds_since(before):
    """One by one: a worker that has ended since would take all that it ever used from what the others did."""
    return sum(max(ns - before.get(pid, 0), 0) for pid, ns in kernel_threads().items()) / 1e9


def machine_busy_seconds():
    v = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (v[0] + v[1] + v[2] + v[5] + v[6]) / TICK


def run_measured(command, timeout, **more):
    """(stdout, CPU seconds of the process and its children)"""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=err, stdin=subprocess.DEVNULL, **more)
        end = time.monotonic() + timeout
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid != 0:
                    break
                if time.monotonic() > end:
                    raise Failure(f"{command[0]} did not end within {timeout} s")
                time.sleep(0.02)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        text = out.read().decode(errors="replace")
        if process.returncode != 0:
            raise Failure(f"{' '.join(map(str, command))}: exit {process.returncode}: "
                          f"{(err.read().decode(errors='replace') or text).strip()[-600:]}")
        return text, usage.ru_utime + usage.ru_stime


class Fio:
    """fio with one engine's options; what its start costs is measured once, and taken off."""

    def __init__(self, cwd, *options, env=None):
        self.cwd, self.options, self.env = cwd, options, {**os.environ, **(env or {})}
        self.start_cost = None

    def command(self, work, *more):
        return ["fio", "--output-format=json", f"--rw={work.rw}", f"--bs={work.size}", f"--iodepth={work.depth}",
                "--norandommap", "--randrepeat=0", *self.options, *more]

    def fill(self, size, timeout=280):
        run("fio", "--rw=write", "--bs=128k", "--iodepth=16", *self.options, f"--size={size}", cwd=self.cwd, env=self.env,
            timeout=timeout)

    def measure(self, work, seconds, size, servers, per=1):
        """One run. servers: pids whose CPU time counts too. per: fio's operations that make one of the system's."""
        size_option = f"--size={size}"
        if self.start_cost is None:
            self.start_cost = run_measured(self.command(work, size_option, "--number_ios=1"), 60, cwd=self.cwd,
                                           env=self.env)[1]
        before, kernel, machine = cpu_seconds(servers), kernel_threads(), machine_busy_seconds()
        text, cpu = run_measured(self.command(work, size_option, "--time_based", f"--runtime={seconds}"), seconds + 60,
                                 cwd=self.cwd, env=self.env)
        cpu = max(cpu - self.start_cost, 0) + cpu_seconds(servers) - before
        kernel, machine = kernel_threads_seconds_since(kernel), machine_busy_seconds() - machine
        jobs = json.loads(text[text.index("{"):])["jobs"]  # an engine may say something before
        sides = [j["read" if "read" in work.rw else "write"] for j in jobs]
        operations = sum(s["total_ios"] for s in sides) / per
        if operations == 0 or any(j["error"] for j in jobs):
            raise Failure(f"fio {' '.join(self.options)}: no operation, or an error")
        took = max(s["runtime"] for s in sides) / 1e3
        slowest = max(sides, key=lambda s: s["lat_ns"]["mean"])
        percentiles = slowest["clat_ns"].get("percentile", {})
        return {
            "iops": operations / took, "mib_per_s": operations * work.size / took / 2**20, "seconds": took,
            "operations": operations, "mean_us": slowest["lat_ns"]["mean"] / 1e3,
            "p50_us": percentiles.get("50.000000", 0) / 1e3, "p99_us": percentiles.get("99.000000", 0) / 1e3,
            "p99_9_us": percentiles.get("99.900000", 0) / 1e3, "p99_99_us": percentiles.get("99.990000", 0) / 1e3,
            "cpu_us": cpu * 1e6 / operations, "kernel_cpu_us": kernel * 1e6 / operations,
            "machine_cpu_us": machine * 1e6 / operations,
        }
