"""Whether a device computes what the CPU computes in float32: one network call at two levels, and a short run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import DmpsError
from dmps_cli.listener import Listener
from dmps_cli.units import GREY_LEVELS
from dmps_cli.weights.options import ComputeOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.priors import Prior


SIDE, NFE = 64, 5
LEVELS = {"noisy": 2, "clean": 8}
"""Evaluations: which of 10 levels, noisiest first."""

TOLERANCE = {"float32": 1.0, "bfloat16": 16.0, "float16": 8.0}
"""Largest difference to float32 on the CPU that passes, in grey levels of 255; at a level noisier than the picture in
units of its noise, sigma / alpha, by which a network that predicts noise is multiplied there.
"""

OK, TOO_FAR = "ok", "too far"


def compare(compute: ComputeOptions, sampler: str, device: torch.device, listener: Listener) -> list[dict[str, Any]]:
    """Returns a row per floating-point type: what it differs by, in grey levels, from the CPU in float32."""
    import torch

    cpu = torch.device("cpu")
    expected = outputs(replace(compute, dtype="float32"), sampler, cpu, listener)
    rows: list[dict[str, Any]] = []
    for dtype, tolerance in TOLERANCE.items():
        if device.type == "cpu" and dtype == "float32":
            continue
        row: dict[str, Any] = {"dtype": dtype, "allowed": tolerance}
        try:
            found = outputs(replace(compute, dtype=dtype), sampler, device, listener)
        except (DmpsError, RuntimeError, NotImplementedError) as exc:  # a type that the device does not have
            rows.append(row | {"verdict": f"not supported ({str(exc).splitlines()[0][:80]})"})
            continue
        differences = {name: float((found[name] - value).abs().max()) * GREY_LEVELS for name, value in expected.items()}
        passed = all(difference <= tolerance for difference in differences.values())
        rows.append(row | differences | {"verdict": OK if passed else TOO_FAR})
    return rows


def outputs(compute: ComputeOptions, sampler: str, device: torch.device, listener: Listener) -> dict[str, Tensor]:
    """Returns the network's x0 at two noise levels and a DMPS run, on the CPU in float32, whatever computed them."""
    import torch

    prior = compute.load(device, listener).prior
    side = max(SIDE, prior.least_size)
    results = {name: evaluation(prior, sampler, place, side, device) for name, place in LEVELS.items()}
    results[f"{NFE} steps"] = run(prior, sampler, side, device)
    return {name: value.to("cpu", torch.float32) for name, value in results.items()}


def picture(side: int, channels: int) -> Tensor:
    """Returns the middle of a bundled photograph, (1, channels, side, side); mirrored where it is too small."""
    import torch

    from dmps_cli.files.images import load_channels, photo_paths

    pixels = load_channels(photo_paths()[0], channels).pixels[None]
    while min(pixels.shape[-2:]) < side:
        pixels = torch.cat([pixels, pixels.flip(-1)], dim=-1)
        pixels = torch.cat([pixels, pixels.flip(-2)], dim=-2)
    top, left = ((size - side) // 2 for size in pixels.shape[-2:])
    return pixels[..., top : top + side, left : left + side]


def evaluation(prior: Prior, sampler: str, place: int, side: int, device: torch.device) -> Tensor:
    """Returns x0 of a noisy picture at one of 10 levels, over the level's sigma / alpha where that is above 1."""
    import torch

    from dmps_cli.sampling import Noise

    level, following = prior.levels(sampler, 10)[place : place + 2]
    x = picture(side, prior.channels)
    noisy = level.alpha * x + level.sigma * Noise(0, Noise.START, [(0, 0)]).like(x)
    with torch.no_grad():
        return prior.predict(noisy.to(device), level, following)[0] / max(1.0, level.sigma / level.alpha)


def run(prior: Prior, sampler: str, side: int, device: torch.device) -> Tensor:
    """Returns a restoration of few steps."""
    import torch

    from dmps_cli.methods.choice import resolve_sampling
    from dmps_cli.operators.measurement import Measurement
    from dmps_cli.pipeline import degrade, restore
    from dmps_cli.tasks.options import OperatorOptions
    from dmps_cli.tasks.table import build, resolve

    x = picture(side, prior.channels).to(device)
    op = build(
        "deblur", resolve("deblur", OperatorOptions()), (prior.channels, side, side), dtype=torch.float32, device=device
    )
    y = degrade(x, op, 0.05, seed=0, keys=[(0, 0)])
    sampling = resolve_sampling(task="deblur", sampler=sampler, nfe=NFE)
    return restore(Measurement(y, op, 0.05), prior, sampling, seed=0, keys=[(0, 0)])
