"""Plots as SVG: quality against evaluations and seconds, and over a knob. No library, no script, no outside font."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

from dmps_cli.report.settings import file_stem, label, problem_name, setting_names, varies_within
from dmps_cli.report.sheets import FAINT, HAIRLINE, INK, PAPER
from dmps_cli.report.tables import CI, SOURCE, TableRow, arrow_heading, grouped, heading

# Okabe & Ito (2008): told apart by the colour-blind
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d00")
DASHES = ("", "6 3", "2 3")
RADII = (3, 5, 7, 9)  # px; the first dot is filled, the others are rings, so that equal points are all seen
LEFT, TOP, WIDTH, HEIGHT, BOTTOM = 64, 34, 420, 280, 52  # px: margins and the plane
LETTER, LINE = 6.6, 20  # px: widest usual letter of the legend, height of its lines
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line: its name, points (x, y) and, where known, half the 95 % interval of each y."""

    label: str
    points: Sequence[Point]
    intervals: Sequence[float | None] = ()


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over x. A logarithmic x must be positive; points that are not finite are left out."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where a value stands: low at px `start`, high at px `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Returns the place of a value, px."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Returns round numbers to be labelled."""
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about `count` round numbers (1, 2 or 5 times a power of ten apart) within low .. high."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 times the powers of ten within low .. high.

    The powers alone where that would be many; round numbers at equal distances where it would be none or one.
    """
    powers = range(math.floor(math.log10(low) - 1e-9), math.ceil(math.log10(high) + 1e-9) + 1)
    factors = (1, 2, 5) if math.log10(high / low) <= 3 else (1,)
    found = [factor * 10.0**power for power in powers for factor in factors]
    within = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return within if len(within) > 1 else ticks(low, high)


def scales(chart: Chart) -> tuple[Scale, Scale]:
    """Returns the axes of a chart: its points with a twentieth of room at each end."""
    points = [point for series in chart.series for point in _finite(series, chart.log_x)] or [(1.0, 0.0)]
    xs, ys = zip(*points, strict=True)
    bars = [y + sign * half for line in chart.series for (_, y), half in _with_bars(line) for sign in (-1, 1)]
    return (
        _scale([*xs], LEFT, LEFT + WIDTH, log=chart.log_x),
        _scale([*ys, *filter(math.isfinite, bars)], TOP + HEIGHT, TOP, log=False),
    )


def _scale(values: Sequence[float], start: float, end: float, *, log: bool) -> Scale:
    low, high = min(values), max(values)
    if log:
        room = (high / low) ** 0.05 if high > low else 2.0
        return Scale(low=low / room, high=high * room, start=start, end=end, log=True)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return Scale(low=low - room, high=high + room, start=start, end=end)


def _finite(series: Series, log_x: bool) -> list[Point]:
    return [(x, y) for x, y in series.points if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x)]


def has_bars(charts: Sequence[Chart]) -> bool:
    """Returns whether an interval is drawn in any of them."""
    return any(_with_bars(series) for chart in charts for series in chart.series)


def _with_bars(series: Series) -> list[tuple[Point, float]]:
    return [(point, half) for point, half in zip(series.points, series.intervals, strict=False) if half is not None]


def svg(chart: Chart, *, inline: bool = False) -> str:
    """Returns the chart as one SVG element. inline: for a page of HTML, where it needs no name space."""
    x, y = scales(chart)
    legend = max((len(series.label) for series in chart.series), default=0) * LETTER + 46
    width, height = round(LEFT + WIDTH + legend + 12), max(TOP + HEIGHT + BOTTOM, TOP + LINE * len(chart.series) + 12)
    name_space = "" if inline else ' xmlns="http://www.w3.org/2000/svg"'
    parts = [
        f'<svg{name_space} viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' font-family="sans-serif" font-size="12">',
        f"<title>{_safe(chart.title)}</title>",
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        _text(LEFT, TOP - 14, chart.title, INK, weight="bold"),
        *_axes(chart, x, y),
        *(part for k, series in enumerate(chart.series) for part in _line(chart, series, k, x, y)),
        "</svg>",
    ]
    return "\n".join(parts)


