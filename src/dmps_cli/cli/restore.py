"""`dmps restore`: degraded pictures in, restorations out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dmps_cli import __version__
from dmps_cli.checks import SAMPLES
from dmps_cli.cli.console import Console
from dmps_cli.cli.groups import command_options
from dmps_cli.cli.guide import guide, typed
from dmps_cli.cli.options import Inputs, LpipsNet, OutputFlags, SigmaOrAuto, TaskName, checked_task, finish
from dmps_cli.evaluation.restorations import Restorations
from dmps_cli.files.measurements import RESTORATION_KIND
from dmps_cli.files.options import InputOptions, ReadingOptions, WritingOptions
from dmps_cli.jobs.batch import Batch, open_batch
from dmps_cli.jobs.given_sigma import checked_sigma_or_auto
from dmps_cli.jobs.plan import NoTaskError
from dmps_cli.jobs.request import Job, Request
from dmps_cli.jobs.restore import Restorer, Scores
from dmps_cli.methods.options import SamplingOptions
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.weights.cards import Card
from dmps_cli.weights.options import ComputeOptions


@command_options
def restore(
    operator: OperatorOptions,
    sampling: SamplingOptions,
    compute: ComputeOptions,
    files: InputOptions,
    reading: ReadingOptions,
    output: OutputFlags,
    writing: WritingOptions,
    inputs: Inputs = None,
    task: TaskName = None,
    sigma: SigmaOrAuto = None,
    samples: Annotated[int, typer.Option("--samples", metavar="K", help="Posterior samples per input."), SAMPLES] = 1,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The true picture, or a folder of them by name: prints PSNR, SSIM and LPIPS against it.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a page (report.html), contact sheets and tables there: inputs, results, the truth if known.",
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
    checked_task(task, typed("restore", inputs or []))
    request = Request(
        own=entry,
        task=task,
        operator=operator,
        noise=checked_sigma_or_auto(sigma),
        sampling=sampling,
        samples=samples,
        reference=reference,
        output=output,
        reading=reading,
        writing=writing,
    )
    batch, paths = open_batch(inputs or [], console, left_out=[RESTORATION_KIND], options=files)
    jobs = request.jobs(batch, paths, console.check_path)
    explain_tasks(batch, console)
    gathered = None if report is None else Restorations(out=report, batch=batch)
    if gathered is not None:
        gathered.check(jobs, overwrite=output.overwrite)
    facts: dict[str, Any] = {"version": __version__, "command": "restore", **compute.facts()}
    if len(paths) > 1 and reference is not None and reference.is_file():
        console.note(f"{reference} is the reference of all {len(paths)} inputs; a folder gives each its own")
    scores = Scores(lpips_net, console) if any(job.reference for job in jobs) else None
    try:
        if jobs:
            caution(jobs, entry, console)
            run(jobs, batch, compute, scores, console, gathered)
    except KeyboardInterrupt:  # what is done is worth its table
        console.object({**facts, **scored(scores, console), **batch.described()})
        raise
    finally:
        if gathered is not None:
            gathered.write(scores, facts, console)
    finish(batch, console, facts | scored(scores, console))


def caution(jobs: Sequence[Job], own: Card, console: Console) -> None:
    """Says what is known of the prior at the tasks, once each."""
    for task in dict.fromkeys(job.plan.task for job in jobs):
        if task in own.cautions:
            console.note(f"{task} with {own.name}: {own.cautions[task]}")


def run(
    jobs: Sequence[Job],
    batch: Batch,
    compute: ComputeOptions,
    scores: Scores | None,
    console: Console,
    gathered: Restorations | None,
) -> None:
    """Loads the prior once; restores every job, and prints each path as soon as it is there."""
    prior = compute.load(compute.start(), console)
    for text in dict.fromkeys(f"{job.plan.describe()}; {job.sampling}" for job in jobs):
        console.note(text)
    for text in dict.fromkeys(caution for job in jobs for caution in job.sampling.cautions):
        console.note(text)
    places = {job.path: f"{job.path.name} (image {k + 1} of {len(jobs)})" for k, job in enumerate(jobs)}
    restorer = Restorer(prior=prior, compute=compute, batch=batch)
    total = sum(len(job.targets) * job.sampling.nfe for job in jobs)
    with console.progress(total, pictures=len(jobs)) as (advance, say):
        say(places[jobs[0].path])
        for restored in restorer.restored(jobs, scores, advance):
            batch.results.append({**restored.facts, "output": str(restored.path)})
            console.path(restored.path)
            if gathered is not None:
                gathered.add(restored)
            if restored.remark:
                console.note(f"{restored.path}: {restored.remark}")
            say(places[restored.of.job.path])


def scored(scores: Scores | None, console: Console) -> dict[str, Any]:
    """Prints the table of scores, its protocol under it; the protocol for --json."""
    if scores is None or not scores.rows:
        return {}
    console.table(scores.rows)
    console.result(scores.protocol.line())
    return {"protocol": scores.protocol.as_dict()}


def explain_tasks(batch: Batch, console: Console) -> None:
    """Says, once in a call, what to add for a picture that nothing describes."""
    undescribed = [error.path for _, error in batch.failures if isinstance(error, NoTaskError)]
    if undescribed and not console.quiet:
        with batch.item(undescribed[0]):
            console.note(*guide(undescribed[0]))
