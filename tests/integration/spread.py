"""A development cluster whose processes are each in a place of their own (network.py): driver, nodes and two hosts.

`pave dev up` makes it, on the loopback; then it is stopped, and the same processes are started again, with the same arguments but for
their addresses. The test itself stands at the switch, which no cut concerns: there the CLI runs."""
import json
import os
import subprocess

from cluster import BUILD, Cluster, Failure, wait_for
from network import PREFIX, Network

PORT = 7000
HOSTS = ("host", "host2")


class SpreadCluster(Cluster):
    """One at a time: there is one switch."""

    def __init__(self, *dev_up_options):
        super().__init__(*dev_up_options)
        self.argv = {}  # of each daemon, by its place

    def up(self):
        if not self.argv:
            self.spread()
        self.start_missing()
        wait_for("a lease for every node that may have one", self.has_leases, 60)

    def start_missing(self):
        running = self.where_daemons_run()
        for place, argv in self.argv.items():
            if place not in running:
                self.start_daemon(place, argv)

    def nodes_all(self):
        return [place for place in self.argv if place != "pd"]

    def spread(self):
        super().up()
        found = self.processes("pave-pd") + self.processes("pave-node")
        self.pave("dev", "down", "--dir", self.dir)
        for _, argv in found:
            place = argv[argv.index("--name") + 1] if "--name" in argv else "pd"
            self.argv[place] = [*argv, "--insecure"]
        self.network = Network(*sorted(self.argv), *HOSTS)
        for place, argv in self.argv.items():
            argv[0] = BUILD / "tools" / os.path.basename(argv[0])
            argv[argv.index("--listen") + 1] = self.address(place)
            if "--pd" in argv:
                argv[argv.index("--pd") + 1] = self.address("pd")
        path = self.dir / "cluster.json"
        described = json.loads(path.read_text())
        described["pd"] = described["pds"][0]["address"] = self.address("pd")
        for node in described["nodes"]:
            node["address"] = self.address(node["node"])
        path.write_text(json.dumps(described))

    def address(self, place):
        return f"{self.network.places[place].address}:{PORT}"

    def where_daemons_run(self):
        return {next(p for p in self.argv if self.address(p) == argv[argv.index("--listen") + 1]): pid
                for pid, argv in self.processes() if "--listen" in argv}

    def start_daemon(self, place, argv):
        log = open(self.dir / "log" / f"{place}.log", "a")
        child = self.start(*argv, stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=self.network.places[place].inside)
        log.close()
        line = child.stdout.readline()  # it says when it listens, or ends
        if not line.startswith("ready "):
            raise Failure(f"{place} said {line!r} and not that it is ready: exit {child.wait()}")

    def has_leases(self):
        done = self.pave("--json", "node", "list", check=False)
        nodes = json.loads(done.stdout)["nodes"] if done.returncode == 0 else []
        return len(nodes) == len(self.argv) - 1 and all(n["state"] == "up" or not n["eligible"] for n in nodes)

    def pave(self, *args, inside=None, **options):
        extra = [] if not self.argv else ["--insecure"]
        return super().pave(*extra, *args, preexec_fn=inside, **options)

    def attach(self, volume, *options, host="host", timeout=90):
        """Attaches it there. Clients of the URI reach whichever host was the last to attach it."""
        socket, link = self.dir / f"{volume}-{host}.sock", self.dir / f"{volume}.sock"
        self.pave("attach", volume, "--nbd", f"unix:{socket}", "--detach", "--state", self.dir / f"attach-{host}",
                  *options, timeout=timeout, inside=self.network.places[host].inside)
        self.point(link, socket)
        return f"nbd+unix:///{volume}?socket={link}"

    @staticmethod
    def point(link, socket):
        new = link.with_suffix(".new")
        new.symlink_to(socket)
        new.replace(link)

    def attachments(self):
        """{host: pid}"""
        return {h: pid for pid, argv in self.processes("pave-attach") for h in HOSTS
                if f"/attach-{h}/" in argv[argv.index("--dir") + 1]}
