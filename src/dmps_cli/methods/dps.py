"""DPS: the gradient of the residual's norm through the network (Chung et al., ICLR 2023)."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.linalg import item_dot
from dmps_cli.methods.posterior import Posterior, pulled_back
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior
from dmps_cli.sampling import x0_coefficient


class Dps(Posterior):
    """After the prior's own step, x += w d, d = -grad_{x_t} |r|, r = y - A x0 (Chung et al. 2023, Algorithm 1, line 7).

    d = (d x0 / d x_t)^T A^T r / |r|, all norms per image: the authors' code has them over the batch.

    zeta: a number is the authors' step length: w = zeta after an ancestral step (sampler_eta > 0), zeta (b / a) dt
    after an Euler step of the flow ODE (sampler_eta = 0; Meng & Kabashima 2024, section 3.2). It is right for one size
    of picture, task and number of steps. `search` takes a line search in its place, which is not the authors':

        w = alpha' max(<r, A d>, 0) / |A d|^2  sqrt(max(|r|^2 - M sigma_y^2, 0)) / |r|

    alpha' of the next level, M measured values: the first factor makes |r - A (w / alpha') d| least, the second ends
    the pull once the residual is no more than the measurement's noise, which else would be fitted.

    Written as a shift of x0, by w / c0 d, which the step multiplies by c0 = `x0_coefficient`.
    """

    def __init__(
        self, prior: Prior, measurement: Measurement, *, zeta: float | Literal["search"], sampler_eta: float = 1.0
    ) -> None:
        super().__init__(prior, measurement)
        self.sampler_eta, self.zeta = sampler_eta, zeta
        self.noise_energy = math.prod(self.op.out_shape) * self.sigma_y**2  # M sigma_y^2

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns (x0 + w / c0 d, the prior's standard deviation)."""
        x0, std, descent = pulled_back(self.prior, x_t, cur, nxt, self._direction)
        if self.zeta == "search":
            reach = self._reach(self.y - self.op.A(x0), self.op.A(descent))
            return x0 + nxt.alpha / x0_coefficient(cur, nxt, self.sampler_eta) * reach * descent, std
        return x0 + self._constant(float(self.zeta), cur, nxt) * descent, std

    def _direction(self, x0: Tensor) -> Tensor:
        """Returns A^T r / |r|, 0 where there is no residual."""
        r = self.y - self.op.A(x0)
        return self.op.At(r / _positive(item_dot(r, r).sqrt()))

    def _constant(self, zeta: float, cur: Level, nxt: Level) -> float:
        """Returns w / c0 of the authors' step, on the flow of the paper's."""
        if self.sampler_eta == 0.0:
            return zeta * cur.sigma**2 / cur.alpha  # (b / a) dt / c0
        return zeta / x0_coefficient(cur, nxt, self.sampler_eta)

    def _reach(self, r: Tensor, image: Tensor) -> Tensor:
        """Returns w / alpha' of the line search for each item, (B, 1, ..). r: the residual; image: A d."""
        energy = item_dot(r, r)
        best = item_dot(r, image).clamp_min(0.0) / _positive(item_dot(image, image))
        left = ((energy - self.noise_energy).clamp_min(0.0) / _positive(energy)).sqrt()
        return (best * left).reshape(-1, 1, 1, 1)


def _positive(value: Tensor) -> Tensor:
    """Returns the value where it is positive and 1 where it is 0: to divide by."""
    return value.where(value > 0.0, 1.0)
