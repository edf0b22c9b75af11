"""OT-ODE: pseudo-inverse guidance of the flow ODE, started from the measurement (Pokle et al., TMLR 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.methods.pgdm import Pgdm
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior


class OtOde(Pgdm):
    """PGDM's score on the flow ODE, from a level where the measurement already says what is there (Algorithm 1).

    gamma: the weight of the score, '1' or 'sqrt': sqrt(s / (s^2 + (1 - s)^2)), s = alpha the share of data.
    """

    def __init__(self, prior: Prior, measurement: Measurement, *, gamma: str) -> None:
        super().__init__(prior, measurement, weight=1.0)
        self.gamma = gamma

    def start(self, z: Tensor, level: Level) -> Tensor:
        """Returns alpha x_init + sigma z, x_init = A^T (sigma_y^2 I + A A^T)^-1 y.

        The paper starts from A^T y, which for super-resolution is nearly black: A^T spreads a pixel over f^2.
        """
        return level.alpha * self.correction(torch.zeros_like(z), self.sigma_y**2, 1.0) + level.sigma * z

    def weight_at(self, level: Level) -> float:
        """Returns gamma at a level."""
        if self.gamma == "1":
            return 1.0
        return math.sqrt(level.alpha / (level.alpha**2 + level.sigma**2))
