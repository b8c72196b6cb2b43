"""A guest whose programs are this machine's, with software RDMA (rdma_rxe): see rdma-init."""
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from guest import BUILD, HERE, Failure, Guest, archive, kernel_and_base, plain_disk, share, wait_for
from cluster import TOP, Cluster  # found by way of guest

# rxe asks the crypto layer for crc32 by its name, ext4 for crc32c: no dependency tells.
MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "crc32c_generic", "crc32_generic", "ext4", "loop", "9pnet_virtio", "9p",
           "ib_uverbs", "rdma_rxe"]
DISK_SIZE = 24 << 30  # sparse
# What the kernel says of itself at boot when something is wrong. After it every warning counts.
WRONG_AT_BOOT = r"BUG:|WARNING:|Oops|Call Trace|general protection|rxe.*(?:fail|error|invalid)|rcu.*stall|hung_task|Out of memory"
# A virtual clock stands still while this machine does something else: no fault of what runs on it.
EMULATED = r"hrtimer: interrupt took|clocksource: |Marking clocksource|Marking TSC unstable|tsc: Marking TSC"
ETC = {"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
       "etc/hosts": b"127.0.0.1 localhost\n::1 localhost\n", "etc/libibverbs.d/rxe.driver": b"driver rxe\n"}


class Story:
    """Folder and processes of the guests; Cluster's ways of starting and ending them, without a cluster on this machine."""

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left behind then, either
        self.cluster = Cluster()
        (self.cluster.dir / "log").mkdir()
        return self.cluster

    def __exit__(self, *_):
        for child in self.cluster.children:
            if child.poll() is None:
                child.kill()
                child.wait()
        subprocess.run(["rm", "-rf", str(self.cluster.dir)], check=False)


def program(name):
    found = subprocess.run(["sh", "-c", f"PATH=$PATH:/usr/sbin:/sbin; command -v {name}"], capture_output=True, text=True, check=False).stdout.strip()
    if not found:
        raise Failure(f"{name} is needed: `tools/packages test`")
    return Path(found)


def alternatives():
    """Debian's names for programs that several packages have, such as awk."""
    return {f"etc/alternatives/{link.name}": os.readlink(link) for link in Path("/etc/alternatives").iterdir() if link.is_symlink()}


class RdmaGuest:
    """tests: (name, seconds, {variable: value}, [command]), which run inside, one after the other. meeting: a folder that it may
    write, at /meeting."""

    def __init__(self, story, tests, name="guest", addresses=("10.9.0.1/24",), memory_mib=4096, network=None, meeting=None):
        kernel, base = kernel_and_base(MODULES)
        lines = [f"{n} {seconds} exec env {' '.join(f'{k}={shlex.quote(v)}' for k, v in env.items())} {shlex.join(command)}"
                 for n, seconds, env, command in tests]
        self.count = len(tests)
        conf = {"top": TOP, "build": BUILD, "addresses": " ".join(addresses), "meeting": int(meeting is not None), "seconds_since_1970": int(time.time())}
        part = story.dir / f"{name}.cpio"
        archive(part, [program("rdma")],
                {**ETC, "etc/guest.conf": "".join(f"{k}={shlex.quote(str(v))}\n" for k, v in conf.items()).encode(),
                 "etc/guest.tests": "".join(f"{line}\n" for line in lines).encode()},
                {"init": (HERE / "rdma-init").read_bytes()}, alternatives())
        whole = story.dir / f"{name}.initramfs"
        whole.write_bytes(base.read_bytes() + part.read_bytes())
        image = story.dir / f"{name}.img"
        with open(image, "wb") as f:
            f.truncate(DISK_SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=1", image], check=True)
        shares = [*share("usr", "/usr"), *share("top", TOP)]
        if TOP not in BUILD.resolve().parents:
            shares += share("build", BUILD)
        if meeting:
            shares += share("meeting", meeting, writable=True)
        self.guest = Guest(story, kernel, whole, [], [], memory_mib=memory_mib, name=name, network=network,
                           options=[*plain_disk("data", image), *shares])
        self.shown = 0

    def boot(self):
        self.guest.boot(1)

    def lines(self):
        return re.findall(r"^guest: (.*)\n", self.guest.console(), re.MULTILINE)

    def show_news(self, prefix=""):
        """Prints what it has said since."""
        lines = self.lines()
        for line in lines[self.shown:]:
            print(prefix + line, flush=True)
        self.shown = len(lines)
        if self.guest.process.poll() is not None:
            raise Failure(f"the guest ended with {self.guest.process.returncode}: {self.guest.console()[-3000:]}")
        return lines

    def follow(self, seconds):
        """Shows what it says as it comes, until it says that it is over. Every test must have passed or been skipped, and its kernel kept
        silent. Whether one has passed."""
        wait_for("the guest's end", lambda: "the end" in self.show_news(), seconds)
        return self.check()

    def check(self):
        failed = [line for line in self.lines() if line.startswith("FAIL")]
        if failed:
            raise Failure("; ".join(failed))
        ended = [line for line in self.lines() if line.startswith(("PASS", "SKIP"))]
        if len(ended) != self.count:
            raise Failure(f"of {self.count} tests: {'; '.join(ended)}")
        if any(re.search(r"^PASS.* 0 packets over RDMA", line) for line in ended):
            raise Failure(f"nothing went over RDMA: {'; '.join(ended)}")
        text = self.guest.console()
        wrong = [line for line in text.split("\n") if line.startswith("guest-kernel in ") and not re.search(EMULATED, line)]
        wrong += [line for line in text.split("\n") if re.search(WRONG_AT_BOOT, line) and not line.startswith("guest: ")]
        if wrong:
            raise Failure("the guest's kernel log: " + "; ".join(wrong[:5]))
        return any(line.startswith("PASS") for line in ended)
