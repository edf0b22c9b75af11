"""How good a prior is as a denoiser, and what it makes of noise: figures on stdout, pictures into a folder.

PSNR of whole photographs at sigma 15, 25, 50 of 255: the noise is not clipped, the result is; the noise of a photograph
is fixed by its name, so that priors are compared on the same pictures. With --out: x0 at high noise, where blotches
show, and unconditional samples.

    python benchmarks/denoise.py my_prior.safetensors photographs/ --out judged/
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from dmps_cli.device import resolve_device, tune_allocator
from dmps_cli.files.atomic import atomic_write
from dmps_cli.files.images import encode, load_channels
from dmps_cli.priors import DenoiserPrior
from dmps_cli.sampling import Noise, sample
from dmps_cli.training.photographs import find_photos
from dmps_cli.weights.loading import load_prior

SIGMAS = (15, 25, 50)  # grey levels of 255
HIGH = (1.0, 3.0, 10.0)  # on [-1, 1]
LEVELS = (0.01, 0.1, 0.5, 1.0, 3.0, 100.0)
SAMPLE_SIDE, SAMPLE_STEPS = 256, 50
PURPOSE = 100  # apart from those of restorations


def noisy(x: Tensor, s: float, key: int, which: int) -> Tensor:
    """x + s eps, eps fixed by the photograph and the level."""
    return x + s * Noise(0, PURPOSE, [(key, which)]).like(x)


def psnr(x0: Tensor, x: Tensor) -> float:
    """Of the clipped result, in dB."""
    return 10.0 * math.log10(4.0 / float((x0.clamp(-1.0, 1.0) - x).square().mean()))


def side_by_side(pictures: list[Tensor]) -> Tensor:
    """(C, H, n W) of n pictures (1, C, H, W)."""
    return torch.cat(pictures, dim=-1)[0].cpu()


@torch.no_grad()
def figures(prior: DenoiserPrior, photos: dict[str, tuple[int, Tensor]], device: torch.device) -> None:
    """Prints a line per photograph and the means."""
    rows: list[list[float]] = []
    for name, (key, x) in photos.items():
        on = x.to(device)
        rows.append([psnr(prior.denoise(noisy(on, 2 * s / 255, key, s), 2 * s / 255), on) for s in SIGMAS])
        print(f"{name:40s} " + " ".join(f"{value:7.3f}" for value in rows[-1]), flush=True)
    means = " ".join(f"{fmean(column):7.3f}" for column in zip(*rows, strict=True))
    print(f"{f'mean of {len(rows)} at sigma 15, 25, 50':40s} {means}")


@torch.no_grad()
def levels(prior: DenoiserPrior, photos: dict[str, tuple[int, Tensor]], device: torch.device) -> None:
    """Prints mean PSNR of the clipped x0, and mean root mean square error of x0 itself, at LEVELS."""
    for k, s in enumerate(LEVELS):
        pairs = [(prior.denoise(noisy(x.to(device), s, key, 1000 + k), s), x.to(device)) for key, x in photos.values()]
        error = fmean(float((x0 - x).square().mean().sqrt()) for x0, x in pairs)
        print(f"s = {s:g}: {fmean(psnr(*pair) for pair in pairs):.2f} dB, error {error:.4f}", flush=True)


@torch.no_grad()
def pictures(
    prior: DenoiserPrior, photos: dict[str, tuple[int, Tensor]], out: Path, device: torch.device, count: int
) -> None:
    """Writes x0_<name>.png (the photograph, x0 at sigma 1, 3, 10) and samples.png."""
    for name, (key, x) in list(photos.items())[:count]:
        on = x.to(device)
        x0 = [prior.denoise(noisy(on, s, key, round(s)), s) for s in HIGH]
        write(out / f"x0_{Path(name).stem}.png", side_by_side([on, *x0]))
    drawn = []
    for k in range(count):
        start = Noise(0, Noise.START, [(PURPOSE, k)]).like(torch.empty(1, prior.channels, SAMPLE_SIDE, SAMPLE_SIDE))
        levels = prior.levels("flow", SAMPLE_STEPS)
        steps = Noise(0, Noise.STEP, [(PURPOSE, k)])
        drawn.append(sample(prior, levels, start.to(device), eta=0.0, noise=steps))
    write(out / "samples.png", side_by_side(drawn))


def write(path: Path, picture: Tensor) -> None:
    """A PNG, said on stdout."""
    atomic_write(path, encode(picture, path), overwrite=True)
    print(path)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name or path of a prior")
    parser.add_argument("folder", type=Path, help="photographs, never trained on")
    parser.add_argument("--out", type=Path, help="folder for pictures")
    parser.add_argument("--limit", type=int, help="only the first photographs by name")
    parser.add_argument("--count", type=int, default=4, help="photographs and samples to draw (default: 4)")
    parser.add_argument("--dtype", default="float32", help="float32 (default), bfloat16, float16")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    tune_allocator()
    device = resolve_device(options.device)
    loaded = load_prior(options.model, device, options.dtype)
    prior = loaded.prior
    if not isinstance(prior, DenoiserPrior):
        parser.error(f"{options.model} is no denoiser of every noise level")
    found = find_photos([options.folder])[: options.limit]
    photos = {p.name: (p.key, load_channels(p.path, prior.channels).pixels[None]) for p in found}
    start = time.perf_counter()
    print(f"{loaded.name}, sha256 {loaded.sha256[:12]}, {options.dtype}, {options.folder}")
    figures(prior, photos, device)
    levels(prior, photos, device)
    if options.out is not None:
        pictures(prior, photos, options.out, device, options.count)
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
