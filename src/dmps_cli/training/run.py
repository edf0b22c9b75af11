"""Runs of the training: what they begin with, and the loop over the steps.

What a step sees depends on (seed, step) alone, so a run that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Self

import torch
from torch import Tensor

from dmps_cli import processes
from dmps_cli.ahead import Ahead
from dmps_cli.errors import DmpsError, NumericsError, OutputError, UsageError, WeightsError
from dmps_cli.files.atomic import remove_left_overs, sha256_file
from dmps_cli.nets.beginnings import initialised
from dmps_cli.nets.natural import ARCHITECTURE, SIGMA_DATA, SIZES, NaturalConfig, NaturalNet
from dmps_cli.nets.natural_state import sigmas_of
from dmps_cli.training.budgets import Budget, Minutes, Steps
from dmps_cli.training.photographs import Collection, draw_batch
from dmps_cli.training.state import Files, Saved, check_room, write_log, write_picture, write_prior, write_state
from dmps_cli.training.trainer import PSNR_NAMES, LogRow, Recipe, Trainer
from dmps_cli.weights.building import read_weights
from dmps_cli.weights.cards import card, metadata_of

LR_OF_WEIGHTS = 1e-3
"""Highest learning rate where given weights begin: that of new ones would undo part of what they know."""

MOST_BAD_STEPS = 50  # in a row
LARGEST_LOSS = 20.0
"""Of a row of the log. A network that knows nothing has 1, at most 4 on pictures of black and white alone."""

SAVE_SECONDS, LEAST_SAVES, ROWS_PER_SAVE, SAVE_SHARE = 180.0, 6, 6, 0.08
"""Seconds between checkpoints; so many in a short run; log rows between two; share of the time they may take."""


class Pace:
    """When a checkpoint is due, and a row of the log: ROWS_PER_SAVE of them as often.

    SAVE_SECONDS after the last one, or LEAST_SAVES to the budget where that is sooner; but not before the last one took
    at most SAVE_SHARE of the time since.
    """

    def __init__(self, budget: Budget, step: int, seconds: float) -> None:
        self.budget, self.save_seconds = budget, 0.0
        self.saved = self.rowed = (step, seconds)

    def _is_due(self, since: tuple[int, float], step: int, seconds: float, per_save: int) -> bool:
        spent = self.budget.spent(step, seconds) - self.budget.spent(*since)
        elapsed = seconds - since[1]
        is_late = elapsed >= SAVE_SECONDS / per_save or spent >= self.budget.total / (LEAST_SAVES * per_save)
        return is_late and elapsed >= self.save_seconds / SAVE_SHARE / per_save

    def is_save_due(self, step: int, seconds: float) -> bool:
        """Returns whether a checkpoint is."""
        return self._is_due(self.saved, step, seconds, 1)

    def is_row_due(self, step: int, seconds: float) -> bool:
        """Returns whether a row of the log is."""
        return self._is_due(self.rowed, step, seconds, ROWS_PER_SAVE)

    def row(self, step: int, seconds: float) -> None:
        """Takes note of a row."""
        self.rowed = step, seconds

    def save(self, step: int, begun: float, seconds: float) -> None:
        """Takes note of a checkpoint, and of the seconds at which it was begun and done."""
        self.saved = self.rowed = step, seconds
        self.save_seconds = seconds - begun


Clock = Callable[[int], float]
"""Seconds by a clock of any zero, asked before and after each step, with the number of steps done."""


def wall_clock(step: int) -> float:
    """Returns the machine's monotonic clock."""
    return time.monotonic()


# --- Beginnings
@dataclass(frozen=True, kw_only=True)
class Initial:
    """A network with the weights of a prior. about: which they are, and the prior's terms."""

    net: NaturalNet
    config: NaturalConfig
    licence: str
    about: str


