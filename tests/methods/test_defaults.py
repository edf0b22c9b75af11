"""What the defaults do to photographs: a restoration must not be worse than what it was made from."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch import Tensor

from dmps_cli.files.images import load_rgb, photo_paths
from dmps_cli.methods.choice import resolve_sampling
from dmps_cli.metrics.scorer import Scorer
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import degrade, restore
from dmps_cli.priors import Prior
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from dmps_cli.weights.loading import load_prior

SIZE, CORNER = 64, 96  # px


@lru_cache
def bundled() -> Prior:
    """The prior of every command that names none."""
    return load_prior("natural", torch.device("cpu")).prior


def detail(name: str) -> Tensor:
    """A part of a bundled photograph, (1, 3, SIZE, SIZE)."""
    path = next(path for path in photo_paths() if path.stem == name)
    return load_rgb(path).pixels[None, :, CORNER : CORNER + SIZE, CORNER : CORNER + SIZE]


def psnr(x: Tensor, truth: Tensor) -> float:
    """dB on [-1, 1], not clipped."""
    return float(10.0 * torch.log10(4.0 / (x - truth).square().mean()))


@pytest.mark.parametrize("sampler", ["ddpm", "flow"])
@pytest.mark.parametrize("sigma_y", [0.02, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("photo", ["chelsea", "coffee"])
def test_denoising_gains(photo: str, sigma_y: float, sampler: str) -> None:
    """At least 1 dB over the measurement."""
    x = detail(photo)
    op = build("denoise", {}, (3, SIZE, SIZE), dtype=torch.float32)
    y = degrade(x, op, sigma_y, seed=0, keys=[(0, 0)])
    sampling = resolve_sampling(task="denoise", sampler=sampler)
    restored = restore(Measurement(y, op, sigma_y), bundled(), sampling, seed=0, keys=[(0, 0)])
    assert psnr(restored, x) > psnr(y, x) + 1.0


@pytest.mark.parametrize("pattern", [{"box": "20,20,16,16"}, {"fraction": 0.5}], ids=str)
def test_kept_pixels_are_kept(pattern: dict[str, str | float]) -> None:
    """Where a pixel was measured, the restoration is no farther from the truth than the measurement."""
    x, sigma_y = detail("chelsea"), 0.02
    op = build("inpaint", resolve("inpaint", OperatorOptions(**pattern)), (3, SIZE, SIZE), dtype=torch.float32)
    y = degrade(x, op, sigma_y, seed=0, keys=[(0, 0)])
    restored = restore(Measurement(y, op, sigma_y), bundled(), resolve_sampling(task="inpaint"), seed=0, keys=[(0, 0)])
    assert psnr(op.A(restored), op.A(x)) > psnr(y, op.A(x))


@pytest.mark.parametrize("name", ["deblur", "deblur-gauss", "motion", "colorize"])
def test_a_restoration_beats_the_plain_solution(name: str) -> None:
    """Nearer to the photograph than the regularised inverse A^T (sigma_y^2 I + A A^T)^-1 y."""
    x, sigma_y = detail("coffee"), 0.02
    op = build(name, resolve(name, OperatorOptions()), (3, SIZE, SIZE), dtype=torch.float32)
    y = degrade(x, op, sigma_y, seed=0, keys=[(0, 0)])
    restored = restore(Measurement(y, op, sigma_y), bundled(), resolve_sampling(task=name), seed=0, keys=[(0, 0)])
    assert psnr(restored, x) > psnr(op.At(op.solve(y, sigma_y**2, 1.0)), x)


@pytest.mark.parametrize("name", ["sr4", "sr4-avg", "sr8"])
@pytest.mark.parametrize("photo", ["chelsea", "coffee"])
def test_super_resolution_looks_nearer_than_bicubic(photo: str, name: str) -> None:
    """By LPIPS (a posterior sample is not the mean, which has the best PSNR), at the default noise."""
    x, sigma_y = detail(photo), 0.05
    op = build(name, resolve(name, OperatorOptions()), (3, SIZE, SIZE), dtype=torch.float32)
    y = degrade(x, op, sigma_y, seed=0, keys=[(0, 0)])
    restored = restore(Measurement(y, op, sigma_y), bundled(), resolve_sampling(task=name), seed=0, keys=[(0, 0)])
    enlarged = torch.nn.functional.interpolate(y, size=(SIZE, SIZE), mode="bicubic")
    scorer = Scorer(["lpips"])
    assert scorer.score(restored, x)[0]["lpips"] < scorer.score(enlarged, x)[0]["lpips"]
