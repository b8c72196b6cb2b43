#!/usr/bin/env python3
"""SVG plots of a result of `pave-bench --json`: plot.py FILE.json|- DIR

latency.svg (by percentile) and throughput.svg (over time), or for a ramp sweep.svg (latency over throughput)."""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from comparing import svg  # noqa: E402


def describe(result):
    parts = []
    for job in result.get("jobs") or result["steps"][0]["jobs"]:
        sizes = "/".join(f"{size // 1024}" for size, _ in job["sizes"])
        what = {0: "writes", 100: "reads"}.get(job["read_percent"], f"{job['read_percent']} % reads")
        loop = f", {job['rate']:,.0f}/s due" if job["rate"] and "ramp" not in result else ""
        depth = f", depth {job['depth']}" if result.get("ramp") != "depth" else ""
        parts.append(f"{'random' if job['random'] else 'sequential'} {what}, {sizes} KiB{depth}{loop}")
    return "; ".join(parts)


def main():
    if len(sys.argv) != 3 or sys.argv[1] in ("-h", "--help"):
        print(__doc__, file=sys.stderr if len(sys.argv) != 2 else sys.stdout)
        return 0 if len(sys.argv) == 2 else 2
    text = sys.stdin.read() if sys.argv[1] == "-" else Path(sys.argv[1]).read_text()
    out = Path(sys.argv[2])
    try:
        result = json.loads(text)
        what = describe(result)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        print(f"plot.py: {sys.argv[1]}: no result of pave-bench --json", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    if "ramp" in result:
        knee = f"; the knee is at {result['ramp']} {result['knee']:,.0f}" if result["knee"] is not None else ""
        (out / "sweep.svg").write_text(svg.sweep("Latency over throughput", result["steps"], result["ramp"], what + knee))
        return 0
    curves = {kind: result[kind]["curve"] for kind in ("reads", "writes") if result[kind]["operations"]}
    (out / "latency.svg").write_text(svg.latency_curve("Latency by percentile", curves, what))
    (out / "throughput.svg").write_text(svg.over_time("Throughput over time", {"all": result["timeline"]}, what))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, KeyError) as e:
        print(f"plot.py: {sys.argv[1]}: {type(e).__name__}: {e}", file=sys.stderr)
        sys.exit(1)
