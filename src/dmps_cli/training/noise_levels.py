"""The noise levels of the training: how they are drawn, and what a loss counts at each of them. Needs torch alone.

[EDM2] Karras et al. 2024, arXiv:2312.02696; [Kendall] Kendall, Gal and Cipolla 2018, arXiv:1705.07115.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np


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
        """Returns (count,) of float64."""
        kind, u = (torch.from_numpy(rng.random(count)) for _ in range(2))
        found: np.ndarray = self.at(kind, u).numpy()
        return found

    def at(self, kind: Tensor, u: Tensor) -> Tensor:
        """Returns the levels of uniform draws: `kind` says which span, u where in it.

        All are (B,), float64, on any device.
        """
        is_high, is_focus = kind < self.share_high, kind >= 1.0 - self.focus

        def chosen(high: float, focus: float, other: float) -> Tensor:
            inner = torch.where(is_focus, math.log(focus), torch.full_like(u, math.log(other)))
            return torch.where(is_high, math.log(high), inner)

        begin = chosen(self.middle, self.focus_low, self.low)
        return (begin + u * (chosen(self.high, self.focus_high, self.middle) - begin)).exp()


class LevelLosses:
    """The mean loss at each noise level, followed through the training; a loss counts in proportion to its inverse.

    So no level rules the gradient by its noise: near both ends of the range, where little can be learnt, the loss that
    stays is several times that in the middle. Each level is a task whose u minimises loss / u + ln u, [Kendall], as
    [EDM2] has it; u is followed in bins here, where [EDM2] learns it as a function.
    """

    NUM_BINS, DECAY = 24, 0.98  # bins of equal width in ln s; of a mean, with each loss

    def __init__(
        self, levels: NoiseLevels, means: Sequence[float] | None = None, device: torch.device | None = None
    ) -> None:
        """means: as they were saved; 1 at first, the loss of a network that knows nothing."""
        self.low, self.width = math.log(levels.low), math.log(levels.high / levels.low) / self.NUM_BINS
        self.device = device
        self.means = [1.0] * self.NUM_BINS if means is None else means

    @property
    def means(self) -> list[float]:
        """Of each bin."""
        found: list[float] = self._means.tolist()
        return found

    @means.setter
    def means(self, means: Sequence[float]) -> None:
        if len(means) != self.NUM_BINS:
            raise ValueError(f"{len(means)} mean losses instead of {self.NUM_BINS}")
        self._means = torch.tensor(means, dtype=torch.float64, device=self.device)

    def bins(self, s: Tensor) -> Tensor:
        """Returns which bin each of the levels s, (B,), lies in."""
        return ((s.double().log() - self.low) / self.width).floor().clamp(0, self.NUM_BINS - 1).long()

    def weights(self, s: Tensor) -> Tensor:
        """Returns (B,) float32: 1 / mean of each level's bin."""
        return self._means[self.bins(s)].reciprocal().float()

    def update(self, s: Tensor, losses: Tensor) -> None:
        """Moves the mean of each bin by a step's n losses in it: m <- d^n m + (1 - d^n) (mean of the n), d = DECAY.

        s, losses: (B,), on the device; nothing waits for it.
        """
        places = self.bins(s)
        counts, sums = (
            torch.zeros_like(self._means).index_add_(0, places, values)
            for values in (torch.ones_like(self._means[places]), losses.to(self._means))
        )
        kept = self.DECAY**counts
        self._means = torch.where(counts > 0, kept * self._means + (1.0 - kept) * sums / counts, self._means)
