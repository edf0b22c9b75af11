"""How a training begins: its request, photographs, initial weights or state; what it says."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli import processes
from dmps_cli.errors import InputError, OutputError, UsageError
from dmps_cli.files.atomic import check_name, check_writable
from dmps_cli.files.measurements import sidecar_kind
from dmps_cli.listener import Listener
from dmps_cli.report.drawing import missing
from dmps_cli.training.options import SUFFIX, TrainingRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dmps_cli.training.budgets import Budget
    from dmps_cli.training.photographs import Collection, Photo
    from dmps_cli.training.run import Start, TrainingProgress, TrainingRun
    from dmps_cli.training.state import Files
    from dmps_cli.training.trainer import Trainer


COLOURS = {3: "colour", 1: "grey"}
MOST_REASONS = 5  # why photographs are skipped, in words


def describe_start(start: Start, trainer: Trainer) -> str:
    """Describes the training.

    'base, 5,675,052 values, colour; cpu (2 threads); 120 min at lr up to 0.003, 12 crops of 96 px a step'.
    """
    from dataclasses import replace

    from dmps_cli.device import describe as describe_device
    from dmps_cli.nets.natural import SIZES

    config, recipe = start.config, start.recipe
    named = [name for name, known in SIZES.items() if replace(known, channels=config.channels) == config]
    values = sum(value.numel() for value in trainer.net.state_dict().values())
    shared = f", shared by {processes.world_size()} processes" if processes.world_size() > 1 else ""
    return (
        f"{named[0] if named else f'widths {config.widths}'}, {values:,} values, {COLOURS[config.channels]}; "
        f"{describe_device(trainer.device)}; {recipe.budget} at lr up to {recipe.lr:g}, {recipe.batch} "
        f"crop{'s' * (recipe.batch != 1)} of {recipe.crop} px a step{shared}"
    )


def complete_run(start: Start, trainer: Trainer, files: Files, listener: Listener) -> None:
    """Writes what is missing of a training whose budget is used up."""
    from dmps_cli.training.state import complete

    was_written = processes.together(lambda: not processes.rank() and complete(files, trainer, start.facts))
    listener.note(
        f"{files.prior} has had its {start.recipe.budget} (step {trainer.step}): "
        + ("written anew from its state" if was_written else "nothing to do")
        + f"; more --{start.recipe.budget.option} train it on"
    )


def train_on(
    start: Start, trainer: Trainer, request: TrainingRequest, files: Files, listener: Listener
) -> dict[str, Any]:
    """Trains for the rest of the budget; what the JSON says of it."""
    listener.note(describe_start(start, trainer))
    if changes := start.changes:
        listener.note(f"from here on: {', '.join(changes)}")
    training, held = processes.together(lambda: find_photographs(request, start, files, listener))
    run = processes.together(lambda: prepare(start, trainer, training, held, files, listener))
    num_damaged = run.num_damaged
    with interruptible() as run.stop, listener.gauge(start.recipe.budget.total) as show:
        run.on_progress = reporter(start.recipe.budget, listener, show)
        run.train()
    finish(run, num_damaged, listener)
    since = {"validation_since": int(run.facts["validation_since"])}
    return {"photographs": {**run.facts, **since, **run.counts}, "wait_share": run.wait_share}


def check_outputs(request: TrainingRequest, files: Files) -> None:
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


def find_start(request: TrainingRequest, listener: Listener) -> Start:
    """Returns what the run begins with. Raises UsageError where options contradict it, WeightsError."""
    from dmps_cli.training.run import LR_OF_WEIGHTS, Start, initial_network
    from dmps_cli.training.trainer import Recipe

    if request.is_resumed:
        if request.init is not None:
            listener.note(f"{request.resume} goes on; --init {request.init} was for its first call")
        return resumed(request)
    if request.resume is not None:
        listener.note(f"{request.resume} does not exist yet: this is the first call")
    if request.init is None:
        return Start.new(request.size or "base", request.channels or 3, Recipe(**request.of_recipe))
    found = initial_network(request.init, request.channels)
    recipe = Recipe(**{"licence": found.licence, "lr": LR_OF_WEIGHTS, **request.of_recipe})
    goes_on = f"its terms go on: {recipe.licence}"
    if recipe.licence != found.licence:
        goes_on = f"its terms ({found.licence}) are written beside yours: {recipe.licence}"
    listener.note(f"the weights of '{request.init}' begin it; {goes_on}")
    return Start(recipe=recipe, config=found.config, net=found.net, initial_weights=found.about)


def resumed(request: TrainingRequest) -> Start:
    """Returns a state, with the options given now in place of those of earlier calls."""
    from dataclasses import replace

    from dmps_cli.nets.natural import SIZES
    from dmps_cli.training.run import Start
    from dmps_cli.training.state import Files, read_state

    assert request.resume is not None
    saved = read_state(Files(prior=request.resume))
    if request.channels not in (None, saved.config.channels):
        raise UsageError(f"{request.resume} has {saved.config.channels} channels, not {request.channels}")
    if request.size is not None and replace(SIZES[request.size], channels=saved.config.channels) != saved.config:
        raise UsageError(f"{request.resume} is not of the size {request.size}; leave out --size")
    return Start(recipe=replace(saved.recipe, **request.of_recipe), config=saved.config, saved=saved)


def find_photographs(
    request: TrainingRequest, start: Start, files: Files, listener: Listener
) -> tuple[list[Photo], list[Photo]]:
    """Returns (to train on, to measure on). Raises InputError if there is none."""
    from dmps_cli.training.photographs import held_out, is_usable, without_copies

    photos = photos_in(request.folders, files, listener)
    if not photos:
        raise InputError(f"no photographs in {', '.join(map(str, request.folders))}")
    validate = start.recipe.validate
    if not validate:
        channels, least_side = start.config.channels, start.recipe.crop
        kept, measured = held_out(photos, lambda photo: is_usable(photo, channels, least_side))
    else:
        if not os.path.isdir(validate):  # noqa: PTH112 - False for any odd name
            raise InputError(f"--validate {validate} is not a folder; name one with photographs to measure on")
        measured = photos_in([Path(validate)], files, listener)
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
        listener.note(f"{len(kept) - len(left)} copies of photographs to measure on are left out")
    return left, measured


def photos_in(folders: Sequence[Path], files: Files, listener: Listener) -> list[Photo]:
    """Returns the photographs of the folders, without what dmps made; what is left out is said. Raises InputError."""
    from dmps_cli.training.photographs import find_photos

    unreadable: list[str] = []
    found = find_photos(folders, leave_out=files.all, on_unreadable=unreadable.append)
    for folder in unreadable:
        listener.note(f"the folder {folder} cannot be read; what it holds is left out")
    photos = [photo for photo in found if not is_output(photo.path)]
    if len(photos) < len(found):
        listener.note(f"{len(found) - len(photos)} pictures that dmps made are left out")
    return photos


def is_output(path: Path) -> bool:
    """Returns whether dmps made the picture.

    A restoration or a measurement, by its companion, or the log of a training.
    """
    return path.name.endswith(f"{SUFFIX}.png") or sidecar_kind(path) is not None


def prepare(
    start: Start,
    trainer: Trainer,
    training: Sequence[Photo],
    held: Sequence[Photo],
    files: Files,
    listener: Listener,
) -> TrainingRun:
    """Reads the photographs, says what is used and what is not."""
    from dmps_cli.training.objective import SIGMAS
    from dmps_cli.training.photographs import list_sha256
    from dmps_cli.training.run import TrainingRun
    from dmps_cli.training.trainer import validation_pictures

    with listener.progress(len(training), "photographs read") as (advance, _):
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
        listener.note("the photographs are not those of the earlier calls")
    if not is_same:
        listener.note(
            "the photographs to measure on are not those of the earlier calls, which may have trained on them: no PSNR "
            "compares with theirs"
        )
    reasons, small = [*collection.damaged.values(), *held_damaged], collection.small + held_small
    listener.note(
        f"{collection.num_usable} photographs to train on, {len(pictures)} to measure on"
        + (f"; {small} smaller than the crop of {start.recipe.crop} px skipped" if small else "")
        + (f"; {len(reasons)} damaged skipped" if reasons else "")
        + (f"; PSNR at sigma {', '.join(map(str, SIGMAS))} of 255" if pictures else "")
    )
    for reason in reasons[:MOST_REASONS]:
        listener.note(f"skipped: {reason}")
    if not pictures:
        listener.note("no photograph is left to measure on: no PSNR; give --validate or more photographs")
    if trainer.step:
        listener.note(f"going on from step {trainer.step}, {trainer.seconds / 60:.1f} minutes used")
    return TrainingRun(
        trainer=trainer,
        collection=collection,
        pictures=pictures,
        files=files,
        facts=facts,
        held_small=held_small,
        held_damaged=held_damaged,
        note=listener.note,
    )


def read_collection(photos: Sequence[Photo], start: Start, advance: Callable[[], None]) -> Collection:
    """Returns the photographs to train on. Raises InputError if none is usable."""
    from dmps_cli.training.photographs import Collection

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


def reporter(
    budget: Budget, listener: Listener, show: Callable[[float, str], None]
) -> Callable[[TrainingProgress], None]:
    """Moves the bar after each step; leaves a line for each checkpoint."""

    def report(progress: TrainingProgress) -> None:
        at = progress.step, progress.seconds
        left = clock_text(budget.seconds_left(*at, progress.steps_per_second))
        show(budget.spent(*at), f"{describe(progress, ' steps/s')}, {left} left")
        if progress.is_checkpoint:
            listener.note(f"{describe(progress, '/s')}, {budget.so_far(*at)}")

    return report


def describe(progress: TrainingProgress, unit: str) -> str:
    """Returns 'step 812, 1.90 steps/s, loss 0.3120, PSNR 33.10 30.11 26.71'.

    A terminal of 80 columns has room for more.
    """
    psnr = " ".join(f"{value:.2f}" for value in progress.psnr.values())
    measured = f", PSNR {psnr}" if psnr else ""
    return f"step {progress.step}, {progress.steps_per_second:.2f}{unit}, loss {progress.loss:.4f}{measured}"


def clock_text(seconds: float) -> str:
    """Returns '1:02:03'."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def finish(run: TrainingRun, num_damaged: int, listener: Listener) -> None:
    """Says what is worth knowing at the end. num_damaged: photographs that were said to be skipped at the beginning."""
    if late := run.num_damaged - num_damaged:
        listener.note(f"{late} more damaged photographs were met and skipped")
    if run.trainer.bad_steps:
        listener.note(f"{run.trainer.bad_steps} steps were skipped: their gradient was not finite")
    waiting = f"waiting for photographs took {run.wait_share:.1%} of the time"
    if sentence := missing():
        listener.note(f"{waiting}; the log: {run.files.log}")
        listener.note(sentence)
    else:
        listener.note(f"{waiting}; the log: {run.files.log}, {run.files.picture}")