def _axes(chart: Chart, x: Scale, y: Scale) -> list[str]:
    bottom, right = TOP + HEIGHT, LEFT + WIDTH
    parts = []
    for value in y.ticks():
        at = y.at(value)
        parts += [_rule(LEFT, at, right, at), _text(LEFT - 6, at + 4, _tick_text(value), FAINT, anchor="end")]
    for value in x.ticks():
        at = x.at(value)
        parts += [_rule(at, TOP, at, bottom), _text(at, bottom + 16, _tick_text(value), FAINT, anchor="middle")]
    middle = TOP + HEIGHT / 2
    return [
        *parts,
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="{FAINT}"/>',
        _text(LEFT + WIDTH / 2, bottom + 38, chart.x_label, INK, anchor="middle"),
        f'<g transform="rotate(-90 14 {middle:g})">{_text(14, middle, chart.y_label, INK, anchor="middle")}</g>',
    ]


def _line(chart: Chart, series: Series, index: int, x: Scale, y: Scale) -> list[str]:
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    stroke = f'stroke="{colour}" stroke-width="2" fill="none"' + (f' stroke-dasharray="{dash}"' if dash else "")
    points = _finite(series, chart.log_x)
    parts = []
    if len(points) > 1:
        path = " ".join(f"{x.at(px):.2f},{y.at(py):.2f}" for px, py in points)
        parts.append(f'<polyline points="{path}" {stroke}/>')
    for (px, py), half in _with_bars(series):
        if (px, py) in points and math.isfinite(half):
            at = f"{x.at(px):.2f}"
            parts.append(f'<line x1="{at}" x2="{at}" y1="{y.at(py - half):.2f}" y2="{y.at(py + half):.2f}" {stroke}/>')
    parts += [_dot(x.at(px), y.at(py), index, f"{series.label}: {px:.4g}, {py:.5g}") for px, py in points]
    level, left = TOP + 8 + LINE * index, LEFT + WIDTH + 14
    parts.append(f'<line x1="{left}" x2="{left + 22}" y1="{level}" y2="{level}" {stroke}/>')
    return [*parts, _dot(left + 11, level, index), _text(left + 28, level + 4, series.label, INK)]


def _dot(x: float, y: float, index: int, title: str = "") -> str:
    """Returns the marker of line `index`, with what is read when it is pointed at."""
    colour, ring = COLOURS[index % len(COLOURS)], index % len(RADII)
    # a fill that is not seen can still be pointed at
    style = f'fill-opacity="0" stroke="{colour}" stroke-width="1.5"' if ring else 'fill-opacity="1"'
    content = f"<title>{_safe(title)}</title>" if title else ""
    return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{RADII[ring]}" fill="{colour}" {style}>{content}</circle>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="{HAIRLINE}"/>'


def _text(x: float, y: float, text: str, colour: str, *, anchor: str = "start", weight: str = "normal") -> str:
    bold = ' font-weight="bold"' if weight == "bold" else ""
    return f'<text x="{x:.2f}" y="{y:.2f}" fill="{colour}" text-anchor="{anchor}"{bold}>{_safe(text)}</text>'


def _safe(text: str) -> str:
    """Returns it escaped, without the control characters and lone surrogates (of file names) that XML forbids."""
    return escape("".join(c if c.isprintable() else "�" for c in text))


def _tick_text(value: float) -> str:
    return f"{round(value, 10):.6g}"


