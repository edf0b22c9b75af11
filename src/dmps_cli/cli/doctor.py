"""`dmps doctor`: does this machine compute what the CPU computes in float32?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmps_cli import __version__
from dmps_cli.cli.console import Console
from dmps_cli.cli.options import Device, Model, Offline, Quiet, WeightsFile
from dmps_cli.errors import DmpsError
from dmps_cli.metrics.scorer import Scorer
from dmps_cli.units import GREY_LEVELS
from dmps_cli.weights.cards import DEFAULT_MODEL
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


def doctor(
    model: Model = DEFAULT_MODEL,
    weights_file: WeightsFile = None,
    offline: Offline = False,
    device_name: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Check the machine: versions, device, memory, and how far it is from float32 on the CPU, with a verdict.

    One network evaluation at two noise levels and one DMPS run of 5 steps, in every floating-point type, against the
    CPU in float32. Without a GPU the CPU's own half precision is checked. Exit code 1 if something is too far or a
    metric cannot be measured; a type that the device does not have is said, and no fault.

    Example: dmps doctor --device auto
    """
    console = Console(quiet=quiet, as_json=as_json)
    compute = ComputeOptions(model=model, weights_file=weights_file, offline=offline, device=device_name)
    sampler = compute.check().sampler
    device = compute.start()
    from dmps_cli.device import describe, free_bytes
    from dmps_cli.files.measurements import versions

    if device.type == "cpu":
        console.note("no GPU is used here: the CPU's half precision is checked against its float32")
    free = free_bytes(device)
    facts: dict[str, Any] = {
        "versions": versions(),
        "device": str(device),
        "device_name": describe(device),
        "free_gib": None if free is None else round(free / 2**30, 1),
        "model": model,
    }
    rows = compare(compute, sampler, device, console)
    failed = [row for row in rows if row["verdict"] == TOO_FAR]
    missing = Scorer().missing
    is_well = not (failed or missing)
    console.object(
        {"version": __version__, "command": "doctor", **facts, "rows": rows, "missing_metrics": missing, "ok": is_well}
    )
    if not as_json:
        for name, value in facts.items():
            shown = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value
            console.result(f"{name}: {shown}")
        console.table(rows)
        console.result("differences in grey levels of 255")
        for name, reason in missing.items():
            console.result(f"no {name.upper()}: {reason}")
        faults = [f"{len(failed)} of {len(rows)} checks failed"] * bool(failed)
        faults += [f"{', '.join(map(str.upper, missing))} cannot be measured"] * bool(missing)
        console.result(f"verdict: {'; '.join(faults) or 'all is well'}")
    if not is_well:
        raise typer.Exit(DmpsError.exit_code)


def compare(compute: ComputeOptions, sampler: str, device: torch.device, console: Console) -> list[dict[str, Any]]:
    """Returns a row per floating-point type: what it differs by, in grey levels, from the CPU in float32."""
    import torch

    cpu = torch.device("cpu")
    expected = outputs(replace(compute, dtype="float32"), sampler, cpu, console)
    rows: list[dict[str, Any]] = []
    for dtype, tolerance in TOLERANCE.items():
        if device.type == "cpu" and dtype == "float32":
            continue
        row: dict[str, Any] = {"dtype": dtype, "allowed": tolerance}
        try:
            found = outputs(replace(compute, dtype=dtype), sampler, device, console)
        except (DmpsError, RuntimeError, NotImplementedError) as exc:  # a type that the device does not have
            rows.append(row | {"verdict": f"not supported ({str(exc).splitlines()[0][:80]})"})
            continue
        differences = {name: float((found[name] - value).abs().max()) * GREY_LEVELS for name, value in expected.items()}
        passed = all(difference <= tolerance for difference in differences.values())
        rows.append(row | differences | {"verdict": OK if passed else TOO_FAR})
    return rows


def outputs(compute: ComputeOptions, sampler: str, device: torch.device, console: Console) -> dict[str, Tensor]:
    """Returns the network's x0 at two noise levels and a DMPS run, on the CPU in float32, whatever computed them."""
    import torch

    prior = compute.load(device, console).prior
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
