"""Blur kernels by formula, float64, each with its centre at (kh // 2, kw // 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dmps_cli.errors import InputError

RANK_ONE = 1e-6
"""A kernel that is an outer product but for this share of its largest value is one: float32 rounds by less."""

_SUBCOLUMNS = 4096
"""Columns into which a disc is cut, at least eight to a pixel, where its area within a pixel is summed."""


@dataclass(frozen=True)
class Kernel:
    """A kernel (kh, kw), by its numbers or, where it is their outer product, by taps along both axes.

    factors: (vertical, horizontal), lists of floats, so that equal ones are seen to be equal.
    """

    table: Tensor | None = None
    factors: tuple[Sequence[float], Sequence[float]] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(kh, kw) px."""
        if self.factors is not None:
            return len(self.factors[0]), len(self.factors[1])
        return self.values.shape[0], self.values.shape[1]

    @property
    def values(self) -> Tensor:
        """(kh, kw), float64."""
        if self.factors is None:
            assert self.table is not None
            return self.table
        vertical, horizontal = (torch.tensor(list(taps), dtype=torch.float64) for taps in self.factors)
        return torch.outer(vertical, horizontal)

    def check_fits(self, size: Sequence[int]) -> None:
        """Raises InputError if a picture of (H, W) is smaller than the kernel."""
        (kh, kw), (H, W) = self.size, size
        if kh > H or kw > W:
            raise InputError(
                f"the kernel is {kw} x {kh} px, larger than the picture of {W} x {H}; take a smaller kernel"
            )


def factored(values: Tensor) -> Kernel:
    """Returns the kernel of any values (kh, kw), not all 0, by its factors where it has some (RANK_ONE).

    A table of rank 1 is its column through any value times its row through it, divided by the value.
    """
    values = values.double()
    row, column = divmod(int(values.abs().argmax()), values.shape[1])
    pivot = float(values[row, column])
    vertical = values[:, column] / math.sqrt(abs(pivot))
    horizontal = values[row] * math.copysign(1.0 / math.sqrt(abs(pivot)), pivot)
    if float((values - torch.outer(vertical, horizontal)).abs().max()) > RANK_ONE * abs(pivot):
        return Kernel(table=values)
    return Kernel(factors=(vertical.tolist(), horizontal.tolist()))


def uniform_taps(width: int) -> list[float]:
    """Returns `width` taps of 1 / width."""
    return [1.0 / width] * width


def gaussian_width(std: float) -> int:
    """Returns the taps that reach to five standard deviations on both sides: 31 at std 3, as in the authors' code."""
    return 2 * math.ceil(5 * std) + 1


def gaussian_taps(std: float, num_taps: int) -> list[float]:
    """Returns `num_taps` samples of exp(-d^2 / (2 std^2)), d = 0 at tap num_taps // 2, summing to 1."""
    half = num_taps // 2
    taps = [math.exp(-0.5 * (d / std) ** 2) for d in range(-half, num_taps - half)]
    total = sum(taps)
    return [tap / total for tap in taps]


def line(length: float, angle: float) -> Kernel:
    """Builds motion over `length` px in direction `angle`, summing to 1, both sides odd; horizontally, equal taps.

    A pixel weighs 1 - d, d its distance from the segment of `length` - 1 px around the centre, where that is below 1,
    as in fspecial('motion', length, angle) of MATLAB. angle: degrees, counter-clockwise from horizontal.
    """
    half = (length - 1.0) / 2.0
    reach = math.ceil(half) + 1
    x = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y = -x[:, None]  # rows count downwards
    along = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    across = y * math.cos(math.radians(angle)) - x * math.sin(math.radians(angle))
    distance = torch.hypot((along.abs() - half).clamp_min(0.0), across)
    kernel = (1.0 - distance).clamp_min(0.0)
    return factored(_trimmed(kernel / kernel.sum()))


def disc(radius: float) -> Kernel:
    """Returns a lens out of focus: each pixel by the share of its area within the disc of `radius` px, summing to 1.

    Exact along the vertical axis, by the midpoint rule along the horizontal one.
    """
    reach = max(math.ceil(radius - 0.5), 0)
    size = 2 * reach + 1
    parts = max(8, _SUBCOLUMNS // size)
    middles = (torch.arange(size * parts, dtype=torch.float64) + 0.5) / parts - size / 2
    chord = (radius**2 - middles**2).clamp_min(0.0).sqrt()  # half of it: the disc covers rows from -chord to chord
    edges = torch.arange(size + 1, dtype=torch.float64)[:, None] - size / 2
    within = torch.minimum(torch.maximum(edges, -chord), chord)
    area = within.diff(dim=0).reshape(size, size, parts).sum(2)
    return factored(area / area.sum())


def _trimmed(kernel: Tensor) -> Tensor:
    """Returns the kernel without rows and columns that rounding alone fills, as many on opposite sides."""
    kernel = torch.where(kernel.abs() > 1e-12 * kernel.abs().max(), kernel, 0.0)
    rows, cols = (_margin(kernel.abs().sum(axis)) for axis in (1, 0))
    return kernel[rows : kernel.shape[0] - rows, cols : kernel.shape[1] - cols]


def _margin(profile: Tensor) -> int:
    """Returns how many zeros there are at both ends."""
    filled = profile.nonzero()[:, 0]
    return min(int(filled[0]), len(profile) - 1 - int(filled[-1]))
