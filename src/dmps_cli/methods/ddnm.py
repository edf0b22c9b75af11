"""DDNM+: the range of A^+ taken from the measurement, as far as its noise allows (Wang et al., ICLR 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.methods.posterior import ModewisePosterior
from dmps_cli.sampling import Fresh


class Ddnm(ModewisePosterior):
    """DDNM+ (eqs. (17) and (19)), per mode of singular value s, ss = sigma_y / s; primes: the next level.

        x0h = x0 - V L V^T A^+ (A x0 - y),  L = 1 if sigma' >= alpha' ss, else sigma' sqrt(1 - eta^2) / (alpha' ss)
        x' = alpha' x0h + noise of standard deviation sqrt(sigma'^2 - alpha'^2 ss^2), else eta sigma'

    and at s = 0 DDIM's sigma' (sqrt(1 - eta^2) eps + eta z). These are DDRM's steps, by another road; DDNM+ differs in
    that it starts from noise alone.
    """

    def moved(self, x0: Tensor, eps: Tensor, fresh: Fresh, cur: Level, nxt: Level) -> Tensor:
        """Returns x' as above; L / s is taken together, so that a small s divides nothing."""
        z = fresh(x0)
        alpha, sigma, drift = nxt.alpha, nxt.sigma, math.sqrt(1.0 - self.eta**2)
        is_full = sigma >= alpha * self.spread
        gain = self.inverse  # L / s
        if self.sigma_y > 0.0:
            gain = torch.where(is_full, gain, sigma * drift / (alpha * self.sigma_y))
        c = self.modes.Vt(x0)
        rectified = c - gain * (self.modes.singulars * c - self.yh)
        std = torch.where(is_full, (sigma**2 - (alpha * self.spread) ** 2).clamp_min(0.0).sqrt(), self.eta * sigma)
        return self.replaced(
            alpha * x0 + sigma * (drift * eps + self.eta * z), alpha * rectified + std * self.modes.Vt(z)
        )
