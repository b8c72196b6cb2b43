"""What is measured: each system has a name, says what an acknowledged write has survived by then, starts, fills,
measures a workload, and stops. All keep their data under one folder, on one disk, and talk over the loopback only."""
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from . import machine
from .machine import Failure, Fio, need, run

TOP = Path(__file__).resolve().parents[2]

WARM_SECONDS = 5  # at least



@dataclass(frozen=True)
class Work:
    name: str
    rw: str
    size: int
    depth: int
    longer: int = 1

    def seconds(self, seconds):
        """Of a measurement: longer where the first seconds pay for what another workload left behind; a minute is enough."""
        return max(seconds, min(seconds * self.longer, 60))

    @property
    def title(self):
        kind = {"randwrite": "random write", "randread": "random read", "write": "sequential write",
                "read": "sequential read"}[self.rw]
        return f"{self.size // 1024} KiB {kind}, depth {self.depth}"

    @property
    def writes(self):
        return "write" in self.rw


WORKS = [Work("write32", "randwrite", 4096, 32), Work("write128", "randwrite", 4096, 128), Work("write1", "randwrite", 4096, 1),
         Work("read32", "randread", 4096, 32), Work("seqwrite", "write", 131072, 16, longer=3), Work("seqread", "read", 131072, 16)]


class System:
    name = durability = ""
    replicas = 1
    needs = ()  # systems that must be up first
    group = "light"  # systems of one group are up together: the light ones cost nothing while idle

    def __init__(self, folder, args):
        self.args, self.size = args, args.size
        self.dir = Path(folder) / self.name
        self.up = False

    def start(self):
        """Starts and fills."""

    def warming_seconds(self, work):
        """That a measurement takes beside its own time."""
        return 0

    def measure(self, work, seconds):
        raise NotImplementedError

    def stop(self):
        """Harmless at any time."""

    def takes(self, work):
        return work in WORKS


class Limit(System):
    """fio on files of the same disk: one, or three at once of which the slowest counts. An operation of limit-3 is one in
    each of its files."""

    def __init__(self, folder, args, files, dsync):
        self.name = f"limit{files}{'-dsync' if dsync else ''}"
        self.files, self.dsync = files, dsync
        self.replicas = files
        self.durability = ("durable: O_DSYNC" if dsync else "not durable: O_DIRECT without a flush") if files == 3 else "reads only"
        super().__init__(folder, args)
        self.dir = Path(folder) / "limit"

    def start(self):
        need("fio", package="fio")
        self.dir.mkdir(exist_ok=True)
        options = ["--ioengine=io_uring", "--direct=1", "--name=global"]
        if self.dsync:
            options.append("--sync=dsync")
        for i in range(self.files):
            path = self.dir / f"file{i}"
            if not path.exists() or path.stat().st_size != self.size:
                Fio(self.dir, "--ioengine=io_uring", "--direct=1", "--name=fill", f"--filename={path}").fill(self.size)
        self.fio = LimitFio(self.dir, *options, files=[self.dir / f"file{i}" for i in range(self.files)])
        self.up = True

    def measure(self, work, seconds):
        return self.fio.measure(work, seconds, self.size, [], per=self.files)

    def takes(self, work):
        return work in WORKS and (work.writes if self.files == 3 else not work.writes)


class LimitFio(Fio):
    def __init__(self, cwd, *options, files):
        super().__init__(cwd, *options)
        self.files = files

    def command(self, work, *more):
        options = [o for o in self.options if o != "--name=global"]
        command = ["fio", "--output-format=json", f"--rw={work.rw}", f"--bs={work.size}", f"--iodepth={work.depth}",
                   "--norandommap", "--randrepeat=0", *options, *more]
        for i, path in enumerate(self.files):
            command += [f"--name=file{i}", f"--filename={path}"]
        return command


