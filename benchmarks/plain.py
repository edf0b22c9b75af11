"""What needs no network: the plain solution of each task, of the measurements that `dmps eval` restores.

Bicubic interpolation for super-resolution, y itself for blur and noise, grey for colours, linear interpolation between
the pixels kept for inpainting, A^+ y for compressed sensing. Beside them, for noise, one call of the network: D(y;
sigma_y), the posterior mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmps_cli.evaluation.pictures import Framing
from dmps_cli.files.atomic import name_key
from dmps_cli.files.images import load_rgb
from dmps_cli.levels import CLEAN, Level
from dmps_cli.metrics.scorer import Scorer
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import degrade
from dmps_cli.priors import Prior
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve, task
from dmps_cli.weights.loading import load_prior

Row = dict[str, Any]
SIDE = 128
ONE_CALL = "D(y; sigma_y)"


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A solution without a network: its name, and x of a measurement."""

    name: str
    solve: Callable[[Measurement], Tensor]


def _bicubic(measurement: Measurement) -> Tensor:
    return torch.nn.functional.interpolate(measurement.y, size=measurement.op.in_shape[1:], mode="bicubic")


def _between_the_pixels(measurement: Measurement) -> Tensor:
    return linear(measurement.y, measurement.op)


def linear(y: Tensor, op: LinearOperator) -> Tensor:
    """x of an inpainting: linear between the pixels kept (of Delaunay's triangles), outside of them the nearest."""
    from scipy.interpolate import griddata

    kept = op.At(torch.ones_like(y))[0, 0].numpy() > 0
    there, all_of_them = np.argwhere(kept), np.argwhere(np.ones_like(kept))
    planes = []
    for plane in op.At(y)[0].numpy():
        between, nearest = (griddata(there, plane[kept], all_of_them, method=name) for name in ("linear", "nearest"))
        planes.append(np.where(np.isnan(between), nearest, between).reshape(plane.shape))
    return torch.tensor(np.stack(planes), dtype=y.dtype)[None]


AS_MEASURED = Plain(name="y", solve=lambda measurement: measurement.y)
PLAIN = {
    "sr4": Plain(name="bicubic", solve=_bicubic),
    "deblur": AS_MEASURED,
    "deblur-gauss": AS_MEASURED,
    "denoise": AS_MEASURED,
    "colorize": Plain(name="grey", solve=lambda measurement: measurement.y.expand(-1, 3, -1, -1)),
    "inpaint": Plain(name="linear interpolation", solve=_between_the_pixels),
    "cs": Plain(name="A^+ y", solve=lambda measurement: measurement.op.pinv(measurement.y)),
}


def measured(path: Path, name: str) -> tuple[Tensor, Measurement]:
    """(x, the measurement that `dmps eval` makes of the middle of a photograph)."""
    x = Framing(size=SIDE, how="crop").apply(load_rgb(path).pixels[None])
    op = build(name, resolve(name, OperatorOptions()), (3, SIDE, SIDE), dtype=torch.float32)
    sigma_y = task(name).sigma_y
    return x, Measurement(degrade(x, op, sigma_y, seed=0, keys=[(name_key(path.name), 0)]), op, sigma_y)


def one_call(prior: Prior, name: str, y: Tensor) -> Tensor:
    """E[x | y] of x + noise = y, noise as the task has it."""
    with torch.no_grad():
        return prior.predict(y, Level(1.0, task(name).sigma_y, 0.0), CLEAN)[0]


def plain_rows(folder: Path, names: Sequence[str]) -> Iterator[Row]:
    """PSNR and LPIPS of each photograph and task."""
    scorer, prior = Scorer(["psnr", "lpips"]), load_prior("natural", torch.device("cpu"), "bfloat16").prior
    for name in names:
        for of, plain in PLAIN.items():
            x, measurement = measured(folder / name, of)
            found = {plain.name: plain.solve(measurement)}
            if of == "denoise":
                found[ONE_CALL] = one_call(prior, of, measurement.y)
            for label, solution in found.items():
                yield {"image": name, "task": of, "method": label, **scorer.score(solution, x)[0]}


def write_plain(folder: Path, names: Sequence[str], target: Path) -> None:
    """Writes the rows; a file that is there is kept."""
    if not target.is_file():
        target.write_text(json.dumps([*plain_rows(folder, names)], indent=1) + "\n", encoding="utf-8")