def initial_network(name: str, channels: int | None) -> Initial:
    """Reads the weights to begin with. name: a checkpoint's name or path.

    Raises WeightsError for another architecture and for values that are not finite, UsageError for another number of
    channels.
    """
    entry = card(name)
    if entry.architecture not in (ARCHITECTURE, ""):
        raise WeightsError(f"'{name}' is of the architecture {entry.architecture}; only {ARCHITECTURE} can be trained")
    if not entry.location.exists():
        raise WeightsError(f"the weights of '{name}' are not at {entry.location}")
    if entry.location.is_dir():
        raise WeightsError(f"{name} is a folder; name a prior's file")
    state = read_weights(entry.location, ARCHITECTURE, {}, entry=entry.entry, prefix=entry.prefix).tensors
    config = NaturalConfig.from_state(state, str(entry.location))
    if channels not in (None, config.channels):
        raise UsageError(f"{name} has {config.channels} channels, not {channels}; leave out --channels, or --init")
    net = initialised(config, 0)
    expected = net.state_dict()
    if {key: value.shape for key, value in state.items()} != {key: value.shape for key, value in expected.items()}:
        raise WeightsError(f"{entry.location}: its tensors are not those of a '{ARCHITECTURE}' of its sizes")
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise WeightsError(f"{entry.location}: some of its values are not finite; nothing can be trained from them")
    said = metadata_of(entry)
    sigma_data = sigmas_of(said, str(entry.location)).get("sigma_data", SIGMA_DATA)
    if sigma_data != SIGMA_DATA:
        raise WeightsError(f"{entry.location}: its sigma_data is {sigma_data:g}; only {SIGMA_DATA:g} can be trained")
    net.load_state_dict({key: value.float() for key, value in state.items()})
    licence = said.get("licence", entry.licence)
    steps = f", {said['steps']} steps" if "steps" in said else ""
    about = f"{entry.name}, sha256 {sha256_file(entry.location)}{steps}, terms: {licence}"
    return Initial(net=net, config=config, licence=licence, about=about)


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a run begins: a new network of these sizes, the weights of a prior, or a state.

    initial_weights: what is said in the prior's file of weights that it began with.
    """

    recipe: Recipe
    config: NaturalConfig
    net: NaturalNet | None = None
    initial_weights: str = ""
    saved: Saved | None = None

    @property
    def facts(self) -> Mapping[str, str]:
        """Of the photographs and of the beginning, as a state has them; none of a new run."""
        return {} if self.saved is None else self.saved.facts["photographs"]

    @property
    def changes(self) -> list[str]:
        """What of the recipe is not as it was saved."""
        if self.saved is None:
            return []
        known, now = self.saved.recipe, asdict(self.recipe)
        old, new = known.budget, self.recipe.budget
        was = old if old.option != new.option else f"{old.amount:.10g}"
        budget = [f"{new.option} {new.amount:.10g} (it was {was})"] * (old != new)
        before = {name: value for name, value in asdict(known).items() if name not in (Minutes.option, Steps.option)}
        return budget + [f"{name} {now[name]} (it was {value})" for name, value in before.items() if now[name] != value]

    @classmethod
    def new(cls, size: str, channels: int, recipe: Recipe) -> Self:
        """Begins from nothing."""
        return cls(recipe=recipe, config=replace(SIZES[size], channels=channels))

    def trainer(self, device: torch.device) -> Trainer:
        """Returns one ready for the next step."""
        net = self.net if self.net is not None else initialised(self.config, self.recipe.seed)
        trainer = Trainer(net, self.config, self.recipe, device)
        if self.saved is not None:
            trainer.restore(self.saved.tensors(), self.saved.facts)
        return trainer


# --- The run
@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Where a run stands after a step. loss: the mean since the last row of the log; psnr: the last measured.

    is_checkpoint: whether one follows this step.
    """

    step: int
    seconds: float
    loss: float
    steps_per_second: float
    psnr: Mapping[str, float]
    is_checkpoint: bool = False


