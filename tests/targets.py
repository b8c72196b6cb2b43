"""The programs of a build directory that the tests of a suite are: prints what to ask ninja for.

    python3 tests/targets.py DIR SUITE"""
import json
import subprocess
import sys
from pathlib import Path

build = Path(sys.argv[1]).resolve()
tests = json.loads(subprocess.run(["meson", "introspect", build, "--tests"], check=True, capture_output=True).stdout)
print(*sorted({str(Path(t["cmd"][0]).relative_to(build)) for t in tests if any(s.split(":")[-1] == sys.argv[2] for s in t["suite"])}))
