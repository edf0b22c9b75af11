"""What a training minimises, how fast it goes about it, and what of its weights a file keeps.

[EDM] Karras et al. 2022; [EDM2] Karras et al. 2024, arXiv:2312.02696. Needs torch alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dmps_cli.nets.natural import ARCHITECTURE, SIGMA_DATA, NaturalConfig
from dmps_cli.training.noise_levels import NoiseLevels

WARM_UP = 100  # steps, of the learning rate

LARGEST_NORM = 1.0  # of the gradient

AVERAGE = 0.9995

AVERAGE_START = 10

EXACT = ("inp.", "out.", "emb.")
"""Layers that stay in float32: all that the network sees, says and is told goes through them, and they are small."""

SIGMAS = (15, 25, 50)
"""Noise of the validation, in grey levels of 255."""


def edm_loss(
    net: Callable[[Tensor, Tensor], Tensor], x: Tensor, s: Tensor, eps: Tensor, sigma_data: float = SIGMA_DATA
) -> Tensor:
    """Returns (B,): mean over each image's pixels of lambda(s) (D(z; s) - x)^2 ([EDM], Table 1).

        z = x + s eps,  lambda(s) = v / (s sigma_data)^2,  v = s^2 + sigma_data^2

    With D = (sigma_data^2 / v) z + (sigma_data s / sqrt(v)) F this is the mean of (F - target)^2,

        target = (s x - sigma_data^2 eps) / (sigma_data sqrt(v)),

    where small s cancels nothing. x, eps: (B, C, H, W); s: (B,); F = net(z / sqrt(v), ln(s) / 4).
    """
    level = s[:, None, None, None]
    root = (level**2 + sigma_data**2).sqrt()
    f = net(((x + level * eps) / root).contiguous(memory_format=torch.channels_last), s.log() / 4.0)
    target = (level * x - sigma_data**2 * eps) / (sigma_data * root)
    return (f.to(target.dtype) - target).square().mean((1, 2, 3))


def learning_rate(highest: float, share: float, step: int) -> float:
    """Returns highest (1 + cos(pi share)) / 2, rising linearly over the first WARM_UP steps.

    share: of the budget, 0 to 1.
    """
    return highest * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * min(max(share, 0.0), 1.0)))


def average_decay(step: int) -> float:
    """Returns min(0.9995, (1 + k) / (10 + k)) at the k-th update.

    An average over the last tenth of a short run at first.
    """
    return min(AVERAGE, (1 + step) / (AVERAGE_START + step))


def power_decay(step: int, exponent: float) -> float:
    """Returns (1 - 1 / (k + 1))^(exponent + 1) at the k-th update, k >= 1 ([EDM2], eq. (2), the beginning is one).

    The average of theta_0 .. theta_k with weights in proportion to j^exponent: about the last 1 / exponent of a run of
    any length.
    """
    return float((1.0 - 1.0 / (step + 1)) ** (exponent + 1.0))


def psnr(x0: Tensor, x: Tensor) -> Tensor:
    """Returns (B,): PSNR in dB of the clipped estimates. x0, x: (B, C, H, W) on [-1, 1]."""
    return 10.0 * (4.0 / (x0.clamp(-1.0, 1.0) - x).square().mean((1, 2, 3)).clamp_min(1e-12)).log10()


def stored(state: Mapping[str, Tensor], *, full: bool = False) -> dict[str, Tensor]:
    """Returns the tensors as a file has them, on the CPU.

    In half precision, unless `full`, but for EXACT and vectors.
    """
    values = {name: value.detach().cpu() for name, value in sorted(state.items())}
    exact = {name for name, value in values.items() if full or value.ndim < 2 or name.startswith(EXACT)}
    return {name: value.contiguous() if name in exact else value.half() for name, value in values.items()}


def network_facts(config: NaturalConfig, levels: NoiseLevels, *, full: bool = False) -> dict[str, str]:
    """Returns what the metadata of a file say of the network, and of how `stored` stores it."""
    return {
        "architecture": ARCHITECTURE,
        "format_version": "1",
        **config.facts,
        "sigma_data": str(SIGMA_DATA),
        "sigma_min": str(levels.low),
        "sigma_max": str(levels.high),
        "precision": "float32" if full else f"float16; vectors and {' '.join(EXACT)} float32",
    }
