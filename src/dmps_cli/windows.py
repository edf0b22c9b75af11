"""A prior of one size for pictures of any: overlapping windows of one diffusion state, and a margin for small ones."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from dmps_cli import fields
from dmps_cli.device import onto
from dmps_cli.levels import Level
from dmps_cli.operators.base import Shape
from dmps_cli.priors import Prior

OVERLAP_SHARE = 4
"""Neighbouring windows share at least a quarter of their side."""

UNUSED_SHARE = 4
"""Of an overlap: the outermost quarter of it, where the network misses its surroundings, does not count."""

LARGE_WINDOW, LARGE_OVERLAP_SHARE = 1024, 8
"""Windows of a large picture, for a network that takes any size: wide ones, which overlap by 128 px."""

STATE_BYTES_PER_PIXEL = 150.0
"""Of a sampler's own images: state, prediction, correction, noise, some of them twice."""


class WindowedPrior(Prior):
    """E[x0 | x_t] of a large picture from a network that sees `window` x `window` px at once.

    Every window is cut out of the same state x_t, so that all of them restore one picture; where they overlap, their
    predictions are averaged with weights that fall to 0 towards a window's own border and add up to 1. The learned
    standard deviation is averaged in the same way. is_only_size: whether the network takes no smaller picture either.
    batch: windows per call of the network. overlap_share: neighbours share at least that part of their side, 1 / n.
    The state may be a field: then a band of windows is in memory, and the prediction is a field.
    """

    def __init__(
        self,
        inner: Prior,
        window: int,
        *,
        is_only_size: bool = True,
        batch: int = 1,
        overlap_share: int = OVERLAP_SHARE,
    ) -> None:
        self.inner, self.window, self.batch, self.overlap_share = inner, window, batch, overlap_share
        self.has_windows = True
        self.channels, self.multiple = inner.channels, 1 if is_only_size else inner.multiple
        self.least_size = window if is_only_size else inner.least_size
        self.clips_x0 = inner.clips_x0

    def fitting(self, height: int, width: int) -> tuple[int, int]:
        """Returns the smallest sides that it takes: a side of several windows may be any."""
        rows, cols = super().fitting(height, width)
        return height if height >= self.window else rows, width if width >= self.window else cols

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
        places = self.places(height, width)
        if len(places) == 1:
            return self.inner.predict(x_t, cur, nxt)
        row_weights, col_weights = (
            {
                start: onto(weight.to(x_t.dtype), x_t.device)
                for start, weight in blend_weights(side, window, self.overlap_share).items()
            }
            for side, window in ((height, rows), (width, cols))
        )
        x0, std = fields.buffer_like(x_t), None
        groups = [places[k : k + self.batch] for k in range(0, len(places), self.batch)]
        for item, group in itertools.product(range(len(x_t)), groups):
            cut = [fields.rows(x_t, top, top + rows)[item, :, :, left : left + cols] for top, left in group]
            predicted, deviation = self.inner.predict(torch.stack(cut), cur, nxt)
            for k, (top, left) in enumerate(group):
                weight = row_weights[top][:, None] * col_weights[left]
                inside = (item, slice(None), slice(top, top + rows), slice(left, left + cols))
                x0[inside] += (weight * predicted[k]).to(x0.device)
                if deviation is not None:
                    std = fields.buffer_like(x_t) if std is None else std
                    std[inside] += (weight * deviation[k]).to(std.device)
        return fields.filled(x0, x_t), None if std is None else fields.filled(std, x_t)

    def places(self, height: int, width: int) -> list[tuple[int, int]]:
        """Returns (top, left) of each window of a picture, row by row."""
        tops, lefts = (window_starts(side, min(side, self.window), self.overlap_share) for side in (height, width))
        return list(itertools.product(tops, lefts))


def for_large(prior: Prior, batch: int = 1) -> Prior:
    """Returns a prior for large pictures: itself where it has windows already."""
    if prior.has_windows:
        return prior
    window = LARGE_WINDOW - LARGE_WINDOW % prior.multiple
    return WindowedPrior(prior, window, is_only_size=False, batch=batch, overlap_share=LARGE_OVERLAP_SHARE)


STRIPS_BYTES = 2**30  # of strips, of what is being packed for a file, of everything small
MEASURED_TIMES = 8  # copies of a measurement that are in memory together: its residual, solves, their transforms


def strips_bytes(prior: Prior, in_shape: Shape, out_shape: Shape) -> float | None:
    """Returns the memory that a large picture takes strip by strip, where the prior's is known.

    in_shape, out_shape: of picture and measurement. The state and its prediction count where they are no files.
    """
    side = prior.window if isinstance(prior, WindowedPrior) else prior.least_size
    window = prior.peak_bytes(side, side)
    if window is None:
        return None
    state, measured = (4.0 * math.prod(shape) for shape in (in_shape, out_shape))
    return window + STRIPS_BYTES + MEASURED_TIMES * measured + (2.0 * state if state <= fields.FILE_BYTES else 0.0)


def window_starts(side: int, window: int, overlap_share: int = OVERLAP_SHARE) -> list[int]:
    """Returns the first pixels of the fewest windows that cover a side with the overlap due, evenly placed."""
    if side == window:
        return [0]
    stride = window - window // overlap_share
    count = 1 + -(-(side - window) // stride)
    return [round(k * (side - window) / (count - 1)) for k in range(count)]


def blend_weights(side: int, window: int, overlap_share: int = OVERLAP_SHARE) -> dict[int, Tensor]:
    """Returns for each start the weights (window,) along one axis, float64; at every pixel they add up to 1.

    A window counts from 0 at UNUSED_SHARE of the overlap inside its border to 1 at the same distance from the
    neighbour's; not so where its border is the picture's.
    """
    starts = window_starts(side, window, overlap_share)
    unused = window // (UNUSED_SHARE * overlap_share)
    ramp_length = max(window // overlap_share - 2 * unused, 1)
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
