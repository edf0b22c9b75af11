"""`dmps degrade`: photographs in, measurements out."""

from __future__ import annotations

from pathlib import Path

from dmps_cli import __version__
from dmps_cli.cli.groups import command_options
from dmps_cli.cli.guide import typed
from dmps_cli.cli.options import Inputs, OutputFlags, Seed, SigmaOrFile, TaskName, White, checked_task, finish
from dmps_cli.errors import UsageError
from dmps_cli.files.measurements import KIND, RESTORATION_KIND
from dmps_cli.files.options import InputOptions
from dmps_cli.jobs.batch import open_batch
from dmps_cli.jobs.degrade import Degrader
from dmps_cli.jobs.given_sigma import checked_sigma_or_file
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.plan import make_plan
from dmps_cli.tasks.rows import TASKS
from dmps_cli.tasks.table import files_of, named


@command_options
def degrade(
    operator: OperatorOptions,
    output: OutputFlags,
    files: InputOptions,
    inputs: Inputs = None,
    task: TaskName = None,
    sigma: SigmaOrFile = None,
    seed: Seed = 0,
    white: White = None,
) -> None:
    """Degrade photographs: y = A x + n.

    The noise of a picture follows from --seed and its pixels: other pictures get other noise.

    Writes a picture to look at (.png), the exact measurement in float32 (.npy) and a sidecar (.json) that says what was
    done, from which `dmps restore` goes on. Without --operator-seed, random masks and the rows of cs follow --seed.

    Example: dmps degrade photo.jpg --task sr4 --sigma 0.05 --seed 0 -o y.png
    """
    if named(checked_task(task, typed("degrade", inputs or [])), operator) is None:
        raise UsageError(f"name a --task: {', '.join(TASKS)}")
    plan = make_plan(task, operator, checked_sigma_or_file(sigma), seed, own_alpha=True)  # type: ignore[arg-type]
    console = output.console()
    batch, paths = open_batch(inputs or [], console, left_out=[KIND, RESTORATION_KIND], options=files)
    degrader = Degrader(plan=plan, seed=seed, white=white, output=output, batch=batch)
    read = files_of(plan.task, operator) + ([plan.each_sigma] if isinstance(plan.each_sigma, Path) else [])
    planned = degrader.planned(paths, read, console.check_path)
    if planned:
        console.note(plan.describe())
        with console.progress(len(planned), "pictures", pictures=len(planned)) as (advance, say):
            for path, target in planned:
                say(path.name)
                with batch.item(path):
                    if degraded := degrader.degrade(path, target):
                        batch.results.append({"input": str(path), "output": str(target), **degraded.facts})
                        console.path(target)
                advance()
    finish(batch, console, {"version": __version__, "command": "degrade", "seed": seed})
