"""Pre-trained priors behind one contract: E[x0 | x_t] at any noise level.

A level of another clock than the network's own is served by the equal signal-to-noise ratio: the state
x_t = alpha x + sigma eps is rescaled to what the network was trained on.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dmps_cli.levels import SAMPLERS, Level, ddpm_time, flow_label
from dmps_cli.nets.layers import clipped
from dmps_cli.sampling import Denoiser


class Prior(Denoiser):
    """A denoiser with its noise levels. All images (B, C, H, W) on [-1, 1]; one network call per `predict`.

    bytes_per_pixel: peak memory of a call per pixel of one image, where it is known. least_size, multiple: of the sides
    of an image that `predict` takes, px. clips_x0: whether its x0 lies within [-1, 1] by force. sampler: the kind of
    noise levels (`levels.SAMPLERS`) that it is best on, where it has one. has_windows: whether it sees a large picture
    part by part.
    """

    channels: int = 3
    bytes_per_pixel: float | None = None
    least_size: int = 1
    multiple: int = 1
    clips_x0: bool = False
    sampler: str | None = None
    has_windows: bool = False

    def fitting(self, height: int, width: int) -> tuple[int, int]:
        """Returns the smallest sides, px, not below these, that `predict` takes."""
        rows, cols = (max(side + -side % self.multiple, self.least_size) for side in (height, width))
        return rows, cols

    def peak_bytes(self, height: int, width: int) -> float | None:
        """Returns the memory that a restoration of one image takes, where it is known."""
        return None if self.bytes_per_pixel is None else self.bytes_per_pixel * height * width

    def levels(self, sampler: str, nfe: int, spacing: str = "uniform", start: float | None = None) -> list[Level]:
        """Returns the sampler's `nfe` + 1 levels, noisiest first, clean last, their times on this network's clock.

        start: share of data of the first one, for a method that does not begin in pure noise (flow levels alone).
        """
        ladder = SAMPLERS[sampler].levels(nfe, spacing, start)
        return [level._replace(time=self.time(sampler, level)) for level in ladder[:-1]] + ladder[-1:]

    def time(self, sampler: str, level: Level) -> float:
        """Returns what this network is told at a level of the sampler's ladder."""
        return level.time

    @abstractmethod
    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns (E[x0 | x_t] at level cur, the learned standard deviation of the step to nxt or None)."""


class DenoiserPrior(Prior):
    """D(z; s) = E[x0 | x0 + s eps = z] (Karras et al. 2022) serves every level.

    x0(x_t) = D(x_t / alpha; sigma / alpha)
    """

    def __init__(self, denoise: Callable[[Tensor, float], Tensor], channels: int = 3) -> None:
        self.denoise, self.channels = denoise, channels

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns D(x_t / alpha; sigma / alpha), and no learned variance. Raises ValueError for D of another shape."""
        x0 = self.denoise(x_t / cur.alpha, cur.sigma / cur.alpha)
        if x0.shape != x_t.shape:
            raise ValueError(f"the denoiser gives {tuple(x0.shape)}; expected {tuple(x_t.shape)}, as it was given")
        return x0, None


class DDPMPrior(Prior):
    """A network that predicts eps, and perhaps the reverse variance, on DDPM levels (Ho et al. 2020).

    network(x, t): x (B, C, H, W), t (B,) original step numbers, fractional ones included; returns eps, or with
    `learned_range` 2 C channels, eps and v (Nichol & Dhariwal 2021, eq. (15)). bars: alpha_bar of the chain that it was
    trained on, if that is not the linear one.
    """

    bars: Sequence[float] | None = None

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        *,
        learned_range: bool,
        clip_denoised: bool,
        channels: int = 3,
    ) -> None:
        self.network, self.channels = network, channels
        self.learned_range, self.clips_x0 = learned_range, clip_denoised

    def time(self, sampler: str, level: Level) -> float:
        """Returns the step number; on foreign ladders the fractional step of equal sigma / alpha."""
        if sampler == "ddpm" and self.bars is None:
            return level.time
        return ddpm_time(level.sigma / level.alpha, self.bars)

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns x0 = (x_t - sigma eps) / alpha, clipped to [-1, 1] if so declared, and the learned std."""
        scale = math.hypot(cur.alpha, cur.sigma)  # 1 on DDPM levels
        output = self.network(x_t / scale, x_t.new_full((x_t.shape[0],), cur.time))
        x0 = (x_t - cur.sigma * output[:, : self.channels]) / cur.alpha
        if self.clips_x0:
            x0 = clipped(x0, 1.0)
        return x0, self._learned_std(output[:, self.channels :], cur, nxt) if self.learned_range else None

    def _learned_std(self, v: Tensor, cur: Level, nxt: Level) -> Tensor | None:
        """Returns exp(1/2 (f log beta_t + (1 - f) log posterior variance)), f = (v + 1) / 2.

        beta_t: of the kept chain.
        """
        if nxt.sigma == 0.0:
            return None  # the last step draws no noise
        bar, bar_next = (level.alpha**2 / (level.alpha**2 + level.sigma**2) for level in (cur, nxt))
        beta = 1.0 - bar / bar_next
        posterior = beta * (1.0 - bar_next) / (1.0 - bar)
        share = (v + 1.0) / 2.0
        log_variance = share * math.log(beta) + (1.0 - share) * math.log(posterior)
        return math.hypot(nxt.alpha, nxt.sigma) * (0.5 * log_variance).exp()


class FlowPrior(Prior):
    """A network that predicts the velocity u = x0 - eps of rectified flow (Liu et al. 2023).

    network(x, label): x = s x0 + (1 - s) eps, label (B,) = 999 s.
    """

    sampler = "flow"

    def __init__(self, network: Callable[[Tensor, Tensor], Tensor], *, channels: int = 3) -> None:
        self.network, self.channels = network, channels

    def time(self, sampler: str, level: Level) -> float:
        """Returns the label 999 s; on foreign ladders that of equal sigma / alpha."""
        return level.time if sampler == "flow" else flow_label(level.sigma / level.alpha)

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns x0 = x + (1 - s) u, x = x_t / (alpha + sigma), s = alpha / (alpha + sigma); no learned variance."""
        total = cur.alpha + cur.sigma  # 1 on flow levels
        x = x_t / total
        return x + cur.sigma / total * self.network(x, x_t.new_full((x_t.shape[0],), cur.time)), None


@dataclass(frozen=True)
class GaussianPrior(Prior):
    """x0 ~ N(mean, covariance), exactly: the prior whose posterior is known in closed form. Dense, for small images.

    mean: (C, H, W); covariance: (N, N), N = C H W, on the flattened image.
    """

    mean: Tensor
    covariance: Tensor

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns mean + alpha C (alpha^2 C + sigma^2 I)^-1 (x_t - alpha mean)."""
        residual = (x_t - cur.alpha * self.mean).flatten(1)
        marginal = cur.alpha**2 * self.covariance + cur.sigma**2 * torch.eye(len(self.covariance)).to(self.covariance)
        gain = cur.alpha * torch.linalg.solve(marginal, self.covariance)  # both symmetric and commuting
        return self.mean + (residual @ gain).reshape(x_t.shape), None
