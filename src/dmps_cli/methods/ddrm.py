"""DDRM: each mode of the measurement enters where its noise matches the level's (Kawar et al., NeurIPS 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.methods.posterior import ModewisePosterior
from dmps_cli.sampling import Fresh


class Ddrm(ModewisePosterior):
    """DDRM with eta_b = 1 (eqs. (7) and (8)), in the modes of x / alpha; q = sigma / alpha, ss = sigma_y / s.

    Start: yh + sqrt(q^2 - ss^2) z where q > ss, else q z. Step to q', with c = V^T x0 and yh = U^T y / s:

        s = 0:   c + sqrt(1 - eta^2) q' V^T eps + eta q' z
        q' < ss: c + sqrt(1 - eta^2) q' (yh - c) / ss + eta q' z
        else:    yh + sqrt(q'^2 - ss^2) z
    """

    def start(self, z: Tensor, level: Level) -> Tensor:
        """Returns the state at the first level: the measurement where it is less noisy than the level."""
        return self.informed_start(z, level)

    def moved(self, x0: Tensor, eps: Tensor, fresh: Fresh, cur: Level, nxt: Level) -> Tensor:
        """Returns the three cases above; (yh - c) / ss = (U^T y - s c) / sigma_y, so that a small s divides nothing."""
        z = fresh(x0)
        q, drift = nxt.sigma / nxt.alpha, math.sqrt(1.0 - self.eta**2)
        c, modes_of_z = self.modes.Vt(x0), self.modes.Vt(z)
        known = self.yh * self.inverse + (q**2 - self.spread**2).clamp_min(0.0).sqrt() * modes_of_z
        if self.sigma_y > 0.0:
            pull = (self.yh - self.modes.singulars * c) / self.sigma_y
            known = torch.where(q < self.spread, c + q * (drift * pull + self.eta * modes_of_z), known)
        return nxt.alpha * self.replaced(x0 + q * (drift * eps + self.eta * z), known)
