"""What a training moves: the network, the average of its weights, the optimizer, by EDM's loss.

The learning rate depends on the share of the budget that is used up, over all calls.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dmps_cli import processes
from dmps_cli.device import has_fast_bfloat16, onto
from dmps_cli.errors import InputError
from dmps_cli.files.images import from_uint8
from dmps_cli.nets.natural import Natural, NaturalConfig, NaturalNet
from dmps_cli.sampling import Noise
from dmps_cli.training.budgets import Budget, budget_of
from dmps_cli.training.muon import MuonAdamW
from dmps_cli.training.noise_levels import LevelLosses, NoiseLevels
from dmps_cli.training.objective import LARGEST_NORM, SIGMAS, average_decay, edm_loss, learning_rate, psnr, stored
from dmps_cli.training.photographs import Photo, Shapes, TrainingBatch, decode

VALIDATION_SIDE, VALIDATION_PHOTOS = 192, 16
"""Of at most so many photographs the middle square of so many px."""

LogRow = dict[str, Any]
"""Of the log."""


# --- What is trained
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a prior is trained; kept with the training state.

    minutes or steps, the other None: over all calls; lr: the highest learning rate; full: whether the prior's file has
    float32; validate: a folder to measure on, else a tenth is held out. ValueError if not exactly one of the two is.
    """

    minutes: float | None = 120.0
    steps: int | None = None
    batch: int = 12
    crop: int = 96
    lr: float = 3e-3
    seed: int = 0
    licence: str = "not stated"
    full: bool = False
    validate: str = ""

    def __post_init__(self) -> None:
        budget_of(self.minutes, self.steps)

    @property
    def budget(self) -> Budget:
        """Of all calls."""
        return budget_of(self.minutes, self.steps)

    @property
    def shapes(self) -> Shapes:
        """Of the crops."""
        return Shapes.around(self.batch, self.crop)


