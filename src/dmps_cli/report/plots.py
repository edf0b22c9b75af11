"""What is plotted of a run: quality against evaluations and seconds, and over a knob."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dmps_cli.report.settings import file_stem, label, problem_name, setting_names, varies_within
from dmps_cli.report.tables import CI, SOURCE, TableRow, arrow_heading, grouped, heading

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


def finite_points(series: Series, log_x: bool) -> list[Point]:
    """Returns those of the points that can be drawn."""
    return [(x, y) for x, y in series.points if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x)]


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
    one method. A chart of single points is none.
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
    return {stem: chart for stem, chart in found.items() if any(len(line.points) > 1 for line in chart.series)}


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
