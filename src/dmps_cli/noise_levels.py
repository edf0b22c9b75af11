"""The noise levels of the training: how they are drawn, and what a loss counts at each of them.

[EDM2] Karras et al. 2024, arXiv:2312.02696; [Kendall] Kendall, Gal and Cipolla 2018, arXiv:1705.07115.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """The distribution of s in training: ln s uniform over low .. middle, a share of it over middle .. high.

    focus: a share of the draws is kept for ln s uniform over focus_low .. focus_high, the noise of photographs and of
    the last steps of a restoration, where the details are made (docs/training_trials.md).
    """

    low: float = 0.005
    middle: float = 10.0
    high: float = 200.0
    share_high: float = 0.12
    focus: float = 0.5
    focus_low: float = 0.05
    focus_high: float = 0.8

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count,) of float64."""
        kind, u = rng.random(count), rng.random(count)
        is_high, is_focus = kind < self.share_high, kind >= 1.0 - self.focus
        begin = np.select([is_high, is_focus], np.log([self.middle, self.focus_low]), math.log(self.low))
        end = np.select([is_high, is_focus], np.log([self.high, self.focus_high]), math.log(self.middle))
        logs: np.ndarray = begin + u * (end - begin)
        return np.exp(logs)  # type: ignore[no-any-return]


class LevelLosses:
    """The mean loss at each noise level, followed through the training; a loss counts in proportion to its inverse.

    So no level rules the gradient by its noise: near both ends of the range, where little can be learnt, the loss that
    stays is several times that in the middle. Each level is a task whose u minimises loss / u + ln u, [Kendall], as
    [EDM2] has it; u is followed in bins here, where [EDM2] learns it as a function.
    """

    NUM_BINS, DECAY = 24, 0.98  # bins of equal width in ln s; of a mean, with each loss

    def __init__(self, levels: NoiseLevels, means: Sequence[float] | None = None) -> None:
        """means: as they were saved; 1 at first, the loss of a network that knows nothing."""
        self.low, self.width = math.log(levels.low), math.log(levels.high / levels.low) / self.NUM_BINS
        self.means = [1.0] * self.NUM_BINS if means is None else [float(mean) for mean in means]
        if len(self.means) != self.NUM_BINS:
            raise ValueError(f"{len(self.means)} mean losses instead of {self.NUM_BINS}")

    def bins(self, s: Tensor) -> list[int]:
        """Of the levels s, (B,), which bin each lies in."""
        places = ((s.double().log() - self.low) / self.width).floor()
        return [int(place) for place in places.clamp(0, self.NUM_BINS - 1).tolist()]

    def weights(self, s: Tensor) -> Tensor:
        """(B,) float32: 1 / mean of each level's bin."""
        return torch.tensor([1.0 / self.means[place] for place in self.bins(s)], dtype=torch.float32)

    def update(self, s: Tensor, losses: Tensor) -> None:
        """Moves the means by a step's losses, (B,), in their order."""
        for place, loss in zip(self.bins(s), losses.tolist(), strict=True):
            self.means[place] += (1.0 - self.DECAY) * (loss - self.means[place])
