"""How long a restoration takes, and where the time goes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from dmps_cli.device import stopwatch
from dmps_cli.methods import Sampling
from dmps_cli.operators.base import LinearOperator
from dmps_cli.pipeline import FILE_KEY, restore
from dmps_cli.priors import Prior
from dmps_cli.schedules import Level


class TimedPrior(Prior):
    """A prior that counts its calls and the seconds spent in them."""

    def __init__(self, prior: Prior, device: torch.device) -> None:
        self.inner, self.device = prior, device
        self.channels, self.least_size, self.multiple = prior.channels, prior.least_size, prior.multiple
        self.calls, self.seconds = 0, 0.0

    def peak_bytes(self, height: int, width: int) -> float | None:
        """That of the prior inside."""
        return self.inner.peak_bytes(height, width)

    def levels(self, sampler: str, nfe: int, spacing: str = "uniform", start: float | None = None) -> list[Level]:
        """Those of the prior inside."""
        return self.inner.levels(sampler, nfe, spacing, start)

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """The prediction of the prior inside, timed."""
        elapsed = stopwatch(self.device)
        prediction = self.inner.predict(x_t, cur, nxt)
        self.seconds += elapsed()
        self.calls += 1
        return prediction


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds per image over the repeats; network and rest are medians; calls: network evaluations per image."""

    seconds: tuple[float, ...]
    network: float
    calls: int

    @property
    def median(self) -> float:
        """Median seconds per image."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Largest minus smallest seconds per image."""
        return max(self.seconds) - min(self.seconds)

    @property
    def rest(self) -> float:
        """Median seconds outside the network's calls: likelihood (with the way back through it), steps, noise."""
        return self.median - self.network


def time_restore(
    y: Tensor,
    op: LinearOperator,
    prior: Prior,
    sigma_y: float,
    sampling: Sampling,
    *,
    repeats: int,
    warmup: int = 1,
) -> Timing:
    """Times `repeats` restorations of the batch y after `warmup` uncounted ones; no files are touched."""
    totals, networks, calls = [], [], 0
    for run in range(warmup + repeats):
        timed = TimedPrior(prior, op.device)
        elapsed = stopwatch(op.device)
        restore(y, op, timed, sigma_y, sampling, seed=run, keys=[FILE_KEY] * len(y))
        if run >= warmup:
            totals.append(elapsed() / len(y))
            networks.append(timed.seconds / len(y))
            calls = timed.calls
    return Timing(seconds=tuple(totals), network=statistics.median(networks), calls=calls)