@dataclass(kw_only=True)
class TrainingRun:
    """One call: trains until the budget is used up, or until `stop` says so; saves now and then, and at the end.

    facts: of the photographs and of the beginning, for the metadata; held_small, held_damaged: of the photographs kept
    for validation, how many are smaller than the crop, and why others could not be read. on_progress is told after
    each step and each row of the log; note, what went wrong without ending the run.
    Of several processes (processes.py) the first one alone measures, writes and keeps the time; they stop at the same
    step.
    """

    trainer: Trainer
    collection: Collection
    pictures: Sequence[tuple[int, Tensor]]
    files: Files
    facts: Mapping[str, str]
    held_small: int = 0
    held_damaged: Sequence[str] = ()
    clock: Clock = wall_clock
    stop: Callable[[], bool] = lambda: False
    on_progress: Callable[[TrainingProgress], object] = lambda progress: None
    note: Callable[[str], object] = lambda text: None
    wait_share: float = 0.0
    loss: float = math.nan
    losses: list[float] = field(default_factory=list)
    psnr: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.trainer.rows:
            self.psnr |= {name: row[name] for name in PSNR_NAMES if row.get(name) is not None}

    def train(self) -> None:
        """Runs. Raises KeyboardInterrupt, all saved, once `stop` says so; NumericsError if the training diverges.

        OutputError is raised by the first and by the last checkpoint; in between a full disk is noted, and the next
        checkpoint is another chance.
        """
        trainer, recipe = self.trainer, self.trainer.recipe
        processes.together(self._begin)
        draw_step = partial(draw_batch, self.collection, recipe.shapes, trainer.levels, recipe.seed)
        zero, first_step = trainer.seconds - self.clock(trainer.step), trainer.step
        pace = Pace(recipe.budget, trainer.step, trainer.seconds)
        is_stopped = self._is_asked_to_stop(zero)
        with Ahead(draw_step, trainer.step) as loader:
            begun = mark = time.perf_counter()
            waited = 0.0
            while trainer.share < 1.0 and not is_stopped:
                loss = trainer.take_step(loader.take())
                is_stopped = self._is_asked_to_stop(zero) and trainer.share < 1.0
                if math.isfinite(loss):
                    self.losses.append(loss)
                if trainer.bad_in_a_row >= MOST_BAD_STEPS:
                    raise self._diverged(f"{trainer.bad_in_a_row} steps in a row had no finite gradient")
                now = time.perf_counter()
                self.wait_share = loader.wait_seconds / max(now - begun, 1e-9)
                rate = (trainer.step - first_step) / max(now - begun, 1e-9)
                if trainer.share < 1.0 and pace.is_save_due(trainer.step, trainer.seconds):
                    self.add_row(rate, (loader.wait_seconds - waited) / (now - mark), validate=True)
                    self._try_to_save()
                    begun_saving = trainer.seconds
                    is_stopped = self._is_asked_to_stop(zero)
                    pace.save(trainer.step, begun_saving, trainer.seconds)
                elif pace.is_row_due(trainer.step, trainer.seconds):
                    self.add_row(rate, (loader.wait_seconds - waited) / (now - mark), validate=False)
                    pace.row(trainer.step, trainer.seconds)
                else:
                    self.on_progress(self._progress(rate))
                    continue
                mark, waited = time.perf_counter(), loader.wait_seconds
        self.add_row(rate if trainer.step > first_step else 0.0, self.wait_share, validate=not is_stopped)
        self._is_asked_to_stop(zero)
        processes.together(self.save)
        if is_stopped:
            self.note(f"saved at step {trainer.step}; --resume {self.files.prior} goes on")
            raise KeyboardInterrupt

    def _begin(self) -> None:
        """Writes a first time: a disk that cannot be written to is better met now."""
        if not processes.rank():
            remove_left_overs(self.files.all)
            check_room(self.files, self.trainer)
        self.save()

    def _is_asked_to_stop(self, zero: float) -> bool:
        """Reads the clock, that of the first process, and whether any is asked to. zero: seconds less the clock's."""
        seconds = 0.0 if processes.rank() else zero + self.clock(self.trainer.step)
        told = torch.tensor([seconds, float(self.stop())], dtype=torch.float64)
        self.trainer.seconds, num_asked = processes.summed(told).tolist()
        return bool(num_asked)

    def _progress(self, rate: float, *, is_checkpoint: bool = False) -> TrainingProgress:
        if self.losses:
            self.loss = fmean(self.losses)
        return TrainingProgress(
            step=self.trainer.step,
            seconds=self.trainer.seconds,
            loss=self.loss,
            steps_per_second=rate,
            psnr=self.psnr,
            is_checkpoint=is_checkpoint,
        )

    def add_row(self, rate: float, wait_share: float, *, validate: bool) -> None:
        """Adds a row of the log: what the steps since the last one gave; of its own step, only what is measured now."""
        if self.losses and (mean := fmean(self.losses)) > LARGEST_LOSS:
            raise self._diverged(f"the loss is {mean:.3g}")
        trainer = self.trainer
        is_checkpoint = validate and not self._is_measured
        measured = trainer.validate(self.pictures) if is_checkpoint and not processes.rank() else {}
        self.psnr = measured or self.psnr
        progress = self._progress(rate, is_checkpoint=is_checkpoint)
        row: LogRow = {"step": trainer.step, "seconds": round(trainer.seconds, 3), "lr": trainer.lr}
        row["loss"] = progress.loss if self.losses else None
        if not (trainer.rows and trainer.rows[-1]["step"] == trainer.step):
            trainer.rows.append(row | dict.fromkeys(PSNR_NAMES) | {"wait_share": wait_share})
        trainer.rows[-1].update(measured)
        self.losses.clear()
        self.on_progress(progress)

    @property
    def _is_measured(self) -> bool:
        """Whether the step that the training stands at was, as by a checkpoint that took the rest of the time."""
        last = self.trainer.rows[-1] if self.trainer.rows else {}
        return last.get("step") == self.trainer.step and last.get(PSNR_NAMES[0]) is not None

    def _diverged(self, what: str) -> DmpsError:
        """Returns the error; every process meets it at the same step."""
        return processes.common(
            NumericsError(
                f"{what}: the training has diverged; {self.files.prior} and its state are those of the last "
                "checkpoint; go on with --resume and a smaller --lr"
            )
        )

    def _try_to_save(self) -> None:
        try:
            self.save()
        except OutputError as exc:
            self.note(f"{exc}; the training goes on")

    @property
    def num_damaged(self) -> int:
        """Photographs that could not be read, as far as they have been met."""
        return self.collection.skipped.damaged + len(self.held_damaged)

    @property
    def counts(self) -> dict[str, int]:
        """Photographs used and skipped, with the damaged ones that have been met since the beginning."""
        return {
            "photographs": self.collection.num_usable,
            "skipped_small": self.collection.skipped.small + self.held_small,
            "skipped_damaged": self.num_damaged,
        }

    def save(self) -> None:
        """Writes the prior, the state and the log, each whole or not at all, what one has no room for left out.

        The prior first: a run killed in between goes on from the state before, and nothing is lost. But the first state
        before it: nothing goes on from a prior alone. Raises OutputError, if not of that one after all were tried.
        """
        if processes.rank():
            return
        facts = {**self.facts, **{name: str(count) for name, count in self.counts.items()}}
        failures: list[str] = []
        if not self.files.state.exists():
            write_state(self.files, self.trainer, facts)
            weights = [partial(write_prior, self.files, self.trainer, facts)]
        else:
            weights = [partial(write, self.files, self.trainer, facts) for write in (write_prior, write_state)]
        log = [partial(write, self.files, self.trainer) for write in (write_log, write_picture)]
        for write in (*weights, *log):
            try:
                write()
            except OutputError as exc:
                failures.append(str(exc))
        if failures:
            raise OutputError("; ".join(failures))
