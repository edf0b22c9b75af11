"""A prior of one size for pictures of any: overlapping windows of one diffusion state, and a margin for small ones."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from dmps_cli.device import onto
from dmps_cli.operators.base import Correction, LinearOperator, Modes, Shape
from dmps_cli.priors import Prior
from dmps_cli.schedules import Level

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
        """That of a window, and what the whole state takes."""
        peak = self.inner.peak_bytes(min(height, self.window), min(width, self.window))
        return None if peak is None else peak + STATE_BYTES_PER_PIXEL * height * width

    def levels(self, sampler: str, nfe: int, spacing: str = "uniform", start: float | None = None) -> list[Level]:
        """Those of the prior inside."""
        return self.inner.levels(sampler, nfe, spacing, start)

    def time(self, sampler: str, level: Level) -> float:
        """That of the prior inside."""
        return self.inner.time(sampler, level)

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """The blended predictions. x_t: (B, C, H, W), H and W at least `least_size`; else ValueError."""
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
    """First pixels of the fewest windows that cover a side with the overlap due, evenly placed."""
    if side == window:
        return [0]
    stride = window - window // OVERLAP_SHARE
    count = 1 + -(-(side - window) // stride)
    return [round(k * (side - window) / (count - 1)) for k in range(count)]


def blend_weights(side: int, window: int) -> dict[int, Tensor]:
    """For each start the weights (window,) along one axis, float64; at every pixel of the side they add up to 1.

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


class Inside(LinearOperator):
    """A on the middle of a larger picture, whose margin nobody measures: for priors that need a least size.

    in_shape: (C, H, W) of the larger picture, H and W at least those of the operator inside.
    """

    def __init__(self, inner: LinearOperator, in_shape: Shape) -> None:
        super().__init__(in_shape, inner.out_shape, inner.dtype, inner.device)
        self.inner, self.pattern = inner, inner.pattern
        rows, cols = (larger - smaller for larger, smaller in zip(in_shape[1:], inner.in_shape[1:], strict=True))
        self.margins = (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2)  # left, right, top, bottom

    def crop(self, x: Tensor) -> Tensor:
        """The middle, which the operator inside sees. x: (B, *in_shape)."""
        left, right, top, bottom = self.margins
        return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]

    def fill(self, x: Tensor) -> Tensor:
        """The transpose of `crop`: zeros around."""
        return pad(x, self.margins)

    @property
    def norm(self) -> float:
        """That of the operator inside."""
        return self.inner.norm

    @property
    def modes(self) -> Modes | None:
        """Those of the operator inside, on the middle; the margin is in none."""
        inner = self.inner.modes
        if inner is None:
            return None
        return replace(inner, Vt=lambda x: inner.Vt(self.crop(x)), V=lambda c: self.fill(inner.V(c)))

    def A(self, x: Tensor) -> Tensor:
        """A of the middle."""
        return self.inner.A(self.crop(x))

    def At(self, y: Tensor) -> Tensor:
        """A^T y in the middle, zeros around."""
        return self.fill(self.inner.At(y))

    @property
    def is_iterated(self) -> bool:
        """As inside."""
        return self.inner.is_iterated

    def gram(self, r: Tensor) -> Tensor:
        """As inside."""
        return self.inner.gram(r)

    def precondition(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """As inside."""
        return self.inner.precondition(r, noise_var, scale)

    def solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """As inside: A A^T is the same."""
        return self.inner.solve(r, noise_var, scale)

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y in the middle, zeros around."""
        return self.fill(self.inner.pinv(y))

    def correction(self, y: Tensor) -> Correction:
        """That of the operator inside, on the middle."""
        correct = self.inner.correction(y)
        return lambda x, noise_var, scale: self.fill(correct(self.crop(x), noise_var, scale))

    def to_image(self, y: Tensor) -> Tensor:
        """As inside."""
        return self.inner.to_image(y)

    def from_image(self, image: Tensor) -> Tensor:
        """As inside."""
        return self.inner.from_image(image)
