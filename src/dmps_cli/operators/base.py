"""The contract of a linear measurement operator, with slow defaults.

y = A x + n, x: (B, C, H, W) on [-1, 1]; y: (B, *out_shape) on the same scale. A class in this package
says A and At; `solve`, `pinv` and `norm` then work by iteration, and a subclass overrides them where
the structure allows a closed form. Operators are fixed once built.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dmps_cli.errors import ConvergenceError
from dmps_cli.linalg import conjugate_gradient, largest_eigenvalue

Shape = tuple[int, ...]
Correction = Callable[[Tensor, float, float], Tensor]
PINV_RCOND = 1e-4
"""Singular values below this share of the largest are 0 to `pinv`, `Modes.measured`, and `solve` at noise_var = 0."""

PINV_DAMPING = {torch.float64: PINV_RCOND, torch.float32: 1e-2}
"""The share of the largest singular value by which an iterated `pinv` damps; float32 cannot resolve less."""

TRANSPOSE_RTOL = 1e-4
"""How far <A u, A u> and <u, A^T A u> may lie apart: far beyond the rounding of float32, and far below any mistake."""

CG_MAX_ITER = 1000
CG_RTOL = {torch.float64: 1e-12, torch.float32: 1e-6}


@dataclass(frozen=True, kw_only=True)
class Modes:
    """The singular value decomposition A = U S V^T of an operator, as maps: for methods that treat each mode by itself.

    singulars: (*spectrum), real, >= 0. Vt, Ut: images and measurements to coefficients (B, *spectrum), real or complex
    (Fourier modes); V is the inverse of Vt on its range and puts zeros at the modes of x that are not in the spectrum.
    A mode may be scaled by any real function of its singular value.
    """

    singulars: Tensor
    Vt: Callable[[Tensor], Tensor]
    V: Callable[[Tensor], Tensor]
    Ut: Callable[[Tensor], Tensor]

    @cached_property
    def measured(self) -> Tensor:
        """(*spectrum) of bool: which singular values are above PINV_RCOND of the largest."""
        return self.singulars > PINV_RCOND * self.singulars.max()


class LinearOperator(ABC):
    """A: images of `in_shape` (C, H, W) to measurements of `out_shape`, without the batch axis.

    Tensors held by an operator are of `dtype` on `device`; arguments must match.

    pattern: indices (M,) of what is measured per channel, where an operator chooses among pixels or rows; else None.
    frame: (left, top, width, height) px of x that the picture shows, where the scene goes on beyond it; else None.
    """

    pattern: Tensor | None = None
    task: str | None = None
    """The name of the task that it was built for, by which methods have their defaults."""
    verdict: str | None = None
    """What was found of an operator of one's own when it was loaded (`operators.functions.verdict`)."""
    frame: tuple[int, int, int, int] | None = None

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        self.dtype, self.device = dtype, torch.device(device)

    @property
    def modes(self) -> Modes | None:
        """The singular value decomposition, where it has fast factors; else None."""
        return None

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:
        """Returns the noiseless measurement. x: (B, *in_shape); result: (B, *out_shape)."""

    @abstractmethod
    def At(self, y: Tensor) -> Tensor:
        """Returns the transpose of A. y: (B, *out_shape); result: (B, *in_shape)."""

    @cached_property
    def norm(self) -> float:
        """The largest singular value of A."""
        start = 1.0 + torch.rand((1, *self.in_shape), generator=torch.Generator().manual_seed(0))
        start = start.to(self.device, self.dtype)
        return math.sqrt(largest_eigenvalue(lambda x: self.At(self.A(x)), start))

    def check_transpose(self) -> None:
        """Raises ValueError if A and At do not fit `in_shape` and `out_shape`, or At is not the transpose of A.

        <A u, A u> = <u, A^T A u> for one random u, to TRANSPOSE_RTOL: what an operator of one's own is asked once.
        """
        u = torch.randn((1, *self.in_shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        u = u.to(self.device, self.dtype)
        y = self.A(u)
        self._check_shape("A", y, self.out_shape)
        back = self.At(y)
        self._check_shape("At", back, self.in_shape)
        energy, through = (float((a.cpu().double() * b.cpu().double()).sum()) for a, b in ((y, y), (u, back)))
        if not abs(energy - through) <= TRANSPOSE_RTOL * energy:
            raise ValueError(
                f"{type(self).__name__}: At is not the transpose of A, for a random u <A u, A u> is {energy:.6g} and "
                f"<u, At A u> {through:.6g}"
            )

    def _check_shape(self, name: str, result: Tensor, shape: Shape) -> None:
        if tuple(result.shape) != (1, *shape):
            raise ValueError(f"{type(self).__name__}: {name} gives {tuple(result.shape)}, expected {(1, *shape)}")

    @property
    def is_iterated(self) -> bool:
        """Whether `solve` is the iterated one below, for want of a closed form."""
        return type(self).solve is LinearOperator.solve

    def __or__(self, then: LinearOperator) -> LinearOperator:
        """Returns the composition x -> then.A(self.A(x)), in closed form where there is one (operators.composed)."""
        from dmps_cli.operators.composed import compose

        return compose(self, then)

    def gram(self, r: Tensor) -> Tensor:
        """Returns A A^T r. r: (B, *out_shape); result: like r."""
        return self.A(self.At(r))

    def precondition(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns M r, M symmetric, positive definite, near (noise_var I + scale A A^T)^-1.

        The identity where none is known.

        r: (B, *out_shape); result: like r. For iterations that solve with that matrix.
        """
        return r

    def near_solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns `solve` where it has a closed form, else `precondition`: for the iterations of what contains A."""
        return (self.precondition if self.is_iterated else self.solve)(r, noise_var, scale)

    def solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns (noise_var I + scale A A^T)^-1 r, by conjugate gradients unless a subclass knows better.

        r: (B, *out_shape). noise_var, scale >= 0, not both 0. At noise_var = 0 the pseudo-inverse
        is meant. Raises ConvergenceError if the iteration stops short of its tolerance.
        """
        try:
            return conjugate_gradient(
                lambda v: noise_var * v + scale * self.gram(v),
                r,
                rtol=CG_RTOL[self.dtype],
                max_iter=CG_MAX_ITER,
            )
        except ConvergenceError as exc:
            if noise_var > 0.0:
                raise
            raise ConvergenceError("no picture gives this measurement exactly; give its noise with --sigma") from exc

    def pinv(self, y: Tensor) -> Tensor:
        """Returns A^+ y, the least-squares x of least norm, singular values below PINV_RCOND norm cut.

        The default damps instead: A^T (A A^T + (d norm)^2 I)^-1 y, d = PINV_DAMPING of the dtype.
        y: (B, *out_shape); result: (B, *in_shape).
        """
        return self.At(self.solve(y, (PINV_DAMPING[self.dtype] * self.norm) ** 2, 1.0))

    def correction(self, y: Tensor) -> Correction:
        """Prepares y once; returns (x, noise_var, scale) -> A^T (noise_var I + scale A A^T)^-1 (y - A x).

        This is all that a method asks for in each step; subclasses with a closed form fuse it.
        """

        def residual_to_image(x: Tensor, noise_var: float, scale: float) -> Tensor:
            return self.At(self.solve(y - self.A(x), noise_var, scale))

        return residual_to_image

    def by_strips(self) -> LinearOperator:
        """Returns the operator for images that are fields: itself, unless its At can give one row by row."""
        return self

    def picture(self, x: Tensor) -> Tensor:
        """Returns what is shown, scored and written of x: all of it, or the part within the frame. x: (.., H, W)."""
        if self.frame is None:
            return x
        left, top, width, height = self.frame
        return x[..., top : top + height, left : left + width]

    @property
    def picture_size(self) -> tuple[int, int]:
        """(H, W) of `picture`."""
        if self.frame is None:
            return self.in_shape[1], self.in_shape[2]
        return self.frame[3], self.frame[2]

    def to_image(self, y: Tensor) -> Tensor:
        """Returns y as a picture to look at, (B, 1 or 3, h, w) on [-1, 1] before clipping.

        y itself where it is one, else A^T y / ||A||^2.
        """
        if len(self.out_shape) == 3 and self.out_shape[0] in (1, 3):
            return y
        return self.At(y) / self.norm**2

    def from_image(self, image: Tensor) -> Tensor:
        """Returns the measurement that a degraded picture shows: the inverse of `to_image` up to 8-bit rounding.

        image: (B, 1 or 3, h, w). Raises InputError where a picture cannot hold the measurement.
        """
        return image


class SpectralOperator(LinearOperator):
    """An operator whose singular value decomposition A = U S V^T has fast factors.

    A subclass gives `Vt` and its transpose `V`, `Ut` and its transpose `U`, and `singulars`; everything else
    follows in closed form (paper, Corollary 2). The spectrum is a tensor (B, *singulars.shape): coefficient k of
    V^T x meets coefficient k of U^T y. U is square and orthogonal; V^T V = I, but modes of x that A never sees are
    not in the spectrum.
    """

    singulars: Tensor

    @property
    def modes(self) -> Modes:
        """Its own factors."""
        return Modes(singulars=self.singulars, Vt=self.Vt, V=self.V, Ut=self.Ut)

    @abstractmethod
    def Vt(self, x: Tensor) -> Tensor:
        """Returns the coefficients V^T x on the measured modes. x: (B, *in_shape); result: (B, *spectrum)."""

    @abstractmethod
    def V(self, c: Tensor) -> Tensor:
        """Returns V c, the transpose of `Vt`."""

    @abstractmethod
    def Ut(self, y: Tensor) -> Tensor:
        """Returns the coefficients U^T y. y: (B, *out_shape); result: (B, *spectrum)."""

    @abstractmethod
    def U(self, c: Tensor) -> Tensor:
        """Returns U c, the transpose of `Ut`."""

    @cached_property
    def norm(self) -> float:
        """The largest singular value of A."""
        return float(self.singulars.max())

    def A(self, x: Tensor) -> Tensor:
        """Returns U S V^T x."""
        return self.U(self.singulars * self.Vt(x))

    def At(self, y: Tensor) -> Tensor:
        """Returns V S U^T y."""
        return self.V(self.singulars * self.Ut(y))

    def _divided(self, numerator: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns numerator / (noise_var + scale s^2) per mode; at noise_var = 0, modes below PINV_RCOND give 0."""
        weight = 1.0 / (noise_var + scale * self.singulars**2)
        if noise_var == 0.0:
            weight = torch.where(self.singulars > PINV_RCOND * self.norm, weight, 0.0)
        return numerator * weight

    def solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns (noise_var I + scale A A^T)^-1 r = U (noise_var I + scale S^2)^-1 U^T r."""
        return self.U(self._divided(self.Ut(r), noise_var, scale))

    def pinv(self, y: Tensor) -> Tensor:
        """Returns V S^+ U^T y, singular values below PINV_RCOND norm cut."""
        return self.V(self.singulars * self._divided(self.Ut(y), 0.0, 1.0))

    def correction(self, y: Tensor) -> Correction:
        """Returns V S (noise_var I + scale S^2)^-1 (U^T y - S V^T x), with U^T y computed once."""
        yh = self.Ut(y)

        def residual_to_image(x: Tensor, noise_var: float, scale: float) -> Tensor:
            residual = yh - self.singulars * self.Vt(x)
            return self.V(self._divided(self.singulars * residual, noise_var, scale))

        return residual_to_image
