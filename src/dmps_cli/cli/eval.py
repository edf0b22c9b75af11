"""`dmps eval`: photographs, degraded, restored and measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmps_cli import __version__
from dmps_cli.cli.batch import Batch, failure_list
from dmps_cli.cli.console import Console
from dmps_cli.cli.degrade import make_plan
from dmps_cli.cli.options import (
    ComputeFlags,
    LpipsNet,
    Methods,
    Quiet,
    Samplers,
    SamplingFlags,
    Sigma,
    checked,
    checked_sigma,
    command_options,
    split,
)
from dmps_cli.errors import DmpsError, InputError, OutputError, UsageError
from dmps_cli.files import atomic_write, check_writable, expand_inputs
from dmps_cli.measurements import sidecar_kind
from dmps_cli.methods import KNOBS
from dmps_cli.metrics import LPIPS_NETS
from dmps_cli.tasks import OperatorOptions, crop_box, task

if TYPE_CHECKING:
    import torch

    from dmps_cli.cli.operators import OperatorPlan
    from dmps_cli.evaluation import Problem, Row
    from dmps_cli.methods import Sampling
    from dmps_cli.metrics import Protocol

SAMPLES = "samples"
GROUP = ("task", "method", "sampler", "spacing", "nfe")  # and the knobs
FILES = ("rows.csv", "means.csv", "results.json")


@command_options
def evaluate(
    sampling: SamplingFlags,
    operator: OperatorOptions,
    compute: ComputeFlags,
    dataset: Annotated[str, typer.Option(metavar="FOLDER|samples", help="Photographs; samples: the bundled ones.")],
    tasks: Annotated[str, typer.Option(metavar="A,B", help="Tasks, see `dmps tasks`.")] = "sr4",
    methods: Methods = None,
    samplers: Samplers = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Only the first N photographs by name.")] = None,
    sigma: Sigma = None,
    lpips_net: LpipsNet = "alex",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help=f"Write {', '.join(FILES)} there.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Degrade and restore photographs; print mean PSNR, SSIM, LPIPS and seconds per image.

    Every method and sampler sees the same measurements and noise. An operator option goes to the tasks that take it, an
    option of a method to the methods that do.

    Example: dmps eval --dataset samples --tasks sr4,deblur --methods dmps,ddrm --limit 1 --nfe 20
    """
    console = Console(quiet=quiet, as_json=as_json)
    entry = compute.check()
    checked_sigma(sigma)
    checked("network of LPIPS", lpips_net, LPIPS_NETS)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}; it must be at least 1")
    samplings = {name: sampling.compared(entry, methods, samplers, name) for name in split(tasks)}
    plans = [make_plan(name, shared_options(name, tasks, operator), sigma, compute.seed) for name in split(tasks)]
    if not plans:
        raise UsageError("--tasks names no task")
    pictures = list_pictures(dataset, limit)
    check_results(out, overwrite)

    device = compute.start()
    from dmps_cli.evaluation import evaluate as evaluate_rows
    from dmps_cli.images import load_channels
    from dmps_cli.metrics import Scorer

    prior = compute.load(device, console)
    scorer = Scorer(lpips_net=lpips_net)
    console.missing_metrics(scorer.missing)
    for plan in plans:
        for choice in samplings[plan.task]:
            console.note(f"{plan.describe()}; {choice}{f'; {choice.caution}' if choice.caution else ''}")
    rows: list[Row] = []
    batch = Batch(console=console)
    num_steps = len(pictures) * sum(choice.nfe for choices in samplings.values() for choice in choices)
    place = {name: k + 1 for k, name in enumerate(pictures)}
    interrupted: list[KeyboardInterrupt] = []
    try:
        with console.progress(num_steps) as (advance, say):
            for row in evaluate_rows(
                pictures,
                [as_problem(plan, samplings[plan.task], device) for plan in plans],
                prior.prior,
                scorer,
                seed=compute.seed,
                device=device,
                load=lambda path: load_channels(path, prior.prior.channels).pixels[None],
                on_failure=batch.fail,
                on_step=advance,
            ):
                rows.append(row)
                say(f"{row['image']} {row['task']} (image {place[row['image']]} of {len(pictures)})")
    except KeyboardInterrupt as exc:  # what is done is worth its table
        interrupted.append(exc)
    images = dict.fromkeys(row["image"] for row in rows)
    protocol = scorer.protocol((plan.sigma_y for plan in plans), images, prior.prior.channels)
    facts = {
        "version": __version__,
        "command": "eval",
        "dataset": dataset,
        **compute.facts(),
        "model_sha256": prior.sha256,
        "operators": {plan.task: dict(plan.params) for plan in plans},
        "protocol": protocol.as_dict(),
        "failures": [{"input": name, "error": str(error)} for name, error in batch.failures],
    }
    if rows or not interrupted:
        report(rows, facts, protocol, console, out, overwrite)
    if interrupted:
        raise interrupted[0]
    if batch.failures:
        console.error(failure_list([name for name, _ in batch.failures], len(pictures)))
        raise typer.Exit(DmpsError.exit_code)


