"""One operator after another, A = A_2 A_1: the closed forms that hold, and conjugate gradients for the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from dmps_cli.operators.base import LinearOperator, Modes
from dmps_cli.operators.circular import CircularConvolution
from dmps_cli.operators.decimation import DecimatedConvolution, Decimation
from dmps_cli.operators.kernels import factored
from dmps_cli.operators.pointwise import FlatOperator, Identity, Mask
from dmps_cli.operators.separable import Separable, blur_matrix
from dmps_cli.operators.weighted import ScaledRows, on_picture

Rule = Callable[[LinearOperator, LinearOperator], LinearOperator | None]


class _Composition(LinearOperator):
    """A = A_2 A_1. first: A_1; then: A_2, which takes what A_1 gives."""

    def __init__(self, first: LinearOperator, then: LinearOperator) -> None:
        super().__init__(first.in_shape, then.out_shape, first.dtype, first.device)
        self.first, self.then = first, then

    def A(self, x: Tensor) -> Tensor:
        """Returns A_2 A_1 x."""
        return self.then.A(self.first.A(x))

    def At(self, y: Tensor) -> Tensor:
        """Returns A_1^T A_2^T y."""
        return self.first.At(self.then.At(y))

    def to_image(self, y: Tensor) -> Tensor:
        """Returns the picture that the last operator makes of y."""
        return self.then.to_image(y)

    def from_image(self, image: Tensor) -> Tensor:
        """Returns the measurement that the last operator takes from a picture."""
        return self.then.from_image(image)


class Composed(_Composition):
    """A_2 A_1 without a closed form."""

    def gram(self, r: Tensor) -> Tensor:
        """Returns A_2 (A_1 A_1^T) A_2^T r."""
        return self.then.A(self.first.gram(self.then.At(r)))

    def precondition(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns V^T (noise_var I + scale s^2 A_1 A_1^T)^-1 V r where A_2 = s V^T: as if all of A_1 x were measured.

        The identity elsewhere.
        """
        if not isinstance(self.then, FlatOperator):
            return r
        return self.then.Vt(self.first.near_solve(self.then.V(r), noise_var, scale * self.then.s**2))


