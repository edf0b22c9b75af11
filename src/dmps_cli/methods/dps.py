"""DPS: the gradient of the residual's norm through the network (Chung et al., ICLR 2023)."""

from __future__ import annotations

import math
from abc import abstractmethod

from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.linalg import item_dot
from dmps_cli.methods.posterior import Posterior, pulled_back
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior
from dmps_cli.sampling import x0_coefficient


class ResidualDescent(Posterior):
    """After the prior's own step, x += w d, d = -grad_{x_t} |r|, r = y - A x0 (Chung et al. 2023, Algorithm 1, line 7).

    d = (d x0 / d x_t)^T A^T r / |r|, all norms per image: the authors' code has them over the batch. Written as a shift
    of x0, by w / c0 d, which the step multiplies by c0 = `x0_coefficient`. sampler_eta: stochasticity of the sampler's
    steps, on which c0 depends.
    """

    def __init__(self, prior: Prior, measurement: Measurement, *, sampler_eta: float = 1.0) -> None:
        super().__init__(prior, measurement)
        self.sampler_eta = sampler_eta

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns (x0 + w / c0 d, the prior's standard deviation)."""
        x0, std, d = pulled_back(self.prior, x_t, cur, nxt, self._direction)
        return x0 + self.shift(x0, d, cur, nxt) * d, std

    @abstractmethod
    def shift(self, x0: Tensor, d: Tensor, cur: Level, nxt: Level) -> float | Tensor:
        """Returns w / c0: a number, or one for each item, (B, 1, 1, 1)."""

    def _direction(self, x0: Tensor) -> Tensor:
        """Returns A^T r / |r|, 0 where there is no residual."""
        r = self.y - self.op.A(x0)
        return self.op.At(r / _positive(item_dot(r, r).sqrt()))


class Dps(ResidualDescent):
    """DPS as its authors have it: a step of constant length, right for one size of picture, task and number of steps.

    w = zeta after an ancestral step (sampler_eta > 0), zeta (b / a) dt after an Euler step of the flow ODE
    (sampler_eta = 0; Meng & Kabashima 2024, section 3.2).
    """

    def __init__(self, prior: Prior, measurement: Measurement, *, zeta: float, sampler_eta: float = 1.0) -> None:
        super().__init__(prior, measurement, sampler_eta=sampler_eta)
        self.zeta = zeta

    def shift(self, x0: Tensor, d: Tensor, cur: Level, nxt: Level) -> float:
        """Returns w / c0; on the flow (b / a) dt / c0 = b^2 / a."""
        if self.sampler_eta == 0.0:
            return self.zeta * cur.sigma**2 / cur.alpha
        return self.zeta / x0_coefficient(cur, nxt, self.sampler_eta)


class LineSearchDps(ResidualDescent):
    """DPS without a constant: the length of each step by a line search, which is ours, not its authors'.

        w = alpha' max(<r, A d>, 0) / |A d|^2  sqrt(max(|r|^2 - M sigma_y^2, 0)) / |r|

    alpha' of the next level, M measured values: the first factor makes |r - A d w / alpha'| least, the second ends the
    pull once the residual is no more than the measurement's noise, which else would be fitted.
    """

    def shift(self, x0: Tensor, d: Tensor, cur: Level, nxt: Level) -> Tensor:
        """Returns w / c0."""
        r, image = self.y - self.op.A(x0), self.op.A(d)
        energy, noise = item_dot(r, r), math.prod(self.op.out_shape) * self.sigma_y**2
        best = item_dot(r, image).clamp_min(0.0) / _positive(item_dot(image, image))
        left = ((energy - noise).clamp_min(0.0) / _positive(energy)).sqrt()
        return nxt.alpha / x0_coefficient(cur, nxt, self.sampler_eta) * (best * left).reshape(-1, 1, 1, 1)


def _positive(value: Tensor) -> Tensor:
    """Returns the value where it is positive and 1 where it is 0: to divide by."""
    return value.where(value > 0.0, 1.0)
