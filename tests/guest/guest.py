"""A QEMU guest with Debian's kernel and an initramfs of ours, and disks for it that lose what was not flushed.

kernel_and_base() fetches Debian's packages once into a cache under the build directory; archive() packs programs of this build, with
the libraries that they need, into a second part of the initramfs, made anew for each run. The kernel unpacks both, one over the other.

Only processes that this module started are ever signalled."""
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
from clock import counter_khz  # noqa: E402
from cluster import BUILD, Failure, wait_for  # noqa: E402

CACHE = BUILD / "guest"
PLUGIN = BUILD / "tests/guest/volatile-disk.so"
# What a guest with virtio disks, a virtio network and ext4 needs; what these depend on is found in the modules themselves. ext4 asks
# for crc32c by its name in the crypto layer, which no dependency tells.
MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "crc32c_generic", "ext4"]
# Most of the kernel's package is drivers of devices that no guest has.
LEFT_OUT = ["drivers/gpu", "drivers/media", "drivers/net/wireless", "drivers/net/ethernet", "drivers/iio", "drivers/staging",
            "drivers/scsi", "drivers/usb", "drivers/hid", "drivers/input", "sound"]


# -- the kernel and the initramfs -----------------------------------------------------------------

def fetch(names, folder):
    """Downloads Debian packages, without installing them. Lists of packages that are too old are renewed once."""
    command = ["apt-get", "download", "-q", *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        root = [] if os.getuid() == 0 else ["sudo", "-n"]
        subprocess.run([*root, "apt-get", "update", "-qq"], capture_output=True, check=False)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")


def kernel_package():
    """linux-image-amd64 is empty and depends on the kernel of the day."""
    out = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Depends: (linux-image-\S+)", out)
    if not found:
        raise Failure("apt-cache knows no linux-image-amd64: `apt-get update` first, on Debian 12 for amd64")
    return found.group(1)


def unpack_kernel(cache):
    """cache/tree: kernel, modules, busybox. It is there whole or not at all."""
    tree = cache / "tree"
    if tree.exists():
        return tree
    work = cache / f"new-{os.getpid()}"
    work.mkdir(parents=True)
    try:
        fetch(["busybox-static", kernel_package()], work)
        (work / "tree").mkdir()
        for package in work.glob("*.deb"):
            tar = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
            unpacked = subprocess.run(["tar", "-x", "-C", work / "tree", *[f"--exclude=*/kernel/{d}" for d in LEFT_OUT],
                                       "--exclude=./usr/share"], stdin=tar.stdout, check=False)
            if tar.wait() != 0 or unpacked.returncode != 0:
                raise Failure(f"{package.name} cannot be unpacked")
        (work / "tree").rename(tree)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return tree


def module_files(tree, names):
    """The modules and all that they depend on, each after what it needs. What is built into the kernel has no file."""
    key = lambda name: name.replace("-", "_")
    files = {key(f.stem): f for f in tree.glob("lib/modules/*/kernel/**/*.ko")}
    built_in = {key(Path(line).stem) for f in tree.glob("lib/modules/*/modules.builtin") for line in f.read_text().split()}
    order = []

    def add(name):
        if name in built_in or name in order:
            return
        if name not in files:
            raise Failure(f"the kernel has no module {name}")
        found = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        for needed in found.group(1).decode().split(",") if found else []:
            if needed:
                add(key(needed))
        order.append(name)

    for name in names:
        add(key(name))
    return [files[name] for name in order]


class Archive:
    """An initramfs in the kernel's "newc" form."""

    def __init__(self):
        self.data = bytearray()
        self.count = 0
        self.folders = set()

    def add(self, name, mode, content=b"", device=(0, 0)):
        self.count += 1
        path = name.encode() + b"\0"
        fields = [self.count, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0]
        self.data += b"070701" + b"".join(b"%08X" % f for f in fields) + path
        self.data += b"\0" * (-len(self.data) % 4) + content
        self.data += b"\0" * (-len(self.data) % 4)

    def folder(self, name):
        """With those above it."""
        if name and name != "." and name not in self.folders:
            self.folder(os.path.dirname(name))
            self.folders.add(name)
            self.add(name, 0o040755)

    def file(self, name, content, mode=0o644):
        name = name.lstrip("/")
        self.folder(os.path.dirname(name))
        self.add(name, 0o100000 | mode, content)

    def link(self, name, target):
        self.folder(os.path.dirname(name))
        self.add(name, 0o120777, target.encode())

    def write(self, path):
        self.add("TRAILER!!!", 0)
        path.write_bytes(bytes(self.data) + b"\0" * (-len(self.data) % 512))


def kernel_and_base(modules=MODULES, cache=CACHE):
    """(kernel, first part of the initramfs). Blocks on downloads the first time, about 70 MB."""
    tree = unpack_kernel(cache)
    base = Archive()
    for name in ["proc", "sys", "dev", "run", "tmp", "bin", "nodes"]:
        base.folder(name)
    base.add("dev/console", 0o020600, device=(5, 1))
    busybox = (tree / "bin/busybox").read_bytes()
    base.file("bin/busybox", busybox, 0o755)
    applets = subprocess.run([tree / "bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in applets:
        if name != "busybox":
            base.link(f"bin/{name}", "busybox")
    files = module_files(tree, modules)
    for f in files:
        base.file(f"modules/{f.name}", f.read_bytes())
    base.file("modules/order", "".join(f"{f.name}\n" for f in files).encode())
    base.file("init", (HERE / "init").read_bytes(), 0o755)
    path = cache / f"base-{os.getpid()}"
    base.write(path)
    path.rename(cache / "base.cpio")
    kernels = sorted(tree.glob("boot/vmlinuz-*"))
    if len(kernels) != 1:
        raise Failure(f"{tree}: {len(kernels)} kernels")
    return kernels[0], cache / "base.cpio"


def archive(path, programs, files, executables=None, links=None):
    """programs of this build, found by their names in /bin; files, executables, links: {name in the guest: content or target}."""
    part = Archive()
    libraries = set()
    for program in programs:
        part.file(f"bin/{program.name}", program.read_bytes(), 0o755)
        out = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        libraries.update(re.findall(r"(?:=> |^\s+)(/\S+) \(", out, re.MULTILINE))
    for library in sorted(libraries):
        part.file(library, Path(library).read_bytes(), 0o755)
    for name, content in files.items():
        part.file(name, content)
    for name, content in (executables or {}).items():
        part.file(name, content, 0o755)
    for name, target in (links or {}).items():
        part.link(name, target)
    part.write(path)


# -- disks and the guest --------------------------------------------------------------------------

class Disk:
    """An image behind a volatile cache (volatile_disk.c). The guest finds it by its name."""

    def __init__(self, folder, name, size, **parameters):
        self.name = name
        self.image = folder / f"{name}.img"
        self.socket = folder / f"{name}.sock"
        self.log = folder / f"{name}.log"
        self.parameters = parameters
        self.process = None
        with open(self.image, "wb") as f:
            f.truncate(size)

    def start(self, cluster, seed):
        if not PLUGIN.exists():
            raise Failure(f"{PLUGIN} was not built: `tools/packages test`, then `meson setup --reconfigure` and ninja")
        self.socket.unlink(missing_ok=True)
        parameters = [f"{k}={v}" for k, v in self.parameters.items()]
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = cluster.start("nbdkit", "--foreground", "--exit-with-parent", "--unix", self.socket, PLUGIN, f"file={self.image}",
                                         f"seed={seed}", *parameters, stdout=log, stderr=log)
        wait_for(f"the disk {self.name}", self.ready, 20)

    def ready(self):
        if self.process.poll() is not None:
            raise Failure(f"the disk {self.name} ended: {self.log.read_text()}")
        return self.socket.exists()


def share(tag, folder, writable=False):
    """QEMU's options for a folder of this machine that the guest may mount, to read unless writable."""
    return ["-virtfs", f"local,path={folder},mount_tag={tag},security_model=none,readonly={'off' if writable else 'on'},multidevs=remap"]


def plain_disk(name, image):
    """And for a disk whose power is never lost."""
    return ["-drive", f"file={image},format=raw,if=none,id={name},cache=unsafe,discard=unmap", "-device",
            f"virtio-blk-pci,drive={name},serial={name}"]


def mac_of(name):
    """Of the guest of this name: all are on one network."""
    return "52:54:00:%02x:%02x:%02x" % tuple(hashlib.sha256(name.encode()).digest()[:3])


class Guest:
    """One virtual machine; its console is in `log`, from the first boot to the last. options: further ones of QEMU's.
    network: what QEMU calls a netdev, without its id; else a network of its own with a way to this machine's loopback."""

    def __init__(self, cluster, kernel, initramfs, disks, ports, memory_mib=2048, name="guest", network=None, options=()):
        self.cluster = cluster
        self.kernel = kernel
        self.initramfs = initramfs
        self.disks = disks
        self.ports = ports
        self.memory_mib = memory_mib
        self.network = network
        self.options = options
        self.log = cluster.dir / "log" / f"{name}.log"
        self.mac = mac_of(name)
        self.monitor = cluster.dir / f"{name}.qmp"
        self.process = None
        self.boot_at = 0  # where in the log this boot begins

    def command(self, append):
        forward = ",".join(["user,id=net", "ipv6=off", *[f"hostfwd=tcp:127.0.0.1:{p}-10.0.2.15:{p}" for p in self.ports]])
        netdev = f"{self.network},id=net" if self.network else forward
        # Programs ask for the time all day long: the counter answers without the kernel, where every other clock is a device of QEMU's.
        clock = f"tsc=reliable tsc_early_khz={counter_khz()}"
        # It ends with this process, whatever that dies of.
        command = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-machine", "q35,vmport=off", "-accel", "tcg,thread=multi",
                   "-cpu", "max", "-smp", 2, "-m", self.memory_mib, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-qmp", f"unix:{self.monitor},server=on,wait=off",
                   "-serial", "stdio", "-kernel", self.kernel, "-initrd", self.initramfs, "-append",
                   f"console=ttyS0 quiet panic=-1 no_timer_check mitigations=off random.trust_cpu=on {clock} {append}",
                   "-netdev", netdev, "-device", f"virtio-net-pci,netdev=net,mac={self.mac},romfile=,host_mtu=4200,speed=10000,duplex=full", *self.options]
        for n, disk in enumerate(self.disks):
            # cache=none: writes are answered when the disk behind has them in its cache, and flushes are passed on to it.
            command += ["-drive", f"file=nbd+unix:///?socket={disk.socket},format=raw,if=none,id=d{n},cache=none,discard=unmap",
                        "-device", f"virtio-blk-pci,drive=d{n},serial={disk.name}"]
        return command

    def boot(self, seed, append=""):
        for n, disk in enumerate(self.disks):
            disk.start(self.cluster, seed + n)
        self.boot_at = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = self.cluster.start(*self.command(append), stdin=subprocess.PIPE, stdout=log, stderr=log)

    def set_link(self, is_up):
        """The cable of its network is pulled, or put back."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(self.monitor))
            answers = s.makefile()
            answers.readline()  # the greeting
            for command in ({"execute": "qmp_capabilities"}, {"execute": "set_link", "arguments": {"name": "net", "up": is_up}}):
                s.sendall(f"{json.dumps(command)}\n".encode())
                answer = answers.readline()
                while '"event"' in answer:
                    answer = answers.readline()
                if '"return"' not in answer:
                    raise Failure(f"QEMU's answer to {command}: {answer}")

    def console(self):
        """What this boot has printed so far."""
        with open(self.log, "rb") as log:
            log.seek(self.boot_at)
            return log.read().decode(errors="replace").replace("\r", "")

    def complaints(self):
        """What init could not do, nodes that ended and their last words, and what the kernel finds wrong."""
        return re.findall("guest: failed.*|guest: .* ended with .*|^pave-.*|Kernel panic.*|BUG: .*|Oops: .*|EXT4-fs error.*|I/O error.*",
                          self.console(), re.MULTILINE)

    def wait_console(self, pattern, seconds=300):
        """The first match in what this boot prints. A guest, or a node in it, that ends meanwhile is a failure."""
        def look():
            found = re.search(pattern, self.console(), re.MULTILINE)
            if found is None and self.complaints():
                raise Failure(f"in the guest: {'; '.join(self.complaints())}")
            if found is None and self.process.poll() is not None:
                raise Failure(f"the guest ended with {self.process.returncode}: {self.console()[-2000:]}")
            return found
        try:
            return wait_for(f"{pattern!r} on the guest's console", look, seconds)
        except Failure as e:
            raise Failure(f"{e}; its last lines:\n{self.console()[-1500:]}") from None

    def emulator_failure(self):
        """What QEMU said when it ended by itself, by an assertion of its own, or that it runs and its kernel said no word; else None.
        Nothing was lost then but this run."""
        if self.process is not None and self.process.poll() is None and not self.console().strip():
            return "it runs, and its console stays empty"
        found = re.search("^qemu-system.*Assertion.*failed.*", self.console(), re.MULTILINE)
        ended = self.process is not None and self.process.poll() == -signal.SIGABRT
        return found.group(0) if found and ended else None

    def wait_node(self, name):
        """The node serves. One that does not get there has its threads listed in the story."""
        try:
            self.wait_console(f"node {name} in site .* serves at")
        except Failure as e:
            if self.process.poll() is None:
                self.say(f"why {name}")
                try:
                    self.wait_console(f"guest: {name}: no more", 30)
                except Failure:
                    pass
            raise Failure(f"{e}\n{self.console()[-4000:]}") from None

    def say(self, line):
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def ask(self, line, answer, seconds=60):
        """Gives init a command, and waits for the answer that comes after it."""
        seen = len(self.console())
        self.say(line)
        wait_for(f"the guest's answer to {line!r}", lambda: re.search(answer, self.console()[seen:], re.MULTILINE), seconds)

    def cut_power(self, others=()):
        """SIGKILL for everything: `others` (pids), the machine, the disks with their caches.

        The machine is one process, so all that runs in it stops at one instant. Its disks lose their caches with the connection to it at
        the latest; they are killed all the same, for an orderly end must not save anything."""
        for pid in others:
            self.cluster.kill(pid)
        processes = [self.process, *[d.process for d in self.disks]]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        self.process.stdin.close()
