"""What a grey picture measures of one in colour: an operator after the mean of the channels."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

from torch import Tensor

from dmps_cli.operators.base import Correction, LinearOperator, Modes


class OfGreyValue(LinearOperator):
    """y = A m, m = the mean of the channels of x: a grey value is measured once, with one noise.

    inner: A, of pictures with one channel; channels: of x, C. With M x = mean over c of x_c, M^T = 1 / C for each
    channel and M M^T = 1 / C, so that every closed form of A serves: its singular values over sqrt(C), V = unit (x) V
    of A.
    """

    def __init__(self, inner: LinearOperator, channels: int) -> None:
        super().__init__((channels, *inner.in_shape[1:]), inner.out_shape, inner.dtype, inner.device)
        self.inner, self.channels = inner, channels
        self.pattern, self.frame = inner.pattern, inner.frame

    def by_strips(self) -> OfGreyValue:
        """Returns the same around the operator that A is by strips."""
        return OfGreyValue(self.inner.by_strips(), self.channels)

    def mean(self, x: Tensor) -> Tensor:
        """Returns M x, (B, 1, H, W). x: (B, C, H, W)."""
        return x.mean(1, keepdim=True)

    def spread(self, m: Tensor) -> Tensor:
        """Returns C M^T m = M^+ m: the grey value in every channel. m: (B, 1, H, W)."""
        return m.expand(-1, self.channels, -1, -1)

    @property
    def is_iterated(self) -> bool:
        """As that of A."""
        return bool(getattr(self.inner, "is_iterated", False))

    @property
    def modes(self) -> Modes | None:
        """s / sqrt(C), V^T = V^T of A after sqrt(C) M, U that of A."""
        inner, root = self.inner.modes, math.sqrt(self.channels)
        if inner is None:
            return None
        return replace(
            inner,
            singulars=inner.singulars / root,
            Vt=lambda x: inner.Vt(root * self.mean(x)),
            V=lambda c: self.spread(inner.V(c)) / root,
        )

    @cached_property
    def norm(self) -> float:
        """That of A over sqrt(C)."""
        return self.inner.norm / math.sqrt(self.channels)

    def A(self, x: Tensor) -> Tensor:
        """Returns A M x."""
        return self.inner.A(self.mean(x))

    def At(self, y: Tensor) -> Tensor:
        """Returns M^T A^T y."""
        return self.spread(self.inner.At(y)) / self.channels

    def gram(self, r: Tensor) -> Tensor:
        """Returns A A^T / C r."""
        return self.inner.gram(r) / self.channels

    def precondition(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns M r as A has it at scale / C."""
        return self.inner.precondition(r, noise_var, scale / self.channels)

    def solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns (noise_var I + scale / C A A^T)^-1 r."""
        return self.inner.solve(r, noise_var, scale / self.channels)

    def pinv(self, y: Tensor) -> Tensor:
        """Returns M^+ A^+ y."""
        return self.spread(self.inner.pinv(y))

    def correction(self, y: Tensor) -> Correction:
        """Returns M^T A^T (noise_var I + scale / C A A^T)^-1 (y - A M x), as A has it."""
        correct = self.inner.correction(y)

        def residual_to_image(x: Tensor, noise_var: float, scale: float) -> Tensor:
            return self.spread(correct(self.mean(x), noise_var, scale / self.channels)) / self.channels

        return residual_to_image

    def to_image(self, y: Tensor) -> Tensor:
        """Returns the picture that A makes of y, a grey one."""
        return self.inner.to_image(y)

    def from_image(self, image: Tensor) -> Tensor:
        """Returns the measurement that A takes from a grey picture."""
        return self.inner.from_image(image)
