"""`dmps restore`: degraded pictures in, restorations out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dmps_cli import __version__
from dmps_cli.checks import checked
from dmps_cli.cli.groups import command_options
from dmps_cli.cli.guide import NoTaskError, guide, typed
from dmps_cli.cli.options import (
    ComputeFlags,
    Inputs,
    LpipsNet,
    OutputFlags,
    SamplingFlags,
    SigmaOrAuto,
    TaskName,
    checked_sigma_or_auto,
    checked_task,
)
from dmps_cli.errors import UsageError
from dmps_cli.files.atomic import sha256_file
from dmps_cli.files.measurements import RESTORATION_KIND
from dmps_cli.jobs.batch import Batch, open_batch, plan_outputs
from dmps_cli.jobs.restore import Job, find_reference, plan_input, references, run_jobs, sample_names, unfinished
from dmps_cli.metrics.lpips import LPIPS_NETS
from dmps_cli.tasks.options import OperatorOptions

MAX_SAMPLES = 10_000


@command_options
def restore(
    inputs: Inputs,
    operator: OperatorOptions,
    sampling: SamplingFlags,
    compute: ComputeFlags,
    output: OutputFlags,
    task: TaskName = None,
    sigma: SigmaOrAuto = None,
    samples: Annotated[int, typer.Option("--samples", metavar="K", help="Posterior samples per input.")] = 1,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The true picture, or a folder of them by name: prints PSNR, SSIM and LPIPS against it.",
        ),
    ] = None,
    lpips_net: LpipsNet = "alex",
) -> None:
    """Restore degraded pictures.

    An input is a measurement that `dmps degrade` wrote (its sidecar fills what the command line leaves open), or any
    picture that is already degraded; then --task says how.

    Example: dmps restore y.png --task sr4
    """
    console = output.console()
    entry = compute.check()
    sampling.resolve(entry, checked_task(task, typed("restore", inputs)))
    noise = checked_sigma_or_auto(sigma)
    checked("network of LPIPS", lpips_net, LPIPS_NETS)
    if not 1 <= samples <= MAX_SAMPLES:
        raise UsageError(f"--samples is {samples}; it must be from 1 to {MAX_SAMPLES}")
    batch, paths = open_batch(inputs, console, left_out=[RESTORATION_KIND])

    def written(target: Path) -> list[Path]:
        return [file for name in sample_names(target, samples) for file in (name, name.with_suffix(".json"))]

    kept = [*references(reference), *operator.files()]
    operator = operator.with_kernel_read()
    jobs = []
    for path, target in plan_outputs(batch, paths, "_restored", output, written, kept=kept):
        with batch.item(path):
            input_plan = plan_input(path, task, operator, noise, console)
            names, input_sha256 = enumerate(sample_names(target, samples)), sha256_file(path)
            if targets := tuple(unfinished(names, input_sha256, output, console)):
                job = Job(
                    path=path,
                    sha256=input_sha256,
                    targets=targets,
                    input=input_plan,
                    sampling=sampling.resolve(entry, input_plan.plan.task),
                    grey_sampling=sampling.resolve_grey(entry, input_plan.plan.task),
                    reference=find_reference(reference, path, input_plan),
                )
                jobs.append(job)
    explain_tasks(batch)
    facts: dict[str, Any] = {"version": __version__, "command": "restore", **compute.facts()}
    if len(paths) > 1 and reference is not None and reference.is_file():
        console.note(f"{reference} is the reference of all {len(paths)} inputs; a folder gives each its own")
    if jobs:
        run_jobs(jobs, batch, compute, lpips_net, facts)
    batch.finish(facts)


def explain_tasks(batch: Batch) -> None:
    """Says, once in a call, what to add for a picture that nothing describes."""
    undescribed = [error.path for _, error in batch.failures if isinstance(error, NoTaskError)]
    if undescribed and not batch.console.quiet:
        with batch.item(undescribed[0]):
            batch.console.note(*guide(undescribed[0]))