def shared_options(name: str, tasks: str, options: OperatorOptions) -> OperatorOptions:
    """Those of the options that the task takes. Raises UsageError for one that none of the tasks takes."""
    takers = {option: [other for other in split(tasks) if option in task(other).params] for option in options.given()}
    orphans = [option for option, names in takers.items() if not names]
    if orphans:
        raise UsageError(f"none of the tasks {tasks} takes --{orphans[0].replace('_', '-')}")
    return OperatorOptions(**{option: value for option, value in options.given().items() if name in takers[option]})


def list_pictures(dataset: str, limit: int | None) -> dict[str, Path]:
    """Name in the data set -> file, by name. Raises InputError if there is none."""
    if dataset == SAMPLES:
        from dmps_cli.images import photo_paths

        found = {path.name: path for path in photo_paths()}
    else:
        root = Path(dataset)
        if not root.is_dir():
            raise InputError(f"the data set {dataset} is not a folder; name one, or {SAMPLES}")
        paths, failures = expand_inputs([dataset], lambda path: sidecar_kind(path) is None)
        if failures:
            raise failures[0][1]
        found = {path.relative_to(root).as_posix(): path for path in paths}
    return dict(sorted(found.items())[:limit])


def check_results(out: Path | None, overwrite: bool) -> None:
    """Raises OutputError before anything is computed if a result file exists already."""
    existing = [out / name for name in FILES if (out / name).exists()] if out else []
    if existing and not overwrite:
        raise OutputError(f"{existing[0]} exists; --overwrite replaces it")
    if out is not None:
        check_writable(out)


def as_problem(plan: OperatorPlan, samplings: list[Sampling], device: torch.device) -> Problem:
    """The plan as the evaluation sees it."""
    from dmps_cli.evaluation import Problem

    return Problem(
        task=plan.task,
        sigma_y=plan.sigma_y,
        samplings=samplings,
        crop=lambda size: crop_box(plan.params, size),
        build=lambda shape: plan.build(shape, device),
    )


def report(
    rows: list[Row], facts: dict[str, Any], protocol: Protocol, console: Console, out: Path | None, overwrite: bool
) -> None:
    """Prints the means; writes rows and means where --out says."""
    from dmps_cli.report import column_names, csv_text, json_text, means

    knobs = [knob.label for knob in KNOBS.values() if knob.label in column_names(rows)]
    averaged = means(rows, (*GROUP, *knobs), (*protocol.metrics, "seconds"))
    content = {**facts, "means": averaged, "rows": rows}
    if out is not None and rows:
        texts = (csv_text(rows), csv_text(averaged), json_text(content) + "\n")
        for name, text in zip(FILES, texts, strict=True):
            atomic_write(out / name, text.encode(errors="surrogateescape"), overwrite=overwrite)
            console.note(f"wrote {out / name}")
    console.object(content)
    if rows and not console.as_json:
        console.table(averaged)
        console.result(protocol.line())
