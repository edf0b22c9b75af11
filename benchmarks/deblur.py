"""Deblurring with the true kernel, beside Richardson-Lucy and Wiener's filter (scikit-image): PSNR on photographs.

    python benchmarks/deblur.py photographs/ [--kernels defocus:4.5,motion:15,30] [--size 128] [--limit 10]

The middle of each photograph is blurred as a camera does it: by valid convolution, the scene going on beyond the frame;
noise of 2 grey levels is added, and the result rounded to 8 bits. Both rivals see it mirrored outwards, as far as the
kernel reaches and again, so that their assumptions at the border show least; of each the best of several strengths
counts, chosen on the truth, which dmps never sees. The last line: on how many photographs dmps is below one of them.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from skimage.restoration import richardson_lucy, wiener
from torch import Tensor

from dmps_cli.device import resolve_device, tune_allocator
from dmps_cli.errors import DmpsError
from dmps_cli.files.images import from_uint8, load_rgb, to_uint8
from dmps_cli.methods.choice import resolve_sampling
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import FILE_KEY, restore
from dmps_cli.sampling import Noise
from dmps_cli.tasks.geometry import scene_shape
from dmps_cli.tasks.kernels import build as build_kernel
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from dmps_cli.training.photographs import find_photos
from dmps_cli.weights.loading import load_prior

NOISE = 2.0  # grey levels of 255
SIGMA_Y = math.sqrt(NOISE**2 + 1.0 / 12.0) / 127.5  # with what rounding adds, on [-1, 1]
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


def main() -> None:
    """A line per kernel and photograph, a mean per kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="photographs, never trained on")
    parser.add_argument("--kernels", default="defocus:4.5 motion:15,30 gauss:2", help="formulas, spaces between")
    parser.add_argument("--size", type=int, default=128, help="side of the blurred picture, px")
    parser.add_argument("--limit", type=int, default=10, help="only the first photographs by name")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--nfe", type=int)
    parser.add_argument("--model", default="natural")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    tune_allocator()
    device = resolve_device(arguments.device)
    prior = load_prior(arguments.model, device).prior
    sampling = resolve_sampling(task="blur", preset=arguments.preset, nfe=arguments.nfe)
    print(f"{sampling}; sigma_y {SIGMA_Y:.4f} on [-1, 1]")
    below = count = 0
    for formula in arguments.kernels.split():
        params = resolve("blur", OperatorOptions(kernel=formula, boundary="valid"))
        shape = scene_shape("blur", params, (arguments.size, arguments.size))
        op = build("blur", params, shape, dtype=torch.float32, device=device)
        kernel = build_kernel(formula).values.numpy()
        rows: list[dict[str, float]] = []
        for photo in find_photos([arguments.folder])[: arguments.limit]:
            x = load_rgb(photo.path).pixels[None]
            top, left = ((have - want) // 2 for have, want in zip(x.shape[2:], shape[1:], strict=True))
            scene = x[..., top : top + shape[1], left : left + shape[2]].to(device)
            blurred = op.A(scene)
            noisy = blurred + NOISE / 127.5 * Noise(0, PURPOSE, [(photo.key, 0)]).like(blurred)
            y = from_uint8(to_uint8(noisy[0]))
            truth = op.picture(scene)[0].cpu()
            try:
                restored = restore(
                    Measurement(y[None].to(device), op, SIGMA_Y), prior, sampling, seed=0, keys=[FILE_KEY]
                )
            except DmpsError as exc:
                print(f"{formula}, {photo.name}: {exc}", file=sys.stderr)
                continue
            ours = psnr(op.picture(restored)[0].cpu(), truth)
            rows.append({"untouched": psnr(y, truth), **rivals(y, truth, kernel), "dmps": ours})
            count += 1
            below += ours < max(value for name, value in rows[-1].items() if name != "dmps")
            print(
                f"{formula:14s} {photo.name:32s} " + "  ".join(f"{k} {v:.2f}" for k, v in rows[-1].items()), flush=True
            )
        if rows:
            means = "  ".join(f"{name} {fmean(row[name] for row in rows):.2f}" for name in rows[0])
            print(f"{formula:14s} {f'mean of {len(rows)}':32s} {means}", flush=True)
    print(f"below one of them: {below} of {count}")


if __name__ == "__main__":
    main()
