"""An operator that sees the middle of a larger picture."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn.functional import pad

from dmps_cli.operators.base import Correction, LinearOperator, Modes, Shape


class Inside(LinearOperator):
    """A on the middle of a larger picture, whose margin nobody measures: for priors that need a least size.

    in_shape: (C, H, W) of the larger picture, H and W at least those of the operator inside.
    """

    def __init__(self, inner: LinearOperator, in_shape: Shape) -> None:
        super().__init__(in_shape, inner.out_shape, inner.dtype, inner.device)
        self.inner, self.pattern = inner, inner.pattern
        rows, cols = (larger - smaller for larger, smaller in zip(in_shape[1:], inner.in_shape[1:], strict=True))
        self.margins = (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2)  # left, right, top, bottom

    def crop(self, x: Tensor) -> Tensor:
        """Returns the middle, which the operator inside sees. x: (B, *in_shape)."""
        left, right, top, bottom = self.margins
        return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]

    def fill(self, x: Tensor) -> Tensor:
        """Returns the transpose of `crop`: zeros around."""
        return pad(x, self.margins)

    @property
    def norm(self) -> float:
        """That of the operator inside."""
        return self.inner.norm

    @property
    def modes(self) -> Modes | None:
        """Those of the operator inside, on the middle; the margin is in none."""
        inner = self.inner.modes
        if inner is None:
            return None
        return replace(inner, Vt=lambda x: inner.Vt(self.crop(x)), V=lambda c: self.fill(inner.V(c)))

    def A(self, x: Tensor) -> Tensor:
        """Returns A of the middle."""
        return self.inner.A(self.crop(x))

    def At(self, y: Tensor) -> Tensor:
        """Returns A^T y in the middle, zeros around."""
        return self.fill(self.inner.At(y))

    @property
    def is_iterated(self) -> bool:
        """Whether the operator inside is."""
        return self.inner.is_iterated

    def gram(self, r: Tensor) -> Tensor:
        """Returns A A^T r, the same as inside."""
        return self.inner.gram(r)

    def precondition(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns that of the operator inside: A A^T is the same."""
        return self.inner.precondition(r, noise_var, scale)

    def solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns that of the operator inside: A A^T is the same."""
        return self.inner.solve(r, noise_var, scale)

    def pinv(self, y: Tensor) -> Tensor:
        """Returns A^+ y in the middle, zeros around."""
        return self.fill(self.inner.pinv(y))

    def correction(self, y: Tensor) -> Correction:
        """Returns that of the operator inside, on the middle."""
        correct = self.inner.correction(y)
        return lambda x, noise_var, scale: self.fill(correct(self.crop(x), noise_var, scale))

    def to_image(self, y: Tensor) -> Tensor:
        """Returns the picture that the operator inside makes of y."""
        return self.inner.to_image(y)

    def from_image(self, image: Tensor) -> Tensor:
        """Returns the measurement that the operator inside takes from a picture."""
        return self.inner.from_image(image)
