"""DMPS with the mean that its derivation drops: the likelihood at x0 (Meng & Kabashima 2024, Appendix A)."""

from __future__ import annotations

from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.methods.pgdm import unit_prior_variance
from dmps_cli.methods.posterior import Posterior
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior


class DmpsTweedie(Posterior):
    """The posterior mean of x0 if p(x0 | x_t) were N(x0(x_t), r^2 I), r^2 = sigma^2 / (alpha^2 + sigma^2).

        x0p = x0 + weight r^2 A^T (sigma_y^2 I + r^2 A A^T)^-1 (y - A x0)

    No Jacobian, so no back-propagation. The paper's eq. (34) has the variance sigma^2 for r^2, and its eq. (33)
    sigma^2 / alpha^2 where Tweedie's formula has sigma^2 / alpha.
    """

    def __init__(self, prior: Prior, measurement: Measurement, *, weight: float) -> None:
        super().__init__(prior, measurement)
        self.weight = weight

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns (x0p, the prior's standard deviation)."""
        x0, std = self.prior.predict(x_t, cur, nxt)
        variance = unit_prior_variance(cur)
        return x0 + self.weight * variance * self.correction(x0, self.sigma_y**2, variance), std
