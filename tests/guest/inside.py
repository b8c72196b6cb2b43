"""What the programs that run in the guests of rdma and rdma_link have in common, beside the integration tests' own rig."""
import json
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
from cluster import BUILD, SCALE, TOP, Cluster, Failure, main, run, wait_for  # noqa: E402,F401

SIZE = 32 << 20


def create(cluster, name="v"):
    cluster.pave("volume", "create", name, "--size", SIZE, "--policy", "secnumcloud-fr", "--chunk-size", "16MiB")


def all_over_rdma(cluster):
    """Every replica that the attached host sees is current, over RDMA."""
    replicas = next(v for v in cluster.pave("status", parse=True)["volumes"] if v["name"] == "v").get("attached_replicas", [])
    return len(replicas) == 3 and all(r["state"] == "current" and r["transport"] == "rdma" for r in replicas)


class Load:
    def __init__(self, cluster, uri):
        self.status = cluster.dir / "stress.status"
        self.process = cluster.start(BUILD / "tests/integration/nbd-stress", "--uri", uri, "--size", SIZE, "--connections", 2,
                                     "--depth", 16, "--status", self.status, stdout=subprocess.PIPE, text=True)

    def acknowledged(self):
        if self.process.poll() is not None:
            raise Failure(f"the load ended with {self.process.returncode}: {self.process.stdout.read()}")
        try:
            return int(self.status.read_text().split()[0])
        except (OSError, IndexError, ValueError):
            return 0

    def must_go_on(self, why):
        before = self.acknowledged()
        wait_for(f"300 more acknowledged operations {why}", lambda: self.acknowledged() >= before + 300, 120)

    def finish(self):
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=300)
        if self.process.returncode != 0:
            raise Failure(f"the load ended with {self.process.returncode}: {out}")
        print(f"{json.loads(out)['acknowledged']} operations acknowledged", flush=True)


def know(address, mac):
    """The peer's address need not be asked for, so no packet waits for that (see rdma-init)."""
    run("ip", "neighbour", "replace", address, "lladdr", mac, "dev", "eth0", "nud", "permanent")
