"""A development cluster for a test: made in a directory of its own, found again in /proc, and gone afterwards.

Only processes whose command line names the cluster's directory are ever signalled, by pid."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("PAVE_BUILD", TOP / "build"))
PAVE = BUILD / "tools" / "pave"
os.environ.pop("PAVE_CLUSTER", None)  # of whoever runs the tests
# What every attachment must use; not set: as it chooses.
TRANSPORT = os.environ.get("PAVE_TEST_TRANSPORT")
OVER = ["--transport", TRANSPORT] if TRANSPORT else []
# How many times as long as on a machine of its own everything may take, and evidence lives: an emulated machine is slow.
SCALE = int(os.environ.get("PAVE_TEST_SCALE", "1"))

# Of the tests of a program, those with these names, with commas; not set: all.
ONLY = os.environ.get("PAVE_TEST_ONLY")


class Failure(Exception):
    """A test's expectation that did not hold."""


def wait_for(what, condition, seconds=60):
    """Polls condition until it is true; the bound is generous, and reaching it is a failure."""
    end = time.monotonic() + seconds * SCALE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise Failure(f"waited {seconds * SCALE} s for {what}")
        time.sleep(0.05)


def scaled(lifetime):
    return f"{int(lifetime.removesuffix('s')) * SCALE}s"


class Cluster:
    def __init__(self, *dev_up_options):
        self.dir = Path(tempfile.mkdtemp(prefix="pave-test-"))
        self.options = [scaled(o) if before == "--permit-lifetime" else o for before, o in zip((None, *dev_up_options), dev_up_options)]
        self.children = []

    def __enter__(self):
        try:
            self.up()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.show_logs()
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
        for pid, _ in self.processes("pave-attach"):
            self.kill(pid, signal.SIGTERM)
        self.pave("dev", "down", "--dir", str(self.dir), check=False)
        for pid, _ in self.processes():
            self.kill(pid)
        if kind is None or not os.environ.get("PAVE_TEST_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)
        return False

    def show_logs(self):
        for log in [*sorted(self.dir.glob("log/*.log")), *sorted(self.dir.glob("attach*/*/attach.log"))]:
            lines = log.read_text(errors="replace").splitlines()
            print(f"--- {log.name}, last of {len(lines)} lines", file=sys.stderr)
            print("\n".join(lines[-25:]), file=sys.stderr)

    def pave(self, *args, check=True, timeout=120, parse=False, **options):
        """Runs the CLI on this cluster. Returns the finished process, or the parsed output of --json."""
        verb = next(a for a in args if not str(a).startswith("-"))
        command = [str(PAVE), *map(str, args), *(OVER if verb == "attach" else [])]
        if parse:
            command.append("--json")
        done = subprocess.run(command, env={**os.environ, "PAVE_CLUSTER": str(self.dir)}, capture_output=True,
                              text=True, timeout=timeout * SCALE, check=False, **options)
        if check and done.returncode != 0:
            raise Failure(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout) if parse else done

    def up(self):
        """Starts what does not run. It waits for half a minute for each process; where everything takes longer, more than once."""
        for more in reversed(range(SCALE)):
            done = self.pave("dev", "up", "--dir", str(self.dir), *self.options, check=more == 0)
            if done.returncode == 0:
                return

    def processes(self, program=None):
        """(pid, argv) of the daemons that name this directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                zombie = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            except OSError:
                continue
            if zombie or not argv or not any(str(self.dir) in a for a in argv):
                continue
            name = os.path.basename(argv[0])
            if name.startswith("pave-") and program in (None, name):
                found.append((int(entry.name), argv))
        return found

    def nodes(self):
        """{node name: pid}"""
        return {argv[argv.index("--name") + 1]: pid for pid, argv in self.processes("pave-node")}

    def kill(self, pid, signal_number=signal.SIGKILL):
        try:
            os.kill(pid, signal_number)
        except ProcessLookupError:
            pass

    def wait_gone(self, pid):
        wait_for(f"the end of process {pid}", lambda: all(p != pid for p, _ in self.processes()))

    def attach(self, volume, *options, timeout=90):
        """Attaches in the background; returns the NBD URI."""
        socket = self.dir / f"{volume}.sock"
        self.pave("attach", volume, "--nbd", f"unix:{socket}", "--detach", *options, timeout=timeout)
        return f"nbd+unix:///{volume}?socket={socket}"

    def start(self, *command, **options):
        child = subprocess.Popen([str(c) for c in command], **options)
        self.children.append(child)
        return child


def run(*command, timeout=300, check=True):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout * SCALE, check=False)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


def main(tests, skipped=None):
    """Runs the tests in order, each of which raises on failure; prints a line for each. skipped: what could not be tried here, which counts as a
    skip when all the rest is well."""
    if ONLY is not None:
        tests = [t for t in tests if t.__name__ in ONLY.split(",")]
    bad = not tests and not skipped
    if bad:
        print("FAIL there is no test of that name", flush=True)
    for test in tests:
        begun = time.monotonic()
        try:
            test()
            print(f"ok   {test.__name__} ({time.monotonic() - begun:.1f} s)", flush=True)
        except (Failure, subprocess.TimeoutExpired, AssertionError) as e:
            bad = True
            print(f"FAIL {test.__name__}: {type(e).__name__}: {e}", flush=True)
    if skipped:
        print(f"SKIP {skipped}", flush=True)
    sys.exit(1 if bad else 77 if skipped else 0)
