"""`dmps eval`: photographs, degraded, restored and measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmps_cli.checks import checked, numbers, split
from dmps_cli.cli.console import Console
from dmps_cli.cli.groups import command_options
from dmps_cli.cli.options import (
    PAPER,
    ComputeFlags,
    LpipsNet,
    Methods,
    Quiet,
    Samplers,
    Sigmas,
    SweepFlags,
    checked_sigma,
    given_options,
    is_compared,
)
from dmps_cli.errors import InputError, UsageError
from dmps_cli.evaluation import processes
from dmps_cli.evaluation.folder import check_folder, png_name
from dmps_cli.evaluation.named import Link
from dmps_cli.evaluation.pictures import FITS, Fit, list_pictures, origin
from dmps_cli.evaluation.worker import Worker, as_problem, check_inputs, configuration, merge_folders, shared_options
from dmps_cli.jobs.batch import Batch
from dmps_cli.metrics.lpips import DEFAULT_LPIPS_NET, LPIPS_NETS
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.plan import make_plan
from dmps_cli.tasks.table import check_channels

if TYPE_CHECKING:
    pass


MAX_SAMPLES = 10_000


DEFAULT_TASKS = "sr4"


@dataclass(frozen=True, kw_only=True)
class PictureFlags:
    """Which pictures, and what of each."""

    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|NAME|samples",
            help="Photographs, subfolders included; samples: the bundled ones; ffhq, celebahq and other names of "
            "docs/datasets.md: downloaded. A name goes before a folder; ./ffhq is the folder.",
        ),
    ] = None
    listed: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="Only the photographs it names, one a line, relative to FOLDER."),
    ] = None
    limit: Annotated[int | None, typer.Option(metavar="N", help="Only the first N photographs by name.")] = None
    image_size: Annotated[int | None, typer.Option(metavar="N", help="Use N x N px of each, as --fit says.")] = None
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(FITS), help="crop: the central N x N px; resize: the central square, resized to N x N."
        ),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only share I of N of the photographs; --merge joins the shares' folders."),
    ] = None

    def fitted(self) -> Fit:
        """What of each. Raises UsageError."""
        return Fit(size=self.image_size, how=self.fit)

    def share(self) -> tuple[int, int]:
        """(I, N). Raises UsageError."""
        index, _, count = (self.shard or "1/1").partition("/")
        if not (_is_count(index) and _is_count(count) and 1 <= int(index) <= int(count)):
            raise UsageError(f"--shard is '{(self.shard or '')[:40]}'; it must be I/N with I from 1 to N, as in 1/4")
        return int(index), int(count)

    def pictures(self, console: Console, *, offline: bool) -> dict[str, Path]:
        """Name -> file, of all shares, downloaded if need be. Raises UsageError, InputError, WeightsError."""
        if self.dataset is None:
            raise UsageError("name a --dataset: a folder, ffhq or another name of docs/datasets.md, or samples")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit is {self.limit}; it must be at least 1")
        with console.transfer(self.dataset) as told:
            link = Link(offline=offline, progress=told, note=console.note)
            found = list_pictures(self.dataset, self.listed, self.limit, link)
        written: dict[str, str] = {}
        for name in found:
            if (other := written.setdefault(png_name(name), name)) != name:
                raise InputError(f"{other} and {name} would give results of one name; rename one of them")
        return found


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(2**31))


@dataclass(frozen=True, kw_only=True)
class FolderFlags:
    """Where results go."""

    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Write rows.jsonl and pictures as images finish, at the end tables (CSV, JSON, Markdown, LaTeX), "
            "contact sheets, plots, report.html. Started again, an evaluation goes on where it was.",
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew what is in --out.")] = False
    no_images: Annotated[bool, typer.Option("--no-images", help="Write no pictures to --out.")] = False


MERGE_OPTIONS = ("--merge", "--out", "--overwrite", "--no-images", "--compare", "--offline", "--json", "--quiet")
"""Those that mean something to --merge, which reads no photographs, computes and fetches nothing."""


@command_options
def evaluate(
    context: typer.Context,
    sampling: SweepFlags,
    operator: OperatorOptions,
    compute: ComputeFlags,
    source: PictureFlags,
    target: FolderFlags,
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[FOLDER...]", help="What --merge joins.", show_default=False)
    ] = None,
    tasks: Annotated[str, typer.Option(metavar="A,B", help="Tasks, see `dmps tasks`.")] = DEFAULT_TASKS,
    methods: Methods = None,
    samplers: Samplers = None,
    sigma: Sigmas = None,
    samples: Annotated[int, typer.Option(metavar="K", help="Posterior samples of each image.")] = 1,
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
        merge_folders(folders or [], target, console, compare=with_paper)
        return
    if with_paper and sampling.preset is None:
        sampling = replace(sampling, preset=PAPER)
    if folders:
        raise UsageError(f"{folders[0]}: folders are for --merge; photographs are named by --dataset")
    entry = compute.check()
    noises = numbers("--sigma", sigma, checked_sigma)
    checked("network of LPIPS", lpips_net, LPIPS_NETS)
    if not 1 <= samples <= MAX_SAMPLES:
        raise UsageError(f"--samples is {samples}; it must be from 1 to {MAX_SAMPLES}")
    fit, part = source.fitted(), source.share()
    samplings = {name: sampling.compared(entry, methods, samplers, name) for name in split(tasks)}
    plans = [
        make_plan(name, shared_options(name, tasks, operator), noise, compute.seed)
        for name in split(tasks)
        for noise in noises
    ]
    if not plans:
        raise UsageError("--tasks names no task")
    if target.out is not None:
        check_folder(target.out, overwrite=target.overwrite)
    pictures = source.pictures(console, offline=compute.offline)
    check_inputs(pictures, target)

    device = processes.own_device(compute.start())
    from dmps_cli.evaluation.outcomes import Plan
    from dmps_cli.metrics.scorer import Scorer

    with processes.group():
        prior = compute.load(device, console)
        for plan in plans:
            check_channels(plan.task, prior.prior.channels)
        scorer = Scorer(lpips_net=lpips_net)
        console.missing_metrics(scorer.missing)
        for plan in plans:
            for choice in samplings[plan.task]:
                console.note(f"{plan.describe()}; {choice}{f'; {choice.caution}' if choice.caution else ''}")
        config = configuration(plans, samplings, pictures, fit, samples, compute, prior, scorer, device)
        facts = {"dataset": source.dataset, "dataset_origin": origin(str(source.dataset)), **compute.facts()}
        worker = Worker(
            pictures=pictures,
            part=part,
            fit=fit,
            plan=Plan(
                problems=[as_problem(plan, samplings[plan.task], device) for plan in plans],
                seed=compute.seed,
                num_samples=samples,
                facts={"seed": compute.seed, "model_sha256": prior.sha256},
            ),
            prior=prior,
            scorer=scorer,
            device=device,
            target=target,
            config=config,
            facts=facts,
            compare=with_paper,
            batch=Batch(console=console),
        )
        worker.run()


def check_merge(context: typer.Context) -> None:
    """Raises UsageError for options that are given and that --merge would not heed."""
    for option in given_options(context):
        if option not in MERGE_OPTIONS:
            raise UsageError(f"{option} belongs to an evaluation; --merge joins folders as they are")
