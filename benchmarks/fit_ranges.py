"""What is usual of right input: the ranges that `dmps restore` judges a fit by, src/dmps_cli/data/fit_ranges.json.

    python benchmarks/fit_ranges.py PHOTOS --forms "dmps x0 ddpm" --nfe 6,20

PHOTOS: a folder of photographs on which nothing else is reported (docs/own_picture.md: 24 of BSDS500's training set).
The middle of each is degraded as CASES say, in turn, inside the larger scene for blurs, rounded to 8 bits, and restored
with its true kernel, mask and sigma. Rows of the forms named are replaced, the others stay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmps_cli.files.images import from_uint8, load_rgb, to_uint8
from dmps_cli.files.inputs import pictures_in
from dmps_cli.jobs.fit import RANGES, Fit, fits_of, usual_of
from dmps_cli.methods.choice import Sampling, resolve_sampling
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import FILE_KEY, degrade, picture_key, restore
from dmps_cli.tasks.geometry import scene_shape
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from dmps_cli.units import GREY_LEVELS
from dmps_cli.weights.loading import load_prior

SIZE = 96  # px of the picture that is restored


@dataclass(frozen=True, kw_only=True)
class Case:
    """A task with its options and the noise, grey levels of 255."""

    task: str
    options: OperatorOptions
    levels: float

    def operator(self) -> LinearOperator:
        """For a picture of SIZE x SIZE."""
        params = resolve(self.task, self.options)
        shape = scene_shape(self.task, params, (SIZE, SIZE))
        return build(self.task, params, shape, dtype=torch.float32)

    def measured(self, photograph: Path, op: LinearOperator) -> tuple[Tensor, Tensor] | None:
        """(y, the true picture), y as read back from an 8-bit file; None for a photograph that is too small."""
        scene = middle(load_rgb(photograph).pixels[None], op.in_shape[1:])
        if scene is None:
            return None
        y = degrade(scene, op, self.levels / GREY_LEVELS, seed=0, keys=[picture_key(scene)])
        if y.shape[2:] == (SIZE, SIZE):
            y = from_uint8(to_uint8(y[0]))[None]
        return y, op.picture(scene)


def blur(kernel: str, levels: float) -> Case:
    """Blur by a kernel in a scene that goes on beyond the frame."""
    return Case(task="blur", options=OperatorOptions(kernel=kernel, boundary="valid"), levels=levels)


CASES = {
    "denoise": [Case(task="denoise", options=OperatorOptions(), levels=levels) for levels in (6.0, 12.0, 25.0)],
    "inpaint": [
        Case(task="inpaint", options=OperatorOptions(fraction=fraction), levels=levels)
        for fraction, levels in ((0.1, 3.0), (0.5, 6.0), (0.3, 12.0))
    ],
    "blur": [
        blur("uniform:9", 2.0),
        blur("gauss:3", 2.0),
        blur("gauss:1.5", 1.5),
        blur("defocus:4.5", 2.0),
        blur("motion:15,30", 3.0),
        blur("uniform:7", 5.0),
    ],
}


def middle(x: Tensor, size: Sequence[int]) -> Tensor | None:
    """The middle (h, w) of images (.., H, W); None where they are smaller."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], size, strict=True))
    if min(top, left) < 0:
        return None
    return x[..., top : top + size[0], left : left + size[1]].contiguous()


def sampling_of(form: str, task: str, nfe: int) -> Sampling:
    """'dmps x0 ddpm' with so many evaluations, its other knobs as the presets have them."""
    method, *where, sampler = form.split()
    knobs = {"score_at": where[0]} if where else {}
    return resolve_sampling(task=task, method=method, sampler=sampler, nfe=nfe, knobs=knobs)


def right(cases: Sequence[Case], photographs: Sequence[Path], form: str, nfe: int, dtype: str) -> Iterator[Fit]:
    """The fits of right input, the cases in turn over the photographs."""
    prior = load_prior("natural", torch.device("cpu"), dtype).prior
    operators = [case.operator() for case in cases]
    for number, photograph in enumerate(photographs):
        case, op = cases[number % len(cases)], operators[number % len(cases)]
        pair = case.measured(photograph, op)
        if pair is None:
            continue
        sigma_y = case.levels / GREY_LEVELS
        x = restore(
            Measurement(pair[0], op, sigma_y), prior, sampling_of(form, case.task, nfe), seed=0, keys=[FILE_KEY]
        )
        yield from fits_of(pair[0], op, x, sigma_y, is_clipped=prior.clips_x0)


def main() -> None:
    """Records and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--forms", default="dmps x0 ddpm,dmps x_t ddpm")
    parser.add_argument("--nfe", default="6,20,30")
    parser.add_argument("--kinds", default=",".join(CASES))
    parser.add_argument("--number", type=int, default=24, help="photographs, spread over the folder")
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    paths = pictures_in(arguments.photographs)
    chosen = paths[:: max(1, len(paths) // arguments.number)][: arguments.number]
    written: dict[str, Any] = json.loads(RANGES.read_text()) if RANGES.exists() else {"ranges": {}}
    for form in arguments.forms.split(","):
        for kind in arguments.kinds.split(","):
            for nfe in map(int, arguments.nfe.split(",")):
                row = usual_of([*right(CASES[kind], chosen, form, nfe, arguments.dtype)])
                written["ranges"].setdefault(form, {}).setdefault(kind, {})[str(nfe)] = row
                print(form, kind, nfe, row, flush=True)
                RANGES.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
