"""A by functions of one's own, and what any operator of one's own is asked before it is used."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cached_property

import torch
from torch import Tensor

from dmps_cli.errors import DmpsError, InputError
from dmps_cli.linalg import largest_eigenvalue
from dmps_cli.operators.base import LinearOperator, Shape

Map = Callable[[Tensor], Tensor]
NORM_RTOL = 1e-3
"""How far the largest singular value may be off: what is chosen by it (a cap, a floor) does not ask for more."""

LINEAR_RTOL = 1e-4
"""How far A (2 u - 3 v) and 2 A u - 3 A v may lie apart, as `TRANSPOSE_RTOL` of A and At."""

RANDOM_RTOL = 1e-2
"""How far <A u, w> and <u, At w> may lie apart for a random w, as a share of what is usual of such products."""


class FunctionOperator(LinearOperator):
    """y = A(x) by a function on batches, its transpose by another, or by going back through the first.

    A: (B, *in_shape) to (B, ..); At: the transpose, or None: A is differentiable, and At y = (d A / d x)^T y, the
    vector-Jacobian product. name: for messages. Whatever they raise, or give of another shape, type or device, is an
    InputError.
    """

    def __init__(
        self,
        in_shape: Shape,
        A: Map,
        At: Map | None = None,
        *,
        name: str = "the operator",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name, self._A, self._At = name, A, At
        super().__init__(in_shape, (), dtype, device)
        self.out_shape = tuple(self._called("A", A, torch.zeros(1, *in_shape, dtype=dtype, device=device)).shape[1:])

    @cached_property
    def norm(self) -> float:
        """The largest singular value of A, to NORM_RTOL."""
        return norm_of(self)

    def A(self, x: Tensor) -> Tensor:
        """Returns what the function gives."""
        return self._of_shape("A", self._called("A", self._A, x).detach(), (len(x), *self.out_shape))

    def At(self, y: Tensor) -> Tensor:
        """Returns what the other function gives, or the way back through the first."""
        given = self._back(y) if self._At is None else self._called("At", self._At, y).detach()
        return self._of_shape("At", given, (len(y), *self.in_shape))

    def _back(self, y: Tensor) -> Tensor:
        """Returns the gradient of <A(x), y> by x, anywhere: at 0."""
        with torch.enable_grad():
            x = torch.zeros(len(y), *self.in_shape, dtype=self.dtype, device=self.device, requires_grad=True)
            image = self._called("A", self._A, x)
            if not image.requires_grad:
                raise InputError(f"{self.name}: A cannot be differentiated by torch; give At too")
            with own_code(self.name, "the way back through A"):
                (gradient,) = torch.autograd.grad(image, x, y.reshape(image.shape), materialize_grads=True)
        return gradient.detach()

    def _called(self, which: str, function: Map, argument: Tensor) -> Tensor:
        """Returns a function's result, a tensor of the operator's own kind."""
        with own_code(self.name, which):
            result = function(argument)
        if not isinstance(result, Tensor):
            raise InputError(f"{self.name}: {which} gives a {type(result).__name__}; expected a tensor")
        if (result.dtype, result.device.type) != (self.dtype, self.device.type):
            raise InputError(
                f"{self.name}: {which} gives {result.dtype} on {result.device}; expected {self.dtype} on {self.device}"
            )
        if result.ndim < 2 or len(result) != len(argument):
            raise InputError(
                f"{self.name}: {which} gives {tuple(result.shape)} for {tuple(argument.shape)}; expected a result for "
                f"each of the batch, ({len(argument)}, ..)"
            )
        return result

    def _of_shape(self, which: str, result: Tensor, shape: Shape) -> Tensor:
        if tuple(result.shape) != shape:
            raise InputError(f"{self.name}: {which} gives {tuple(result.shape)}, expected {shape}")
        return result


@contextmanager
def own_code(name: str, which: str) -> Iterator[None]:
    """Runs the user's code: what it raises is said in one line, whatever that is, and what it prints is no result.

    Too little memory stays that.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (DmpsError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as exc:
        text = " ".join(str(exc).split())
        raise InputError(f"{name}: {which} raises {type(exc).__name__}{f': {text}' if text else ''}") from exc


def norm_of(op: LinearOperator) -> float:
    """Returns the largest singular value by Lanczos, to NORM_RTOL."""
    start = 1.0 + torch.rand((1, *op.in_shape), generator=torch.Generator().manual_seed(0))
    return math.sqrt(largest_eigenvalue(lambda x: op.At(op.A(x)), start.to(op.device, op.dtype), rtol=NORM_RTOL))


def verdict(op: LinearOperator, name: str) -> str:
    """Returns one line on an operator of one's own: how linear it is, how well At fits, its largest singular value.

    Each by random vectors. Raises InputError where it is none that can be worked with.
    """
    u, v = (_random((1, *op.in_shape), seed, op) for seed in (1, 2))
    pictures = torch.cat([u, v])
    both = op.A(pictures)
    if not torch.equal(pictures, torch.cat([u, v])):
        raise InputError(f"{name}: A writes into its argument; it must leave it as it is")
    if tuple(both.shape) != (2, *op.out_shape):
        raise InputError(f"{name}: A gives {tuple(both.shape)} for two pictures; expected {(2, *op.out_shape)}")
    Au, Av = both[:1], both[1:]
    if not bool(both.isfinite().all()):
        raise InputError(f"{name}: A gives NaN or infinity for a random picture")
    if not bool(Au.any()):
        raise InputError(f"{name}: A gives 0 for a random picture; there is nothing to restore from")
    size = float(2.0 * _norm(Au) + 3.0 * _norm(Av))
    for part, expected, what in (
        (op.A(u), Au, "A treats a picture alone and in a batch differently: its results"),
        (op.A(2.0 * u - 3.0 * v), 2.0 * Au - 3.0 * Av, "A is not linear: A(2 u - 3 v) and 2 A(u) - 3 A(v)"),
    ):
        bent = _norm(part - expected) / size
        if not bent <= LINEAR_RTOL:
            raise InputError(f"{name}: {what} differ by {bent:.1%} of their size for random u and v")
    off = _transpose_gap(op, u, Au, name)
    return (
        f"{name}: linear, and At the transpose of A (to {off:.0e}); largest singular value {op.norm:.4g}; "
        f"{_shown(op.in_shape)} to {_shown(op.out_shape)}"
    )


def _transpose_gap(op: LinearOperator, u: Tensor, Au: Tensor, name: str) -> float:
    """Returns how far At is from the transpose of A. Raises InputError where that is too far."""
    w = _random((1, *op.out_shape), 3, op)
    found = []
    for other, usual, most in ((Au, _norm(Au) ** 2, LINEAR_RTOL), (w, _usual(Au, w), RANDOM_RTOL)):
        back = op.At(other)
        if tuple(back.shape) != tuple(u.shape):
            raise InputError(f"{name}: At gives {tuple(back.shape)}, expected {tuple(u.shape)}")
        gap = abs(_dot(Au, other) - _dot(u, back))
        if not gap <= most * usual:
            raise InputError(
                f"{name}: At is not the transpose of A: for random u and w <A u, w> is {_dot(Au, other):.6g} and "
                f"<u, At w> {_dot(u, back):.6g}"
            )
        found.append(gap / usual)
    return found[0]


def _random(shape: Shape, seed: int, op: LinearOperator) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(op.device, op.dtype)


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a.cpu().double() * b.cpu().double()).sum())


def _norm(a: Tensor) -> float:
    return math.sqrt(_dot(a, a))


def _usual(a: Tensor, b: Tensor) -> float:
    """Returns the root mean square of <a, b> for random b of that size."""
    return _norm(a) * _norm(b) / math.sqrt(a.numel())


def _shown(shape: Shape) -> str:
    return " x ".join(map(str, shape))
