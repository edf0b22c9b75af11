"""Operators that act on each pixel by itself: noise alone, a weighted sum of the channels, missing pixels.

All their singular values are equal, so every solve is a division by one number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dmps_cli.errors import InputError
from dmps_cli.operators.base import Correction, Shape, SpectralOperator

REMOVED = -1.0
"""What `Mask.to_image` shows where a pixel is removed: black, as in the mask's own picture."""


class FlatOperator(SpectralOperator):
    """A = s V^T, V^T V = I: one singular value for all modes, and each number of y is one of them (U = I)."""

    is_selection = False
    """Whether y is some of the numbers of x as they are."""

    def __init__(
        self, in_shape: Shape, out_shape: Shape, s: float, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        super().__init__(in_shape, out_shape, dtype, device)
        self.s = s
        self.singulars = torch.full((), s, dtype=dtype, device=device).expand(self.out_shape)

    def Ut(self, y: Tensor) -> Tensor:
        """Returns its argument: U is the identity."""
        return y

    def U(self, c: Tensor) -> Tensor:
        """Returns its argument: U is the identity."""
        return c

    def A(self, x: Tensor) -> Tensor:
        """Returns the product s V^T x."""
        return self.s * self.Vt(x)

    def At(self, y: Tensor) -> Tensor:
        """Returns the product s V y."""
        return self.V(self.s * y)

    def _divided(self, numerator: Tensor, noise_var: float, scale: float) -> Tensor:
        return numerator * (1.0 / (noise_var + scale * self.s**2))


class Identity(FlatOperator):
    """y = x (denoising). in_shape: (C, H, W)."""

    def __init__(self, in_shape: Shape, *, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__(in_shape, in_shape, 1.0, dtype, device)

    def Vt(self, x: Tensor) -> Tensor:
        """Returns its argument: V is the identity."""
        return x

    def V(self, c: Tensor) -> Tensor:
        """Returns its argument: V is the identity."""
        return c


class ChannelMean(FlatOperator):
    """y = sum over c of w_c x_c (colorization); y has one channel.

    in_shape: (C, H, W); weights: C numbers, not all 0, else InputError; by default 1/C each (the authors' code has
    .3333 .3334 .3333). s = ||w||, V = w / ||w||.
    """

    def __init__(
        self,
        in_shape: Shape,
        weights: Sequence[float] | None = None,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        channels = in_shape[0]
        w = [1.0 / channels] * channels if weights is None else list(weights)
        norm = math.hypot(*w)
        if len(w) != channels or norm == 0.0:
            raise InputError(f"the weights are {w}; for {channels} channels, {channels} numbers are due, not all 0")
        super().__init__(in_shape, (1, *in_shape[1:]), norm, dtype, device)
        self.unit = torch.tensor([v / norm for v in w], dtype=dtype, device=device)[:, None, None]

    def Vt(self, x: Tensor) -> Tensor:
        """Returns the sum over c of w_c / ||w|| x_c."""
        return (self.unit * x).sum(1, keepdim=True)

    def V(self, c: Tensor) -> Tensor:
        """Returns the product w / ||w|| c."""
        return self.unit * c

    def from_image(self, image: Tensor) -> Tensor:
        """Returns a grey picture's one channel, also if it comes as RGB.

        Of a colour picture its grey value by the weights.
        """
        grey = image[:, :1]
        return grey if torch.equal(image, grey.expand_as(image)) else self.A(image)


class Mask(FlatOperator):
    """y = the kept pixels of x (inpainting). A removed pixel loses all channels.

    in_shape: (C, H, W); keep: (H, W) of bool. y: (C, K), the K kept pixels in row-major order. A white pixel of a mask
    picture is kept. Raises InputError if no pixel is kept or the mask has another size.
    """

    is_selection = True

    def __init__(self, in_shape: Shape, keep: Tensor, *, dtype: torch.dtype, device: torch.device | str) -> None:
        channels, H, W = in_shape
        if tuple(keep.shape) != (H, W):
            raise InputError(
                f"the mask is {keep.shape[-1]} x {keep.shape[0]} pixels, the picture {W} x {H}; resize the mask"
            )
        if not bool(keep.any()):
            raise InputError("the mask removes every pixel; keep some (white = keep)")
        index = keep.flatten().nonzero()[:, 0]
        super().__init__(in_shape, (channels, len(index)), 1.0, dtype, device)
        self.index = self.pattern = index.to(device)
        self.keep = keep.to(device)

    def _expanded(self, like: Tensor) -> Tensor:
        return self.index.expand(*like.shape[:2], -1)

    def Vt(self, x: Tensor) -> Tensor:
        """Returns the kept pixels. x: (B, C, H, W); result: (B, C, K)."""
        return x.flatten(2).gather(2, self._expanded(x))

    def V(self, c: Tensor) -> Tensor:
        """Returns the picture with 0 at removed pixels."""
        return self._filled(c, 0.0)

    def _filled(self, c: Tensor, value: float) -> Tensor:
        picture = c.new_full((*c.shape[:2], self.keep.numel()), value)
        return picture.scatter(2, self._expanded(c), c).reshape(-1, *self.in_shape)

    def correction(self, y: Tensor) -> Correction:
        """Returns (A^T y - A^T A x) / (noise_var + scale): in the loop a product with the mask, and no gather."""
        yt, kept = self.At(y), self.keep.to(self.dtype)

        def residual_to_image(x: Tensor, noise_var: float, scale: float) -> Tensor:
            return (yt - kept * x) * (1.0 / (noise_var + scale))

        return residual_to_image

    def to_image(self, y: Tensor) -> Tensor:
        """Returns the picture with removed pixels black."""
        return self._filled(y, REMOVED)

    def from_image(self, image: Tensor) -> Tensor:
        """Returns the kept pixels of a picture, whatever it shows elsewhere. Raises InputError for another size."""
        if tuple(image.shape[1:]) != self.in_shape:
            raise InputError(
                f"the picture has (channels, height, width) {tuple(image.shape[1:])}, the mask is for {self.in_shape}"
            )
        return self.Vt(image)


def random_keep(shape: tuple[int, int], fraction: float, seed: int) -> Tensor:
    """Returns (H, W) of bool, False at round(fraction H W) random pixels, the same on every device."""
    H, W = shape
    keep = np.ones(H * W, dtype=bool)
    keep[np.random.default_rng(seed).permutation(H * W)[: round(fraction * H * W)]] = False
    return torch.from_numpy(keep.reshape(H, W))


def outside_box(shape: tuple[int, int], box: Sequence[int]) -> Tensor:
    """Returns (H, W) of bool, False inside the box (x, y, width, height) in pixels from the top left.

    Raises InputError if the box does not lie within the picture.
    """
    H, W = shape
    x, y, width, height = box
    if x + width > W or y + height > H:
        raise InputError(f"the box {x},{y},{width},{height} does not lie within the picture of {W} x {H} pixels")
    keep = torch.ones(H, W, dtype=torch.bool)
    keep[y : y + height, x : x + width] = False
    return keep
