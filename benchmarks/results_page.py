"""The tables and plots of docs/results.md, and that of the favours in docs/defaults.md, from finished evaluations.

A column of a table is of the photographs that every method of it has. The half width of a 95 % interval of the mean
(Student's t) is of the photographs; a difference is to `dmps (x0)` on the same photographs, interval and all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.plain import ONE_CALL, PLAIN
from dmps_cli.evaluation.rows import read_rows
from dmps_cli.methods.choice import resolve_sampling
from dmps_cli.methods.defaults import FAVOURED, FAVOURS
from dmps_cli.methods.table import METHODS
from dmps_cli.report.drawing import svg
from dmps_cli.report.plots import Chart, Series
from dmps_cli.report.statistics import summaries

Row = dict[str, Any]
DOCS = Path(__file__).parents[1] / "docs"
DONE = "report.html"  # the last file of an evaluation
COLUMNS = (10, 20, 50, 100)
MAIN = 20
MARGIN = 1.0  # dB below the plain solution that ask for a reason
METRICS = {"psnr": (2, "PSNR, dB"), "lpips": (3, "LPIPS")}

_KEEPS = (
    "Likely: the step keeps what the state had where nothing was measured, and with it the errors of the first, coarse "
    "estimates. `diffpir` loses as much if it draws less than all noise anew ([figures](baselines.md))."
)
REASONS = {
    "dps (authors)": "The authors' constant zeta is that of 1000 evaluations of 256 x 256 px; `dps (line search)` "
    "finds the length of each step ([baselines.md](baselines.md)).",
    "dmps (x_t), inpaint": _KEEPS,
    "dmps-tweedie, inpaint": _KEEPS,
    "colorize": "A colour that is guessed wrong is farther from the truth than grey is, which is near the mean of all.",
    "at 10": "So few evaluations are too few for it; at 20 it is not more than 1 dB below.",
    "flow: ot-ode, inpaint": "It draws no noise: what was not measured remains near what the start made of it.",
}
"""Why a method is below the plain solution by more than MARGIN: 'method, task', else 'method', 'task', 'at N'."""


# --- Rows
@dataclass(frozen=True, kw_only=True)
class Found:
    """Rows of evaluations that are done; each with `run`, and `label`, the method as the tables name it."""

    rows: Sequence[Row]
    plain: Sequence[Row]

    @cached_property
    def images(self) -> dict[int, list[str]]:
        """Photographs that all methods have, by the number of evaluations."""
        found = {}
        for nfe in COLUMNS:
            of_runs = [
                {row["image"] for row in self.rows if row["run"] == run}
                for run in dict.fromkeys(row["run"] for row in self.rows if row["run"].endswith(f"-{nfe}"))
            ]
            found[nfe] = sorted(set.intersection(*of_runs)) if of_runs else []
        return {nfe: images for nfe, images in found.items() if images}

    def of(self, task: str, label: str, nfe: int, images: Sequence[str]) -> list[Row]:
        """Rows of these photographs in their order; empty if one is missing."""
        by_image = {
            row["image"]: row
            for row in self.rows
            if (row["task"], row["label"], row["nfe"]) == (task, label, nfe) and not row["run"].startswith("paper")
        }
        return [by_image[image] for image in images] if all(image in by_image for image in images) else []

    def without_network(self, task: str, label: str, images: Sequence[str]) -> list[Row]:
        """As `of`, of the plain rows."""
        by_image = {row["image"]: row for row in self.plain if (row["task"], row["method"]) == (task, label)}
        return [by_image[image] for image in images]

    @property
    def labels(self) -> list[str]:
        """Methods with their levels, those of the favours left out."""
        return list(dict.fromkeys(row["label"] for row in self.rows if " favour " not in row["label"]))


def _labels(row: Row) -> list[str]:
    """What a row is called: 'ddrm', 'flow: ot-ode', 'dmps (x0) favour psnr'; by several names if favours agree."""
    levels = "flow: " if row["sampler"] == "flow" else ""
    if row["method"] != FAVOURED:
        return [f"{levels}{row['method']}"]
    names = []
    for favour in FAVOURS:
        chosen = resolve_sampling(
            task=row["task"], method=FAVOURED, sampler=row["sampler"], nfe=row["nfe"], favour=favour
        ).as_dict()
        if {name: row.get(name) for name in (*chosen, "mean_of")} == {"mean_of": None, **chosen}:
            names += [f"{levels}{FAVOURED} favour {favour}"] + [f"{levels}{FAVOURED}"] * (favour == "balance")
    return names


def found_in(out: Path) -> Found:
    """What is done below a folder: RUN/PHOTOGRAPH/rows.jsonl, and plain.json."""
    rows = []
    for done in sorted(out.glob(f"*/*/{DONE}")):
        for row in read_rows(done.parent)[0]:
            rows += [{**row, "run": done.parents[1].name, "label": label} for label in _labels(row)]
    order = {label: place for place, label in enumerate([*METHODS, *(f"flow: {name}" for name in METHODS)])}
    rows.sort(key=lambda row: order.get(row["label"], len(order)))
    return Found(rows=rows, plain=json.loads((out / "plain.json").read_text(encoding="utf-8")))


# --- Cells
def _number(value: float, digits: int, *, sign: bool = False) -> str:
    text = f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return text.replace("0.", ".", 1) if digits == 3 and abs(value) < 1 else text


def _mean(values: Sequence[float], digits: int, *, sign: bool = False) -> str:
    """'24.00 ± 0.31': mean and half the 95 % interval, which fewer than three values do not have."""
    rows: list[dict[str, str | int | float | None]] = [
        {"image": str(place), "x": value} for place, value in enumerate(values)
    ]
    (row,) = summaries(rows, [], ["x"])
    half = row["x_ci95"]
    spread = f" ± {_number(float(half), digits)}" if half is not None else ""
    return f"{_number(fmean(values), digits, sign=sign)}{spread}"


def cell(rows: Sequence[Row]) -> str:
    """'24.00 ± 0.31 / .336 ± .020': PSNR and LPIPS over the photographs."""
    if not rows:
        return ""
    return " / ".join(_mean([row[name] for row in rows], digits) for name, (digits, _) in METRICS.items())


def difference(rows: Sequence[Row], others: Sequence[Row]) -> str:
    """'+0.31 ± 0.20 / −.010 ± .004': of the same photographs, one by one."""
    if not rows or not others:
        return ""
    pairs = [*zip(rows, others, strict=True)]
    return " / ".join(
        _mean([a[name] - b[name] for a, b in pairs], digits, sign=True) for name, (digits, _) in METRICS.items()
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


# --- Tables
def task_table(found: Found, task: str) -> str:
    """Methods of one task by evaluations; the difference at MAIN evaluations."""
    images = found.images[MAIN]
    head = ["", *(f"{nfe}, n = {len(names)}" for nfe, names in found.images.items()), f"at {MAIN}, less `{FAVOURED}`"]
    ours = found.of(task, FAVOURED, MAIN, images)
    plain = found.without_network(task, PLAIN[task].name, images)
    empty = [""] * len(found.images)
    lines = [[PLAIN[task].name, *(cell(plain) if nfe == MAIN else "" for nfe in found.images), difference(plain, ours)]]
    if task == "denoise":
        call = found.without_network(task, ONE_CALL, images)
        lines.append([f"`{ONE_CALL}`, one call", *(cell(call) if n == MAIN else "" for n in found.images)])
        lines[-1].append(difference(call, ours))
    for label in found.labels:
        cells = [cell(found.of(task, label, nfe, names)) for nfe, names in found.images.items()]
        if cells != empty:
            less = "" if label == FAVOURED else difference(found.of(task, label, MAIN, images), ours)
            lines.append([f"`{label}`", *cells, less])
    return _table(head, lines)


def tasks_tables(found: Found) -> str:
    """A heading and a table for each task."""
    return "\n\n".join(f"### {task}\n\n{task_table(found, task)}" for task in PLAIN)


def paper_table(found: Found) -> str:
    """The rows of a thousand evaluations; empty where there are none."""
    rows = [row for row in found.rows if row["run"] == "paper-1000"]
    images = sorted({row["image"] for row in rows})
    labels = dict.fromkeys(row["label"] for row in rows)
    lines = [[f"`{label}`", cell([row for row in rows if row["label"] == label])] for label in labels]
    return _table(["sr4", f"1000, n = {len(images)}"], lines) if rows else "No photograph is done."


def below_plain(found: Found) -> Iterator[tuple[str, str, int, float]]:
    """(method, task, evaluations, dB) of what is below the plain solution by more than MARGIN."""
    for task, plain in PLAIN.items():
        for label in found.labels:
            for nfe, images in found.images.items():
                rows = found.of(task, label, nfe, images)
                others = found.without_network(task, plain.name, images)
                less = fmean([a["psnr"] - b["psnr"] for a, b in zip(rows, others, strict=False)] or [0.0])
                if less < -MARGIN:
                    yield label, task, nfe, less


def below_list(found: Found) -> str:
    """A line for each reason, with what is below the plain solution by it; prints what has no reason."""
    cases: dict[str, list[str]] = {}
    for label, task, nfe, less in below_plain(found):
        reason = next((REASONS[key] for key in (f"{label}, {task}", label, task, f"at {nfe}") if key in REASONS), "")
        cases.setdefault(reason, []).append(f"`{label}` in {task} at {nfe} ({_number(less, 1)} dB)")
    if lacking := cases.get(""):
        print(f"no reason is stated for: {', '.join(lacking)}")
    return "\n".join(f"- {', '.join(places)}. {reason}" for reason, places in cases.items()) or "None."


def favour_table(found: Found) -> str:
    """The aims of --favour, at MAIN evaluations on DDPM levels, by the differences of the same photographs."""
    images = found.images[MAIN]
    lines = []
    for task in PLAIN:
        of = {label: found.of(task, label, MAIN, images) for label in dict.fromkeys(r["label"] for r in found.rows)}
        balance, psnr, perception = (of[f"{FAVOURED} favour {name}"] for name in ("balance", "psnr", "perception"))
        free = [name for name, row in METHODS.items() if not row.back_propagates and name in of and name != FAVOURED]
        best = min(free, key=lambda name: fmean(row["lpips"] for row in of[name]))
        lpips = [a["lpips"] - b["lpips"] for a, b in zip(perception, of[best], strict=True)]
        higher = [difference(psnr, of[name]).partition(" / ")[0] for name in ("ddrm", "diffpir")]
        lines.append([task, difference(balance, of["ddrm"]), *higher, f"{_mean(lpips, 3, sign=True)} ({best})"])
    head = ["", "`balance` less DDRM", "`psnr` less DDRM, dB", "less DiffPIR, dB"]
    head += ["`perception` less the least LPIPS of others without back-propagation"]
    call = found.without_network("denoise", ONE_CALL, images)
    psnr = found.of("denoise", f"{FAVOURED} favour psnr", MAIN, images)
    last = f"In denoising `psnr` less one call of the network, {ONE_CALL}: {difference(psnr, call)}; n = {len(images)}."
    return f"{_table(head, lines)}\n\n{last}"


# --- Plots
def charts(found: Found, task: str) -> list[Chart]:
    """PSNR and LPIPS over evaluations, of the photographs that every point has; none where one number is done."""
    nfes = [nfe for nfe in found.images if nfe != COLUMNS[-1]]
    images = sorted(set.intersection(*(set(found.images[nfe]) for nfe in nfes)))
    if len(nfes) < 2 or not images:
        return []
    series: dict[str, list[Series]] = {metric: [] for metric in METRICS}
    for label in found.labels:
        rows = {nfe: found.of(task, label, nfe, images) for nfe in nfes}
        for metric, lines in series.items():
            points = [(float(nfe), fmean(row[metric] for row in of)) for nfe, of in rows.items() if of]
            if len(points) > 1:
                lines.append(Series(label=label, points=points))
    return [
        Chart(
            title=f"{task}, mean of {len(images)}",
            x_label="network evaluations, logarithmic",
            y_label=METRICS[metric][1],
            series=lines,
            log_x=True,
        )
        for metric, lines in series.items()
    ]


def write_plots(found: Found) -> str:
    """Writes docs/results/TASK.svg; returns the lines that show them."""
    folder = DOCS / "results"
    for old in folder.glob("*.svg"):
        old.unlink()
    folder.mkdir(exist_ok=True)
    shown = []
    for task in PLAIN:
        if drawn := charts(found, task):
            (folder / f"{task}.svg").write_text(svg(*drawn), encoding="utf-8")
            shown.append(f"![{task}: PSNR and LPIPS over evaluations](results/{task}.svg)")
    return "\n".join(shown) or "None: of one number of evaluations there is nothing to draw."


# --- Pages
def fill(page: Path, parts: Mapping[str, str]) -> None:
    """Writes texts between the marks <!-- name --> and <!-- end --> of a page."""
    text = page.read_text(encoding="utf-8")
    for name, content in parts.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{content}\n{end}{rest.partition(end)[2]}"
    page.write_text(text, encoding="utf-8")


def write(out: Path) -> None:
    """Writes what is done below a folder into docs/results.md and docs/defaults.md, and the plots."""
    found = found_in(out)
    fill(
        DOCS / "results.md",
        {
            "tasks": tasks_tables(found),
            "below": below_list(found),
            "paper-1000": paper_table(found),
            "plots": write_plots(found),
        },
    )
    fill(DOCS / "defaults.md", {"favour": favour_table(found)})
