"""Charts drawn by matplotlib, which is an extra: as SVG, the same bytes for the same numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import InputError
from dmps_cli.report.plots import Chart, Series, finite_points
from dmps_cli.report.sheets import FAINT, HAIRLINE, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


INSTALL = "pip install 'dmps-cli[plots]'"
# Okabe & Ito (2008): told apart by the colour-blind
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d00")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v")
WIDTH, HEIGHT, LEGEND_LINE = 8.0, 3.6, 0.24  # inches

STYLE: Any = {
    "svg.hashsalt": "dmps",  # names of parts follow from what they are
    "svg.fonttype": "none",  # letters stay letters
    "text.parse_math": False,  # a dollar in a file's name is a dollar
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": HAIRLINE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
}


def missing() -> str:
    """Returns what to say where plots are left out because matplotlib is not there; empty where it is."""
    try:
        import matplotlib  # noqa: F401 - whether it can be
    except ImportError:
        return f"plots are left out: they need matplotlib, {INSTALL}"
    return ""


def svg(*charts: Chart) -> str:
    """Returns the charts below one another as one SVG file. Raises InputError where matplotlib is not there."""
    if sentence := missing():
        raise InputError(sentence)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    heights = [max(HEIGHT, LEGEND_LINE * len(chart.series)) for chart in charts]
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # whatever a person's own matplotlibrc says
        mpl.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", message="Glyph")  # letters stay letters: the viewer has them
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        planes = figure.subplots(len(charts), squeeze=False, height_ratios=heights)[:, 0]
        for plane, chart in zip(planes, charts, strict=True):
            _draw(plane, chart)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _draw(plane: Axes, chart: Chart) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if chart.log_x:
        plane.set_xscale("log")
    for index, series in enumerate(chart.series):
        _line(plane, chart, series, index)
    if chart.log_x:
        low, high = plane.get_xlim()
        few = high / low < 1e3
        plane.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=12))
        plane.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        plane.xaxis.set_minor_formatter(NullFormatter())
    plane.set_title(_text(chart.title))
    plane.set_xlabel(_text(chart.x_label))
    plane.set_ylabel(_text(chart.y_label))
    if len(chart.series) > 1 or any(series.label for series in chart.series):
        plane.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))  # beside the plane: it covers no point


def _line(plane: Axes, chart: Chart, series: Series, index: int) -> None:
    colour = COLOURS[index % len(COLOURS)]
    style: dict[str, Any] = {"color": colour, "linestyle": DASHES[index % len(DASHES)]}
    points = finite_points(series, chart.log_x)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    (line,) = plane.plot(xs, ys, marker=MARKERS[index % len(MARKERS)], label=_text(series.label) or " ", **style)
    line.set_gid(f"line-{index}")
    halves = dict(zip(series.points, series.intervals, strict=False))
    bars = [(x, y, half) for x, y in points if (half := halves.get((x, y))) is not None and math.isfinite(half)]
    if len(bars) > 1:
        low, high = ([y + sign * half for _, y, half in bars] for sign in (-1, 1))
        band = plane.fill_between([x for x, _, _ in bars], low, high, color=colour, alpha=0.15, linewidth=0)
        band.set_gid(f"band-{index}")
    for x, y, half in bars if len(bars) == 1 else []:
        plane.errorbar(x, y, half, color=colour, capsize=3)


def _text(text: str) -> str:
    """Returns it without the control characters and lone surrogates (of file names) that XML forbids."""
    shown = "".join(c if c.isprintable() else "�" for c in text)
    return f" {shown}" if shown.startswith("_") else shown  # matplotlib keeps those out of a legend


def has_bands(charts: Sequence[Chart]) -> bool:
    """Returns whether an interval is drawn in any of them."""
    return any(half is not None for chart in charts for series in chart.series for half in series.intervals)
