"""SVG charts as text, written without a library so that a report needs no network.

A chart is 400 units wide on every screen, so its text stays legible on a phone. Colours are
CSS classes (c0 ... c7, same, diff) that report.css fills for light and dark screens.
"""

import html
import json
import math
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 388, 12, 198  # of the plot inside the chart
POINTS = 240  # of a line: a chart is some 340 units wide
COLOURS = 8
NEAR_END = 0.1  # of the steps: no label of the last one next to a tick that near


class Series(NamedTuple):
    """A line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = "c0"  # CSS class
    band: Optional[Tuple[Sequence[float], Sequence[float]]] = None  # (low, high) around the line
    mark: Optional[int] = None  # index of the point with a dot and a label
    mark_text: str = ""
    faint: bool = False  # thin, without an entry in the legend


class Axis(NamedTuple):
    """How a chart shows one of its directions."""

    label: str = ""
    kind: str = "linear"  # linear, log or error; see Scale
    form: str = "number"  # of tick labels; see spell
    range: Optional[Tuple[float, float]] = None  # default: the reach of the values
    floor: float = 1e-4  # smallest error rate of kind "error"


class Scale:
    """Values -> chart units. kind: linear, log, or error (equal steps = ten times fewer errors)."""

    def __init__(
        self,
        low: float,
        high: float,
        start: float,
        end: float,
        kind: str = "linear",
        floor: float = 1e-4,
    ) -> None:
        self.kind, self.floor, self.start, self.end = kind, floor, start, end
        if kind == "linear" and high <= low:
            low, high = low - abs(low) * 0.05 - 1e-9, high + abs(high) * 0.05 + 1e-9
        self.low, self.high = low, high
        self.a, self.b = self._bend(low), self._bend(high)
        if self.b <= self.a:
            self.b = self.a + 1.0

    def _bend(self, value: float) -> float:
        if self.kind == "log":
            return math.log10(max(value, 1e-12))
        if self.kind == "error":
            return -math.log10(max(1.0 - value, self.floor))
        return value

    def share(self, value: float) -> float:
        """Where a value lies between low (0) and high (1)."""
        return min(max((self._bend(value) - self.a) / (self.b - self.a), -0.02), 1.02)

    def __call__(self, value: float) -> float:
        return round(self.start + self.share(value) * (self.end - self.start), 1)

    def ticks(self, count: int = 5) -> Sequence[float]:
        if self.kind == "log":
            return _decades(self.a, self.b)
        if self.kind == "error":
            return _error_ticks(self.low, self.high, count)
        return _round_ticks(self.low, self.high, count)

    def described(self) -> Dict[str, Any]:
        """What report.js needs to invert the scale."""
        return {"a": self.a, "b": self.b, "from": self.start, "to": self.end, "kind": self.kind}


def line_chart(
    series: Iterable[Series],
    title: str,
    x_axis: Axis = Axis("step"),  # noqa: B008
    y_axis: Axis = Axis(),  # noqa: B008
    always_named: bool = False,
) -> str:
    """Lines over a shared x axis -> <figure> with one <svg>."""
    lines = [one for one in map(_finite, series) if len(one.x)]
    if not lines:
        return _empty(title)
    x_low, x_high = x_axis.range or _reach([one.x for one in lines])
    y_low, y_high = y_axis.range or _padded(_reach([one.y for one in lines]), y_axis.kind)
    x = Scale(x_low, x_high, LEFT, RIGHT, x_axis.kind)
    y = Scale(y_low, y_high, BOTTOM, TOP, y_axis.kind, y_axis.floor)
    thin = [thinned(one) for one in lines]
    body = [_axes(x, y, x_axis, y_axis)]
    body += [_band(one, x, y) for one in thin if one.band]
    body += [_line(one, x, y) for one in thin]
    body += _marks([one for one in lines if one.mark is not None], x, y)
    hover = _hover(thin, x, y, x_axis, y_axis)
    return _figure(title, "".join(body), legend(lines, always_named), hover)


def histogram(
    genuine: Sequence[float],
    impostor: Sequence[float],
    threshold: float,
    title: str,
    bins: int = 48,
) -> str:
    """Cosines of genuine and impostor pairs; the errors at the threshold are filled darker."""
    low = min(min(impostor, default=0), min(genuine, default=0))
    high = max(max(impostor, default=1), max(genuine, default=1))
    low, high = math.floor(low * 10) / 10, min(1.0, math.ceil(high * 10) / 10)
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    shares = [_shares(values, low, high, bins) for values in (impostor, genuine)]
    x = Scale(low, high, LEFT, RIGHT)
    y = Scale(0, max(max(share) for share in shares) * 1.08, BOTTOM, TOP)
    body = [_axes(x, y, Axis("cosine of a pair"), Axis(form="percent"))]
    ends = {"diff": (threshold, math.inf), "same": (-math.inf, threshold)}  # where errors lie
    for share, colour in zip(shares, ("diff", "same")):
        body.append(_steps(edges, share, x, y, colour))
        errors = _clipped(edges, share, *ends[colour])
        body += [_rectangle(one, x, y, colour) for one in errors]
    at = x(threshold)
    side, anchor = (-5, "end") if at > (LEFT + RIGHT) / 2 else (5, "start")
    body.append(
        f'<line class="threshold" x1="{at}" x2="{at}" y1="{TOP - 4}" y2="{BOTTOM}"/>'
        f'<text class="note" x="{at + side}" y="{TOP + 6}" text-anchor="{anchor}">'
        f"threshold {threshold:.3f}</text>"
    )
    keys = [
        Series("same person", [0], [0], "same"),
        Series("different people", [0], [0], "diff"),
    ]
    return _figure(title, "".join(body), legend(keys), None)


def legend(series: Iterable[Series], always_named: bool = False) -> str:
    """Names with their colours; empty for a single line unless always_named."""
    named = [one for one in series if one.name and not one.faint]
    if len(named) < 2 and not always_named:
        return ""
    keys = "".join(f'<li class="{one.colour}">{html.escape(one.name)}</li>' for one in named)
    return f'<ul class="legend">{keys}</ul>'


def thinned(series: Series, points: int = POINTS) -> Series:
    """At most `points` of a line: of each stretch the lowest and the highest, so spikes stay."""
    count = len(series.x)
    if count <= points:
        return series
    keep: Set[int] = {0, count - 1}
    stretch = count / (points / 2.0)
    for i in range(points // 2):
        part = range(int(i * stretch), min(count, int((i + 1) * stretch)))
        keep.add(min(part, key=lambda k: series.y[k]))
        keep.add(max(part, key=lambda k: series.y[k]))
    return _take(series, sorted(keep))


def smoothed(values: Sequence[float], share: float = 0.04) -> List[float]:
    """Running mean over about `share` of the values, without a lag at the start."""
    weight, mean, total, smooth = 1.0 - 1.0 / max(1.0, len(values) * share), 0.0, 0.0, []
    for value in values:
        mean, total = weight * mean + value, weight * total + 1.0
        smooth.append(mean / total)
    return smooth


def spell(value: float, form: str = "number") -> str:
    """A number as text; form: number or percent."""
    if form == "percent":
        text = f"{100 * value:.2f}".rstrip("0").rstrip(".")
        return f"{text} %"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa.replace('.0', '')}e{int(power)}"
    return f"{value:.4g}"


def _figure(title, body, keys, hover):
    data = f' data-hover="{html.escape(json.dumps(hover), quote=True)}"' if hover else ""
    return (
        f'<figure class="chart"><figcaption><b>{html.escape(title)}</b>{keys}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}"{data}>'
        f"{body}</svg></figure>"
    )


def _empty(title):
    return (
        f'<figure class="chart"><figcaption><b>{html.escape(title)}</b></figcaption>'
        '<p class="empty">Nothing logged yet.</p></figure>'
    )


def _axes(x, y, x_axis, y_axis):
    parts = []
    for value in y.ticks():
        at = y(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at}" y2="{at}"/>'
            f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">'
            f"{spell(value, y_axis.form)}</text>"
        )
    ticks = list(x.ticks(4))
    if x_axis.label == "step" and x.high - ticks[-1] > NEAR_END * (x.high - x.low):
        ticks.append(x.high)  # how far the run is
    for i, value in enumerate(ticks):
        anchor = "end" if i == len(ticks) - 1 and x(value) > RIGHT - 14 else "middle"
        parts.append(
            f'<text x="{x(value)}" y="{BOTTOM + 15}" text-anchor="{anchor}">'
            f"{spell(value, x_axis.form)}</text>"
        )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>')
    parts.append(
        f'<text class="label" x="{RIGHT}" y="{BOTTOM + 29}" text-anchor="end">'
        f"{html.escape(x_axis.label)}</text>"
    )
    return "".join(parts)


def _line(series, x, y):
    points = " ".join(f"{x(a)},{y(b)}" for a, b in zip(series.x, series.y))
    kind = f"line {series.colour}" + (" faint" if series.faint else "")
    if len(series.x) == 1:
        at = f'cx="{x(series.x[0])}" cy="{y(series.y[0])}"'
        return f'<circle class="dot {series.colour}" {at} r="3"/>'
    return f'<polyline class="{kind}" points="{points}"/>'


def _band(series, x, y):
    low, high = series.band
    there = [f"{x(a)},{y(b)}" for a, b in zip(series.x, high)]
    back = [f"{x(a)},{y(b)}" for a, b in zip(series.x, low)]
    return f'<polygon class="band {series.colour}" points="{" ".join(there + back[::-1])}"/>'


def _marks(series, x, y):
    """A dot at each marked point, then their labels, each where none is yet."""
    dots, labels, taken = [], [], []
    for one in series:
        at, height = x(one.x[one.mark]), y(one.y[one.mark])
        dots.append(f'<circle class="mark {one.colour}" cx="{at}" cy="{height}" r="4.5"/>')
        level = _free(at, [height - 9, height + 18, height + 33, height + 48], taken)
        taken.append((at, level))
        anchor = "end" if at > RIGHT - 60 else "start" if at < LEFT + 60 else "middle"
        labels.append(
            f'<text class="note {one.colour}" x="{at}" y="{level}" text-anchor="{anchor}">'
            f"{html.escape(one.mark_text)}</text>"
        )
    return dots + labels


def _free(at, levels, taken):
    """The first of some heights where a label at `at` overlaps no other label and no edge."""
    for level in levels:
        apart = all(abs(at - a) > 64 or abs(level - b) > 13 for a, b in taken)
        if apart and TOP + 4 < level < BOTTOM - 4:
            return level
    return levels[0]


def _steps(edges, share, x, y, colour):
    points = [f"{x(edges[0])},{BOTTOM}"]
    for left, right, value in zip(edges, edges[1:], share):
        points += [f"{x(left)},{y(value)}", f"{x(right)},{y(value)}"]
    points.append(f"{x(edges[-1])},{BOTTOM}")
    return f'<polygon class="area {colour}" points="{" ".join(points)}"/>'


def _clipped(edges, share, start, end):
    """(low, high, value) of the parts of a histogram's bins between start and end."""
    for low, high, value in zip(edges, edges[1:], share):
        low, high = max(low, start), min(high, end)
        if high > low and value > 0:
            yield low, high, value


