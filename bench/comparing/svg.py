"""Plots as SVG, without a library: lines and bars with titles, axes with units, a legend; readable on light and dark
backgrounds (the colours follow the viewer's preference, and are in between where it has none)."""
import math
from html import escape

COLOURS = ["#3b82c4", "#d9822b", "#4a9d5b", "#c2504d", "#8a63b8", "#8c7a5c", "#3aa6a0", "#c25b9b", "#808080"]
WIDTH, HEIGHT = 820, 420
LEFT, RIGHT, TOP, BOTTOM = 74, 18, 46, 84
STYLE = """<style>
svg { background: #ffffff; }
text { font: 12px 'DejaVu Sans', Verdana, sans-serif; fill: #333333; }
.title { font-size: 15px; font-weight: bold; }
.axis { stroke: #777777; fill: none; }
.grid { stroke: #dddddd; fill: none; }
@media (prefers-color-scheme: dark) {
svg { background: #16181c; }
text { fill: #d8d8d8; }
.axis { stroke: #909090; }
.grid { stroke: #34373d; }
}
</style>"""


def number(x):
    if x == 0:
        return "0"
    if abs(x) >= 1e6:
        return f"{x / 1e6:g}M"
    if abs(x) >= 1e4:
        return f"{x / 1e3:g}k"
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:g}"


def short(x):
    """Three digits at most."""
    if x >= 99950:
        return f"{x / 1e3:.0f}k"
    if x >= 9995:
        return f"{x / 1e3:.1f}k"
    return f"{x / 1e3:.2f}k" if x >= 999.5 else f"{x:.3g}"


def linear_ticks(low, high, count=6):
    step = 10 ** math.floor(math.log10(max(high - low, 1e-9) / count))
    step *= next((m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= count), 10)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


class Axis:
    def __init__(self, values, title, log=False, zero=True, ticks=None, label=number, room=1.06):
        values = [v for v in values if not log or v > 0]
        self.title, self.log, self.label = title, log, label
        self.low, self.high = min(values, default=1 if log else 0), max(values, default=1)
        if log:
            self.low, self.high = 10 ** math.floor(math.log10(self.low)), 10 ** math.ceil(math.log10(self.high))
            self.ticks = [10 ** i for i in range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)]
            if len(self.ticks) < 3:
                self.ticks = sorted(t * m for t in self.ticks for m in (1, 2, 5) if t * m <= self.high)
        else:
            self.low = 0 if zero else self.low
            self.high = self.high * room if self.high > self.low else self.low + 1
            self.ticks = linear_ticks(self.low, self.high)
        if ticks is not None:
            self.ticks, self.low, self.high = ticks, min(ticks), max(ticks)
        if self.high == self.low:
            self.high = self.low * 2 if log else self.low + 1

    def at(self, v):
        """0 to 1"""
        if self.log:
            return math.log(max(v, self.low) / self.low) / math.log(self.high / self.low)
        return (v - self.low) / (self.high - self.low)


def px(axis, v):
    return LEFT + axis.at(v) * (WIDTH - LEFT - RIGHT)


def py(axis, v):
    return HEIGHT - BOTTOM - axis.at(v) * (HEIGHT - TOP - BOTTOM)


def head(title, subtitle=""):
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           f'role="img" aria-label="{escape(title)}">', STYLE, f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>']
    if subtitle:
        out.append(f'<text x="{LEFT}" y="37">{escape(subtitle)}</text>')
    return out


