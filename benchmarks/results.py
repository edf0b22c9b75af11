"""Makes the figures of docs/results.md: every method on every task, then tables and plots from what is done.

    python -m benchmarks.results PHOTOGRAPHS [--out runs] [--dry-run] [--tables-only]

PHOTOGRAPHS: the folder of BSDS500's validation photographs. Those of benchmarks/photographs_reported.txt are taken,
whose sha256 must be as it says; those of photographs_chosen.txt chose the knobs (docs/defaults.md) and are not. Each
step is one `dmps eval` of one photograph, printed before it starts. Killed and started again it goes on where it was.
Stages come one after another, 20 evaluations first, within a stage photograph by photograph: what is there at any time
is a complete table of fewer photographs.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.plain import write_plain
from benchmarks.results_page import write
from dmps_cli.files.atomic import sha256_file

HERE = Path(__file__).parent
DONE = "report.html"  # the last file of an evaluation
PHOTOGRAPHS = 12
TASKS = "sr4,deblur,deblur-gauss,inpaint,cs,colorize,denoise"
METHODS = "dmps (x0),dmps (x_t),dmps-tweedie,dps (line search),pgdm,ddrm,ddnm,diffpir"
FLOW = "dmps (x0),ot-ode"
COMMON = "--image-size 128 --fit crop --dtype bfloat16 --no-images --quiet"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One `dmps eval` of each photograph: methods and their options. photographs: of how many."""

    methods: str
    options: str
    tasks: str = TASKS
    photographs: int = PHOTOGRAPHS


STAGES: tuple[dict[str, Run], ...] = (
    {
        "ddpm-20": Run(methods=f"{METHODS},dps (authors)", options="--nfe 20 --favour balance,psnr,perception"),
        "flow-20": Run(methods=FLOW, options="--nfe 20 --sampler flow"),
    },
    {
        "ddpm-10": Run(methods=METHODS, options="--nfe 10"),
        "flow-10": Run(methods=FLOW, options="--nfe 10 --sampler flow"),
    },
    {
        "ddpm-50": Run(methods=METHODS, options="--nfe 50"),
        "flow-50": Run(methods=FLOW, options="--nfe 50 --sampler flow"),
    },
    {"ddpm-100": Run(methods="dmps (x0),dmps (x_t),ddrm,diffpir", options="--nfe 100")},
    {"paper-1000": Run(methods="dmps,dps,pgdm", options="--preset paper", tasks="sr4", photographs=2)},
)


def photographs(folder: Path) -> list[str]:
    """The names of those that are reported, each looked at. Raises SystemExit for one that is another picture."""
    names = []
    for line in (HERE / "photographs_reported.txt").read_text(encoding="utf-8").splitlines():
        sha256, name = line.split()
        if sha256_file(folder / name) != sha256:
            raise SystemExit(f"{folder / name} is not the photograph of photographs_reported.txt: its sha256 differs")
        names.append(name)
    return names


def steps(folder: Path, out: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every (its folder below out, arguments of `dmps`), in order."""
    names = photographs(folder)
    for stage in STAGES:
        for place, name in enumerate(names):
            for label, run in stage.items():
                if place < run.photographs:
                    target = out / label / Path(name).stem
                    yield target, _arguments(run, folder, target, name)


def _arguments(run: Run, folder: Path, target: Path, name: str) -> list[str]:
    listed = target.parent / f"{Path(name).stem}.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text(name + "\n", encoding="utf-8")
    chosen = ["--tasks", run.tasks, "--methods", run.methods, *shlex.split(run.options), *shlex.split(COMMON)]
    return ["eval", "--dataset", str(folder), "--list", str(listed), *chosen, "--out", str(target)]


def main() -> None:
    """Runs and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="the folder of BSDS500's validation photographs")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    parser.add_argument("--tables-only", action="store_true", help="of what is in --out")
    arguments = parser.parse_args()
    for target, command in [] if arguments.tables_only else steps(arguments.photographs, arguments.out):
        if (target / DONE).is_file():
            continue
        print(f"$ dmps {shlex.join(command)}", flush=True)
        if not arguments.dry_run:
            subprocess.run([sys.executable, "-m", "dmps_cli", *command], check=True, stdout=subprocess.DEVNULL)
    if not arguments.dry_run:
        write_plain(arguments.photographs, photographs(arguments.photographs), arguments.out / "plain.json")
        write(arguments.out)


if __name__ == "__main__":
    main()