# --- From rows of `summaries` to charts
def quality_chart(rows: Sequence[TableRow], metric: str, against: str, *, title: str | None = None) -> Chart:
    """Returns a metric over 'nfe' or 'seconds' (logarithmic), a line per method, sampler and setting of their knobs.

    rows: of `summaries`; those of the paper are left out. Lines run through the evaluations in rising order.
    """
    ours = [row for row in rows if not row.get(SOURCE) and _number(row, metric) and _number(row, against)]
    labels = {"nfe": "network evaluations per image", "seconds": "seconds per image"}
    return Chart(
        title=title or f"{heading(metric)} against {labels.get(against, against)}",
        x_label=labels.get(against, against) + ", logarithmic",
        y_label=arrow_heading(metric),
        series=_series(ours, metric, against, _distinguishing(ours)),
        log_x=True,
    )


def sweep_chart(rows: Sequence[TableRow], metric: str, knob: str = "lambda", *, title: str | None = None) -> Chart:
    """Returns a metric over a knob or the noise level, which is logarithmic; a line per whatever else differs."""
    ours = [row for row in rows if not row.get(SOURCE) and _number(row, metric) and _number(row, knob)]
    names = [name for name in ("method", "sampler", "sigma_y", "nfe", *setting_names(ours)) if name != knob]
    first, *others = names
    by = [first] if len({row.get(first) for row in ours}) > 1 else []
    for name in others:  # settings that follow from the method make no line of their own
        if varies_within(ours, name, [*by, knob]):
            by.append(name)
    log_x = knob == "sigma_y" and all(_value(row, knob) > 0 for row in ours)
    return Chart(
        title=title or f"{heading(metric)} against {knob}",
        x_label=f"{knob}, logarithmic" if log_x else knob,
        y_label=arrow_heading(metric),
        series=_series(ours, metric, knob, by or ["method"]),
        log_x=log_x,
    )


def charts(rows: Sequence[TableRow], metrics: Sequence[str] = ("psnr", "lpips")) -> dict[str, Chart]:
    """Returns file stem -> chart, per task (and noise level, where there are several) and metric.

    quality against evaluations and against seconds; over the noise level and each knob that takes several values for
    one method.
    """
    found: dict[str, Chart] = {}
    for key, members in grouped([row for row in rows if not row.get(SOURCE)], ["task"]):
        task = str(key["task"])
        for metric in (name for name in metrics if any(_number(row, name) for row in members)):
            name = problem_name(members)
            for _, same in grouped(members, ["sigma_y"]):
                where = name(same[0])
                stem = file_stem(where)
                for against in ("nfe", "seconds"):
                    found[f"{stem}_{metric}_{against}"] = _titled(quality_chart(same, metric, against), where)
            for knob in ("sigma_y", *setting_names(members)):
                having = [row for row in members if _number(row, knob)]
                if varies_within(having, knob, ("method", "sampler", "nfe")):
                    found[f"{task}_{metric}_{knob}"] = _titled(sweep_chart(having, metric, knob), task)
    return {stem: chart for stem, chart in found.items() if chart.series}


def _titled(chart: Chart, where: str) -> Chart:
    return replace(chart, title=f"{where}: {chart.title}")


def _number(row: TableRow, name: str) -> bool:
    return isinstance(row.get(name), int | float)


def _distinguishing(rows: Sequence[TableRow]) -> list[str]:
    """Returns columns that make a line of its own: method, sampler, settings that vary at one number of evaluations."""
    first = ["method", *(["sampler"] if len({row.get("sampler") for row in rows}) > 1 else [])]
    by = ("method", "sampler", "nfe")
    return [*first, *(name for name in setting_names(rows) if varies_within(rows, name, by))]


def _series(rows: Sequence[TableRow], metric: str, against: str, by: Sequence[str]) -> list[Series]:
    lines = []
    for key, members in grouped(rows, by):
        ordered = sorted(members, key=lambda row: _value(row, "nfe") if against == "seconds" else _value(row, against))
        lines.append(
            Series(
                label=label(key),
                points=[(_value(row, against), _value(row, metric)) for row in ordered],
                intervals=[_value(row, metric + CI) if _number(row, metric + CI) else None for row in ordered],
            )
        )
    return lines


def _value(row: TableRow, name: str) -> float:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else math.nan
