"""GlusterFS replica 3: three bricks on the same disk, fio's gfapi engine with O_DIRECT and O_DSYNC down to the bricks. Its
daemon keeps state under /var/lib and sockets under /run by name: it gets a mount namespace with folders of its own there."""
import contextlib
import os
import shutil
from pathlib import Path

from . import machine
from .machine import Failure, Fio, need, run
from .systems import System


class Gluster(System):
    name = "gluster"
    replicas = 3
    group = "gluster"
    durability = "durable: O_DSYNC on all three bricks"

    def __init__(self, folder, args):
        super().__init__(folder, args)
        self.holder = None

    def inside(self, *command, **more):
        """In the namespace."""
        return run("nsenter", f"--target={self.holder.pid}", "--mount", *command, **more)

    def start(self):
        need("glusterd", "gluster", package="glusterfs-server")
        need("fio", "unshare", "nsenter", package="fio util-linux")
        if os.geteuid() != 0:
            raise machine.Missing("GlusterFS is measured as root only")
        self.up = True
        fresh = not self.dir.exists()
        for sub in ("lib", "run", "log", "brick0", "brick1", "brick2"):
            (self.dir / sub).mkdir(parents=True, exist_ok=True)
        script = (f"set -e; mkdir -p /var/lib/glusterd /var/log/glusterfs; mount --bind {self.dir}/lib /var/lib/glusterd; "
                  f"mount --bind {self.dir}/log /var/log/glusterfs; mount --bind {self.dir}/run /run; mkdir -p /run/gluster; "
                  "exec glusterd --no-daemon --log-level=WARNING")
        self.holder = machine.start(self.dir / "glusterd.log", "unshare", "--mount", "sh", "-c", script)
        machine.wait_for("glusterd", lambda: "glusterd" in self.answers(), 60)
        if fresh:
            bricks = [f"{os.uname().nodename}:{self.dir}/brick{i}" for i in range(3)]
            self.inside("gluster", "--mode=script", "volume", "create", "v", "replica", "3", *bricks, "force")
            for key, value in (("performance.strict-o-direct", "on"), ("network.remote-dio", "off"),
                               ("performance.write-behind", "off"), ("performance.read-ahead", "off"),
                               ("performance.io-cache", "off"), ("performance.quick-read", "off")):
                self.inside("gluster", "--mode=script", "volume", "set", "v", key, value)
        self.inside("gluster", "--mode=script", "volume", "start", "v", "force")
        self.fio = GlusterFio(self.dir, "--name=gfapi", "--ioengine=gfapi_async", "--volume=v", "--brick=localhost", "--direct=1",
                              "--sync=dsync", "--filename=image", target=self.holder.pid)
        if fresh:
            self.fio.fill(self.size)

    def answers(self):
        if self.holder.poll() is not None:
            raise Failure(f"glusterd ended: see {self.dir}/glusterd.log")
        return self.inside("sh", "-c", "gluster --mode=script pool list >/dev/null 2>&1 && echo glusterd || true")

    def measure(self, work, seconds):
        return self.fio.measure(work, seconds, self.size, self.members())

    def members(self):
        """Everything that runs in the namespace: daemon, bricks, self-heal."""
        own = os.readlink(f"/proc/{self.holder.pid}/ns/mnt")
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "ns/mnt") == own:
                    found.append(int(entry.name))
            except OSError:
                pass
        return found

    def stop(self):
        if self.holder is not None and self.holder.poll() is None:
            run("nsenter", f"--target={self.holder.pid}", "--mount", "gluster", "--mode=script", "volume", "stop", "v", "force",
                check=False)
            for pid in self.members():
                if pid != self.holder.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, 15)
        machine.stop(self.holder)
        self.holder = None
        self.up = False


class GlusterFio(Fio):
    def __init__(self, cwd, *options, target):
        super().__init__(cwd, *options)
        self.enter = [shutil.which("nsenter"), f"--target={target}", "--mount"]

    def command(self, work, *more):
        return [*self.enter, *super().command(work, *more)]

    def fill(self, size, timeout=280):
        run(*self.enter, "fio", "--rw=write", "--bs=128k", "--iodepth=16", *self.options, f"--size={size}", timeout=timeout)
