"""A by its matrix, dense or sparse, of the whole picture or of each channel."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dmps_cli.errors import InputError
from dmps_cli.operators.base import LinearOperator, Shape
from dmps_cli.operators.functions import norm_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class MatrixOperator(LinearOperator):
    """y = K x, x.flatten() for x: (C, H, W), or each channel's; items one at a time.

    matrix: (M, C H W), or (M, H W) for every channel alike; a dense tensor, or what SciPy has of a sparse one. y: (M,)
    or (C, M), the picture's own shape where it has as many numbers. Raises InputError for another number of columns.
    """

    def __init__(
        self, in_shape: Shape, matrix: Tensor | csr_array, *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        channels, H, W = in_shape
        (rows, columns), pixels = matrix.shape, H * W
        if columns not in (channels * pixels, pixels):
            each = f", or {pixels} for each channel" if channels > 1 else ""
            raise InputError(
                f"the matrix is {rows} x {columns}; expected {channels * pixels} columns for pictures of "
                f"(channels, height, width) {(channels, H, W)}{each}"
            )
        groups = channels * pixels // columns
        out_shape: Shape = (rows,) if groups == 1 else (groups, rows)
        super().__init__(in_shape, in_shape if rows == columns else out_shape, dtype, device)
        self.groups = groups
        self.K, self.Kt = _both(matrix, dtype, device)

    @cached_property
    def norm(self) -> float:
        """The largest singular value of K."""
        return norm_of(self)

    def _applied(self, K: Tensor, vectors: Tensor, shape: Shape) -> Tensor:
        """Returns K times each group of numbers of each item."""
        items = [K @ item.reshape(self.groups, -1).T for item in vectors]
        return torch.stack([item.T.reshape(shape) for item in items])

    def A(self, x: Tensor) -> Tensor:
        """Returns K x."""
        return self._applied(self.K, x, self.out_shape)

    def At(self, y: Tensor) -> Tensor:
        """Returns K^T y."""
        return self._applied(self.Kt, y, self.in_shape)


def _both(matrix: Tensor | csr_array, dtype: torch.dtype, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Returns (K, K^T); a sparse one twice, each with its rows side by side, for the transpose of one is slow."""
    if isinstance(matrix, Tensor):
        K = matrix.to(device, dtype)
        return K, K.T
    K, Kt = (_sparse(form, dtype, device) for form in (matrix, matrix.T.tocsr()))
    return K, Kt


def _sparse(matrix: csr_array, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    starts, columns = (torch.from_numpy(part.astype("int64")) for part in (matrix.indptr, matrix.indices))
    values = torch.from_numpy(matrix.data.astype("float64"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # that its interface may still change
        tensor: Tensor = torch.sparse_csr_tensor(starts, columns, values, matrix.shape, dtype=dtype, device=device)
    return tensor
