"""Operators that act on rows and columns in turn, y = K1 x K2^T per channel: decimation, average pooling, blur.

The singular value decompositions of the two small matrices give that of A: U = U1 (x) U2, V = V1 (x) V2, s = s1 s2^T.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from dmps_cli.linalg import MatrixSVD, along_both_axes, matrix_svd
from dmps_cli.operators.base import Shape, SpectralOperator

Boundary = Literal["valid", "zero", "reflect", "replicate", "circular"]


class Separable(SpectralOperator):
    """y = K1 x K2^T for each channel.

    rows: K1 (h, H), which mixes rows (the vertical axis); cols: K2 (w, W), the horizontal one; both float64, decomposed
    in float64 and then cast. Give the same tensor twice where they are equal: it is decomposed once.
    The decompositions are made when something first asks; A and A^T do without.
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
        if svd_cutoff > 0.0:
            are_one = rows is cols
            rows = _without_small(rows, svd_cutoff)
            cols = rows if are_one else _without_small(cols, svd_cutoff)
        self.exact = rows, cols
        self.K1 = rows.to(device, dtype)
        self.K2 = self.K1 if rows is cols else cols.to(device, dtype)

    @cached_property
    def _decompositions(self) -> tuple[MatrixSVD, MatrixSVD]:
        """Those of K1 and K2, float64 on the CPU."""
        rows, cols = self.exact
        first = matrix_svd(rows)
        return first, first if rows is cols else matrix_svd(cols)

    @cached_property
    def _vectors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """U1, V1, U2, V2 in the operator's own type."""
        first, second = self._decompositions
        U1, V1 = (t.to(self.device, self.dtype) for t in (first.U, first.V))
        if first is second:
            return U1, V1, U1, V1
        return U1, V1, second.U.to(self.device, self.dtype), second.V.to(self.device, self.dtype)

    @cached_property
    def singulars(self) -> Tensor:  # type: ignore[override]
        """s1 s2^T for each channel."""
        first, second = self._decompositions
        return torch.outer(first.s, second.s).to(self.device, self.dtype).expand(self.in_shape[0], -1, -1)

    def A(self, x: Tensor) -> Tensor:
        """Returns K1 x K2^T: half the products of U S V^T x."""
        return along_both_axes(self.K1, x, self.K2.T)

    def At(self, y: Tensor) -> Tensor:
        """Returns K1^T y K2."""
        return along_both_axes(self.K1.T, y, self.K2)

    def Vt(self, x: Tensor) -> Tensor:
        """Returns V1^T x V2."""
        _, V1, _, V2 = self._vectors
        return along_both_axes(V1.T, x, V2)

    def V(self, c: Tensor) -> Tensor:
        """Returns V1 c V2^T."""
        _, V1, _, V2 = self._vectors
        return along_both_axes(V1, c, V2.T)

    def Ut(self, y: Tensor) -> Tensor:
        """Returns U1^T y U2."""
        U1, _, U2, _ = self._vectors
        return along_both_axes(U1.T, y, U2)

    def U(self, c: Tensor) -> Tensor:
        """Returns U1 c U2^T."""
        U1, _, U2, _ = self._vectors
        return along_both_axes(U1, c, U2.T)


def _without_small(K: Tensor, svd_cutoff: float) -> Tensor:
    """Returns K with its singular values below the cutoff set to zero."""
    svd = matrix_svd(K)
    return svd._replace(s=torch.where(svd.s < svd_cutoff, 0.0, svd.s)).matrix()


def bicubic_taps(scale: int) -> list[float]:
    """Returns the 4 f taps of anti-aliased bicubic decimation by f, a = -0.5, summing to 1.

    bicubic((q - 2 f + 0.5) / f), q = 0 .. 4 f - 1, for even f; for odd f, whose centre is a pixel, 1 for 0.5.
    """

    def bicubic(t: float) -> float:
        """Returns the kernel of Keys 1981, eq. (4), with a = -0.5."""
        t = abs(t)
        if t <= 1.0:
            return 1.5 * t**3 - 2.5 * t**2 + 1.0
        return -0.5 * t**3 + 2.5 * t**2 - 4.0 * t + 2.0 if t < 2.0 else 0.0

    to_centre = 0.5 if scale % 2 == 0 else 1.0
    taps = [bicubic((q - 2 * scale + to_centre) / scale) for q in range(4 * scale)]
    return [tap / sum(taps) for tap in taps]