def y_axis(out, y):
    for t in y.ticks:
        at = py(y, t)
        out.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(y.label(t))}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(f'<text transform="translate(16 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y.title)}</text>')
    out.append(f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')


def legend(out, names):
    x, row = LEFT, 0
    for i, name in enumerate(names):
        wide = 30 + 7.3 * len(name)
        if x + wide > WIDTH - RIGHT:
            x, row = LEFT, row + 1
        at = HEIGHT - 28 + 17 * row
        out.append(f'<rect x="{x:.0f}" y="{at - 9}" width="12" height="10" fill="{COLOURS[i % len(COLOURS)]}"/>')
        out.append(f'<text x="{x + 17:.0f}" y="{at}">{escape(name)}</text>')
        x += wide


def lines(title, series, x, y, subtitle="", markers=False):
    """series: {name: [(x, y), ...]}"""
    out = head(title, subtitle)
    y_axis(out, y)
    for t in x.ticks:
        out.append(f'<path class="axis" d="M{px(x, t):.1f} {HEIGHT - BOTTOM}v4"/>')
        out.append(f'<text x="{px(x, t):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{escape(x.label(t))}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - BOTTOM + 35}" text-anchor="middle">{escape(x.title)}</text>')
    for i, points in enumerate(series.values()):
        colour = COLOURS[i % len(COLOURS)]
        d = " ".join(f"{px(x, a):.1f},{py(y, b):.1f}" for a, b in points)
        out.append(f'<polyline points="{d}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if markers:
            out += [f'<circle cx="{px(x, a):.1f}" cy="{py(y, b):.1f}" r="3.2" fill="{colour}"/>' for a, b in points]
    legend(out, list(series))
    return "\n".join([*out, "</svg>", ""])


def bars(title, groups, names, y, subtitle=""):
    """groups: {group: {name: (median, low, high)}}; low and high as a whisker."""
    out = head(title, subtitle)
    y_axis(out, y)
    room = (WIDTH - LEFT - RIGHT) / max(len(groups), 1)
    base = HEIGHT - BOTTOM
    for g, (group, values) in enumerate(groups.items()):
        present = [n for n in names if n in values]
        wide = room * 0.82 / max(len(present), 1)
        wide = min(wide, 46)
        begin = LEFT + room * g + (room - wide * len(present)) / 2
        for i, name in enumerate(present):
            middle, low, high = values[name]
            top = py(y, middle)
            at = begin + i * wide
            out.append(f'<rect x="{at + 1:.1f}" y="{top:.1f}" width="{wide - 2:.1f}" height="{max(base - top, 0.5):.1f}" '
                       f'fill="{COLOURS[names.index(name) % len(COLOURS)]}"/>')
            if high > low:
                out.append(f'<path class="axis" d="M{at + wide / 2:.1f} {py(y, low):.1f}V{py(y, high):.1f}"/>')
            out.append(f'<text transform="translate({at + wide / 2 + 3:.1f} {min(py(y, high), top) - 5:.1f}) rotate(-90)" '
                       f'style="font-size:10px">{escape(short(middle))}</text>')
        out.append(f'<text x="{LEFT + room * (g + 0.5):.1f}" y="{base + 17}" text-anchor="middle">{escape(group)}</text>')
    legend(out, names)
    return "\n".join([*out, "</svg>", ""])


# -- plots of one result of pave-bench ---------------------------------------------------------------------------------


def nines(percent):
    """Where a percentile stands on an axis that gives each further nine the same room."""
    return -math.log10(max(1 - percent / 100, 1e-6))


def nines_label(v):
    return {0: "0 %", 1: "90 %", 2: "99 %", 3: "99.9 %", 4: "99.99 %", 5: "99.999 %", 6: "max"}[round(v)]


def latency_curve(title, curves, subtitle=""):
    """curves: {name: [[percent, µs], ...]}"""
    series = {name: [(nines(p), us) for p, us in curve] for name, curve in curves.items() if curve}
    x = Axis([], "percentile of operations", ticks=[0, 1, 2, 3, 4, 5, 6], label=nines_label)
    y = Axis([us for s in series.values() for _, us in s], "latency, µs", log=True)
    return lines(title, series, x, y, subtitle)


def over_time(title, timelines, subtitle=""):
    """timelines: {name: [[s, operations/s, MiB/s, slowest µs], ...]}; the last, unfinished step is left out."""
    series = {name: [(t[0], t[1]) for t in timeline[:-1] or timeline] for name, timeline in timelines.items() if timeline}
    x = Axis([a for s in series.values() for a, _ in s], "time, s")
    y = Axis([b for s in series.values() for _, b in s], "operations a second")
    return lines(title, series, x, y, subtitle)


def sweep(title, steps, kind, subtitle=""):
    """steps: pave-bench's, with step, iops and latencies: latency over what was done."""
    series = {name: [(s["iops"], s["all"][field]) for s in steps]
              for name, field in (("median", "p50_us"), ("99 %", "p99_us"), ("99.9 %", "p99_9_us"))}
    x = Axis([s["iops"] for s in steps], f"operations a second done, at each {kind} of the ramp")
    y = Axis([b for s in series.values() for _, b in s], "latency, µs", log=True)
    return lines(title, series, x, y, subtitle, markers=True)
