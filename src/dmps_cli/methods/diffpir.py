"""DiffPIR: half-quadratic splitting, a proximal step on the measurement between denoisings (Zhu et al., CVPRW 2023)."""

from __future__ import annotations

import math

from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.methods.posterior import OwnStep
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior
from dmps_cli.sampling import Fresh


class Diffpir(OwnStep):
    """x0p = argmin ||y - A x||^2 / sigma_y^2 + ||x - x0||^2 / g, g = sigma^2 / (l alpha^2) (Algorithm 1, its lambda l).

        x0p = x0 + g A^T (sigma_y^2 I + g A A^T)^-1 (y - A x0)
        x' = alpha' x0p + sigma' (sqrt(1 - zeta) eps + sqrt(zeta) z),  eps = (x_t - alpha x0p) / sigma

    zeta: share of the noise variance drawn afresh, 0 to 1. prior_weight: l > 0, pictures on [-1, 1]. The authors' code
    takes sigma_y on [0, 1] and sigma / alpha on [-1, 1], so that its lambda of 1 is l = 1/4.
    """

    def __init__(self, prior: Prior, measurement: Measurement, *, zeta: float, prior_weight: float = 1.0) -> None:
        super().__init__(prior, measurement)
        self.zeta, self.prior_weight = zeta, prior_weight

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns (x0p, None): the step draws no learned noise."""
        x0, _ = self.prior.predict(x_t, cur, nxt)
        g = (cur.sigma / cur.alpha) ** 2 / self.prior_weight
        return x0 + g * self.correction(x0, self.sigma_y**2, g), None

    def moved(self, x0: Tensor, eps: Tensor, fresh: Fresh, cur: Level, nxt: Level) -> Tensor:
        """Returns x' from x0p and its eps."""
        return nxt.alpha * x0 + nxt.sigma * (math.sqrt(1.0 - self.zeta) * eps + math.sqrt(self.zeta) * fresh(x0))