class Pave(System):
    name = "pave"
    replicas = 3
    durability = "durable: on a majority of three when acknowledged"

    def __init__(self, folder, args, build=None, name="pave"):
        self.name = name
        self.build = Path(build or args.build)
        super().__init__(folder, args)
        self.env = {**os.environ, "PAVE_CLUSTER": str(self.dir)}

    def pave(self, *args):
        return run(self.build / "tools" / "pave", *args, env=self.env)

    def bench(self, *args, timeout):
        done = subprocess.run([str(self.build / "bench" / "pave-bench"), "--volume", "v", "--json", *map(str, args)], env=self.env,
                              capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise Failure(f"pave-bench {' '.join(map(str, args))}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
        # As of a copy that was left behind, and took no part. That the checks are left out is what one build is there for.
        said = [line for line in done.stderr.splitlines() if line.strip() and "BUILT WITHOUT THE CHECKS" not in line]
        if said:
            print(f"{self.name}: pave-bench {' '.join(map(str, args))}: {' '.join(said)[-500:]}", file=sys.stderr, flush=True)
        return json.loads(done.stdout)

    def start(self):
        if not (self.build / "bench" / "pave-bench").exists():
            raise Failure(f"{self.build} is not built")
        fresh = not (self.dir / "cluster.json").exists()
        self.up = True
        self.pave("dev", "up", "--dir", self.dir, "--device-size", str(self.args.device_size))
        if fresh:
            self.pave("volume", "create", "v", "--size", str(self.size))
            self.bench("--fill", "--rw", "read", "--seconds", 1, timeout=280)
        # A node that was started again looks each page of its index up when it is first asked for: that is over before it counts.
        self.warm()

    def warming_seconds(self, work):
        """What it lacks of the time for which a load that writes is to have gone on when its measurement ends."""
        return max(self.args.sustained - self.args.seconds, WARM_SECONDS) if work.writes else 0

    def warm(self, seconds=WARM_SECONDS):
        """The state from which all that writes begins: random writes and their cleaning are under way, whatever was measured before."""
        self.bench("--depth", 128, "--seconds", seconds, timeout=seconds + 100)

    def options(self, work, seconds):
        return ["--rw", work.rw, "--bs", work.size, "--depth", work.depth, "--seconds", seconds]

    def measure(self, work, seconds):
        if work.writes:
            self.warm(self.warming_seconds(work))
        return self.run(work, seconds)

    def run(self, work, seconds):
        kernel = machine.kernel_threads()
        result = self.bench(*self.options(work, seconds), timeout=seconds + 100)
        kernel = machine.kernel_threads_seconds_since(kernel)
        return {**simplify(result), "kernel_cpu_us": kernel * 1e6 / result["operations"]}

    def stop(self):
        if not self.up:
            return
        if machine.pids_naming(str(self.dir / "v.sock")):
            run(self.build / "tools" / "pave", "detach", "v", env=self.env, check=False)
        run(self.build / "tools" / "pave", "dev", "down", "--dir", self.dir, env=self.env, check=False)
        self.up = False


def simplify(result):
    """pave-bench's result in the terms of all the others."""
    side = result["all"]
    return {
        "iops": result["iops"], "mib_per_s": result["mib_per_s"], "seconds": result["seconds"],
        "operations": result["operations"], "mean_us": side["mean_us"], "p50_us": side["p50_us"],
        "p99_us": side["p99_us"], "p99_9_us": side["p99_9_us"], "p99_99_us": side["p99_99_us"],
        "cpu_us": result["cpu_us_per_op"], "machine_cpu_us": result["machine_cpu_us_per_op"],
        "curve": side["curve"], "timeline": result["timeline"],
        "processes": [{k: p[k] for k in ("name", "cpu_us_per_op", "switches_per_op")} for p in result["processes"]],
    }


class PaveNbd(System):
    """The same volume, attached, under fio's nbd engine: as a hypervisor has it."""
    name = "pave-nbd"
    replicas = 3
    durability = Pave.durability

    def __init__(self, folder, args, pave):
        super().__init__(folder, args)
        self.pave = pave
        self.needs = (pave,)

    def start(self):
        need("fio", package="fio")
        self.fio = Fio(self.pave.dir, "--name=nbd", "--ioengine=nbd", f"--uri=nbd+unix:///v?socket={self.pave.dir}/v.sock")
        self.up = True

    def warming_seconds(self, work):
        return self.pave.warming_seconds(work)

    def measure(self, work, seconds):
        if work.writes:
            self.pave.warm(self.warming_seconds(work))
        self.pave.pave("attach", "v", "--nbd", f"unix:{self.pave.dir}/v.sock", "--detach")
        try:
            servers = machine.pids_naming(str(self.pave.dir))
            return self.fio.measure(work, seconds, self.size, servers)
        finally:
            self.pave.pave("detach", "v")


class NbdServer(System):
    """One file behind somebody else's NBD server: no replication."""

    def __init__(self, folder, args, name):
        self.name = name
        self.durability = {"qemu-nbd": "not replicated, not durable: O_DIRECT without a flush",
                           "nbdkit": "not replicated, not durable: the page cache"}[name]
        super().__init__(folder, args)
        self.process = None

    def start(self):
        need(self.name, package={"qemu-nbd": "qemu-utils", "nbdkit": "nbdkit"}[self.name])
        need("fio", package="fio")
        self.dir.mkdir(exist_ok=True)
        image, socket = self.dir / "image", self.dir / "sock"
        if not image.exists():
            Fio(self.dir, "--ioengine=io_uring", "--direct=1", "--name=fill", f"--filename={image}").fill(self.size)
        socket.unlink(missing_ok=True)
        if self.name == "qemu-nbd":
            command = ["qemu-nbd", "--persistent", "--shared=4", "--format=raw", "--cache=none", "--aio=io_uring",
                       f"--socket={socket}", image]
        else:
            command = ["nbdkit", "--foreground", "--unix", socket, "file", image]
        self.process = machine.start(self.dir / "log", *command)
        self.up = True
        machine.wait_for(f"{self.name}'s socket", lambda: self.listens(socket))
        self.fio = Fio(self.dir, "--name=nbd", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}")

    def listens(self, socket):
        if self.process.poll() is not None:
            raise Failure(f"{self.name} ended with exit code {self.process.returncode}: see {self.dir}/log")
        return socket.exists()

    def measure(self, work, seconds):
        return self.fio.measure(work, seconds, self.size, [self.process.pid])

    def stop(self):
        machine.stop(self.process)
        self.process = None
        self.up = False


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)
