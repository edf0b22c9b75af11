"""The files of a training: the prior, the state to go on from, the log, the picture of the log."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from filelock import FileLock, Timeout
from msgspec import Meta, Struct
from torch import Tensor

from dmps_cli.errors import OutputError, WeightsError
from dmps_cli.files.atomic import atomic_write, nearest_existing
from dmps_cli.files.measurements import versions
from dmps_cli.files.records import RecordError, as_record, parse_json
from dmps_cli.files.tensors import write_safetensors
from dmps_cli.nets.natural import NaturalConfig, NaturalNet
from dmps_cli.nets.options import MAX_BLOCKS, MAX_LEVELS, MAX_WIDTH
from dmps_cli.report.drawing import missing, svg
from dmps_cli.report.tables import csv_text
from dmps_cli.training.curves import log_charts
from dmps_cli.training.muon import moments_of
from dmps_cli.training.objective import network_facts
from dmps_cli.training.trainer import PSNR_NAMES, Recipe, Trainer
from dmps_cli.weights.building import read_weights
from dmps_cli.weights.reading import read_safetensors

STATE_FORMAT = "dmps training state 3"


class Facts(Struct, frozen=True, kw_only=True):
    """What a state says beside its tensors."""

    step: Annotated[int, Meta(ge=0)]
    bad_steps: Annotated[int, Meta(ge=0)]
    seconds: Annotated[float, Meta(ge=0.0, le=1e12)]
    level_losses: Any
    rows: list[dict[str, Any]]
    config: NaturalConfig
    recipe: Recipe
    photographs: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Files:
    """What a run writes: the prior, and beside it the state to go on from, the log, the picture of the log."""

    prior: Path

    def _beside(self, suffix: str) -> Path:
        return self.prior.with_name(self.prior.name + suffix)

    @property
    def state(self) -> Path:
        """Of the training."""
        return self._beside(".state")

    @property
    def log(self) -> Path:
        """CSV."""
        return self._beside(".csv")

    @property
    def picture(self) -> Path:
        """SVG; there once the log has rows, where matplotlib is."""
        return self._beside(".svg")

    @property
    def lock(self) -> Path:
        """There while a process trains."""
        return self._beside(".lock")

    @property
    def all(self) -> tuple[Path, ...]:
        """Every one of them that stays."""
        return self.prior, self.state, self.log, self.picture


@contextlib.contextmanager
def sole_writer(files: Files) -> Iterator[None]:
    """Lets one process at a time train a prior; the system frees the lock of one that dies. Raises OutputError.

    Folders that are made for it and stay empty are removed.
    """
    folder, lock = files.lock.parent, FileLock(files.lock)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as exc:
        if not files.lock.exists():
            raise OutputError(f"cannot make files in {folder}; name another folder") from exc
        raise OutputError(f"another process trains {files.prior} now; wait for it, or name another file") from exc
    except OSError as exc:
        raise OutputError(f"cannot lock {files.lock}: {exc.strerror or exc}") from exc
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            files.lock.unlink()
        lock.release()
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A training state as it was read: its file, sizes, recipe and the other facts, as they are and as text."""

    path: Path
    text: str
    config: NaturalConfig
    recipe: Recipe
    facts: Mapping[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """Returns them mapped, not to be kept: a mapped file keeps its room on the disk after it has been replaced.

        Raises WeightsError if that has happened since it was read.
        """
        tensors, metadata = read_safetensors(self.path)
        if metadata["facts"] != self.text:
            raise WeightsError(f"{self.path} has been written anew meanwhile; run again")
        return tensors


def read_state(files: Files) -> Saved:
    """Returns the training state of a run. Raises WeightsError if there is none, naming what to do."""
    anew = f"--init {files.prior} with another -o starts from the weights alone, --overwrite without them"
    if not files.state.exists():
        if not files.prior.exists():
            raise WeightsError(f"there is no {files.state} to go on from, nor {files.prior}")
        read_weights(files.prior, "natural", {})
        raise WeightsError(f"{files.state} is missing; {anew}")
    try:
        tensors, metadata = read_safetensors(files.state)
    except WeightsError as exc:
        raise WeightsError(f"{files.state} cannot be read or is damaged ({exc.__cause__ or exc}); {anew}") from exc
    if metadata.get("format") != STATE_FORMAT:
        raise WeightsError(f"{files.state} is no training state that this version of dmps reads; {anew}")
    try:
        facts = as_record(parse_json(metadata["facts"].encode()), dict[str, Any])
        read = as_record(facts, Facts)
        config, recipe = read.config, read.recipe
        if max(*config.widths, config.emb_width, config.num_frequencies) > MAX_WIDTH:
            raise ValueError("its sizes are larger than any network's")
        if max(config.blocks) > MAX_BLOCKS or len(config.widths) > MAX_LEVELS:
            raise ValueError("it has more blocks than any network")
        with torch.device("meta"):  # the sizes are only claimed so far
            parameters = dict(NaturalNet(config).named_parameters())
        shapes = {f"{part}.{n}": p.shape for n, p in parameters.items() for part in ("net", "ema")}
        sizes = {f"{part}.{n}": p.numel() for n, p in parameters.items() for part in moments_of(n, p)}
        if (
            tensors.keys() != shapes.keys() | sizes.keys()
            or any(tensors[name].shape != shape for name, shape in shapes.items())
            or any(tensors[name].numel() != size for name, size in sizes.items())
        ):
            raise ValueError("its tensors are not those of its sizes")
        return Saved(path=files.state, text=metadata["facts"], config=config, recipe=recipe, facts=facts)
    except (KeyError, ValueError, RecordError, WeightsError) as exc:
        raise WeightsError(f"{files.state} is damaged ({exc}); {anew}") from exc


# --- Writing
def check_room(files: Files, trainer: Trainer) -> None:
    """Raises OutputError if the disk has not the room for every checkpoint to come.

    Each file is written beside the one before it, the state being the largest.
    """
    parameters = dict(trainer.net.named_parameters())
    prior = sum(4 * p.numel() for p in parameters.values())
    state = sum(4 * (2 + len(moments_of(name, p))) * p.numel() for name, p in parameters.items())
    needed = state + state * (not files.state.exists()) + prior * (not files.prior.exists())
    free = shutil.disk_usage(nearest_existing(files.prior.parent)).free
    if free < needed:
        raise OutputError(
            f"no room on the disk for {files.state}: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free; "
            "free some and run again"
        )


def write_state(files: Files, trainer: Trainer, facts: Mapping[str, str]) -> None:
    """Writes what is needed to go on. facts: of the photographs and of the beginning. Raises OutputError."""
    content = {
        "step": trainer.step,
        "bad_steps": trainer.bad_steps,
        "seconds": trainer.seconds,
        "level_losses": trainer.losses.means,
        "rows": trainer.rows,
        "config": asdict(trainer.config),
        "recipe": asdict(trainer.recipe),
        "photographs": dict(facts),
    }
    metadata = {"format": STATE_FORMAT, "facts": json.dumps(content)}
    write_safetensors(files.state, trainer.tensors(), metadata, where=str(files.state))


def write_prior(files: Files, trainer: Trainer, facts: Mapping[str, str]) -> None:
    """Writes the prior. Raises OutputError."""
    write_safetensors(files.prior, trainer.prior_tensors(), prior_metadata(trainer, facts), where=str(files.prior))


def write_log(files: Files, trainer: Trainer) -> None:
    """Writes the log. Raises OutputError."""
    atomic_write(files.log, csv_text(trainer.rows or [{"step": 0}]).encode(), overwrite=True)


def write_picture(files: Files, trainer: Trainer) -> None:
    """Draws the log, once it has rows, where matplotlib is. Raises OutputError."""
    if trainer.rows and not missing():
        atomic_write(files.picture, svg(*log_charts(trainer.rows, PSNR_NAMES)).encode(), overwrite=True)


def prior_metadata(trainer: Trainer, facts: Mapping[str, str]) -> dict[str, str]:
    """Returns what the prior's file says of itself.

    Of a run by steps not how long it took, so that its bytes are the run's.
    """
    config, recipe = trainer.config, trainer.recipe
    apart = ("licence", "full", "validate")  # said by other keys, or of one machine alone
    return {
        **network_facts(config, trainer.levels, full=recipe.full),
        "steps": str(trainer.step),
        "skipped_steps": str(trainer.bad_steps),
        "recipe": json.dumps({key: value for key, value in asdict(recipe).items() if key not in apart}),
        "licence": recipe.licence,
        "versions": json.dumps(versions()),
        **({} if recipe.minutes is None else {"seconds": f"{trainer.seconds:.0f}"}),
        **facts,
        **_validation(trainer, int(facts.get("validation_since", 0))),
    }


def _validation(trainer: Trainer, since: int) -> dict[str, str]:
    """Returns the last figures measured on the photographs that the file names, which it does since that step."""
    for row in reversed(trainer.rows):
        if row["step"] > since and row.get(PSNR_NAMES[0]) is not None:
            return {"psnr_step": str(row["step"]), **{name: f"{row[name]:.3f}" for name in PSNR_NAMES}}
    return {}


def complete(files: Files, trainer: Trainer, facts: Mapping[str, str]) -> bool:
    """Writes of a training that is at its end what is missing, or is not that of its state; whether anything was.

    Of a prior its steps, its terms and its precision count. Raises OutputError.
    """
    told = ("architecture", "steps", "licence", "precision")
    wanted = prior_metadata(trainer, facts)
    try:
        found = read_safetensors(files.prior)[1]
    except WeightsError:
        found = {}
    is_current = all(found.get(name) == wanted[name] for name in told)
    if not is_current:
        write_prior(files, trainer, facts)
    if is_current and files.log.exists() and (files.picture.exists() or missing()):
        return False
    write_state(files, trainer, facts)  # with the terms that were given now
    write_log(files, trainer)
    write_picture(files, trainer)
    return True
