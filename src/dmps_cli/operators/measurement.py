"""What was measured, and how: the record that every method is given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dmps_cli.operators.base import LinearOperator


@dataclass(frozen=True)
class Measurement:
    """y = A x + n, n ~ N(0, sigma_y^2 I), on the scale [-1, 1].

    y: (B, *op.out_shape); sigma_y: standard deviation of the noise, >= 0. Raises ValueError if they do not fit.
    """

    y: Tensor
    op: LinearOperator
    sigma_y: float

    def __post_init__(self) -> None:
        if tuple(self.y.shape[1:]) != self.op.out_shape:
            raise ValueError(
                f"y is {tuple(self.y.shape)}; the operator gives (B, {', '.join(map(str, self.op.out_shape))})"
            )
        if not self.sigma_y >= 0.0:
            raise ValueError(f"sigma_y is {self.sigma_y}; a standard deviation is not negative")
