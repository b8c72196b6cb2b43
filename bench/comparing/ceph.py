"""Ceph RBD: one monitor and three BlueStore OSDs on files of the same disk, size 3, without authentication, fio's rbd
engine. No manager: data does not need one, and its CPU time is spared. Set up and torn down here, in a folder of its own."""
import uuid

from . import machine
from .machine import Failure, Fio, need, run
from .systems import System

CONF = """[global]
fsid = {fsid}
mon_initial_members = a
mon_host = [v2:127.0.0.1:23300,v1:127.0.0.1:23301]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
public_addr = 127.0.0.1
osd_pool_default_size = 3
osd_pool_default_min_size = 2
osd_crush_chooseleaf_type = 0
osd_pool_default_pg_autoscale_mode = off
mon_data_avail_warn = 1
mon_data_avail_crit = 0
mon_data = {dir}/mon
osd_data = {dir}/osd$id
run_dir = {dir}/run
admin_socket = {dir}/run/$name.$pid.asok
pid_file = {dir}/run/$name.pid
log_file = {dir}/$name.log
crash_dir = {dir}/crash
osd_objectstore = bluestore
bluestore_block_create = true
bluestore_block_size = {block_size}
osd_memory_target = 1073741824
rbd_cache = false
"""


class Ceph(System):
    name = "ceph"
    replicas = 3
    group = "ceph"
    durability = "durable: on all three when acknowledged (BlueStore)"

    def __init__(self, folder, args):
        super().__init__(folder, args)
        self.processes = []

    def daemon(self, *command):
        self.processes.append(machine.start(self.dir / "daemons.log", *command, "-c", self.conf, cwd=self.dir))

    def start(self):
        need("ceph-mon", "ceph-osd", "ceph", "rbd", "monmaptool", package="ceph-mon ceph-osd ceph-common")
        need("fio", package="fio")
        self.conf = self.dir / "ceph.conf"
        self.env = {"CEPH_CONF": str(self.conf)}
        fresh = not self.conf.exists()
        self.up = True
        if fresh:
            (self.dir / "run").mkdir(parents=True)
            fsid = uuid.uuid4()
            self.conf.write_text(CONF.format(fsid=fsid, dir=self.dir, block_size=3 * self.size))
            run("monmaptool", "--create", "--addv", "a", "[v2:127.0.0.1:23300,v1:127.0.0.1:23301]", "--fsid", fsid, "monmap",
                cwd=self.dir)
            (self.dir / "mon").mkdir()
            run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap", "-c", self.conf, cwd=self.dir)
        self.daemon("ceph-mon", "-f", "-i", "a")
        machine.wait_for("the monitor", self.mon_answers, 90)
        for i in range(3):
            if fresh:
                osd = uuid.uuid4()
                self.ceph("osd", "new", osd)
                (self.dir / f"osd{i}").mkdir()
                run("ceph-osd", "--mkfs", "-i", i, "--osd-uuid", osd, "-c", self.conf, cwd=self.dir)
            self.daemon("ceph-osd", "-f", "-i", str(i))
        machine.wait_for("three OSDs", lambda: "3 up" in self.ceph("osd", "stat"), 90)
        self.fio = Fio(self.dir, "--name=rbd", "--ioengine=rbd", "--clientname=admin", "--pool=rbd", "--rbdname=v", env=self.env)
        if fresh:
            self.ceph("osd", "pool", "create", "rbd", "32", "32")
            run("rbd", "create", "rbd/v", "--size", f"{self.size >> 20}M", env=self.fio.env)
            self.fio.fill(self.size)

    def mon_answers(self):
        if self.processes[0].poll() is not None:
            raise Failure(f"ceph-mon ended with exit code {self.processes[0].returncode}: is the disk full? See {self.dir}/mon.a.log")
        done = run("ceph", "--connect-timeout", "5", "-c", self.conf, "mon", "stat", timeout=30, check=False)
        return "e1: 1 mons" in done or "quorum" in done

    def ceph(self, *args):
        return run("ceph", "--connect-timeout", "60", "-c", self.conf, *args, timeout=90)

    def measure(self, work, seconds):
        return self.fio.measure(work, seconds, self.size, [p.pid for p in self.processes])

    def stop(self):
        for process in reversed(self.processes):
            machine.stop(process)
        self.processes = []
        self.up = False
