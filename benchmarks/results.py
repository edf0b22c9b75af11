"""Makes the figures of docs/results.md: evaluations of every method, then tables and plots from their rows.

    python benchmarks/results.py [RUN ...] [--out runs] [--dry-run] [--eval "OPTIONS OF dmps eval"]

Each RUN is one `dmps eval`, printed before it starts; killed and started again it goes on where it was. Without names
all are run. At the end the tables between the marks of docs/results.md are written anew, and the plots beside it, from
what is in --out.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from dmps_cli.evaluation.rows import read_rows
from dmps_cli.metrics.table import METRICS
from dmps_cli.report.drawing import svg
from dmps_cli.report.plots import Chart, Series

DOCS = Path(__file__).parents[1] / "docs"
TASKS = "sr4,deblur,colorize,denoise,inpaint,cs"
WITHOUT_JACOBIAN = "'dmps (x0),dmps (x_t),dmps-tweedie,ddrm,ddnm,diffpir'"
IMAGES = Path(__file__).parent / "results.txt"
COMMON = f"eval --dataset samples --list {shlex.quote(str(IMAGES))} --dtype bfloat16 --no-images"
RUNS = {
    "ddpm": f"--tasks {TASKS} --methods {WITHOUT_JACOBIAN},dps,pgdm --sampler ddpm --nfe 20,50",
    "ddpm-100": f"--tasks {TASKS} --methods {WITHOUT_JACOBIAN},dps,pgdm --sampler ddpm --nfe 100 --limit 1",
    "dmps-1000": "--tasks deblur,inpaint,cs --methods 'dmps (x_t)' --nfe 1000 --limit 1",
    "flow": f"--tasks {TASKS} --methods {WITHOUT_JACOBIAN},dps,ot-ode --sampler flow --nfe 20,50,100 --limit 1",
    "paper-1000": "--tasks sr4 --methods dmps,dps,pgdm --preset paper",
}
Row = dict[str, Any]


def arguments_of(name: str, out: Path, more: list[str]) -> list[str]:
    """Of `dmps` for a run."""
    return [*shlex.split(f"{COMMON} {RUNS[name]}"), *more, "--out", str(out / name)]


def rows_of(out: Path) -> list[Row]:
    """All rows of the runs that are there, each with the name of its run."""
    found = []
    for name in RUNS:
        if (out / name).is_dir():
            found += [{"run": name, **row} for row in read_rows(out / name)[0]]
    return found


def method_of(row: Row) -> str:
    """The method as the tables name it."""
    return str(row["method"])


def cell(rows: list[Row]) -> str:
    """'24.00 / .336', means over the images; empty where there are none."""
    if not rows:
        return ""
    psnr, lpips = (fmean(row[name] for row in rows) for name in ("psnr", "lpips"))
    return f"{psnr:.2f} / {lpips:.3f}".replace(" 0.", " .")


def table(rows: list[Row], sampler: str, nfes: tuple[int, ...], images: int) -> str:
    """A table of tasks by methods: PSNR / LPIPS at each number of evaluations; the best PSNR of a column bold."""
    ours = [row for row in rows if row["sampler"] == sampler and row["nfe"] in nfes]
    ours = [row for row in ours if row["run"] != "dmps-1000"]
    cells_of: dict[str, set[tuple[str, str, int]]] = {}
    for row in ours:
        cells_of.setdefault(row["image"], set()).add((row["task"], method_of(row), row["nfe"]))
    everything = set().union(*cells_of.values())
    names = sorted(image for image, cells in cells_of.items() if cells == everything)[:images]  # done with every method
    ours = [row for row in ours if row["image"] in names]
    lines = [
        f"| task | method | {' | '.join(f'NFE {nfe}' for nfe in nfes)} |",
        f"|---|---|{'---|' * len(nfes)}",
    ]
    for task in dict.fromkeys(row["task"] for row in ours):
        here = [row for row in ours if row["task"] == task]
        columns = {
            method: [[row for row in here if (method_of(row), row["nfe"]) == (method, nfe)] for nfe in nfes]
            for method in dict.fromkeys(map(method_of, here))
        }
        top = [
            max((round(fmean(r["psnr"] for r in cells[k]), 2) for cells in columns.values() if cells[k]), default=0.0)
            for k in range(len(nfes))
        ]
        for method, cells in columns.items():
            texts = [
                f"**{cell(rows)}**" if rows and round(fmean(row["psnr"] for row in rows), 2) == best else cell(rows)
                for rows, best in zip(cells, top, strict=True)
            ]
            lines.append(f"| {task} | {method} | {' | '.join(texts)} |")
    return "\n".join(lines)


def plot(rows: list[Row], task: str, metric: str) -> str:
    """The metric over evaluations on DDPM levels, a line per method, of the images that every point has."""
    here = [row for row in rows if row["task"] == task and row["sampler"] == "ddpm" and row["nfe"] <= 100]
    first = min(row["image"] for row in here)
    series = []
    for method in dict.fromkeys(map(method_of, here)):
        mine = sorted((row["nfe"], row[metric]) for row in here if method_of(row) == method and row["image"] == first)
        series.append(Series(label=method, points=mine))
    label = METRICS[metric].label
    chart = Chart(
        title=f"{task}: {label} of {first}", x_label="network evaluations", y_label=label, series=series, log_x=True
    )
    return svg(chart)


def write(rows: list[Row]) -> None:
    """The tables between the marks of docs/results.md, and the plots."""
    tables = {
        "ddpm": table(rows, "ddpm", (20, 50), 2),
        "flow": table(rows, "flow", (20, 50, 100), 1),
        "ddpm-100": table(rows, "ddpm", (100,), 1),
        "paper-1000": table([row for row in rows if row["run"] == "paper-1000"], "ddpm", (1000,), 2),
        "dmps-1000": table([row | {"run": "1000"} for row in rows if row["run"] == "dmps-1000"], "ddpm", (1000,), 1),
    }
    page = DOCS / "results.md"
    text = page.read_text(encoding="utf-8")
    for name, content in tables.items():
        if content.count("\n") < 2:  # its run is not there: what the page says stays
            continue
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{content}\n{end}{rest.partition(end)[2]}"
    page.write_text(text, encoding="utf-8")
    (DOCS / "results").mkdir(exist_ok=True)
    for task in dict.fromkeys(row["task"] for row in rows if row["sampler"] == "ddpm" and row["nfe"] <= 100):
        for metric in ("psnr", "lpips"):
            (DOCS / "results" / f"{task}_{metric}.svg").write_text(plot(rows, task, metric), encoding="utf-8")


def main() -> None:
    """Runs and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"one of {', '.join(RUNS)}; all by default")
    parser.add_argument("--eval", default="", metavar="OPTIONS", help="more options for dmps eval")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    parser.add_argument("--tables-only", action="store_true", help="of what is in --out")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.runs if name not in RUNS]:
        parser.error(f"no run is called {unknown[0]}; there are {', '.join(RUNS)}")
    for name in [] if arguments.tables_only else arguments.runs or RUNS:
        command = arguments_of(name, arguments.out, shlex.split(arguments.eval))
        print(f"$ dmps {shlex.join(command)}", flush=True)
        if not arguments.dry_run:
            subprocess.run([sys.executable, "-m", "dmps_cli", *command], check=True)
    if not arguments.dry_run:
        write(rows_of(arguments.out))


if __name__ == "__main__":
    main()
