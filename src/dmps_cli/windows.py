"""A prior of one size for pictures of any: overlapping windows of one diffusion state, and a margin for small ones."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from dmps_cli.device import onto
from dmps_cli.levels import Level
from dmps_cli.priors import Prior

OVERLAP_SHARE = 4
"""Neighbouring windows share at least a quarter of their side."""

UNUSED_SHARE = 16
"""The outermost sixteenth of a window, where the network misses its surroundings, does not count inside a picture."""

STATE_BYTES_PER_PIXEL = 150.0
"""Of a sampler's own images: state, prediction, correction, noise, some of them twice."""


class WindowedPrior(Prior):
    """E[x0 | x_t] of a large picture from a network that sees `window` x `window` px at once.

    Every window is cut out of the same state x_t, so that all of them restore one picture; where they overlap, their
    predictions are averaged with weights that fall to 0 towards a window's own border and add up to 1. The learned
    standard deviation is averaged in the same way. is_only_size: whether the network takes no smaller picture either.
    batch: windows per call of the network.
    """

    def __init__(self, inner: Prior, window: int, *, is_only_size: bool = True, batch: int = 1) -> None:
        self.inner, self.window, self.batch = inner, window, batch
        self.channels, self.multiple = inner.channels, 1 if is_only_size else inner.multiple
        self.least_size = window if is_only_size else inner.least_size
        self.clips_x0 = inner.clips_x0

    def peak_bytes(self, height: int, width: int) -> float | None:
        """Returns that of a window, and what the whole state takes."""
        peak = self.inner.peak_bytes(min(height, self.window), min(width, self.window))
        return None if peak is None else peak + STATE_BYTES_PER_PIXEL * height * width

    def levels(self, sampler: str, nfe: int, spacing: str = "uniform", start: float | None = None) -> list[Level]:
        """Returns those of the prior inside."""
        return self.inner.levels(sampler, nfe, spacing, start)

    def time(self, sampler: str, level: Level) -> float:
        """Returns that of the prior inside."""
        return self.inner.time(sampler, level)

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns the blended predictions. x_t: (B, C, H, W), H and W at least `least_size`; else ValueError."""
        height, width = x_t.shape[-2:]
        if min(height, width) < self.least_size:
            raise ValueError(f"an image of {height} x {width} is smaller than {self.least_size}")
        rows, cols = min(height, self.window), min(width, self.window)
        places = list(itertools.product(window_starts(height, rows), window_starts(width, cols)))
        if len(places) == 1:
            return self.inner.predict(x_t, cur, nxt)
        row_weights, col_weights = (
            {start: onto(weight.to(x_t.dtype), x_t.device) for start, weight in blend_weights(side, window).items()}
            for side, window in ((height, rows), (width, cols))
        )
        x0, std, has_std = torch.zeros_like(x_t), torch.zeros_like(x_t), False
        groups = [places[k : k + self.batch] for k in range(0, len(places), self.batch)]
        for item, group in itertools.product(range(len(x_t)), groups):
            cut = [x_t[item, :, top : top + rows, left : left + cols] for top, left in group]
            predicted, deviation = self.inner.predict(torch.stack(cut), cur, nxt)
            for k, (top, left) in enumerate(group):
                weight = row_weights[top][:, None] * col_weights[left]
                inside = (item, slice(None), slice(top, top + rows), slice(left, left + cols))
                x0[inside] += weight * predicted[k]
                if deviation is not None:
                    std[inside] += weight * deviation[k]
                    has_std = True
        return x0, std if has_std else None


def window_starts(side: int, window: int) -> list[int]:
    """Returns the first pixels of the fewest windows that cover a side with the overlap due, evenly placed."""
    if side == window:
        return [0]
    stride = window - window // OVERLAP_SHARE
    count = 1 + -(-(side - window) // stride)
    return [round(k * (side - window) / (count - 1)) for k in range(count)]


def blend_weights(side: int, window: int) -> dict[int, Tensor]:
    """Returns for each start the weights (window,) along one axis, float64; at every pixel they add up to 1.

    A window counts from 0 at UNUSED_SHARE inside its border to 1 at the middle of the smallest overlap; not so where
    its border is the picture's.
    """
    starts = window_starts(side, window)
    unused = window // UNUSED_SHARE
    ramp_length = max(window // OVERLAP_SHARE - 2 * unused, 1)
    ramp = ((torch.arange(window, dtype=torch.float64) + 0.5 - unused) / ramp_length).clamp(0.0, 1.0)
    raw = {}
    for start in starts:
        weight = torch.ones(window, dtype=torch.float64)
        if start > 0:
            weight = weight * ramp
        if start + window < side:
            weight = weight * ramp.flip(0)
        raw[start] = weight
    total = torch.zeros(side, dtype=torch.float64)
    for start, weight in raw.items():
        total[start : start + window] += weight
    return {start: weight / total[start : start + window] for start, weight in raw.items()}
