"""`dmps eval`: photographs, degraded, restored and measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmps_cli import __version__, dist
from dmps_cli.cli.batch import Batch, failure_list
from dmps_cli.cli.console import Console
from dmps_cli.cli.degrade import make_plan
from dmps_cli.cli.options import (
    PAPER,
    ComputeFlags,
    LpipsNet,
    Methods,
    Quiet,
    Samplers,
    Sigmas,
    SweepFlags,
    checked,
    checked_sigma,
    command_options,
    given_options,
    is_compared,
    numbers,
    split,
)
from dmps_cli.cli.results import Results
from dmps_cli.datasets import FITS, Fit, list_pictures, origin, share
from dmps_cli.errors import DmpsError, InputError, UsageError
from dmps_cli.files import atomic_write, sha256_file
from dmps_cli.hub_datasets import Link
from dmps_cli.metrics import DEFAULT_LPIPS_NET, LPIPS_NETS, list_hash
from dmps_cli.reading import inside
from dmps_cli.runs import (
    Row,
    RowLog,
    check_folder,
    copy_pictures,
    evaluation_around,
    mean_file,
    measurement_file,
    open_run,
    ordered,
    png_name,
    read_failures,
    read_rows,
    read_runs,
    restored_file,
    row_key,
    rows_file,
    spread_file,
    truth_file,
    unique,
)
from dmps_cli.tasks import OperatorOptions, check_channels, crop_box, task

if TYPE_CHECKING:
    import torch

    from dmps_cli.cli.operators import OperatorPlan
    from dmps_cli.evaluation import Outcome, Plan, Problem
    from dmps_cli.methods import Sampling
    from dmps_cli.metrics import Scorer
    from dmps_cli.weights import LoadedPrior

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

    device = dist.own_device(compute.start())
    from dmps_cli.evaluation import Plan
    from dmps_cli.metrics import Scorer

    with dist.group():
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


def check_inputs(pictures: Mapping[str, Path], target: FolderFlags) -> None:
    """Raises UsageError if --overwrite would remove a picture that is to be read."""
    if target.out is None or not target.overwrite:
        return
    for path in pictures.values():
        if (whose := evaluation_around(path)) and whose.resolve() == target.out.resolve():
            raise UsageError(f"{path} is a picture of {target.out}, which --overwrite would empty")


def shared_options(name: str, tasks: str, options: OperatorOptions) -> OperatorOptions:
    """Those of the options that the task takes. Raises UsageError for one that none of the tasks takes."""
    takers = {option: [other for other in split(tasks) if option in task(other).params] for option in options.given()}
    orphans = [option for option, names in takers.items() if not names]
    if orphans:
        raise UsageError(f"none of the tasks {tasks} takes --{orphans[0].replace('_', '-')}")
    return OperatorOptions(**{option: value for option, value in options.given().items() if name in takers[option]})


def configuration(
    plans: Sequence[OperatorPlan],
    samplings: Mapping[str, Sequence[Sampling]],
    pictures: Mapping[str, Path],
    fit: Fit,
    samples: int,
    compute: ComputeFlags,
    prior: LoadedPrior,
    scorer: Scorer,
    device: torch.device,
) -> dict[str, Any]:
    """All that a number of the tables depends on, as JSON has it; files by what they hold."""

    def problem(plan: OperatorPlan) -> dict[str, Any]:
        operator = dict(plan.params)
        if operator.get("mask") is not None:
            operator["mask"] = sha256_file(Path(operator["mask"]))
        chosen = [choice.as_dict() for choice in samplings[plan.task]]
        return {"task": plan.task, "operator": operator, "sigma_y": plan.sigma_y, "samplings": chosen}

    config = {
        "version": __version__,
        "num_images": len(pictures),
        "images_sha256": list_hash(pictures),
        **fit.as_dict(),
        "prepared": fit.describe(),
        "model_sha256": prior.sha256,
        "channels": prior.prior.channels,
        "dtype": compute.dtype,
        "tile": compute.tile,
        "device": device.type,
        "seed": compute.seed,
        "samples": samples,
        "metrics": list(scorer.names),
        "lpips_net": scorer.lpips_net,
        "problems": [problem(plan) for plan in plans],
    }
    return dict(json.loads(json.dumps(config)))  # lists for tuples, as read back


def as_problem(plan: OperatorPlan, samplings: list[Sampling], device: torch.device) -> Problem:
    """The plan as the evaluation sees it."""
    from dmps_cli.evaluation import Problem

    return Problem(
        task=plan.task,
        sigma_y=plan.sigma_y,
        samplings=samplings,
        crop=lambda size: crop_box(plan.params, size),
        needs_colour=task(plan.task).needs_colour,
        build=lambda shape: plan.build(shape, device),
    )


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process of an evaluation. part: (I, N) of --shard."""

    pictures: Mapping[str, Path]
    part: tuple[int, int]
    fit: Fit
    plan: Plan
    prior: LoadedPrior
    scorer: Scorer
    device: torch.device
    target: FolderFlags
    config: dict[str, Any]
    facts: Mapping[str, Any]
    compare: bool
    batch: Batch

    def run(self) -> None:
        """Does our share of what is not done yet; then the first of the processes reports on all."""
        known = self._known()
        work = self._work({row_key(row) for row in known})
        fresh: list[Row] = []
        interrupted: list[KeyboardInterrupt] = []
        try:
            self._restore(work, fresh)
        except KeyboardInterrupt as exc:  # what is done is worth its table
            if dist.world_size() > 1:  # the others are leaving too
                raise
            interrupted.append(exc)
        rows = unique([*known, *dist.gather_rows(fresh)])
        if self.target.out is not None:  # after gather_rows, which waits for all
            rows = unique([*rows, *read_rows(self.target.out)[0]])
        failures = dist.gather_rows([(name, str(error)) for name, error in self.batch.failures])
        failed = {"failures": [{"input": name, "error": error} for name, error in failures]}
        if not dist.rank() and (rows or not interrupted):
            out = self.target.out
            Results(
                rows=ordered(rows, self.config),
                config=self.config,
                facts={**self.facts, **failed},
                folders=[] if out is None else [out],
                compare=self.compare,
            ).report(self.batch.console, out)
        if interrupted:
            raise interrupted[0]
        dist.barrier()  # or torchrun would end the first while it writes
        if failures and not dist.rank():
            names = [*dict.fromkeys(name for name, _ in failures)]
            self.batch.console.error(failure_list(names, len(share(self.pictures, *self.part))))
            raise typer.Exit(DmpsError.exit_code)

    def _known(self) -> list[Row]:
        """The rows of earlier starts; every process knows the same ones before any writes."""
        if self.target.out is None:
            return []
        if not dist.rank():
            anew = self.target.overwrite and not dist.restarts()
            merged = f"dmps eval --merge {self.target.out} --compare {PAPER}"
            advice = f"; {merged} adds the paper's rows to what is there" if self.compare else ""
            open_run(self.target.out, self.config, self.facts, overwrite=anew, advice=advice)
        dist.barrier()
        rows, notes = read_rows(self.target.out)
        dist.barrier()
        for note in notes:
            self.batch.console.note(note)
        return unique(rows)

    def _work(self, done: set[str]) -> dict[str, list[Problem]]:
        """What is left for this process: of the pictures of our shard that are not done, every world_size-th."""
        left = {name: self.plan.remaining(name, done) for name in share(self.pictures, *self.part)}
        mine = [name for name, problems in left.items() if problems][dist.rank() :: dist.world_size()]
        total = self.plan.num_samples * sum(len(p.samplings) for problems in left.values() for p in problems)
        there = f", {len(done)} are there" if done else ""
        self.batch.console.note(f"{total} restoration{'s' * (total != 1)} to come{there}")
        return {name: left[name] for name in mine}

    def _restore(self, work: Mapping[str, Sequence[Problem]], rows: list[Row]) -> None:
        """Does the work and adds its rows, each on the disk first."""
        from dmps_cli.evaluation import outcomes
        from dmps_cli.images import load_up_to

        channels, console, out = self.prior.prior.channels, self.batch.console, self.target.out
        num_steps = self.plan.num_samples * sum(
            s.nfe for problems in work.values() for p in problems for s in p.samplings
        )
        place = {name: k + 1 for k, name in enumerate(work)}
        log = None if out is None else RowLog(rows_file(out, dist.rank(), self.part))
        if log is not None and not work:
            return
        with log.opened() if log else nullcontext(), console.progress(num_steps) as (advance, say):
            for outcome in outcomes(
                self.pictures,
                work,
                self.plan,
                self.prior.prior,
                self.scorer,
                self.device,
                lambda path: self.fit.apply(load_up_to(path, channels).pixels[None]),
                self.batch.fail,
                advance,
            ):
                if log is not None:
                    self._write(outcome)
                    log.append(outcome.rows)
                if not rows:
                    self._estimate(outcome.rows, num_steps)
                rows += outcome.rows
                row = outcome.rows[0]
                say(f"{row['image']} {row['task']} (image {place[row['image']]} of {len(work)})")

    def _estimate(self, rows: list[Row], num_steps: int) -> None:
        """Says how long the rest will take if every network evaluation takes as long as those of the first rows."""
        rest = num_steps - sum(row["nfe"] for row in rows)
        seconds = rest * rows[0]["seconds"] / rows[0]["nfe"]
        if rest:
            self.batch.console.note(f"about {_duration(seconds)} to go, by the first restoration")

    def _write(self, outcome: Outcome) -> None:
        """The pictures, before the row that says that they are there."""
        from dmps_cli.evaluation import heat_map
        from dmps_cli.images import encode

        if self.target.no_images or self.target.out is None:
            return
        first = outcome.rows[0]
        pictures = {truth_file(first): outcome.truth, measurement_file(first): outcome.measurement}
        pictures |= {restored_file(row): x for row, x in zip(outcome.rows, outcome.restored, strict=True)}
        if len(outcome.rows) > 1:
            pictures[mean_file(first)] = outcome.restored.mean(0)
            pictures[spread_file(first)] = heat_map(outcome.restored)
        for name, x in pictures.items():
            path = inside(self.target.out, name)
            atomic_write(path, encode(x, path), overwrite=True)


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def merge_folders(folders: Sequence[Path], target: FolderFlags, console: Console, *, compare: bool) -> None:
    """Prints the tables of folders of one configuration as one; --out: makes a folder of all, pictures too."""
    if not folders:
        raise UsageError("--merge joins folders; name them: dmps eval --merge runs/*")
    if target.overwrite and target.out is not None and target.out.resolve() in [path.resolve() for path in folders]:
        raise UsageError(f"--overwrite would empty {target.out}, which is to be merged; choose another --out")
    content, rows, notes = read_runs(folders)
    config = content.config
    failures, more = read_failures(folders)
    for note in (*notes, *more):
        console.note(note)
    if target.out is not None:
        check_folder(target.out, overwrite=target.overwrite)
        open_run(target.out, config, content.facts, overwrite=target.overwrite)
        known, _ = read_rows(target.out)
        rows = ordered(unique([*known, *rows]), config)
        there = {row_key(row) for row in known}
        with RowLog(rows_file(target.out, 0, (1, 1))).opened() as log:
            log.append([row for row in rows if row_key(row) not in there])
        if not target.no_images:
            copy_pictures(folders, rows, target.out)
    facts = {**content.facts, "merged": [str(path) for path in folders], "failures": failures}
    places = folders if target.out is None else [target.out, *folders]
    results = Results(rows=rows, config=config, facts=facts, folders=places, compare=compare)
    results.report(console, target.out)
