"""What must be reached: each row of the table, computed from medians. A row needs what it names; without that it is
"not measured", never guessed."""
from dataclasses import dataclass
from math import prod
from statistics import median, quantiles


NEEDED = {  # for each workload: by the rows below, and of the other peers what can be set beside them
    "write1": ("limit3-dsync", "pave", "ceph"),
    "write32": ("limit3-dsync", "pave", "pave-nbd", "qemu-nbd", "nbdkit", "ceph", "gluster"),
    "write128": ("limit3", "pave"),
    "read32": ("limit1", "pave", "ceph", "gluster"),
    "seqwrite": ("limit3", "pave"),
    "seqread": ("limit1", "pave"),
    "tail": ("pave",),
    "checks": ("checks",),
}


class Unmeasured(Exception):
    """Why a row cannot be computed."""


def value(m, field):
    """Of one measurement; all_cpu_us is that of the processes and of the kernel's threads together."""
    if field == "all_cpu_us":
        return m["cpu_us"] + m["kernel_cpu_us"] if "kernel_cpu_us" in m else None
    return m.get(field)


class Medians:
    def __init__(self, raw):
        self.raw = raw

    def values(self, system, work, field):
        found = [m for m in self.raw["measurements"] if m["system"] == system and m["work"] == work]
        return [v for v in (value(m, field) for m in found) if v is not None]

    def get(self, system, work, field="iops"):
        v = self.values(system, work, field)
        if not v:
            why = self.raw["missing"].get(system)
            raise Unmeasured(why or f"{system} did not run {work}")
        return median(v)

    def paired(self, a, b, work, field="iops"):
        """The median of the ratios a/b, round by round."""
        rounds = {}
        for m in self.raw["measurements"]:
            if m["work"] == work and m["system"] in (a, b) and value(m, field) is not None:
                rounds.setdefault(m["round"], {})[m["system"]] = value(m, field)
        ratios = [r[a] / r[b] for r in rounds.values() if len(r) == 2 and r[b]]
        if not ratios:
            self.get(a, work)
            self.get(b, work)
            raise Unmeasured(f"{a} and {b} have no round in common")
        return median(ratios)


@dataclass
class Row:
    title: str
    want: str
    got: str
    met: bool | None  # None: not measured


class Table:
    def __init__(self, raw):
        self.m = Medians(raw)
        self.rows = []

    def row(self, title, want, compute):
        """compute: (text, met)"""
        try:
            got, met = compute()
        except Unmeasured as e:
            got, met = f"not measured: {e}", None
        self.rows.append(Row(title, want, got, met))

    def ratio(self, title, system, work, other, least=None, cpu=None, cpu_us=None):
        """The rate at least `least` of the other's, CPU at most `cpu` of the other's, or at most cpu_us."""
        wants, m = [], self.m
        if least is not None:
            wants.append(f"rate at least {least:g} of {other}'s")
        if cpu is not None:
            wants.append(f"CPU at most {cpu:.2g} of it")
        if cpu_us is not None:
            wants.append(f"CPU at most {cpu_us:g} µs")

        def compute():
            met, texts = True, []
            if least is not None:
                r = m.paired(system, other, work)
                met &= r >= least
                texts.append(f"{m.get(system, work):,.0f}/s, {r:.2f} of {m.get(other, work):,.0f}/s")
            if cpu is not None:
                r = m.paired(system, other, work, "all_cpu_us")
                met &= r <= cpu
                texts.append(f"CPU {m.get(system, work, 'all_cpu_us'):.1f} µs, {r:.3g} of {m.get(other, work, 'all_cpu_us'):.1f} µs")
            if cpu_us is not None:
                c = m.get(system, work, "all_cpu_us")
                met &= c <= cpu_us
                texts.append(f"CPU {c:.1f} µs")
            return "; ".join(texts), met
        self.row(title, ", ".join(wants), compute)

    def latency(self, title, system, work, other, most):
        def compute():
            r = self.m.paired(system, other, work, "mean_us")
            return (f"{self.m.get(system, work, 'mean_us'):.0f} µs, {r:.2f} of {self.m.get(other, work, 'mean_us'):.0f} µs",
                    r <= most)
        self.row(title, f"mean latency at most {most:g} of {other}'s", compute)


