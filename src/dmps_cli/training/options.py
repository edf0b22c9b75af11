"""What can be asked of a training, and what of it can be refused without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmps_cli.checks import SEED, check_fields, choice, option, real, whole
from dmps_cli.errors import UsageError
from dmps_cli.files.atomic import is_unicode

SUFFIX = ".safetensors"
SIZE_NAMES = ("small", "base", "large")
RECIPE = ("minutes", "steps", "batch", "crop", "lr", "seed", "licence", "full", "validate")
"""Options that a trained prior records."""


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """A training that is asked for; recipe: what is said of RECIPE."""

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

    def check(self) -> None:
        """Raises UsageError for what can be refused without torch."""
        if {"minutes", "steps"} <= self.recipe.keys():
            raise UsageError("--minutes and --steps exclude each other: a training ends by the clock, or by its steps")
        if self.is_resumed and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other: one goes on, the other begins anew")
        terms = self.recipe.get("licence", "terms")
        if not (terms.strip() and is_unicode(terms)):
            raise UsageError("--licence is empty, or no text in UTF-8; leave it out, or say what the terms are")
        if not is_unicode(_absolute(self.output)):
            raise UsageError(f"{self.output}: the files of priors are opened by names in UTF-8 only; choose another")
        if self.size is not None and self.init is not None:
            raise UsageError("--size and --init exclude each other: the weights have their sizes")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of a training."""

    output: Path | None = option(
        "The prior's file, .safetensors; beside it OUT.state (to go on from), OUT.csv (the log), OUT.png (the log "
        "drawn). Default: that of --resume.",
        "OUT",
        names=("--output", "-o"),
    )
    minutes: float | None = option(
        "Time to train for in minutes, counted over all calls. Default: 120.", "MIN", rule=real(0, 1e6, above=True)
    )
    steps: int | None = option(
        "Steps to train for instead, counted over all calls: the same command then gives the same weights.",
        "N",
        rule=whole(1, 10**9),
    )
    channels: int | None = option("3 for colour, 1 for grey pictures. Default: 3.", "3|1", rule=choice((3, 1)))
    size: str | None = option(
        "Network: base is that of the bundled prior, small costs a quarter of it, large twice as much. Default: base.",
        "|".join(SIZE_NAMES),
        rule=choice(SIZE_NAMES),
    )
    resume: Path | None = option(
        "Go on from OUT.state; where -o names the same OUT and neither file is there yet, begin. Another -o gets a "
        "copy that goes on.",
        "OUT",
    )
    init: str | None = option(
        "Begin with the weights of a prior, natural or one of yours; without --size, for they have theirs.", "NAME|PATH"
    )
    validate: Path | None = option(
        "Photographs to measure on; they and copies of them are not trained on. Later calls keep it. Default: a tenth "
        "of those given, by the hash of their names.",
        "FOLDER",
    )
    batch: int | None = option(
        "Crops of a step; every fourth has a third as many, twice as wide. Default: 12.", "N", rule=whole(1, 4096)
    )
    crop: int | None = option(
        "Side of the crops, px, a multiple of 16 from 32 to 1024. Default: 96.",
        "PX",
        rule=whole(32, 1024, unit="px", multiple=16),
    )
    lr: float | None = option(
        "Highest learning rate; it falls along a cosine to 0. Default: 0.003, with --init 0.001.",
        "X",
        rule=real(0, 1, above=True, below=True),
    )
    seed: int | None = option("Seed of weights, crops and noise, >= 0. Default: 0.", "N", rule=SEED)
    licence: str | None = option(
        "Terms of the weights, written into the file. Default: 'not stated', with --init those of the prior.", "TEXT"
    )
    full: bool | None = option(
        "Write all weights in float32, or most in float16. Default: --half.", names=("--full/--half",)
    )
    overwrite: bool = option("Begin anew over an existing OUT.", names=("--overwrite",), default=False)

    def request(self, folders: tuple[Path, ...]) -> TrainingRequest:
        """Returns what is asked of photographs in those folders. Raises UsageError for what cannot be."""
        check_fields(self)
        resume = self.resume
        if resume is not None and resume.suffix == ".state":  # OUT, named by its state
            resume = resume.with_suffix("")
        target = checked_output(self.output or resume, "-o" if self.output else "--resume")
        is_same = resume is not None and _absolute(resume) == _absolute(target)
        recipe = {name: value for name in RECIPE if (value := getattr(self, name)) is not None}
        if self.validate is not None:
            recipe["validate"] = _absolute(self.validate)
        request = TrainingRequest(
            folders=folders,
            output=target,
            resume=target if is_same else resume,
            init=self.init,
            channels=self.channels,
            size=self.size,
            recipe=recipe,
            overwrite=self.overwrite,
            may_begin=self.output is not None and is_same,
        )
        request.check()
        return request


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


def _exists(prior: Path) -> bool:
    return any(os.path.lexists(f"{prior}{suffix}") for suffix in ("", ".state"))
