"""DMPS for few evaluations: the likelihood at x0, and the measurement's own noise counted into the step's."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dmps_cli.methods.posterior import ModewisePosterior
from dmps_cli.operators.base import LinearOperator
from dmps_cli.priors import Prior
from dmps_cli.schedules import Level


class CountedDmps(ModewisePosterior):
    """The flat-prior likelihood of DMPS taken at x0, mode by mode, with nothing back-propagated.

    In the modes of x / alpha, with q = sigma / alpha, ss = sigma_y / s, c = V^T x0, yh = U^T y / s, primes for the next
    level:

        k = v / (v + ss^2), v = weight q^2;  k <= q' / ss
        c' = c + k (yh - c) + sqrt(q'^2 - k^2 ss^2) (sqrt(1 - eta_y^2) V^T eps + eta_y V^T z)

    and where nothing was measured x0 + q' (sqrt(1 - eta^2) eps + eta z). The mean is that of Appendix A (Meng &
    Kabashima 2024) with the flat prior's variance, weight q^2; what of y's noise is in it, k ss, is no longer drawn, as
    in DDRM (Kawar et al. 2022), which has k = 1 where q' > ss. At the clean end k = 0: the sample is the prior's own
    x0. Start: DDRM's.
    """

    def __init__(
        self,
        prior: Prior,
        op: LinearOperator,
        y: Tensor,
        sigma_y: float,
        *,
        weight: float,
        eta: float,
        eta_y: float,
    ) -> None:
        super().__init__(prior, op, y, sigma_y, eta=eta)
        self.weight, self.eta_y = weight, eta_y

    def start(self, z: Tensor, level: Level) -> Tensor:
        """The state at the first level: the measurement where it is less noisy than the level."""
        return self.informed_start(z, level)

    def step(self, x_t: Tensor, x0: Tensor, eps: Tensor, z: Tensor, cur: Level, nxt: Level) -> Tensor:
        """The formula above; k (yh - c) as k / s (U^T y - s c), so that a small s divides nothing."""
        del x_t
        variance = self.weight * (cur.sigma / cur.alpha) ** 2
        q = nxt.sigma / nxt.alpha
        share = variance / (variance + self.spread**2)
        if self.sigma_y > 0.0:
            share = torch.minimum(share, q / self.spread.clamp_min(torch.finfo(self.spread.dtype).tiny))
        left = (q**2 - (share * self.spread) ** 2).clamp_min(0.0).sqrt()
        c = self.modes.Vt(x0)
        pull = share * self.inverse * (self.yh - self.modes.singulars * c)
        drawn = math.sqrt(1.0 - self.eta_y**2) * self.modes.Vt(eps) + self.eta_y * self.modes.Vt(z)
        unknown = x0 + q * (math.sqrt(1.0 - self.eta**2) * eps + self.eta * z)
        return nxt.alpha * self.replaced(unknown, c + pull + left * drawn)