class AfterFlat(_Composition):
    """A_2 s V^T, V^T V = I: A A^T is s^2 A_2 A_2^T, so that every closed form of A_2 serves.

    first: s V^T. The singular values are s times those of A_2, the right vectors V times its own.
    """

    first: FlatOperator

    @property
    def is_iterated(self) -> bool:
        """As A_2 is."""
        return self.then.is_iterated

    @property
    def modes(self) -> Modes | None:
        """Those of A_2, after V^T."""
        inner, first = self.then.modes, self.first
        if inner is None:
            return None
        return replace(
            inner,
            singulars=first.s * inner.singulars,
            Vt=lambda x: inner.Vt(first.Vt(x)),
            V=lambda c: first.V(inner.V(c)),
        )

    @property
    def norm(self) -> float:
        """That of A_2, times s."""
        return self.first.s * self.then.norm

    def gram(self, r: Tensor) -> Tensor:
        """Returns s^2 A_2 A_2^T r."""
        return self.first.s**2 * self.then.gram(r)

    def precondition(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns that of A_2 at s^2 scale."""
        return self.then.precondition(r, noise_var, scale * self.first.s**2)

    def solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns that of A_2 at s^2 scale."""
        return self.then.solve(r, noise_var, scale * self.first.s**2)

    def pinv(self, y: Tensor) -> Tensor:
        """Returns V A_2^+ y / s."""
        return self.first.V(self.then.pinv(y)) / self.first.s


class FlatChain(FlatOperator):
    """One operator of orthonormal rows after another: their product has them too."""

    def __init__(self, first: FlatOperator, then: FlatOperator) -> None:
        super().__init__(first.in_shape, then.out_shape, first.s * then.s, first.dtype, first.device)
        self.first, self.then = first, then
        self.is_selection = first.is_selection and then.is_selection

    def Vt(self, x: Tensor) -> Tensor:
        """Returns V_2^T V_1^T x."""
        return self.then.Vt(self.first.Vt(x))

    def V(self, c: Tensor) -> Tensor:
        """Returns V_1 V_2 c."""
        return self.first.V(self.then.V(c))

    def to_image(self, y: Tensor) -> Tensor:
        """Returns the picture that the last operator makes of y."""
        return self.then.to_image(y)

    def from_image(self, image: Tensor) -> Tensor:
        """Returns the measurement that the last operator takes from a picture."""
        return self.then.from_image(image)


# --- Closed forms
def _nothing(first: LinearOperator, then: LinearOperator) -> LinearOperator | None:
    """Returns the one beside an identity."""
    if isinstance(first, Identity):
        return then
    return first if isinstance(then, Identity) else None


def _after_after_flat(first: LinearOperator, then: LinearOperator) -> LinearOperator | None:
    """Returns the chain of a chain: what comes after the flat operator is composed by itself."""
    return AfterFlat(first.first, compose(first.then, then)) if isinstance(first, AfterFlat) else None


def _selected_weights(first: LinearOperator, then: LinearOperator) -> LinearOperator | None:
    """Returns P diag(w) A_1 = diag(P w) P A_1, P a choice of the picture's numbers."""
    if not (isinstance(first, ScaledRows) and isinstance(then, FlatOperator) and then.is_selection):
        return None
    inner = compose(first.inner, then)
    return ScaledRows(inner, then.Vt(first.weights[None])[0]) if isinstance(inner, FlatOperator) else None


def _after_flat(first: LinearOperator, then: LinearOperator) -> LinearOperator | None:
    """Returns anything after an operator of orthonormal rows."""
    if not isinstance(first, FlatOperator):
        return None
    return FlatChain(first, then) if isinstance(then, FlatOperator) else AfterFlat(first, then)


def _convolved(first: LinearOperator, then: LinearOperator) -> LinearOperator | None:
    """Returns the convolution with both kernels of a periodic picture."""
    if not (isinstance(first, CircularConvolution) and isinstance(then, CircularConvolution)):
        return None
    kernel = convolved(first.kernel, then.kernel)
    return CircularConvolution(first.in_shape, kernel, dtype=first.dtype, device=first.device)


def convolved(first: Tensor, then: Tensor) -> Tensor:
    """Returns the full convolution of two kernels (kh, kw), centred at (kh // 2, kw // 2) as they are; odd sides."""
    a, b = (pad(kernel, (0, 1 - kernel.shape[1] % 2, 0, 1 - kernel.shape[0] % 2)) for kernel in (first, then))
    margin = (b.shape[0] - 1, b.shape[1] - 1)
    return conv2d(a[None, None], b.flip(0, 1)[None, None], padding=margin)[0, 0]


def _decimated(first: LinearOperator, then: LinearOperator) -> LinearOperator | None:
    """Returns subsampling after the convolution of a periodic picture."""
    if not (isinstance(first, CircularConvolution) and isinstance(then, Decimation)):
        return None
    return DecimatedConvolution(first, then.scale)


def _separable(first: LinearOperator, then: LinearOperator) -> LinearOperator | None:
    """Returns the products of the factors along both axes."""
    if not isinstance(first, Separable) and not isinstance(then, Separable):
        return None
    inner, outer = _factors(first), _factors(then)
    if inner is None or outer is None:
        return None
    is_same = inner[0] is inner[1] and outer[0] is outer[1]
    rows = outer[0] @ inner[0]
    cols = rows if is_same else outer[1] @ inner[1]
    return Separable(first.in_shape[0], rows, cols, dtype=first.dtype, device=first.device)


def _factors(op: LinearOperator) -> tuple[Tensor, Tensor] | None:
    """Returns (K1, K2) of y = K1 x K2^T per channel, float64; None where there are none."""
    if isinstance(op, Separable):
        return op.exact
    H, W = op.in_shape[-2:]
    if isinstance(op, Decimation):
        rows, cols = (torch.eye(n, dtype=torch.float64)[:: op.scale] for n in (H, W))
        return rows, rows if H == W else cols
    factors = factored(op.kernel.cpu()).factors if isinstance(op, CircularConvolution) else None
    if factors is None:
        return None
    rows, cols = (blur_matrix(n, taps, "circular") for n, taps in zip((H, W), factors, strict=True))
    return rows, cols


def _regrouped(first: LinearOperator, then: LinearOperator) -> LinearOperator | None:
    """Returns a chain with its last two links made one, where that has a closed form; its links from left to right."""
    if isinstance(then, Composed):
        return compose(compose(first, then.first), then.then)
    if not isinstance(first, Composed):
        return None
    last = compose(first.then, then)
    return None if isinstance(last, Composed) else compose(first.first, last)


RULES: tuple[Rule, ...] = (
    _nothing,
    _after_after_flat,
    _selected_weights,
    _after_flat,
    _convolved,
    _decimated,
    _separable,
    _regrouped,
)
"""The closed forms, the first that holds; a new one is a function here."""


def compose(first: LinearOperator, then: LinearOperator) -> LinearOperator:
    """Returns A = A_2 A_1: `first` | `then`, in closed form where a rule gives one.

    A mask with something after it leaves the picture its size, zeros at removed pixels. Raises ValueError where one
    does not take what the other gives, or they compute in another dtype or on another device.
    """
    task = f"{first.task} | {then.task}" if first.task and then.task else None
    if first.out_shape != then.in_shape:
        first = _in_place(first) or first
    _check_fits(first, then)
    made = next((op for rule in RULES if (op := rule(first, then)) is not None), None) or Composed(first, then)
    if made is not first and made is not then:
        made.frame, made.pattern = _joint_frame(first, then), _joint_pattern(first, then)
        made.task = task
    return made


def _in_place(op: LinearOperator) -> LinearOperator | None:
    """Returns an operator that ends in a mask with 0 at removed pixels in place of them; None for any other."""
    if isinstance(op, Mask):
        return on_picture(op)
    if isinstance(op, ScaledRows) and isinstance(op.inner, Mask):
        whole = Identity(op.in_shape, dtype=op.dtype, device=op.device)
        return ScaledRows(whole, op.inner.V(op.weights[None])[0])
    last = _in_place(op.then) if isinstance(op, Composed | AfterFlat | FlatChain) else None
    return None if last is None else compose(op.first, last)  # type: ignore[attr-defined] # one of the three


def _check_fits(first: LinearOperator, then: LinearOperator) -> None:
    if first.out_shape != then.in_shape:
        raise ValueError(f"{_named(first)} gives {first.out_shape}, and {_named(then)} after it takes {then.in_shape}")
    if (first.dtype, first.device) != (then.dtype, then.device):
        raise ValueError(
            f"{_named(first)} computes in {first.dtype} on {first.device}, {_named(then)} in {then.dtype} on "
            f"{then.device}"
        )


def _named(op: LinearOperator) -> str:
    return op.task or type(op).__name__


def _joint_frame(first: LinearOperator, then: LinearOperator) -> tuple[int, int, int, int] | None:
    """Returns the part of x that the picture shows: the second's frame, in pixels of x, within the first's."""
    if then.frame is None:
        return first.frame
    left, top, width, height = then.frame
    x, y, wide, high = first.frame or (0, 0, first.in_shape[2], first.in_shape[1])
    across, down = wide // first.out_shape[2], high // first.out_shape[1]
    return x + across * left, y + down * top, across * width, down * height


def _joint_pattern(first: LinearOperator, then: LinearOperator) -> Tensor | None:
    patterns = [op.pattern for op in (first, then) if op.pattern is not None]
    return torch.cat([pattern.flatten() for pattern in patterns]) if patterns else None
