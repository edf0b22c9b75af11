"""Decimation of large pictures: the operators of `separable.py` by strips, without the decomposition of a large matrix.

Both mix rows and columns with matrices K of a few entries a row, the same in every row but for the reflected border. A
symmetric kernel at a half-sample border makes K K^T diagonal in the cosine basis C (DCT-II), so that

    A = U S V^T,  U = C1^T (x) C2^T,  S^2 = lambda1 (x) lambda2,  V^T = S^-1 U^T A
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from dmps_cli import fields
from dmps_cli.linalg import cosine_transform, inverse_cosine_transform
from dmps_cli.operators.base import Shape, SpectralOperator
from dmps_cli.operators.separable import bicubic_taps, border_columns

_BLOCK = 128  # rows or columns of a matrix that are multiplied together
_REACH = 4  # rows of K, at least, that touch a column on each side of its own


class BandMatrix:
    """K (n / scale, n): row k has taps at k scale + first, reflected at the border (edge pixel repeated).

    taps: symmetric about the middle of their block of `scale` px; float64. Never whole: a part is dense.
    """

    def __init__(self, size: int, scale: int, taps: Sequence[float], first: int) -> None:
        self.size, self.scale, self.first = size, scale, first
        self.taps, self.num_rows = torch.tensor(list(taps), dtype=torch.float64), size // scale

    def of_rows(self, top: int, bottom: int) -> tuple[int, int, Tensor]:
        """Returns (left, right, the part (bottom - top, right - left)): all that rows top .. bottom have."""
        starts = torch.arange(top, bottom)[:, None] * self.scale + self.first
        columns = border_columns(starts + torch.arange(len(self.taps)), self.size, "reflect")
        left, right = int(columns.min()), int(columns.max()) + 1
        part = torch.zeros(bottom - top, right - left, dtype=torch.float64)
        return left, right, part.scatter_add_(1, columns - left, self.taps.expand(columns.shape))

    def of_columns(self, left: int, right: int) -> tuple[int, int, Tensor]:
        """Returns (top, bottom, the part (bottom - top, right - left)): all that columns left .. right have."""
        top = max(0, left // self.scale - _REACH)
        bottom = min(self.num_rows, -(-right // self.scale) + _REACH)
        first, last, part = self.of_rows(top, bottom)
        wanted = torch.zeros(bottom - top, right - left, dtype=torch.float64)
        low, high = max(first, left), min(last, right)
        wanted[:, low - left : high - left] = part[:, low - first : high - first]
        return top, bottom, wanted

    def eigenvalues(self) -> Tensor:
        """Returns those of K K^T in the order of the cosine basis, (n / scale,), float64.

        Its first column g has C g = lambda C e0, so lambda_k = sum over j of g_j cos(pi k (j + 1/2) / h) over
        cos(pi k / (2 h)).
        """
        near = min(self.num_rows, 2 * _REACH + 1)
        _, _, part = self.of_rows(0, near)
        g = part @ part[0]
        angle = math.pi * torch.arange(self.num_rows, dtype=torch.float64)[:, None] / self.num_rows
        waves = torch.cos(angle * (torch.arange(near, dtype=torch.float64) + 0.5))
        return (waves @ g) / waves[:, 0]


class BandedDecimation(SpectralOperator):
    """y = K1 x K2^T for each channel, K1 and K2 of one kernel: x and y strip by strip.

    in_shape: (C, H, W), H and W multiples of the scale. A takes fields; `by_strips` gives one whose At is a field too.
    """

    is_lazy = False

    def __init__(
        self,
        in_shape: Shape,
        scale: int,
        taps: Sequence[float],
        first: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        channels, H, W = in_shape
        super().__init__(in_shape, (channels, H // scale, W // scale), dtype, device)
        self.vertical, self.horizontal = (BandMatrix(side, scale, taps, first) for side in (H, W))
        s1, s2 = (band.eigenvalues().clamp_min(0.0).sqrt() for band in (self.vertical, self.horizontal))
        self.singulars = torch.outer(s1, s2).to(self.device, dtype).expand(channels, -1, -1)
        self._to_right = [self._placed(*self.horizontal.of_rows(*ends)) for ends in _blocks(W // scale)]
        self._to_left = [self._placed(*self.horizontal.of_columns(*ends)) for ends in _blocks(W)]

    def _placed(self, low: int, high: int, part: Tensor) -> tuple[int, int, Tensor]:
        return low, high, part.to(self.device, self.dtype)

    def by_strips(self) -> Self:
        """Returns the operator whose At and V give fields."""
        lazy = copy.copy(self)
        lazy.is_lazy = True
        return lazy

    def A(self, x: Tensor) -> Tensor:
        """Returns K1 x K2^T. x: a tensor or a field."""
        y = torch.empty((len(x), *self.out_shape), dtype=self.dtype, device=self.device)
        for top, bottom in fields.strips(self.out_shape[1]):
            low, high, part = self._placed(*self.vertical.of_rows(top, bottom))
            band = part @ fields.rows(x, low, high)
            y[..., top:bottom, :] = torch.cat([band[..., a:b] @ right.mT for a, b, right in self._to_right], dim=-1)
        return y

    def At(self, y: Tensor) -> Tensor:
        """Returns K1^T y K2: a tensor, or a field of it."""

        def rows(top: int, bottom: int) -> Tensor:
            low, high, part = self._placed(*self.vertical.of_columns(top, bottom))
            band = part.mT @ y[..., low:high, :]
            return torch.cat([band[..., a:b] @ left for a, b, left in self._to_left], dim=-1)

        if self.is_lazy:
            return fields.Field(rows, (len(y), *self.in_shape), self.dtype, y.device)
        return torch.cat([rows(*ends) for ends in fields.strips(self.in_shape[1])], dim=-2)

    def Ut(self, y: Tensor) -> Tensor:
        """Returns the cosine transform along both axes."""
        return torch.stack([cosine_transform(cosine_transform(each.mT).mT) for each in y.unbind()])

    def U(self, c: Tensor) -> Tensor:
        """Returns the inverse cosine transform along both axes."""
        return torch.stack([inverse_cosine_transform(inverse_cosine_transform(each.mT).mT) for each in c.unbind()])

    def Vt(self, x: Tensor) -> Tensor:
        """Returns S^-1 U^T A x."""
        return self.Ut(self.A(x)) / self.singulars

    def V(self, c: Tensor) -> Tensor:
        """Returns A^T U S^-1 c."""
        return self.At(self.U(c / self.singulars))


def _blocks(size: int) -> list[tuple[int, int]]:
    return list(fields.strips(size, _BLOCK))


def bicubic(in_shape: Shape, scale: int, *, dtype: torch.dtype, device: torch.device | str) -> BandedDecimation:
    """Builds `separable.bicubic_decimation` for a large picture."""
    first = (scale - 1) // 2 + 1 - 2 * scale
    return BandedDecimation(in_shape, scale, bicubic_taps(scale), first, dtype=dtype, device=device)


def average(in_shape: Shape, scale: int, *, dtype: torch.dtype, device: torch.device | str) -> BandedDecimation:
    """Builds `separable.average_pooling` for a large picture."""
    return BandedDecimation(in_shape, scale, [1.0 / scale] * scale, 0, dtype=dtype, device=device)