class Trainer:
    """The network, the average of its weights and the optimizer on a device, with the count of steps and seconds.

    Of several processes each has all of it, and computes its part of each step (processes.py): as far as rounding goes,
    all of them then stand where one process would.
    """

    def __init__(self, net: NaturalNet, config: NaturalConfig, recipe: Recipe, device: torch.device) -> None:
        self.config, self.recipe, self.device = config, recipe, device
        self.net = net.to(device).to(memory_format=torch.channels_last).train().requires_grad_(True)
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.levels = NoiseLevels()
        self.losses = LevelLosses(self.levels)
        self.denoiser = Natural(self.ema, sigma_min=self.levels.low, sigma_max=self.levels.high)
        self.optimizer = MuonAdamW(self.net, fused=device.type in ("cpu", "cuda"))
        self.step, self.bad_steps, self.bad_in_a_row, self.seconds = 0, 0, 0, 0.0
        self.rows: list[LogRow] = []

    @property
    def share(self) -> float:
        """Of the budget, used up."""
        return self.recipe.budget.share(self.step, self.seconds)

    @property
    def lr(self) -> float:
        """The learning rate now."""
        return learning_rate(self.recipe.lr, self.share, self.step)

    @cached_property
    def model(self) -> nn.Module:
        """The network as a step calls it, that of all processes; made with the first step."""
        return processes.averaging(self.net, self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """Returns bfloat16 where the device is fast in it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device))

    @torch.enable_grad()
    def take_step(self, batch: TrainingBatch) -> float:
        """Takes a step, or none where the gradient is not finite; returns the mean loss, not weighted."""
        whole = len(batch.x) if batch.whole is None else batch.whole
        own = range(whole) if batch.whole is None else processes.own_part(whole)
        x, eps = (onto(value, self.device) for value in (batch.x, batch.eps))
        with self.autocast():
            losses = edm_loss(
                self.model, x.float() / 127.5 - 1.0, batch.s.to(self.device), eps, self.denoiser.sigma_data
            )
        weights = self.losses.weights(batch.s).to(self.device) * (processes.world_size() / whole)
        (losses * weights)[: len(own)].sum().backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.net.parameters(), LARGEST_NORM))
        s, losses = _of_all(torch.stack([batch.s, losses.detach().cpu()])[:, : len(own)], own, whole)
        if math.isfinite(norm):
            self.optimizer.step(self.lr)
            self.losses.update(s, losses)
            self._update_average()
            self.bad_in_a_row = 0
        else:
            self.bad_steps += 1
            self.bad_in_a_row += 1
        self.net.zero_grad(set_to_none=True)
        self.step += 1
        return float(losses.mean())

    @torch.no_grad()
    def _update_average(self) -> None:
        weight = 1.0 - average_decay(self.step - self.bad_steps)
        torch._foreach_lerp_([*self.ema.parameters()], [*self.net.parameters()], weight)

    @torch.no_grad()
    def validate(self, pictures: Sequence[tuple[int, Tensor]]) -> dict[str, float]:
        """Returns psnr_15, psnr_25, psnr_50: mean PSNR in dB of the clipped estimates, of noise that is not clipped.

        pictures: (key of its noise, (1, C, H, W)).
        """
        sums = dict.fromkeys(map(_psnr_name, SIGMAS), 0.0)
        for key, x in pictures:
            for sigma in SIGMAS:
                s = sigma * 2.0 / 255.0
                noisy = (x + s * Noise(0, Noise.MEASUREMENT, [(key, sigma)]).like(x)).to(self.device)
                with self.autocast():
                    x0 = self.denoiser.denoise(noisy, s).cpu()
                sums[_psnr_name(sigma)] += float(psnr(x0, x))
        return {name: total / len(pictures) for name, total in sums.items()} if pictures else {}

    def tensors(self) -> dict[str, Tensor]:
        """Returns all tensors of the training state, on the CPU."""
        parts = {"net": self.net, "ema": self.ema}
        found = {f"{part}.{name}": p for part, net in parts.items() for name, p in net.named_parameters()}
        return {name: value.detach().cpu() for name, value in (found | dict(self.optimizer.moments())).items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Takes up a training state where it was saved."""
        averages = dict(self.ema.named_parameters())
        self.step, self.bad_steps, self.seconds = facts["step"], facts["bad_steps"], facts["seconds"]
        self.losses = LevelLosses(self.levels, facts["level_losses"])
        self.rows = list(facts["rows"])
        for name, parameter in self.net.named_parameters():
            parameter.copy_(tensors[f"net.{name}"])
            averages[name].copy_(tensors[f"ema.{name}"])
        if (count := self.step - self.bad_steps) > 0:
            self.optimizer.restore(tensors, count)

    def prior_tensors(self) -> dict[str, Tensor]:
        """Returns the averaged weights as a file has them."""
        return stored(self.ema.state_dict(), full=self.recipe.full)


def _of_all(values: Tensor, own: range, whole: int) -> Tensor:
    """Returns (n, whole) float32: every process's values in their places. values: (n, len(own)), ours."""
    table = torch.zeros(len(values), whole)
    table[:, own.start :: own.step] = values
    return processes.summed(table)


def _psnr_name(sigma: int) -> str:
    return f"psnr_{sigma}"


PSNR_NAMES = tuple(map(_psnr_name, SIGMAS))


# --- Validation
class Validation(NamedTuple):
    """pictures: (key of the noise, (1, C, h, w)), of these photos; how many others are small, why some are damaged."""

    pictures: list[tuple[int, Tensor]]
    photos: list[Photo]
    small: int
    damaged: list[str]


def validation_pictures(photos: Sequence[Photo], channels: int, least_side: int) -> Validation:
    """Returns the middle of the first usable ones by the hash of their names. least_side: px of the shorter side."""
    pictures: list[tuple[int, Tensor]] = []
    used: list[Photo] = []
    damaged: list[str] = []
    small = 0
    for photo in sorted(photos, key=lambda photo: photo.key):
        if len(pictures) == VALIDATION_PHOTOS:
            break
        try:
            pixels = decode(photo.path, channels)
        except InputError as exc:
            damaged.append(str(exc))
            continue
        if min(pixels.shape[:2]) < least_side:
            small += 1
            continue
        height, width = (min(side, VALIDATION_SIDE) for side in pixels.shape[:2])
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        used.append(photo)
        pictures.append((photo.key, from_uint8(pixels[top : top + height, left : left + width])[None]))
    return Validation(pictures, used, small, damaged)
