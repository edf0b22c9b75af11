"""Compressed sensing: a few rows of the Walsh-Hadamard transform of the permuted pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dmps_cli.errors import InputError
from dmps_cli.linalg import walsh_hadamard
from dmps_cli.operators.base import Shape, SpectralOperator


class WalshHadamard(SpectralOperator):
    """y = the first n / ratio rows of H_n P x per channel (the convention of Kawar et al. 2022, DDRM).

    P puts the H W pixels in a random order fixed by `seed` and fills them up with zeros to n, a power of two; H_n is
    orthonormal, in Sylvester's order. Its first m = n / ratio rows see no more than the sums of `ratio` pixels,
    n / ratio apart: A = H_m D, D[i] = sum over the group i / sqrt(ratio). So U = H_m, s_i = sqrt(count_i / ratio) with
    count_i the real pixels of group i, V = the group's normalised indicator: closed form with or without filling.

    in_shape: (C, H, W); ratio: a power of two below n, else InputError. y: (C, m).
    """

    def __init__(
        self, in_shape: Shape, ratio: int, *, seed: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        channels, H, W = in_shape
        n = 1 << (H * W - 1).bit_length()
        if ratio > n:
            raise InputError(f"the ratio {ratio} is larger than the {H * W} pixels of the picture")
        m = n // ratio
        super().__init__(in_shape, (channels, m), dtype, device)
        self.ratio = ratio
        places = np.random.default_rng(seed).permutation(n)[: H * W]  # place of each pixel among the n
        pixel_at = np.full(n, H * W)  # H W: a filling zero
        pixel_at[places] = np.arange(H * W)
        self.pixel_at = torch.from_numpy(pixel_at).to(device)
        self.group = torch.from_numpy(places % m).to(device)
        counts = torch.bincount(torch.from_numpy(places % m), minlength=m).double()
        self.singulars = (counts / ratio).sqrt().to(device, dtype).expand(channels, m)
        self.per_group = torch.where(counts > 0, counts.rsqrt(), 0.0).to(device, dtype)

    def Vt(self, x: Tensor) -> Tensor:
        """Sums over the groups, normalised. x: (B, C, H, W); result: (B, C, m)."""
        filled = torch.nn.functional.pad(x.flatten(2), (0, 1))
        members = filled[..., self.pixel_at].reshape(*filled.shape[:-1], self.ratio, -1)
        return members.sum(-2) * self.per_group

    def V(self, c: Tensor) -> Tensor:
        """Each pixel gets its group's coefficient, normalised."""
        return (c * self.per_group)[..., self.group].reshape(-1, *self.in_shape)

    def Ut(self, y: Tensor) -> Tensor:
        """H_m y; H_m is symmetric and its own inverse."""
        return walsh_hadamard(y)

    def U(self, c: Tensor) -> Tensor:
        """H_m c."""
        return walsh_hadamard(c)

    def to_image(self, y: Tensor) -> Tensor:
        """A^T y: not the measurement, but something to look at."""
        return self.At(y)

    def from_image(self, image: Tensor) -> Tensor:
        """Raises InputError: the picture of a compressed measurement does not determine it."""
        raise InputError("a picture cannot hold a compressed measurement; name the .npy file that was written with it")
