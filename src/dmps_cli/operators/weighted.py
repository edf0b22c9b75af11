"""Numbers of y with a weight each: a measurement whose values have noise of their own, divided by it."""

from __future__ import annotations

from torch import Tensor

from dmps_cli.operators.base import LinearOperator, SpectralOperator
from dmps_cli.operators.pointwise import FlatOperator, Identity, Mask

TINY = 1e-30
"""Instead of 0 below a fraction, where nothing is measured."""


class ScaledRows(SpectralOperator):
    """y = w (s V^T x), the weights w >= 0 on an operator of orthonormal rows: singular values s w, U = I.

    inner: s V^T; weights: (*inner.out_shape).
    """

    def __init__(self, inner: FlatOperator, weights: Tensor) -> None:
        super().__init__(inner.in_shape, inner.out_shape, inner.dtype, inner.device)
        self.inner, self.pattern, self.frame = inner, inner.pattern, inner.frame
        self.weights = weights.to(inner.device, inner.dtype).expand(inner.out_shape)
        self.singulars = inner.s * self.weights

    def Vt(self, x: Tensor) -> Tensor:
        """Returns V^T x, as the operator inside has it."""
        return self.inner.Vt(x)

    def V(self, c: Tensor) -> Tensor:
        """Returns V c, as the operator inside has it."""
        return self.inner.V(c)

    def Ut(self, y: Tensor) -> Tensor:
        """Returns its argument: U is the identity."""
        return y

    def U(self, c: Tensor) -> Tensor:
        """Returns its argument: U is the identity."""
        return c

    def to_image(self, y: Tensor) -> Tensor:
        """Returns the picture that the operator inside makes of y."""
        return self.inner.to_image(y)

    def from_image(self, image: Tensor) -> Tensor:
        """Returns the measurement that the operator inside takes from a picture."""
        return self.inner.from_image(image)


def on_picture(mask: Mask) -> ScaledRows:
    """Returns a mask that leaves the picture its size, with 0 at removed pixels: for what comes after it."""
    whole = Identity(mask.in_shape, dtype=mask.dtype, device=mask.device)
    return ScaledRows(whole, mask.keep.to(mask.dtype))


class Weighted(LinearOperator):
    """y = w A x, w > 0, for any A: solved by iteration.

    inner: A; weights: (*inner.out_shape).
    """

    def __init__(self, inner: LinearOperator, weights: Tensor) -> None:
        super().__init__(inner.in_shape, inner.out_shape, inner.dtype, inner.device)
        self.inner, self.pattern, self.frame, self.task = inner, inner.pattern, inner.frame, inner.task
        self.weights = weights.to(inner.device, inner.dtype).expand(inner.out_shape)

    def A(self, x: Tensor) -> Tensor:
        """Returns the product w A x."""
        return self.weights * self.inner.A(x)

    def At(self, y: Tensor) -> Tensor:
        """Returns A^T w y."""
        return self.inner.At(self.weights * y)

    def gram(self, r: Tensor) -> Tensor:
        """Returns the product w A A^T w r."""
        return self.weights * self.inner.gram(self.weights * r)

    def precondition(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns 1/d (noise_var mean(1/d^2) I + scale A A^T)^-1 1/d r, d^2 = w^2 + noise_var / (scale ||w A||^2).

        The inverse, were all noises the same, where the picture counts for more than the noise (d near w); near
        1 / noise_var where the noise does.
        """
        d = (self.weights**2 + noise_var / max(scale * self.norm**2, TINY)).sqrt()
        return self.inner.near_solve(r / d, noise_var * float((1.0 / d**2).mean()), scale) / d

    def to_image(self, y: Tensor) -> Tensor:
        """Returns the picture that the operator inside makes of y."""
        return self.inner.to_image(y)


def weighted(op: LinearOperator, weights: Tensor) -> LinearOperator:
    """Returns w A, w > 0: in closed form where the rows of A are orthogonal, each number of y by itself."""
    if isinstance(op, FlatOperator):
        return ScaledRows(op, weights)
    if isinstance(op, ScaledRows):
        return ScaledRows(op.inner, op.weights * weights.to(op.weights))
    if isinstance(op, Weighted):
        return Weighted(op.inner, op.weights * weights.to(op.weights))
    return Weighted(op, weights)
