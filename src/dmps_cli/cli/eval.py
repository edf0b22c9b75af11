"""`dmps eval`: photographs, degraded, restored and measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dmps_cli.checks import SAMPLES, listed
from dmps_cli.cli.completion import COMPLETE, complete_words
from dmps_cli.cli.console import Console
from dmps_cli.cli.groups import command_options
from dmps_cli.cli.options import LpipsNet, Methods, Quiet, Samplers, Sigmas, given_options
from dmps_cli.errors import DmpsError, UsageError
from dmps_cli.evaluation.folder import FolderOptions
from dmps_cli.evaluation.pictures import PictureOptions
from dmps_cli.evaluation.request import EvaluationRequest, shared_options
from dmps_cli.evaluation.results import Results
from dmps_cli.evaluation.worker import merge_folders
from dmps_cli.jobs.given_sigma import checked_sigma
from dmps_cli.methods.options import SweepOptions
from dmps_cli.metrics.lpips import DEFAULT_LPIPS_NET
from dmps_cli.report.paper import PAPER, is_compared
from dmps_cli.tasks.chain import split_tasks
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.plan import make_plan
from dmps_cli.tasks.table import named
from dmps_cli.weights.options import ComputeOptions

DEFAULT_TASKS = "sr4"
MERGE_OPTIONS = ("--merge", "--out", "--overwrite", "--no-images", "--compare", "--offline", "--json", "--quiet")
"""Those that mean something to --merge, which reads no photographs, computes and fetches nothing."""


@command_options
def evaluate(
    context: typer.Context,
    sampling: SweepOptions,
    operator: OperatorOptions,
    compute: ComputeOptions,
    source: PictureOptions,
    target: FolderOptions,
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[FOLDER...]", help="What --merge joins.", show_default=False)
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help=f"Tasks, see `dmps tasks`. Default: {DEFAULT_TASKS}.",
            autocompletion=COMPLETE["lists of tasks"],
        ),
    ] = None,
    methods: Methods = None,
    samplers: Samplers = None,
    sigma: Sigmas = None,
    samples: Annotated[
        int, typer.Option(metavar="K", help="Posterior samples of each image; coverage from 8 on."), SAMPLES
    ] = 1,
    lpips_net: LpipsNet = DEFAULT_LPIPS_NET,
    merge: Annotated[
        bool, typer.Option("--merge", help="Join the FOLDERs of one configuration: their tables as one.")
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar=PAPER,
            help="Add the paper's own rows, not ranked; --preset is then paper. When done before: --merge FOLDER "
            "--compare paper.",
            autocompletion=complete_words(PAPER),
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Degrade and restore photographs; print mean PSNR, SSIM, LPIPS and seconds per image.

    Every method and sampler sees the same measurements and noise. An operator option goes to the tasks that take it, an
    option of a method to the methods that do. `torchrun --nproc-per-node 8 -m dmps_cli eval ...` shares the photographs
    among processes.

    Example: dmps eval --dataset samples --tasks sr4,deblur --methods dmps,ddrm --limit 1 --nfe 20
    """
    console = Console(quiet=quiet, as_json=as_json)
    with_paper = is_compared(compare)
    if merge:
        check_merge(context)
        show(merge_folders(folders or [], target, console, compare=with_paper), console)
        return
    if with_paper and sampling.preset is None:
        sampling = replace(sampling, preset=PAPER)
    if folders:
        raise UsageError(f"{folders[0]}: folders are for --merge; photographs are named by --dataset")
    entry = compute.check()
    noises = listed("--sigma", sigma, checked_sigma)
    names = split_tasks((tasks if operator.own is None else named(tasks, operator)) or DEFAULT_TASKS)
    request = EvaluationRequest(
        plans=[
            make_plan(name, shared_options(name, names, operator), noise, compute.seed)
            for name in names
            for noise in noises
        ],
        samplings={name: sampling.compared(entry, methods, samplers, name) for name in names},
        source=source,
        target=target,
        compute=compute,
        samples=samples,
        lpips_net=lpips_net,
        with_paper=with_paper,
    )
    if request.run(console, lambda results: show(results, console)):
        raise typer.Exit(DmpsError.exit_code)


def show(results: Results, console: Console) -> None:
    """Prints the table, or with --json all."""
    from dmps_cli.cli.tables import console_report
    from dmps_cli.report.writers import results_object

    summary, notes = results.summary, results.remarks
    if console.as_json:
        for note in results.notes:
            console.note(note)
        console.object(results_object(results.named, summary, results.protocol, results.described(), notes=notes))
    elif results.rows:
        console.rendered(lambda stream: console_report(summary, results.protocol, stream, notes=notes))


def check_merge(context: typer.Context) -> None:
    """Raises UsageError for options that are given and that --merge would not heed."""
    for option in given_options(context):
        if option not in MERGE_OPTIONS:
            raise UsageError(f"{option} belongs to an evaluation; --merge joins folders as they are")
