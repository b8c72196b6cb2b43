"""RESULTS.md and its plots, from the raw measurements alone."""
import time
from statistics import median

from . import svg, targets
from .systems import WORKS

ORDER = ["pave", "pave-nbd", "limit1", "limit3-dsync", "limit3", "qemu-nbd", "nbdkit", "ceph", "gluster"]


def spread(values, digits=0):
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def targets_table(raw):
    out = ["| work | must reach | reached | |", "|---|---|---|---|"]
    for row in targets.table(raw):
        verdict = "not measured" if row.met is None else "**met**" if row.met else "not met"
        out.append(f"| {row.title} | {row.want} | {row.got} | {verdict} |")
    return out


def work_table(raw, work):
    m = targets.Medians(raw)
    out = ["| system | operations/s | MiB/s | mean µs | 99 % µs | 99.9 % µs | CPU µs/op, all processes | and kernel threads | machine µs/op |",
           "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for system in ORDER:
        if not m.values(system, work.name, "iops"):
            continue
        fields = [spread(m.values(system, work.name, "iops"))]
        fields += [f"{m.get(system, work.name, f):,.0f}" for f in ("mib_per_s", "mean_us", "p99_us", "p99_9_us")]
        fields.append(spread(m.values(system, work.name, "cpu_us"), 1))
        fields += [spread(m.values(system, work.name, "all_cpu_us"), 1), f"{m.get(system, work.name, 'machine_cpu_us'):,.1f}"]
        out.append(f"| {system} | " + " | ".join(fields) + " |")
    return out


def one_line(text):
    return " ".join(text.replace("|", "/").split())[-300:]


def systems_table(raw):
    out = ["| system | copies | an acknowledged write is |", "|---|---:|---|"]
    for name in ORDER:
        s = raw["systems"].get(name)
        if s is not None and any(m["system"] == name for m in raw["measurements"]):
            out.append(f"| {name} | {s['replicas']} | {s['durability']} |")
    for name, why in raw["missing"].items():
        out.append(f"| {name} | - | not measured: {one_line(why)} |")
    for f in raw.get("failures", []):
        out.append(f"| {f['system']} | - | failed in round {f['round'] + 1}, {f['work']}: {one_line(f['why'])} |")
    return out


def rates_plot(raw, works, field, title, unit):
    m = targets.Medians(raw)
    names = [n for n in ORDER if any(m.values(n, w.name, field) for w in works)]
    groups = {}
    for w in works:
        groups[w.title.split(" KiB ", 1)[1]] = {n: (median(v), min(v), max(v)) for n in names if (v := m.values(n, w.name, field))}
    if not any(groups.values()):
        return None
    axis = svg.Axis([high for g in groups.values() for _, _, high in g.values()], unit, log=field == "all_cpu_us", room=1.2)
    return svg.bars(title, groups, names, axis, "median, and from the lowest to the highest of all rounds")


def last(raw, system, work):
    found = [m for m in raw["measurements"] if m["system"] == system and m["work"] == work]
    return found[-1] if found else None


def plots(raw):
    """{file name: SVG}"""
    small, large = [w for w in WORKS if w.size == 4096], [w for w in WORKS if w.size != 4096]
    out = {
        "rate-4k.svg": rates_plot(raw, small, "iops", "4 KiB operations a second", "operations a second"),
        "cpu-4k.svg": rates_plot(raw, small, "all_cpu_us", "CPU time of a 4 KiB operation, all processes and kernel threads", "CPU µs an operation"),
        "rate-128k.svg": rates_plot(raw, large, "mib_per_s", "128 KiB sequential", "MiB a second"),
    }
    curves, timelines = {}, {}
    for w in WORKS:
        one = last(raw, "pave", w.name)
        if one is not None:
            curves[w.title] = one["curve"]
            if w.writes and w.size == 4096:
                timelines[w.title] = one["timeline"]
    tail = last(raw, "pave", "tail")
    if tail is not None:
        curves[f"4 KiB random write, open loop at {tail['rate']:,.0f}/s"] = tail["curve"]
        out["sweep.svg"] = svg.sweep("Pavé: latency over throughput, open loop", tail["steps"], "rate", "4 KiB random writes")
    curves = {k: v for k, v in curves.items() if "128" not in k}
    if curves:
        out["latency.svg"] = svg.latency_curve("Pavé: latency by percentile", curves, "last round; through the client")
    if timelines:
        out["throughput.svg"] = svg.over_time("Pavé: throughput over time", timelines, "last round; the cleaner is at work")
    return {name: text for name, text in out.items() if text is not None}


def longer(seconds):
    return "".join(f" ({w.title}: {w.seconds(seconds)} s)" for w in WORKS if w.seconds(seconds) != seconds)


def sustained(settings):
    """How long a load that writes had gone on when its measurement ended; older raw results do not say it."""
    seconds = settings.get("sustained", 0)
    return f", random writes on Pavé before each that writes to make up {seconds} s" if seconds > settings["seconds"] else ""


def write(raw, folder):
    """RESULTS.md and results/*.svg under folder."""
    pictures = plots(raw)
    (folder / "results").mkdir(parents=True, exist_ok=True)
    for name, text in pictures.items():
        (folder / "results" / name).write_text(text)
    s = raw["settings"]
    rounds = len({m["round"] for m in raw["measurements"]})
    out = ["# Measured", "",
           f"By `pave-bench compare`, {time.strftime('%d %B %Y', time.gmtime(raw['begun']))}: {raw['machine']}. {rounds} rounds, in "
           f"each of which the systems ran in turn, {s['seconds']} s each{longer(s['seconds'])}{sustained(s)}; volume or file of {s['size'] >> 20} MiB, filled first; "
           f"Pavé's devices of {s['device_size'] >> 20} MiB each. Medians, and from the lowest to the highest; ratios are medians of "
           "the ratios within a round. How, and what may not be concluded: [METHOD.md](METHOD.md). The raw measurements: "
           "[results/measured.json](results/measured.json).", "",
           "## What must be reached", "", *targets_table(raw), "", "## What was measured", "", *systems_table(raw), ""]
    for w in WORKS:
        table = work_table(raw, w)
        if len(table) > 2:
            out += [f"## {w.title}", "", *table, ""]
    out += ["## Plots", "", *(f"![{name.removesuffix('.svg')}](results/{name})" for name in pictures), ""]
    notes = folder / "results" / "notes.md"
    if notes.exists():
        out += [notes.read_text().rstrip(), ""]
    (folder / "RESULTS.md").write_text("\n".join(out))
