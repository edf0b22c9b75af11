"""`dmps train`: a prior from the user's own photographs."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from dmps_cli import __version__, processes
from dmps_cli.checks import checked
from dmps_cli.cli.console import Console
from dmps_cli.cli.options import Device, Quiet
from dmps_cli.errors import UsageError, memory_errors
from dmps_cli.files.atomic import is_unicode
from dmps_cli.training.start import SUFFIX, TrainingRequest, check_outputs, complete_run, find_start, train_on
from dmps_cli.weights.options import check_device, check_seed

SIZE_NAMES = ("small", "base", "large")

CROP_MULTIPLE, LEAST_CROP, MOST_CROP = 16, 32, 1024
MOST_MINUTES, MOST_STEPS, MOST_BATCH = 1e6, 10**9, 4096


def train(  # the options are the command
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folders of photographs, with all subfolders.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="The prior's file, .safetensors; beside it OUT.state (to go on from), OUT.csv (the log), OUT.png "
            "(the log drawn). Default: that of --resume.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="MIN", help="Time to train for in minutes, counted over all calls. Default: 120."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Steps to train for instead, counted over all calls: the same command then gives the same weights.",
        ),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(metavar="3|1", help="3 for colour, 1 for grey pictures. Default: 3.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(SIZE_NAMES),
            help="Network: base is that of the bundled prior, small costs a quarter of it, large twice as much. "
            "Default: base.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Go on from OUT.state; where -o names the same OUT and neither file is there yet, begin. Another -o "
            "gets a copy that goes on.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Begin with the weights of a prior, natural or one of yours; without --size, for they have theirs.",
        ),
    ] = None,
    validate: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Photographs to measure on; they and copies of them are not trained on. Later calls keep it. "
            "Default: a tenth of those given, by the hash of their names.",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Crops of a step; every fourth has a third as many, twice as wide. Default: 12."
        ),
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Side of the crops, px, a multiple of 16 from 32 to 1024. Default: 96."),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Highest learning rate; it falls along a cosine to 0. Default: 0.003, with --init 0.001."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of weights, crops and noise, >= 0. Default: 0.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Terms of the weights, written into the file. Default: 'not stated', with --init those of the prior.",
        ),
    ] = None,
    full: Annotated[
        bool | None,
        typer.Option("--full/--half", help="Write all weights in float32, or most in float16. Default: --half."),
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew over an existing OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the path.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a prior on your own photographs, for --model of restore, eval and time.

    It is a denoiser for every noise level, of the architecture of the bundled prior. OUT is usable from the first
    checkpoint on; interrupted or killed, the same command with --resume OUT goes on where it was. `torchrun
    --nproc-per-node 8 -m dmps_cli train ...` shares each step among processes.

    Example: dmps train photos/ -o my_prior.safetensors --minutes 120
    """
    given: dict[str, Any] = {"minutes": minutes, "steps": steps, "batch": batch, "crop": crop, "lr": lr, "seed": seed}
    given |= {"licence": licence, "full": full, "validate": None if validate is None else _absolute(validate)}
    if resume is not None and resume.suffix == ".state":  # OUT, named by its state
        resume = resume.with_suffix("")
    target = checked_output(output or resume, "-o" if output else "--resume")
    request = TrainingRequest(
        folders=tuple(folders),
        output=target,
        resume=target if resume is not None and _absolute(resume) == _absolute(target) else resume,
        init=init,
        channels=channels,
        size=size,
        recipe={name: value for name, value in given.items() if value is not None},
        overwrite=overwrite,
        may_begin=output is not None and resume is not None and _absolute(resume) == _absolute(output),
    )
    check(request)
    check_device(device)
    console = Console(quiet=quiet, as_json=as_json)

    from dmps_cli.device import resolve_device, tune_allocator
    from dmps_cli.training.state import Files, sole_writer

    tune_allocator()
    place = processes.own_device(resolve_device(device))
    files = Files(prior=request.output)

    def occupy() -> None:
        if not processes.rank():
            check_outputs(request, files)
            console.check_path(files.prior)
            held.enter_context(sole_writer(files))

    with processes.group(), memory_errors("take a smaller --batch or --crop"), ExitStack() as held:
        processes.together(occupy)
        start = processes.together(lambda: find_start(request, console))
        trainer = processes.together(lambda: start.trainer(place))
        facts: dict[str, Any] = {"version": __version__, "command": "train", "device": str(place)}
        if trainer.share >= 1.0:
            complete_run(start, trainer, files, console)
        else:
            facts |= train_on(start, trainer, request, files, console)
    last = {} if not trainer.rows else {name: value for name, value in trainer.rows[-1].items() if name != "step"}
    console.object(
        {
            **last,
            **facts,
            "output": str(files.prior),
            "steps": trainer.step,
            "skipped_steps": trainer.bad_steps,
            "seconds": trainer.seconds,
        }
    )
    console.path(files.prior)


def checked_output(path: Path | None, option: str) -> Path:
    """Returns the file to write, which that option names.

    Raises UsageError if none does, or one that no prior can have.
    """
    if path is None:
        raise UsageError("name the file to write: -o my_prior.safetensors")
    if path.suffix != SUFFIX:
        raise UsageError(f"{option} {path}: a prior's file ends in {SUFFIX}")
    return path


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute() keeps `..`


def check(request: TrainingRequest) -> None:
    """Raises UsageError for what can be refused without torch."""
    if {"minutes", "steps"} <= request.recipe.keys():
        raise UsageError("--minutes and --steps exclude each other: a training ends by the clock, or by its steps")
    if request.is_resumed and request.overwrite:
        raise UsageError("--resume and --overwrite exclude each other: one goes on, the other begins anew")
    terms = request.recipe.get("licence", "terms")
    if not (terms.strip() and is_unicode(terms)):
        raise UsageError("--licence is empty, or no text in UTF-8; leave it out, or say what the terms are")
    if not is_unicode(_absolute(request.output)):
        raise UsageError(f"{request.output}: the files of priors are opened by names in UTF-8 only; choose another")
    if request.channels not in (None, 1, 3):
        raise UsageError(f"--channels is {request.channels}; choose 3 (colour) or 1 (grey)")
    if request.size is not None:
        checked("size", request.size, SIZE_NAMES)
        if request.init is not None:
            raise UsageError("--size and --init exclude each other: the weights have their sizes")
    limits: dict[str, tuple[Callable[[Any], bool], str]] = {
        "minutes": (lambda v: 0.0 < v <= MOST_MINUTES, f"above 0 and at most {MOST_MINUTES:g}"),
        "steps": (lambda v: 1 <= v <= MOST_STEPS, f"from 1 to {MOST_STEPS}"),
        "batch": (lambda v: 1 <= v <= MOST_BATCH, f"from 1 to {MOST_BATCH}"),
        "crop": (
            lambda v: LEAST_CROP <= v <= MOST_CROP and v % CROP_MULTIPLE == 0,
            f"a multiple of {CROP_MULTIPLE} px from {LEAST_CROP} to {MOST_CROP}",
        ),
        "lr": (lambda v: 0.0 < v < 1.0, "above 0 and below 1"),
    }
    for name, (is_right, what) in limits.items():
        value = request.recipe.get(name)
        if value is not None and not is_right(value):
            raise UsageError(f"--{name} is {value}; it must be {what}")
    if "seed" in request.recipe:
        check_seed(request.recipe["seed"])
