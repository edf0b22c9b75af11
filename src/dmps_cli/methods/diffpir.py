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
    """x0p = argmin ||y - A x||^2 / sigma_y^2 + ||x - x0||^2 / g, g = sigma^2 / alpha^2 (Algorithm 1, its lambda = 1).

        x0p = x0 + g A^T (sigma_y^2 I + g A A^T)^-1 (y - A x0)
        x' = alpha' x0p + sigma' (sqrt(1 - zeta) eps + sqrt(zeta) z),  eps = (x_t - alpha x0p) / sigma

    zeta: share of the noise variance drawn afresh, 0 to 1.
    """

    def __init__(self, prior: Prior, measurement: Measurement, *, zeta: float) -> None:
        super().__init__(prior, measurement)
        self.zeta = zeta

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns (x0p, None): the step draws no learned noise."""
        x0, _ = self.prior.predict(x_t, cur, nxt)
        g = (cur.sigma / cur.alpha) ** 2
        return x0 + g * self.correction(x0, self.sigma_y**2, g), None

    def moved(self, x0: Tensor, eps: Tensor, fresh: Fresh, cur: Level, nxt: Level) -> Tensor:
        """Returns x' from x0p and its eps."""
        return nxt.alpha * x0 + nxt.sigma * (math.sqrt(1.0 - self.zeta) * eps + math.sqrt(self.zeta) * fresh(x0))
