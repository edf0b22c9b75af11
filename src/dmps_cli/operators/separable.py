"""Operators that act on rows and columns in turn, y = K1 x K2^T per channel: decimation, average pooling, blur.

The singular value decompositions of the two small matrices give that of A: U = U1 (x) U2, V = V1 (x) V2, s = s1 s2^T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dmps_cli.linalg import MatrixSVD, along_both_axes, matrix_svd
from dmps_cli.operators.base import SpectralOperator

Boundary = Literal["zero", "reflect", "circular"]


class Factor(NamedTuple):
    """The matrix of one axis, K = U diag(s) V^T, and its decomposition."""

    K: Tensor
    svd: MatrixSVD

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Factor:
        """The same on a device and in a dtype."""
        return Factor(self.K.to(device, dtype), MatrixSVD(*(t.to(device, dtype) for t in self.svd)))


def factorise(K: Tensor, svd_cutoff: float) -> Factor:
    """K and its decomposition, singular values below svd_cutoff set to zero in both. K: (m, n), float64."""
    svd = matrix_svd(K)
    if not bool((svd.s < svd_cutoff).any()):
        return Factor(K, svd)
    svd = svd._replace(s=torch.where(svd.s < svd_cutoff, 0.0, svd.s))
    return Factor(svd.matrix(), svd)


class Separable(SpectralOperator):
    """y = K1 x K2^T for each channel.

    rows: K1 (h, H), which mixes rows (the vertical axis); cols: K2 (w, W), the horizontal one; both float64, decomposed
    in float64 and then cast. Give the same tensor twice where they are equal: it is decomposed once.
    svd_cutoff: singular values of K1 and K2 below it are set to zero in A itself, as the authors' code does with 0.03.
    """

    def __init__(
        self,
        channels: int,
        rows: Tensor,
        cols: Tensor,
        *,
        svd_cutoff: float = 0.0,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        (h, H), (w, W) = rows.shape, cols.shape
        super().__init__((channels, H, W), (channels, h, w), dtype, device)
        first = factorise(rows, svd_cutoff)
        second = first if cols is rows else factorise(cols, svd_cutoff)
        spectrum = torch.outer(first.svd.s, second.svd.s).to(device, dtype)  # the product is taken in float64
        self.singulars = spectrum.expand(channels, -1, -1)
        self.K1, (self.U1, _, self.V1) = cast = first.to(device, dtype)
        self.K2, (self.U2, _, self.V2) = cast if cols is rows else second.to(device, dtype)

    def A(self, x: Tensor) -> Tensor:
        """K1 x K2^T: half the products of U S V^T x."""
        return along_both_axes(self.K1, x, self.K2.T)

    def At(self, y: Tensor) -> Tensor:
        """K1^T y K2."""
        return along_both_axes(self.K1.T, y, self.K2)

    def Vt(self, x: Tensor) -> Tensor:
        """V1^T x V2."""
        return along_both_axes(self.V1.T, x, self.V2)

    def V(self, c: Tensor) -> Tensor:
        """V1 c V2^T."""
        return along_both_axes(self.V1, c, self.V2.T)

    def Ut(self, y: Tensor) -> Tensor:
        """U1^T y U2."""
        return along_both_axes(self.U1.T, y, self.U2)

    def U(self, c: Tensor) -> Tensor:
        """U1 c U2^T."""
        return along_both_axes(self.U1, c, self.U2.T)


def reflected(index: Tensor, n: int) -> Tensor:
    """Half-sample reflection of positions into 0 .. n - 1: the edge pixel is repeated (-1 -> 0, n -> n - 1)."""
    index = index % (2 * n)
    return torch.where(index < n, index, 2 * n - 1 - index)


def bicubic(t: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5 (Keys 1981, eq. (15)); zero for |t| >= 2."""
    a, t = -0.5, t.abs()
    inner = (a + 2.0) * t**3 - (a + 3.0) * t**2 + 1.0
    outer = a * t**3 - 5.0 * a * t**2 + 8.0 * a * t - 4.0 * a
    return torch.where(t <= 1.0, inner, torch.where(t < 2.0, outer, 0.0))


def bicubic_decimation(n: int, factor: int) -> Tensor:
    """(n / factor, n): anti-aliased bicubic reduction along one axis, half-sample reflection at the ends.

    Output k is centred at k f + (f - 1) / 2; the weight of input j is bicubic((j - centre) / f), normalised to sum 1:
    4 f taps (4 f - 1 where f is odd; the authors' code is half a pixel off there). n must be divisible by the factor,
    else ValueError.
    """
    _check_divisible(n, factor)
    first = -2 * factor + (factor + 1) // 2  # the leftmost tap's distance from k f
    offsets = torch.arange(first, first + 4 * factor)
    taps = bicubic((offsets - (factor - 1) / 2).double() / factor)
    return _place(taps / taps.sum(), reflected(factor * torch.arange(n // factor)[:, None] + offsets, n), n)


def average_pooling(n: int, factor: int) -> Tensor:
    """(n / factor, n): the mean of each block of `factor` inputs. n must be divisible by it, else ValueError."""
    _check_divisible(n, factor)
    blocks = factor * torch.arange(n // factor)[:, None] + torch.arange(factor)
    return _place(torch.full((factor,), 1.0 / factor, dtype=torch.float64), blocks, n)


def blur(n: int, taps: Sequence[float], boundary: Boundary) -> Tensor:
    """(n, n): K[i, i + d] = taps[d + L // 2], d = -(L // 2) .. L - 1 - L // 2, L = len(taps).

    boundary: what lies beyond the ends: zeros (no renormalisation there), the half-sample reflection, or the
    opposite end.
    """
    reach = torch.arange(len(taps)) - len(taps) // 2
    positions = torch.arange(n)[:, None] + reach
    weights = torch.tensor(taps, dtype=torch.float64).expand(n, -1)
    if boundary == "zero":
        inside = (positions >= 0) & (positions < n)
        return _place(torch.where(inside, weights, 0.0), positions.clamp(0, n - 1), n)
    return _place(weights, reflected(positions, n) if boundary == "reflect" else positions % n, n)


def _place(weights: Tensor, positions: Tensor, n: int) -> Tensor:
    """The matrix whose row k has weights[k, q] added at column positions[k, q]."""
    matrix = torch.zeros(len(positions), n, dtype=torch.float64)
    return matrix.scatter_add(1, positions, weights.expand(positions.shape))


def _check_divisible(n: int, factor: int) -> None:
    if n % factor:
        raise ValueError(f"n is {n}; it must be divisible by the factor {factor}")


def uniform_taps(width: int) -> list[float]:
    """`width` taps of 1 / width."""
    return [1.0 / width] * width


def gaussian_taps(std: float, num_taps: int) -> list[float]:
    """exp(-d^2 / (2 std^2)), d = -(L // 2) .. L // 2 in pixels, normalised to sum 1; L = num_taps, odd."""
    half = num_taps // 2
    taps = [math.exp(-(d**2) / (2.0 * std**2)) for d in range(-half, half + 1)]
    return [tap / math.fsum(taps) for tap in taps]
