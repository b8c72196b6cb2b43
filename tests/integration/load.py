"""nbd-stress in the background: a load that knows every write that was acknowledged, and checks each read against that."""
import json
import signal
import subprocess

from cluster import BUILD, SCALE, Failure, wait_for


class Load:
    def __init__(self, cluster, uri, size, seed, connections=2, depth=16):
        self.status = cluster.dir / "stress.status"
        self.process = cluster.start(BUILD / "tests/integration/nbd-stress", "--uri", uri, "--size", size, "--connections", connections,
                                     "--depth", depth, "--status", self.status, "--seed", seed, stdout=subprocess.PIPE, text=True)

    def count(self, column):
        if self.process.poll() is not None:
            raise Failure(f"the load ended with {self.process.returncode}: {self.process.stdout.read()}")
        try:
            return int(self.status.read_text().split()[column])
        except (OSError, IndexError, ValueError):
            return 0

    def acknowledged(self):
        return self.count(0)

    def failed(self):
        """Operations that got an error, or lost their connection."""
        return self.count(1)

    def must_go_on(self, why, seconds=120):
        before = self.acknowledged()
        wait_for(f"200 more acknowledged operations after {why}", lambda: self.acknowledged() >= before + 200, seconds)

    def connect_again(self):
        self.process.send_signal(signal.SIGUSR2)

    def finish(self):
        """What it counted, as a dictionary."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=300 * SCALE)
        if self.process.returncode != 0:
            raise Failure(f"the load ended with {self.process.returncode}: {out}")
        return json.loads(out)
