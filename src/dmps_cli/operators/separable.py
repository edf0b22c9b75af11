"""Operators that act on rows and columns in turn, y = K1 x K2^T per channel: decimation, average pooling, blur.

The singular value decompositions of the two small matrices give that of A: U = U1 (x) U2, V = V1 (x) V2, s = s1 s2^T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dmps_cli.linalg import MatrixSVD, along_both_axes, matrix_svd
from dmps_cli.operators.base import SpectralOperator

Boundary = Literal["zero", "reflect", "circular"]


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

        def cast(factor: _Factor) -> _Factor:
            return _Factor(factor.K.to(device, dtype), MatrixSVD(*(t.to(device, dtype) for t in factor.svd)))

        factor1 = _factor(rows, svd_cutoff)
        factor2 = factor1 if rows is cols else _factor(cols, svd_cutoff)
        self.singulars = torch.outer(factor1.svd.s, factor2.svd.s).to(device, dtype).expand(channels, -1, -1)
        first = cast(factor1)
        second = first if rows is cols else cast(factor2)
        self.K1, (self.U1, _, self.V1) = first
        self.K2, (self.U2, _, self.V2) = second

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


class _Factor(tuple[Tensor, MatrixSVD]):
    """The matrix of one axis and its decomposition."""