def tail(m):
    p999, p50 = m.get("pave", "tail", "p99_9_us"), m.get("pave", "tail", "p50_us")
    rate, knee = m.get("pave", "tail", "rate"), m.get("pave", "tail", "knee")
    return f"{p999:.0f} µs, {p999 / p50:.1f} of {p50:.0f} µs, at {rate:,.0f}/s (knee {knee:,.0f}/s)", p999 <= 5 * p50


def permits(m):
    """Medians of the ratios, each of four pairs: run in both orders, on clusters that were started in both orders; and between which of them half of all lie."""
    m.get("checks", "checks")
    pairs = [p for one in m.values("checks", "checks", "pairs") for p in one]
    texts, medians = [], []
    for i, what in enumerate(("rate", "CPU")):
        ratios = [on[i] / off[i] for on, off in pairs]
        ratios = [100 * (prod(four) ** 0.25 - 1) for four in zip(*(ratios[i::4] for i in range(4)))]
        quarters = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        texts.append(f"{what} {quarters[1]:+.1f} % (half of all from {quarters[0]:+.1f} to {quarters[2]:+.1f})")
        medians.append(quarters[1])
    return f"{', '.join(texts)} with the checks, {len(pairs)} pairs", medians[0] >= -1 and medians[1] <= 1


def vitastor(m, work, share, cpu_us, limit):
    rate, cpu = m.get("pave", work), m.get("pave", work, "all_cpu_us")
    if limit is None:
        return f"{rate:,.0f}/s at {cpu:.1f} µs", rate >= share and cpu <= cpu_us
    r = m.paired("pave", limit, work)
    return f"{r:.2f} of {limit}, CPU {cpu:.1f} µs", r >= share and cpu <= cpu_us


def table(raw):
    t = Table(raw)
    t.ratio("4 KiB random write, depth 32, client", "pave", "write32", "limit3-dsync", least=1.5, cpu=0.9)
    t.ratio("4 KiB random write, depth 128, client", "pave", "write128", "limit3", least=1.5, cpu=0.7)
    t.latency("4 KiB random write, depth 1, client", "pave", "write1", "limit3-dsync", 1.5)
    t.ratio("4 KiB random read, depth 32, client", "pave", "read32", "limit1", least=0.6, cpu_us=25)
    t.ratio("128 KiB sequential write, depth 16, client", "pave", "seqwrite", "limit3", least=0.8)
    t.ratio("128 KiB sequential read, depth 16, client", "pave", "seqread", "limit1", least=0.8)
    t.ratio("4 KiB random write, depth 32, NBD", "pave-nbd", "write32", "qemu-nbd", least=1.2, cpu=0.8)
    t.ratio("4 KiB random write, depth 32, client", "pave", "write32", "ceph", least=18, cpu=1 / 35)
    t.ratio("4 KiB random write, depth 1, client", "pave", "write1", "ceph", least=6)
    t.ratio("4 KiB random read, depth 32, client", "pave", "read32", "ceph", least=4, cpu=1 / 10)
    t.row("4 KiB random write, depth 32, client",
          "3.5 times Vitastor's share of limit3-dsync (0.40 in a sitting of its own): 1.4; a fifth of its 188 µs CPU: 37.6 µs",
          lambda: vitastor(t.m, "write32", 1.4, 37.6, "limit3-dsync"))
    t.row("4 KiB random read, depth 32, client",
          "as Vitastor in a sitting of its own: 32,700/s, half its 47 µs CPU: 23.5 µs",
          lambda: vitastor(t.m, "read32", 32700, 23.5, None))
    t.row("checks of permits and leases, against a build without", "at most 1 %", lambda: permits(t.m))
    t.row("99.9th percentile at 70 % of the knee's rate, open loop", "at most 5 times the median", lambda: tail(t.m))
    return t.rows
