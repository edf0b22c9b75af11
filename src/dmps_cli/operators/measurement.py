"""What was measured, and how: the record that every method is given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.weighted import weighted


@dataclass(frozen=True)
class Measurement:
    """y = A x + n, n ~ N(0, sigma_y^2 I), on the scale [-1, 1]; or n_i ~ N(0, sigma_i^2), each number by itself.

    y: (B, *op.out_shape); sigma_y: standard deviation of the noise, >= 0, or a tensor of them, all positive, which
    (*op.out_shape) can be made of by repeating. Raises ValueError if they do not fit.
    """

    y: Tensor
    op: LinearOperator
    sigma_y: float | Tensor

    def __post_init__(self) -> None:
        if tuple(self.y.shape[1:]) != self.op.out_shape:
            raise ValueError(
                f"y is {tuple(self.y.shape)}; the operator gives (B, {', '.join(map(str, self.op.out_shape))})"
            )
        if isinstance(self.sigma_y, Tensor):
            self._check_each(self.sigma_y)
        elif not self.sigma_y >= 0.0:
            raise ValueError(f"sigma_y is {self.sigma_y}; a standard deviation is not negative")

    def _check_each(self, sigmas: Tensor) -> None:
        try:
            sigmas.expand(self.op.out_shape)
        except RuntimeError as exc:
            raise ValueError(f"sigma_y is {tuple(sigmas.shape)}; the operator gives {self.op.out_shape}") from exc
        if not bool((sigmas > 0.0).all() & sigmas.isfinite().all()):
            raise ValueError(f"sigma_y holds {float(sigmas.min()):g}; expected finite numbers above 0")

    def whitened(self) -> Measurement:
        """Returns the same measurement with one sigma_y for all of y.

            w y = (w A) x + w n,  w_i = s / sigma_i,  1 / s^2 = mean of 1 / sigma_i^2

        Divided by its noise alone, w = 1 / sigma, y would have sigma 1; the common factor s changes nothing that Bayes'
        rule says, and keeps A, y and s on the scale of the picture, for which floors, levels and knobs (DPS's zeta) are
        made: with equal sigmas it is the same measurement to the bit.
        """
        if not isinstance(self.sigma_y, Tensor):
            return self
        sigmas = self.sigma_y.to("cpu", torch.float64).expand(self.op.out_shape)
        common = float((1.0 / sigmas**2).mean()) ** -0.5
        if bool((sigmas == sigmas.flatten()[0]).all()):
            return Measurement(self.y, self.op, float(sigmas.flatten()[0]))
        weights = (common / sigmas).to(self.op.device, self.op.dtype)
        return Measurement(weights * self.y, weighted(self.op, weights), common)