def _rectangle(part, x, y, colour):
    low, high, value = part
    width, top = max(x(high) - x(low), 0.1), y(value)
    return (
        f'<rect class="wrong {colour}" x="{x(low)}" y="{top}" width="{width:.1f}" '
        f'height="{BOTTOM - top:.1f}"/>'
    )


def _shares(values, low, high, bins):
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int((value - low) / (high - low) * bins)))] += 1
    return [count / max(1, len(values)) for count in counts]


def _hover(series, x, y, x_axis, y_axis):
    """The data that report.js shows at the pointer."""
    lines = [
        {
            "name": one.name,
            "colour": one.colour,
            "x": [_short(value) for value in one.x],
            "y": [_short(value) for value in one.y],
        }
        for one in series
        if not one.faint
    ]
    forms = {"xLabel": x_axis.label, "xForm": x_axis.form, "yForm": y_axis.form}
    return dict(forms, x=x.described(), y=y.described(), floor=y.floor, lines=lines)


def _short(value):
    return float(f"{value:.6g}")


def _finite(series):
    keep = [
        i
        for i, (x, y) in enumerate(zip(series.x, series.y))
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    ]
    return series if len(keep) == len(series.x) else _take(series, keep)


def _take(series, keep):
    band = series.band and tuple([side[i] for i in keep] for side in series.band)
    mark = keep.index(series.mark) if series.mark in keep else None
    x, y = ([values[i] for i in keep] for values in (series.x, series.y))
    return series._replace(x=x, y=y, band=band, mark=mark)


def _reach(sequences):
    return min(min(one) for one in sequences), max(max(one) for one in sequences)


def _padded(reach, kind):
    low, high = reach
    if kind != "linear":
        return low, high
    space = (high - low) * 0.06
    return (0.0 if 0 <= low < high * 0.4 else low - space), high + space


def _round_ticks(low, high, count):
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, int(math.floor(high / step + 1e-9)) + 1)]


def _decades(a, b):
    powers = list(range(math.ceil(a - 1e-9), math.floor(b + 1e-9) + 1))
    if len(powers) < 2:
        return [10.0**a, 10.0**b]
    stride = max(1, math.ceil(len(powers) / 6))
    return [10.0**power for power in powers[::-stride][::-1]]


ROUND_ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)


def _error_ticks(low, high, count):
    inside = [value for value in ROUND_ACCURACIES if low - 1e-9 <= value <= high + 1e-9]
    stride = max(1, math.ceil(len(inside) / (count + 1)))
    return inside[::-1][::stride][::-1] or [low, high]
