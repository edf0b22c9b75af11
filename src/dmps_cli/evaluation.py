"""A data set through degradation, restoration and metrics, one row per picture, task and sampling."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dmps_cli.device import stopwatch
from dmps_cli.errors import DmpsError
from dmps_cli.images import cropped
from dmps_cli.methods import Sampling
from dmps_cli.metrics import Scorer
from dmps_cli.operators.base import LinearOperator
from dmps_cli.pipeline import degrade, restore
from dmps_cli.priors import Prior

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A task with its noise, and how it is to be solved.

    crop: (H, W) -> (left, top, width, height) px that are used; build: (C, H, W) -> operator.
    """

    task: str
    sigma_y: float
    samplings: Sequence[Sampling]
    crop: Callable[[tuple[int, int]], tuple[int, int, int, int]]
    build: Callable[[tuple[int, int, int]], LinearOperator]


def image_key(name: str) -> int:
    """A number for what an image is: its path relative to the data set, never its position in a list."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6], "big")


def evaluate(
    pictures: Mapping[str, Path],
    problems: Sequence[Problem],
    prior: Prior,
    scorer: Scorer,
    *,
    seed: int,
    device: torch.device,
    load: Callable[[Path], torch.Tensor],
    on_failure: Callable[[str, DmpsError], None],
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[Row]:
    """Yields a row for each picture, problem and sampling as it is done: metrics, seconds, the configuration.

    pictures: name in the data set -> file; load gives it as (1, C, H, W). The measurement of a picture and problem is
    the same for every sampling. A picture that cannot be read, or not be restored in one of the ways, is given to
    on_failure, and the others go on.
    """
    for name, path in pictures.items():
        try:
            x = load(path).to(device)
        except DmpsError as exc:
            on_failure(name, exc)
            continue
        for problem in problems:
            try:
                yield from _solve(name, x, problem, prior, scorer, seed, on_failure, on_step)
            except DmpsError as exc:
                on_failure(name, exc)


def _solve(
    name: str,
    picture: torch.Tensor,
    problem: Problem,
    prior: Prior,
    scorer: Scorer,
    seed: int,
    on_failure: Callable[[str, DmpsError], None],
    on_step: Callable[[], None],
) -> Iterator[Row]:
    """The rows of one picture and problem; a sampling that fails is left out."""
    key = (image_key(name), 0)
    x = cropped(picture, problem.crop((picture.shape[-2], picture.shape[-1])))
    op = problem.build((x.shape[1], x.shape[2], x.shape[3]))
    y = degrade(x, op, problem.sigma_y, seed=seed, keys=[key])
    for sampling in problem.samplings:
        elapsed = stopwatch(op.device)
        try:
            restored = restore(y, op, prior, problem.sigma_y, sampling, seed=seed, keys=[key], on_step=on_step)
        except DmpsError as exc:  # of one method; the others go on
            on_failure(name, exc)
            continue
        seconds = elapsed()
        yield {
            "image": name,
            "task": problem.task,
            **sampling.as_dict(),
            "sigma_y": problem.sigma_y,
            **scorer.score(restored, x)[0],
            "seconds": seconds,
        }