def decimation_matrix(size: int, scale: int) -> Tensor:
    """Returns (size / scale, size), float64: bicubic decimation along one axis.

    Tap q of output k sits at k f + (f - 1) // 2 + 1 - 2 f + q; beyond the border the picture is reflected, edge pixel
    repeated.
    """
    first = (scale - 1) // 2 + 1 - 2 * scale
    positions = torch.arange(0, size, scale)[:, None] + first + torch.arange(4 * scale)[None]
    return _placed(positions, bicubic_taps(scale), size, "reflect")


def averaging_matrix(size: int, scale: int) -> Tensor:
    """Returns (size / scale, size), float64: the mean of blocks of `scale` pixels."""
    return torch.eye(size // scale, dtype=torch.float64).repeat_interleave(scale, dim=1) / scale


def blur_matrix(size: int, taps: Sequence[float], boundary: Boundary) -> Tensor:
    """Returns (size, size), float64: K[i, i - d] = taps[d + L // 2], not renormalised at a zero boundary.

    valid: (size - L + 1, size), the rows for which no tap lies beyond the border: K[i, i + q] = taps[L - 1 - q].
    """
    rows, centre = (size - len(taps) + 1, len(taps) - 1) if boundary == "valid" else (size, len(taps) // 2)
    positions = torch.arange(rows)[:, None] + centre - torch.arange(len(taps))[None]
    return _placed(positions, taps, size, boundary)


def border_columns(positions: Tensor, size: int, boundary: Boundary) -> Tensor:
    """Returns where on 0 .. size - 1 the pixel at each position stands, beyond the border too, where there is one."""
    if boundary == "circular":
        return positions % size
    if boundary == "reflect":  # half-sample: -1 -> 0, size -> size - 1, again and again for long kernels
        folded = positions % (2 * size)
        return torch.minimum(folded, 2 * size - 1 - folded)
    return positions.clamp(0, size - 1)


def _placed(positions: Tensor, taps: Sequence[float], size: int, boundary: Boundary) -> Tensor:
    """Returns the matrix with taps[q] added at column positions[k, q] of row k, beyond the border as it says."""
    weights = torch.tensor(list(taps), dtype=torch.float64).expand(positions.shape)
    if boundary == "zero":
        weights = torch.where((positions < 0) | (positions >= size), 0.0, weights)
    columns = border_columns(positions, size, boundary)
    return torch.zeros(len(positions), size, dtype=torch.float64).scatter_add_(1, columns, weights)


def _along_axes(
    in_shape: Shape,
    rows: Callable[[int], Tensor],
    cols: Callable[[int], Tensor] | None = None,
    *,
    svd_cutoff: float,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Separable:
    """Returns the operator of two matrix families.

    cols = None: the same along both axes, built once for a square picture.
    """
    channels, H, W = in_shape
    K1 = rows(H)
    K2 = K1 if cols is None and H == W else (cols or rows)(W)
    return Separable(channels, K1, K2, svd_cutoff=svd_cutoff, dtype=dtype, device=device)


def bicubic_decimation(
    in_shape: Shape, scale: int, *, svd_cutoff: float = 0.0, dtype: torch.dtype, device: torch.device | str
) -> Separable:
    """Builds bicubic (a = -0.5) anti-aliased decimation by `scale`, half-sample reflection.

    H, W: multiples of it.
    """
    return _along_axes(
        in_shape, lambda n: decimation_matrix(n, scale), svd_cutoff=svd_cutoff, dtype=dtype, device=device
    )


def average_pooling(in_shape: Shape, scale: int, *, dtype: torch.dtype, device: torch.device | str) -> Separable:
    """Returns the mean of blocks of scale x scale pixels. H, W: multiples of it."""
    return _along_axes(in_shape, lambda n: averaging_matrix(n, scale), svd_cutoff=0.0, dtype=dtype, device=device)


def separable_blur(
    in_shape: Shape,
    row_taps: Sequence[float],
    col_taps: Sequence[float],
    *,
    boundary: Boundary = "zero",
    svd_cutoff: float = 0.0,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Separable:
    """Builds convolution with row_taps along the vertical axis and col_taps along the horizontal one.

    in_shape: of x; at a valid boundary the canvas, of which y shows the frame (operators.convolution).
    """

    def matrices(taps: Sequence[float]) -> Callable[[int], Tensor]:
        return lambda n: blur_matrix(n, taps, boundary)

    cols = None if list(row_taps) == list(col_taps) else matrices(col_taps)
    op = _along_axes(in_shape, matrices(row_taps), cols, svd_cutoff=svd_cutoff, dtype=dtype, device=device)
    if boundary == "valid":
        op.frame = ((len(col_taps) - 1) // 2, (len(row_taps) - 1) // 2, op.out_shape[2], op.out_shape[1])
    return op
