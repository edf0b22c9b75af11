"""A data set through degradation, restoration and metrics, one row per picture, task, sampling and sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmps_cli.device import stopwatch
from dmps_cli.errors import DmpsError
from dmps_cli.evaluation.rows import Row, row_key
from dmps_cli.files.atomic import name_key
from dmps_cli.files.images import cropped
from dmps_cli.methods.choice import Sampling
from dmps_cli.metrics.protocol import LEAST_SAMPLES_OF_COVERAGE
from dmps_cli.metrics.scorer import Scorer
from dmps_cli.metrics.table import HOTTEST
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import degrade, restore
from dmps_cli.priors import Prior

GAUSSIAN_90 = 1.6448536269514722  # standard deviations on each side of the mean


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A task with its noise, and how it is to be solved.

    needs_colour: whether grey pictures are taken as three equal channels. crop: (H, W) -> (left, top, width, height) px
    that are used; build: (C, H, W) -> operator.
    """

    task: str
    sigma_y: float
    samplings: Sequence[Sampling]
    crop: Callable[[tuple[int, int]], tuple[int, int, int, int]]
    needs_colour: bool = False
    build: Callable[[tuple[int, int, int]], LinearOperator]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is the same for every picture. facts: columns of every row; num_samples: posterior samples of each."""

    problems: Sequence[Problem]
    seed: int
    num_samples: int = 1
    facts: Mapping[str, Any]

    def heads(self, name: str, problem: Problem, sampling: Sampling) -> list[Row]:
        """Returns what the rows of one restoration say before it is done, one per sample."""
        head = {"image": name, "task": problem.task, **sampling.as_dict(), "sigma_y": problem.sigma_y, **self.facts}
        samples = [{"sample": k + 1} for k in range(self.num_samples)] if self.num_samples > 1 else [{}]
        return [{**head, **sample} for sample in samples]

    def remaining(self, name: str, done: set[str]) -> list[Problem]:
        """Returns the problems of a picture, without the samplings whose rows are among the keys `done`."""
        left = []
        for problem in self.problems:
            samplings = [
                sampling
                for sampling in problem.samplings
                if any(row_key(head) not in done for head in self.heads(name, problem, sampling))
            ]
            if samplings:
                left.append(replace(problem, samplings=samplings))
        return left


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One restoration, not clipped. truth: (C, H, W); measurement: (C, h, w), to look at; restored: (K, C, H, W)."""

    rows: list[Row]
    truth: Tensor
    measurement: Tensor
    restored: Tensor


def evaluate(
    pictures: Mapping[str, Path],
    problems: Sequence[Problem],
    prior: Prior,
    scorer: Scorer,
    *,
    seed: int,
    device: torch.device,
    load: Callable[[Path], Tensor],
    on_failure: Callable[[str, DmpsError], None],
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[Row]:
    """Yields a row for each picture, problem and sampling as it is done: metrics, seconds, the configuration.

    pictures: name in the data set -> file; load gives it as (1, C, H, W). The measurement of a picture and problem is
    the same for every sampling. A picture that cannot be read, or not be restored in one of the ways, is given to
    on_failure, and the others go on.
    """
    plan = Plan(problems=problems, seed=seed, facts={})
    work = dict.fromkeys(pictures, problems)
    for outcome in outcomes(pictures, work, plan, prior, scorer, device, load, on_failure, on_step):
        yield from outcome.rows


def outcomes(
    pictures: Mapping[str, Path],
    work: Mapping[str, Sequence[Problem]],
    plan: Plan,
    prior: Prior,
    scorer: Scorer,
    device: torch.device,
    load: Callable[[Path], Tensor],
    on_failure: Callable[[str, DmpsError], None],
    on_step: Callable[[], None],
) -> Iterator[Outcome]:
    """Yields what `evaluate` does, with the pictures; work: what is to be done of each."""
    for name, problems in work.items():
        try:
            x = load(pictures[name]).to(device)
        except DmpsError as exc:
            on_failure(name, exc)
            continue
        for problem in problems:
            try:
                yield from _solve(name, x, problem, plan, prior, scorer, on_failure, on_step)
            except DmpsError as exc:
                on_failure(name, exc)


def _solve(
    name: str,
    picture: Tensor,
    problem: Problem,
    plan: Plan,
    prior: Prior,
    scorer: Scorer,
    on_failure: Callable[[str, DmpsError], None],
    on_step: Callable[[], None],
) -> Iterator[Outcome]:
    """Yields the outcomes of one picture and problem; a sampling that fails is left out."""
    x = cropped(picture, problem.crop((picture.shape[-2], picture.shape[-1])))
    if problem.needs_colour and x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    op = problem.build((x.shape[1], x.shape[2], x.shape[3]))
    y = degrade(x, op, problem.sigma_y, seed=plan.seed, keys=[(name_key(name), 0)])
    truth = op.picture(x)
    for sampling in problem.samplings:
        rows, samples = [], []
        try:
            for k, head in enumerate(plan.heads(name, problem, sampling)):
                key = (name_key(name), k)
                elapsed = stopwatch(op.device)
                sample = restore(
                    Measurement(y, op, problem.sigma_y), prior, sampling, seed=plan.seed, keys=[key], on_step=on_step
                )
                seconds = elapsed()
                shown = op.picture(sample)
                rows.append({**head, **scorer.score(shown, truth)[0], "seconds": seconds})
                samples.append(shown)
        except DmpsError as exc:  # of one method; the others go on
            on_failure(name, exc)
            continue
        restored = torch.cat(samples)
        over_all = of_samples(restored, truth, scorer) if plan.num_samples > 1 else {}
        yield Outcome(
            rows=[{**row, **over_all} for row in rows], truth=truth[0], measurement=op.to_image(y)[0], restored=restored
        )


def of_samples(samples: Tensor, x: Tensor, scorer: Scorer) -> dict[str, float]:
    """Returns PSNR of the samples' mean, root mean square of their standard deviation; coverage from eight on.

    Coverage: the share of values of x within mean +- 1.645 std, the 90 % interval of a Gaussian. std = sqrt(sum_k
    (x_k - mean)^2 / (K - 1)) on [-1, 1], value by value. With K samples of a Gaussian, x another: P(|t_(K - 1)| < 1.645
    / sqrt(1 + 1 / K)), which is 0.84 for 8 and nears 0.9.

    samples: (K, C, H, W), not clipped; x: (1, C, H, W), the truth.
    """
    mean, std = samples.mean(0, keepdim=True), samples.std(0, keepdim=True)
    numbers = {"psnr_of_mean": scorer.score(mean, x)[0]["psnr"], "std": float(std.square().mean().sqrt())}
    if len(samples) >= LEAST_SAMPLES_OF_COVERAGE:
        numbers["coverage"] = float(((x - mean).abs() <= GAUSSIAN_90 * std).double().mean())
    return numbers


def heat_map(samples: Tensor) -> Tensor:
    """Returns (3, H, W) on [-1, 1].

    The samples' standard deviation, over the channels: black 0, red, yellow, white HOTTEST.
    """
    level = samples.std(0).square().mean(0).sqrt() / HOTTEST
    return torch.stack([(3.0 * level - k).clamp(0.0, 1.0) for k in range(3)]) * 2.0 - 1.0
