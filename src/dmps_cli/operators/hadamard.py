"""Compressed sensing: random rows of the Walsh-Hadamard transform."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from dmps_cli.errors import InputError
from dmps_cli.linalg import walsh_hadamard
from dmps_cli.operators.base import Correction, LinearOperator, Shape
from dmps_cli.operators.pointwise import FlatOperator


def hadamard_rows(
    in_shape: Shape, ratio: int, *, seed: int, dtype: torch.dtype, device: torch.device | str
) -> LinearOperator:
    """Returns y = H W / ratio random rows of H_n x per channel, H_n the orthonormal Walsh-Hadamard matrix.

    The pixels of a channel, row by row, are filled up with zeros to n, a power of two. Which rows: the mean (row 0),
    and the first others of a permutation fixed by `seed` (Kawar et al. 2022, DDRM, permute all and may lose the mean).
    Closed form where H W is a power of two, conjugate gradients elsewhere. Raises InputError if no row is left.
    """
    num_pixels = in_shape[1] * in_shape[2]
    n = 1 << (num_pixels - 1).bit_length()
    num_rows = num_pixels // ratio
    if num_rows < 1:
        raise InputError(f"the ratio {ratio} leaves nothing of a picture of {num_pixels} pixels; choose a smaller one")
    others = 1 + np.random.default_rng(seed).permutation(n - 1)[: num_rows - 1]
    rows = torch.from_numpy(np.concatenate([[0], others])).to(device)
    kind = HadamardRows if n == num_pixels else PaddedHadamardRows
    return kind(in_shape, rows, n, dtype=dtype, device=device)


class _Rows:
    """A choice of rows of H_n, on vectors (B, C, n)."""

    def __init__(self, rows: Tensor, n: int) -> None:
        self.rows, self.n = rows, n

    def forward(self, x: Tensor) -> Tensor:
        """Returns the rows' products with x: (B, C, m)."""
        return walsh_hadamard(x)[..., self.rows]

    def spread(self, c: Tensor) -> Tensor:
        """Returns (B, C, n) with c at the chosen rows, 0 at the others."""
        return c.new_zeros((*c.shape[:2], self.n)).index_copy(2, self.rows, c)

    def transpose(self, c: Tensor) -> Tensor:
        """Returns the sum of the rows weighted by c: (B, C, n)."""
        return walsh_hadamard(self.spread(c))


class _NoPicture(LinearOperator):
    """A measurement that no picture holds."""

    def to_image(self, y: Tensor) -> Tensor:
        """Returns A^T y: not the measurement, but something to look at."""
        return self.At(y)

    def from_image(self, image: Tensor) -> Tensor:
        """Raises InputError: the picture of a compressed measurement does not determine it."""
        raise InputError("a picture cannot hold a compressed measurement; name the .npy file that was written with it")


class HadamardRows(_NoPicture, FlatOperator):
    """Rows of H_n where n is the number of pixels: they are orthonormal, so U = I and V^T = A."""

    def __init__(
        self, in_shape: Shape, rows: Tensor, n: int, *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        super().__init__(in_shape, (in_shape[0], len(rows)), 1.0, dtype, device)
        self.chosen, self.pattern = _Rows(rows, n), rows

    def Vt(self, x: Tensor) -> Tensor:
        """Returns the chosen rows of H_n x."""
        return self.chosen.forward(x.flatten(2))

    def V(self, c: Tensor) -> Tensor:
        """Returns the picture with those coefficients, 0 at the others."""
        return self.chosen.transpose(c).reshape(-1, *self.in_shape)

    def correction(self, y: Tensor) -> Correction:
        """Returns H_n (P^T y - P^T P H_n x) / (noise_var + scale), P the choice of rows: two transforms, no gather."""
        spread = self.chosen.spread(y)
        kept = self.chosen.spread(torch.ones_like(y[:1]))

        def residual_to_image(x: Tensor, noise_var: float, scale: float) -> Tensor:
            residual = (spread - kept * walsh_hadamard(x.flatten(2))) * (1.0 / (noise_var + scale))
            return walsh_hadamard(residual).reshape(-1, *self.in_shape)

        return residual_to_image


class PaddedHadamardRows(_NoPicture):
    """Rows of H_n on pixels filled up with zeros to n: no longer orthonormal, and solved by iteration.

    Some tens of iterations do (measured: 8 to 38 at 200 x 300, 257 x 256 and 300 x 219 px, ratio 2 and 4, float32).
    Rows can coincide on the kept pixels, so A A^T may be singular: `pinv` is the damped one of every iterated operator.
    """

    def __init__(
        self, in_shape: Shape, rows: Tensor, n: int, *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        super().__init__(in_shape, (in_shape[0], len(rows)), dtype, device)
        self.chosen, self.pattern = _Rows(rows, n), rows
        self.num_pixels = in_shape[1] * in_shape[2]

    def A(self, x: Tensor) -> Tensor:
        """Fills up with zeros, transforms, chooses."""
        return self.chosen.forward(pad(x.flatten(2), (0, self.chosen.n - self.num_pixels)))

    def At(self, y: Tensor) -> Tensor:
        """Spreads, transforms, drops what was filled in."""
        return self.chosen.transpose(y)[..., : self.num_pixels].reshape(-1, *self.in_shape)
