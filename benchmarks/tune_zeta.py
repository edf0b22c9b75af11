"""Searches the step length zeta of DPS on photographs and prints rows of `BY_NFE` (dmps_cli.methods).

python benchmarks/tune_zeta.py FOLDER [--tasks sr4,inpaint] [--samplers ddpm,flow] [--nfes 20,50,100] [--limit 4]

FOLDER: validation photographs, never those that are reported on. A zeta moves a pixel of a larger image less (Dps):
tune at the size that is reported. Per task, sampler and number of evaluations the best mean metric is climbed to in
steps of a factor 4, then 2, then sqrt 2.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from dmps_cli.device import resolve_device, tune_allocator
from dmps_cli.errors import DmpsError
from dmps_cli.evaluation.outcomes import Problem, evaluate
from dmps_cli.files.images import load_rgb
from dmps_cli.files.suffixes import IMAGE_SUFFIXES
from dmps_cli.methods.choice import resolve_sampling
from dmps_cli.metrics.scorer import Scorer
from dmps_cli.metrics.table import METRICS
from dmps_cli.priors import Prior
from dmps_cli.tasks.geometry import crop_box
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve, task
from dmps_cli.weights.loading import load_prior

FACTORS = (4.0, 2.0, math.sqrt(2.0))


def climb(score: Callable[[float], float], start: float) -> float:
    """The zeta of the highest score, from `start` in ever smaller factors; each zeta is scored once."""
    scores = {start: score(start)}
    best = start
    for factor in FACTORS:
        while True:
            for neighbour in (best / factor, best * factor):
                near = next((zeta for zeta in scores if math.isclose(zeta, neighbour)), neighbour)
                scores[near] = scores[near] if near in scores else score(near)
            top = max(scores, key=scores.__getitem__)
            if top == best:
                break
            best = top
    return best


def failed(name: str, error: DmpsError) -> None:
    """A zeta at which a picture becomes infinite is no error here, but says so."""
    print(f"  {name}: {error}", file=sys.stderr)


def scorer_of(
    arguments: argparse.Namespace, prior: Prior, pictures: dict[str, Path], name: str, sampler: str, nfe: int
) -> Callable[[float], float]:
    """zeta -> the mean metric over the pictures, higher is better; -inf where one of them fails."""
    metric, device = arguments.metric, resolve_device(arguments.device)
    scorer, params = Scorer([metric]), resolve(name, OperatorOptions())
    sign = 1.0 if METRICS[metric].higher_is_better else -1.0

    def middle(path: Path) -> torch.Tensor:
        x, side = load_rgb(path).pixels[None], arguments.image_size
        top, left = ((length - side) // 2 if length > side else 0 for length in x.shape[-2:])
        return x[..., top : top + side, left : left + side]

    def score(zeta: float) -> float:
        sampling = resolve_sampling(task=name, method="dps", sampler=sampler, nfe=nfe, knobs={"zeta": zeta})
        problem = Problem(
            task=name,
            sigma_y=task(name).sigma_y,
            samplings=[sampling],
            crop=lambda size: crop_box(name, params, size),
            build=lambda shape: build(name, params, shape, dtype=torch.float32, device=device),
        )
        rows = [*evaluate(pictures, [problem], prior, scorer, seed=0, device=device, load=middle, on_failure=failed)]
        value = sign * statistics.fmean(row[metric] for row in rows) if len(rows) == len(pictures) else -math.inf
        print(
            f"  {name}, {sampler}, NFE {nfe}, zeta {zeta:.3g}: {metric} {sign * value:.4f}", file=sys.stderr, flush=True
        )
        return value

    return score


def main() -> None:
    """Prints a row per task and sampler on stdout, each trial on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", default="sr4,deblur,deblur-gauss,inpaint,colorize,denoise")
    parser.add_argument("--samplers", default="ddpm,flow")
    parser.add_argument("--nfes", default="20,50,100")
    parser.add_argument("--metric", default="psnr", choices=list(METRICS))
    parser.add_argument("--limit", type=int, help="only the first N photographs by name")
    parser.add_argument("--image-size", type=int, default=256, help="side of the middle that is cut out, px")
    parser.add_argument("--model", default="natural")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    tune_allocator()
    found = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    pictures = {path.name: path for path in found[: arguments.limit]}
    prior = load_prior(arguments.model, resolve_device(arguments.device), arguments.dtype).prior
    for name in arguments.tasks.split(","):
        for sampler in arguments.samplers.split(","):
            best = {}
            for nfe in map(int, arguments.nfes.split(",")):
                start = resolve_sampling(task=name, method="dps", sampler=sampler, nfe=nfe).knobs["zeta"]
                best[nfe] = float(f"{climb(scorer_of(arguments, prior, pictures, name, sampler, nfe), start):.3g}")
            print(f'    ("dps", "{sampler}", "{name}"): {{"zeta": {best}}},', flush=True)


if __name__ == "__main__":
    main()
