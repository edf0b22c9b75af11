"""`dmps train`: a prior from the user's own photographs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmps_cli import __version__, dist
from dmps_cli.cli.console import Console
from dmps_cli.cli.options import Device, Quiet, check_device, check_seed, checked
from dmps_cli.errors import InputError, OutputError, UsageError, memory_errors
from dmps_cli.files import check_name, check_writable, is_unicode
from dmps_cli.measurements import sidecar_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dmps_cli.budgets import Budget
    from dmps_cli.crops import Collection, Photo
    from dmps_cli.trainer import Trainer
    from dmps_cli.training import Progress, Run, Start
    from dmps_cli.training_files import Files

SIZE_NAMES = ("small", "base")
COLOURS = {3: "colour", 1: "grey"}
SUFFIX = ".safetensors"
CROP_MULTIPLE, LEAST_CROP, MOST_CROP = 16, 32, 1024
MOST_MINUTES, MOST_STEPS, MOST_BATCH = 1e6, 10**9, 4096
MOST_REASONS = 5  # why photographs are skipped, in words


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line, what is left open None."""

    folders: tuple[Path, ...]
    output: Path
    resume: Path | None
    init: str | None
    channels: int | None
    size: str | None
    recipe: dict[str, Any]
    overwrite: bool
    may_begin: bool

    @property
    def is_resumed(self) -> bool:
        """Whether it goes on, rather than begins."""
        return self.resume is not None and not (self.may_begin and not _exists(self.resume))

    @property
    def of_recipe(self) -> dict[str, Any]:
        """What is given of a recipe; of minutes and steps the one takes the place of the other."""
        other = {"minutes": "steps", "steps": "minutes"}
        return {other[name]: None for name in other if name in self.recipe} | self.recipe


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
            help="Network: base is that of the bundled prior, small costs a quarter of it. Default: base.",
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
    resume = _without_state(resume)
    target = checked_output(output or resume, "-o" if output else "--resume")
    request = Request(
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
    from dmps_cli.training_files import Files, sole_writer

    tune_allocator()
    place = dist.own_device(resolve_device(device))
    files = Files(prior=request.output)

    def occupy() -> None:
        if not dist.rank():
            check_outputs(request, files)
            console.check_path(files.prior)
            held.enter_context(sole_writer(files))

    with dist.group(), memory_errors("take a smaller --batch or --crop"), ExitStack() as held:
        dist.together(occupy)
        start = dist.together(lambda: find_start(request, console))
        trainer = dist.together(lambda: start.trainer(place))
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


def describe_start(start: Start, trainer: Trainer) -> str:
    """'base, 5,675,052 values, colour; cpu (2 threads); 120 min at lr up to 0.003, 12 crops of 96 px a step'."""
    from dataclasses import replace

    from dmps_cli.device import describe as describe_device
    from dmps_cli.training import SIZES

    config, recipe = start.config, start.recipe
    named = [name for name, known in SIZES.items() if replace(known, channels=config.channels) == config]
    values = sum(value.numel() for value in trainer.net.state_dict().values())
    shared = f", shared by {dist.world_size()} processes" if dist.world_size() > 1 else ""
    return (
        f"{named[0] if named else f'widths {config.widths}'}, {values:,} values, {COLOURS[config.channels]}; "
        f"{describe_device(trainer.device)}; {recipe.budget} at lr up to {recipe.lr:g}, {recipe.batch} "
        f"crop{'s' * (recipe.batch != 1)} of {recipe.crop} px a step{shared}"
    )


def complete_run(start: Start, trainer: Trainer, files: Files, console: Console) -> None:
    """Of a training whose budget is used up: writes what is missing."""
    from dmps_cli.training_files import complete

    was_written = dist.together(lambda: not dist.rank() and complete(files, trainer, start.facts))
    console.note(
        f"{files.prior} has had its {start.recipe.budget} (step {trainer.step}): "
        + ("written anew from its state" if was_written else "nothing to do")
        + f"; more --{start.recipe.budget.option} train it on"
    )


def train_on(start: Start, trainer: Trainer, request: Request, files: Files, console: Console) -> dict[str, Any]:
    """Trains for the rest of the budget; what the JSON says of it."""
    console.note(describe_start(start, trainer))
    if changes := start.changes:
        console.note(f"from here on: {', '.join(changes)}")
    training, held = dist.together(lambda: find_photographs(request, start, files, console))
    run = dist.together(lambda: prepare(start, trainer, training, held, files, console))
    num_damaged = run.num_damaged
    with interruptible() as run.stop, console.gauge(start.recipe.budget.total) as show:
        run.on_progress = reporter(start.recipe.budget, console, show)
        run.train()
    finish(run, num_damaged, console)
    since = {"validation_since": int(run.facts["validation_since"])}
    return {"photographs": {**run.facts, **since, **run.counts}, "wait_share": run.wait_share}


def checked_output(path: Path | None, option: str) -> Path:
    """The file to write, which that option names. Raises UsageError if none does, or one that no prior can have."""
    if path is None:
        raise UsageError("name the file to write: -o my_prior.safetensors")
    if path.suffix != SUFFIX:
        raise UsageError(f"{option} {path}: a prior's file ends in {SUFFIX}")
    return path


def _without_state(path: Path | None) -> Path | None:
    """OUT, also if it is named by its state."""
    return path.with_suffix("") if path is not None and path.suffix == ".state" else path


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute() keeps `..`


def _exists(prior: Path) -> bool:
    return any(os.path.lexists(f"{prior}{suffix}") for suffix in ("", ".state"))


def check(request: Request) -> None:
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


def check_outputs(request: Request, files: Files) -> None:
    """Raises OutputError before anything is read if a file stands in the way or cannot be made."""
    for path in files.all:
        check_name(path)
        if path.is_dir():
            raise OutputError(f"{path} is a folder; name a file")
    check_writable(files.prior.parent)
    may_replace = request.overwrite or (request.is_resumed and request.resume == request.output)
    if files.lock.exists() and files.lock.stat().st_size:
        raise OutputError(f"{files.lock} is not the lock of a training, which is empty; name another -o")
    standing = [path for path in files.all if os.path.lexists(path)]
    if standing and not may_replace:
        ways = [f"--resume {files.prior} goes on with it"] * (files.state.exists() and not request.is_resumed)
        ways += ["name another -o"] if request.is_resumed else ["--overwrite begins anew over it"]
        raise OutputError(f"{standing[0]} exists; {', '.join(ways)}")


def find_start(request: Request, console: Console) -> Start:
    """What the run begins with. Raises UsageError where options contradict it, WeightsError."""
    from dmps_cli.trainer import Recipe
    from dmps_cli.training import LR_OF_WEIGHTS, Start, initial_network

    if request.is_resumed:
        if request.init is not None:
            console.note(f"{request.resume} goes on; --init {request.init} was for its first call")
        return resumed(request)
    if request.resume is not None:
        console.note(f"{request.resume} does not exist yet: this is the first call")
    if request.init is None:
        return Start.new(request.size or "base", request.channels or 3, Recipe(**request.of_recipe))
    found = initial_network(request.init, request.channels)
    recipe = Recipe(**{"licence": found.licence, "lr": LR_OF_WEIGHTS, **request.of_recipe})
    goes_on = f"its terms go on: {recipe.licence}"
    if recipe.licence != found.licence:
        goes_on = f"its terms ({found.licence}) are written beside yours: {recipe.licence}"
    console.note(f"the weights of '{request.init}' begin it; {goes_on}")
    return Start(recipe=recipe, config=found.config, net=found.net, initial_weights=found.about)


def resumed(request: Request) -> Start:
    """A state, with the options given now in place of those of earlier calls."""
    from dataclasses import replace

    from dmps_cli.training import SIZES, Start
    from dmps_cli.training_files import Files, read_state

    assert request.resume is not None
    saved = read_state(Files(prior=request.resume))
    if request.channels not in (None, saved.config.channels):
        raise UsageError(f"{request.resume} has {saved.config.channels} channels, not {request.channels}")
    if request.size is not None and SIZES[request.size].widths != saved.config.widths:
        raise UsageError(f"{request.resume} is not of the size {request.size}; leave out --size")
    return Start(recipe=replace(saved.recipe, **request.of_recipe), config=saved.config, saved=saved)


def find_photographs(request: Request, start: Start, files: Files, console: Console) -> tuple[list[Photo], list[Photo]]:
    """(to train on, to measure on). Raises InputError if there is none."""
    from dmps_cli.crops import held_out, is_usable, without_copies

    photos = photos_in(request.folders, files, console)
    if not photos:
        raise InputError(f"no photographs in {', '.join(map(str, request.folders))}")
    validate = start.recipe.validate
    if not validate:
        channels, least_side = start.config.channels, start.recipe.crop
        kept, measured = held_out(photos, lambda photo: is_usable(photo, channels, least_side))
    else:
        if not os.path.isdir(validate):  # noqa: PTH112 - False for any odd name
            raise InputError(f"--validate {validate} is not a folder; name one with photographs to measure on")
        measured = photos_in([Path(validate)], files, console)
        if not measured:
            raise InputError(f"--validate {validate} holds no photographs")
        apart = {os.path.realpath(photo.path) for photo in measured}
        kept = [photo for photo in photos if os.path.realpath(photo.path) not in apart]
    left = without_copies(kept, measured)
    if not left and validate:
        raise InputError(f"all photographs are in --validate {validate}; none is left to train on")
    if not left:  # one photograph, several times
        return kept, []
    if len(left) < len(kept):
        console.note(f"{len(kept) - len(left)} copies of photographs to measure on are left out")
    return left, measured


def photos_in(folders: Sequence[Path], files: Files, console: Console) -> list[Photo]:
    """The photographs of the folders, without what dmps made; what is left out is said. Raises InputError."""
    from dmps_cli.crops import find_photos

    unreadable: list[str] = []
    found = find_photos(folders, leave_out=files.all, on_unreadable=unreadable.append)
    for folder in unreadable:
        console.note(f"the folder {folder} cannot be read; what it holds is left out")
    photos = [photo for photo in found if not is_output(photo.path)]
    if len(photos) < len(found):
        console.note(f"{len(found) - len(photos)} pictures that dmps made are left out")
    return photos


def is_output(path: Path) -> bool:
    """Whether dmps made the picture: a restoration or a measurement, by its companion, or the log of a training."""
    return path.name.endswith(f"{SUFFIX}.png") or sidecar_kind(path) is not None


def prepare(
    start: Start,
    trainer: Trainer,
    training: Sequence[Photo],
    held: Sequence[Photo],
    files: Files,
    console: Console,
) -> Run:
    """Reads the photographs, says what is used and what is not."""
    from dmps_cli.crops import list_sha256
    from dmps_cli.trainer import SIGMAS, validation_pictures
    from dmps_cli.training import Run

    with console.progress(len(training), "photographs read") as (advance, _):
        collection = read_collection(training, start, advance)
    pictures, used, held_small, held_damaged = validation_pictures(held, start.config.channels, start.recipe.crop)
    if start.recipe.validate and not pictures:
        raise InputError(
            f"--validate {start.recipe.validate} has no photograph that can be read, of {start.recipe.crop} px or more"
        )
    facts = {
        "photographs_sha256": list_sha256(collection.photos),
        "validation": f"{len(pictures)} photographs, the middle of each",
        "validation_sha256": list_sha256(used),
    }
    before = start.facts
    is_same = not before or before["validation_sha256"] == facts["validation_sha256"]
    facts["validation_since"] = before.get("validation_since", "0") if is_same else str(trainer.step)
    if about := start.initial_weights or before.get("initial_weights"):
        facts["initial_weights"] = about
    if before and before["photographs_sha256"] != facts["photographs_sha256"]:
        console.note("the photographs are not those of the earlier calls")
    if not is_same:
        console.note(
            "the photographs to measure on are not those of the earlier calls, which may have trained on them: no PSNR "
            "compares with theirs"
        )
    reasons, small = [*collection.damaged.values(), *held_damaged], collection.small + held_small
    console.note(
        f"{collection.num_usable} photographs to train on, {len(pictures)} to measure on"
        + (f"; {small} smaller than the crop of {start.recipe.crop} px skipped" if small else "")
        + (f"; {len(reasons)} damaged skipped" if reasons else "")
        + (f"; PSNR at sigma {', '.join(map(str, SIGMAS))} of 255" if pictures else "")
    )
    for reason in reasons[:MOST_REASONS]:
        console.note(f"skipped: {reason}")
    if not pictures:
        console.note("no photograph is left to measure on: no PSNR; give --validate or more photographs")
    if trainer.step:
        console.note(f"going on from step {trainer.step}, {trainer.seconds / 60:.1f} minutes used")
    return Run(
        trainer=trainer,
        collection=collection,
        pictures=pictures,
        files=files,
        facts=facts,
        held_small=held_small,
        held_damaged=held_damaged,
        note=console.note,
    )


def read_collection(photos: Sequence[Photo], start: Start, advance: Callable[[], None]) -> Collection:
    """The photographs to train on. Raises InputError if none is usable."""
    from dmps_cli.crops import Collection

    return Collection(
        photos,
        channels=start.config.channels,
        least_side=start.recipe.crop,
        seed=start.recipe.seed,
        on_photo=advance,
    )


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C was pressed, or the process asked to end, meanwhile; pressed again it interrupts at once.

    So that no step is cut in two.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        del frame
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def reporter(budget: Budget, console: Console, show: Callable[[float, str], None]) -> Callable[[Progress], None]:
    """Moves the bar after each step; leaves a line for each checkpoint."""

    def report(progress: Progress) -> None:
        at = progress.step, progress.seconds
        left = clock_text(budget.seconds_left(*at, progress.steps_per_second))
        show(budget.spent(*at), f"{describe(progress, ' steps/s')}, {left} left")
        if progress.is_checkpoint:
            console.note(f"{describe(progress, '/s')}, {budget.so_far(*at)}")

    return report


def describe(progress: Progress, unit: str) -> str:
    """'step 812, 1.90 steps/s, loss 0.3120, PSNR 33.10 30.11 26.71': a terminal of 80 columns has room for more."""
    psnr = " ".join(f"{value:.2f}" for value in progress.psnr.values())
    measured = f", PSNR {psnr}" if psnr else ""
    return f"step {progress.step}, {progress.steps_per_second:.2f}{unit}, loss {progress.loss:.4f}{measured}"


def clock_text(seconds: float) -> str:
    """'1:02:03'."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def finish(run: Run, num_damaged: int, console: Console) -> None:
    """What is worth knowing at the end. num_damaged: photographs that were said to be skipped at the beginning."""
    if late := run.num_damaged - num_damaged:
        console.note(f"{late} more damaged photographs were met and skipped")
    if run.trainer.bad_steps:
        console.note(f"{run.trainer.bad_steps} steps were skipped: their gradient was not finite")
    console.note(
        f"waiting for photographs took {run.wait_share:.1%} of the time; the log: {run.files.log}, {run.files.picture}"
    )
