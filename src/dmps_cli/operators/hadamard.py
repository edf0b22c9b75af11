"""Compressed sensing with rows of a Walsh-Hadamard matrix applied to shuffled pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dmps_cli.errors import InputError
from dmps_cli.linalg import walsh_hadamard
from dmps_cli.operators.base import Shape, SpectralOperator
from dmps_cli.operators.pointwise import pattern_sha256


class WalshHadamard(SpectralOperator):
    """y = the first m = n / ratio rows of H_n P x for each channel.

    P flattens the channel, pads it with zeros to n, the next power of two, and shuffles it by a permutation seeded with
    `seed` (on the CPU: the same on every device); H_n is orthonormal, in Sylvester's order. in_shape: (C, H, W);
    y: (C, m); ratio: a power of two, at most n, else ValueError.

    H_n = H_ratio (x) H_m, and the first row of H_ratio is constant, so A = H_m D, where D adds up groups of `ratio`
    shuffled pixels and divides by sqrt(ratio). Hence, exactly and whatever the padding,

        U = H_m,   s_i = sqrt(count_i / ratio),   V_i = indicator of group i / sqrt(count_i),

    count_i = real pixels in group i; a group of padding alone is left out. In the loop nothing is transformed: V^T
    gathers and V scatters. (DDRM's WalshHadamardCS shuffles the coefficients of an unshuffled picture instead, so
    that its rows are a random selection; with padding that has no closed form.)
    """

    def __init__(
        self, in_shape: Shape, ratio: int, seed: int, *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        channels, H, W = in_shape
        num_pixels = H * W
        n = 1 << (num_pixels - 1).bit_length()
        if ratio < 1 or n % ratio:
            raise ValueError(f"ratio is {ratio}; it must be a power of two, at most {n}")
        super().__init__(in_shape, (channels, n // ratio), dtype, device)
        order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
        members = order.reshape(ratio, n // ratio)
        real = members < num_pixels
        count = real.sum(0)
        groups = count.nonzero()[:, 0]
        self.fingerprint = pattern_sha256(order)
        self.groups = None if len(groups) == n // ratio else groups.to(device)  # None: all of them
        members, real, count = members[:, groups], real[:, groups], count[groups].double()
        self.singulars = (count / ratio).sqrt().to(device, dtype).expand(channels, -1)
        self.members = torch.where(real, members, 0).to(device)
        self.weights = (real / count.sqrt()).to(device, dtype)
        group_of_pixel = torch.empty(n, dtype=torch.int64)
        group_of_pixel[members[real]] = torch.arange(len(groups)).expand_as(members)[real]
        self.group_of_pixel = group_of_pixel[:num_pixels].to(device)
        self.weight_of_group = (1.0 / count.sqrt()).to(device, dtype)

    def Vt(self, x: Tensor) -> Tensor:
        """The sum of each group divided by sqrt(count). x: (B, C, H, W); result: (B, C, groups)."""
        pixels = x.flatten(2)
        picked = [
            pixels.gather(2, m.expand(*x.shape[:2], -1)) * w for m, w in zip(self.members, self.weights, strict=True)
        ]
        return torch.stack(picked).sum(0)

    def V(self, c: Tensor) -> Tensor:
        """c / sqrt(count) at each pixel of its group."""
        return (
            (c * self.weight_of_group)
            .gather(2, self.group_of_pixel.expand(*c.shape[:2], -1))
            .reshape(-1, *self.in_shape)
        )

    def Ut(self, y: Tensor) -> Tensor:
        """H_m y, without the groups of padding."""
        transformed = walsh_hadamard(y)
        return transformed if self.groups is None else transformed[..., self.groups]

    def U(self, c: Tensor) -> Tensor:
        """H_m c, zero at the groups of padding."""
        if self.groups is None:
            return walsh_hadamard(c)
        full = c.new_zeros((*c.shape[:2], self.out_shape[1]))
        return walsh_hadamard(full.scatter(2, self.groups.expand_as(c), c))

    def to_image(self, y: Tensor) -> Tensor:
        """A^T y: each pixel shows the mean of its group (with padding, mid-grey is mixed in)."""
        return self.At(y)

    def from_image(self, image: Tensor) -> Tensor:
        """Raises InputError: a picture cannot hold these numbers."""
        raise InputError(
            "a picture cannot hold a compressed-sensing measurement; give the float measurement (.npy) "
            "that `dmps degrade` wrote beside it"
        )
