"""Deblurring with the true kernel, beside Richardson-Lucy and Wiener's filter (scikit-image): PSNR on photographs.

    python benchmarks/deblur.py photographs/ [--kernels defocus:4.5,motion:15,30] [--size 128] [--limit 10]

The middle of each photograph is blurred as a camera does it: by valid convolution, the scene going on beyond the frame;
noise of 2 grey levels is added, and the result rounded to 8 bits. Both rivals see it mirrored outwards, as far as the
kernel reaches and again, so that their assumptions at the border show least; of each the best of several strengths
counts, chosen on the truth, which dmps never sees. The last line: on how many photographs dmps is below one of them.
`make bench` runs it on four of the bundled photographs.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from skimage.restoration import richardson_lucy, wiener
from torch import Tensor

from dmps_cli.device import resolve_device, tune_allocator
from dmps_cli.files.images import from_uint8, load_rgb, photo_paths, to_uint8
from dmps_cli.methods.choice import Sampling, resolve_sampling
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import FILE_KEY, restore
from dmps_cli.priors import Prior
from dmps_cli.sampling import Noise
from dmps_cli.tasks.geometry import scene_shape
from dmps_cli.tasks.kernels import build as build_kernel
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from dmps_cli.training.photographs import Photo, find_photos
from dmps_cli.weights.cards import DEFAULT_MODEL
from dmps_cli.weights.loading import load_prior

NOISE = 2.0  # grey levels of 255
SIGMA_Y = math.sqrt(NOISE**2 + 1.0 / 12.0) / 127.5  # with what rounding adds, on [-1, 1]
KERNELS = ("defocus:4.5", "motion:15,30", "gauss:2")
PRESET = "default"
PURPOSE = 101  # of the noise, apart from those of restorations
ITERATIONS = (5, 10, 20, 40, 80, 160)
BALANCES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)


def psnr(image: Tensor, truth: Tensor) -> float:
    """Of what would be written, in dB. (C, H, W) on [-1, 1]."""
    error = to_uint8(image).astype(np.float64) - (truth.permute(1, 2, 0).double().numpy() + 1.0) * 127.5
    return 10.0 * math.log10(255.0**2 / float(np.square(error).mean()))


def mirrored(y: Tensor, kernel: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
    """(y on 0..1, (C, H, W), mirrored outwards by twice the kernel's reach; where y stands in it)."""
    (top, left), (h, w) = kernel.shape, y.shape[1:]
    image = (y.double().numpy() + 1.0) / 2.0
    around = np.pad(image, [(0, 0), (top, top), (left, left)], mode="symmetric")
    return around, (slice(top, top + h), slice(left, left + w))


def rivals(y: Tensor, truth: Tensor, kernel: np.ndarray) -> dict[str, float]:
    """The best PSNR of each over its strengths."""
    image, inside = mirrored(y, kernel)

    def score(channels: list[np.ndarray]) -> float:
        restored = np.stack([channel[inside] for channel in channels])
        return psnr(torch.from_numpy(restored * 2.0 - 1.0), truth)

    lucy = [score([richardson_lucy(channel, kernel, num_iter=n) for channel in image]) for n in ITERATIONS]
    filtered = [score([wiener(channel, kernel, balance, clip=False) for channel in image]) for balance in BALANCES]
    return {"Richardson-Lucy": max(lucy), "Wiener": max(filtered)}


@dataclass(frozen=True, kw_only=True)
class Restorer:
    """How dmps restores: a prior, the method with its evaluations, where."""

    prior: Prior
    sampling: Sampling
    device: torch.device

    def restored(self, y: Tensor, op: LinearOperator) -> Tensor:
        """The picture (C, H, W) of one blurred one."""
        measurement = Measurement(y[None].to(self.device), op, SIGMA_Y)
        x = restore(measurement, self.prior, self.sampling, seed=0, keys=[FILE_KEY])
        return op.picture(x)[0].cpu()


def compared(formula: str, photos: Sequence[Photo], size: int, by: Restorer) -> Iterator[tuple[str, dict[str, float]]]:
    """(photograph, PSNR of each) of pictures of size x size px blurred by one kernel."""
    params = resolve("blur", OperatorOptions(kernel=formula, boundary="valid"))
    shape = scene_shape("blur", params, (size, size))
    op = build("blur", params, shape, dtype=torch.float32, device=by.device)
    kernel = build_kernel(formula).values.numpy()
    for photo in photos:
        x = load_rgb(photo.path).pixels[None]
        top, left = ((have - want) // 2 for have, want in zip(x.shape[2:], shape[1:], strict=True))
        scene = x[..., top : top + shape[1], left : left + shape[2]].to(by.device)
        blurred = op.A(scene)
        noisy = blurred + NOISE / 127.5 * Noise(0, PURPOSE, [(photo.key, 0)]).like(blurred)
        y, truth = from_uint8(to_uint8(noisy[0])), op.picture(scene)[0].cpu()
        ours = psnr(by.restored(y, op), truth)
        yield photo.name, {"untouched": psnr(y, truth), **rivals(y, truth, kernel), "dmps": ours}


def lead(row: Mapping[str, float]) -> float:
    """How far dmps is above the best of the others, dB."""
    return row["dmps"] - max(value for name, value in row.items() if name != "dmps")


def summary(formula: str, rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Means of each, and the least lead of dmps."""
    means = {name: fmean(row[name] for row in rows) for name in rows[0]}
    return {"kernel": formula, "photographs": len(rows), **means, "least lead": min(map(lead, rows))}


def bench_rows() -> list[dict[str, Any]]:
    """For `make bench`: 96 x 96 px of the first four of the bundled photographs."""
    tune_allocator()
    cpu = torch.device("cpu")
    by = Restorer(
        prior=load_prior(DEFAULT_MODEL, cpu).prior, sampling=resolve_sampling(task="blur", preset=PRESET), device=cpu
    )
    photos = find_photos([photo_paths()[0].parent])[:4]
    return [summary(formula, [row for _, row in compared(formula, photos, 96, by)]) for formula in KERNELS]


def main() -> None:
    """A line per kernel and photograph, a mean per kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="photographs, never trained on")
    parser.add_argument("--kernels", default=" ".join(KERNELS), help="formulas, spaces between")
    parser.add_argument("--size", type=int, default=128, help="side of the blurred picture, px")
    parser.add_argument("--limit", type=int, default=10, help="only the first photographs by name")
    parser.add_argument("--preset", default=PRESET)
    parser.add_argument("--nfe", type=int)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    tune_allocator()
    device = resolve_device(arguments.device)
    prior = load_prior(arguments.model, device, arguments.dtype).prior
    sampling = resolve_sampling(task="blur", preset=arguments.preset, nfe=arguments.nfe)
    by = Restorer(prior=prior, sampling=sampling, device=device)
    print(f"{sampling}; sigma_y {SIGMA_Y:.4f} on [-1, 1]")
    photos, leads = find_photos([arguments.folder])[: arguments.limit], []
    for formula in arguments.kernels.split():
        rows = []
        for name, row in compared(formula, photos, arguments.size, by):
            rows.append(row)
            print(f"{formula:14s} {name:32s} {shown(row)}", flush=True)
        print(f"{formula:14s} {f'mean of {len(rows)}':32s} {shown(summary(formula, rows))}", flush=True)
        leads += map(lead, rows)
    print(f"below one of them: {sum(by < 0.0 for by in leads)} of {len(leads)}")


def shown(row: Mapping[str, Any]) -> str:
    """'name 12.34' of each."""
    return "  ".join(f"{name} {value:.2f}" for name, value in row.items() if isinstance(value, float))


if __name__ == "__main__":
    main()
