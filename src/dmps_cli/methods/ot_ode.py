"""OT-ODE: pseudo-inverse guidance of the flow ODE, started from the measurement (Pokle et al., TMLR 2024)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.methods.pgdm import Pgdm
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior


class OtOde(Pgdm):
    """PGDM's score on the flow ODE, from a level where the measurement already says what is there (Algorithm 1).

    gamma: the weight of the score, '1' or 'sqrt': sqrt(s / (s^2 + (1 - s)^2)), s = alpha the share of data.
    x_init: what stands for the picture at the first level, A^T y (`adjoint`, the paper's) or the regularised A^T
    (sigma_y^2 I + A A^T)^-1 y (`inverse`): for super-resolution A^T y is nearly black, as A^T spreads a pixel over f^2.
    """

    def __init__(
        self,
        prior: Prior,
        measurement: Measurement,
        *,
        gamma: Literal["1", "sqrt"],
        x_init: Literal["adjoint", "inverse"] = "inverse",
    ) -> None:
        super().__init__(prior, measurement, weight=1.0, guidance="bayes", sampler_eta=0.0)
        self.gamma, self.x_init = gamma, x_init

    def start(self, z: Tensor, level: Level) -> Tensor:
        """Returns alpha x_init + sigma z."""
        if self.x_init == "adjoint":
            picture = self.op.At(self.y)
        else:
            picture = self.correction(torch.zeros_like(z), self.sigma_y**2, 1.0)
        return level.alpha * picture + level.sigma * z

    def shift(self, cur: Level, nxt: Level) -> float:
        """Returns gamma sigma^2 / alpha, the factor of S in x0."""
        gamma = 1.0 if self.gamma == "1" else math.sqrt(cur.alpha / (cur.alpha**2 + cur.sigma**2))
        return gamma * super().shift(cur, nxt)
