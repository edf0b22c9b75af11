"""The error of `--sigma auto` on photographs with noise of known size: the tables of docs/sigma.md.

python benchmarks/sigma.py FOLDER... [--limit N]; `make bench` has a few rows, on the bundled photographs.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dmps_cli.files.images import photo_paths
from dmps_cli.files.inputs import pictures_in
from dmps_cli.jobs.noise_estimate import FLOOR, estimate_sigma
from dmps_cli.units import GREY_LEVELS

Array = np.ndarray
Spoil = Callable[[Array, float, np.random.Generator], Array]

FLOATS = (2, 5, 15, 50, 130)
EIGHT_BITS = (0, 2, 5, 15, 50, 75, 100)
OTHERS = (5, 25)
SIDE = 512  # px; of the middle that is used of larger photographs


def levels(x: Array) -> Array:
    """0..255, whole."""
    return np.clip(np.floor(x + 0.5), 0.0, 255.0)


def white(x: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Floats with white noise."""
    return x + sigma * rng.standard_normal(x.shape)


def rounded(x: Array, sigma: float, rng: np.random.Generator) -> Array:
    """8 bits with white noise, clipped."""
    return levels(white(x, sigma, rng))


def growing(x: Array, sigma: float, rng: np.random.Generator) -> Array:
    """8 bits with noise whose variance grows with brightness as photons' does: sigma at level 128."""
    return levels(x + sigma * np.sqrt(np.maximum(x, 0.0) / 128.0) * rng.standard_normal(x.shape))


def compressed(x: Array, sigma: float, rng: np.random.Generator) -> Array:
    """JPEG at quality 90 (colour at half resolution) of 8 bits with white noise."""
    buffer = io.BytesIO()
    Image.fromarray(rounded(x, sigma, rng).astype(np.uint8)).save(buffer, format="JPEG", quality=90)
    return np.asarray(Image.open(buffer), dtype=float)


def middle(image: Image.Image) -> Array:
    """The middle SIDE x SIDE px, or what there is of it."""
    left, top = max(image.width - SIDE, 0) // 2, max(image.height - SIDE, 0) // 2
    return np.asarray(
        image.crop((left, top, min(left + SIDE, image.width), min(top + SIDE, image.height))), dtype=float
    )


def spread(y: Array, x: Array) -> float:
    """The root mean square of what was added."""
    return float(np.sqrt(np.mean((y - x) ** 2)))


def photographs(folders: list[Path], limit: int) -> list[Path]:
    """The first so many of the folders, in their order."""
    return [path for folder in folders for path in pictures_in(folder)][:limit]


def row(paths: list[Path], sigma: int, spoil: Spoil, *, grey: bool, known: bool) -> dict[str, Any]:
    """How many are right, the median error, the worst; known: sigma is sought, not the root mean square added."""
    errors: dict[str, float] = {}
    for path in paths:
        x = middle(Image.open(path).convert("L" if grey else "RGB"))
        y = spoil(x, sigma, np.random.default_rng([sigma, len(errors)]))
        pixels = torch.from_numpy(y / GREY_LEVELS - 1.0)
        found = estimate_sigma(pixels[None] if grey else pixels.permute(2, 0, 1)).sigma_y * GREY_LEVELS
        target = max(sigma if known else spread(y, x), FLOOR)
        errors[path.stem] = (found - target) / (target if sigma >= 5 else 1.0)
    tolerance = 0.1 if sigma >= 5 else 1.0
    worst = sorted(errors, key=lambda name: -abs(errors[name]))[:3]
    return {
        "sigma, levels": sigma,
        "right": f"{sum(abs(error) <= tolerance for error in errors.values())} of {len(paths)}",
        "median error": _shown(float(np.median(np.abs([*errors.values()]))), sigma),
        "worst photographs": ", ".join(f"{name} {_shown(errors[name], sigma)}" for name in worst),
    }


def _shown(error: float, sigma: int) -> str:
    return f"{error:+.1%}" if sigma >= 5 else f"{error:+.2f} levels"


def bench_rows() -> list[dict[str, Any]]:
    """For `make bench`: white noise in 8 bits on the bundled photographs."""
    return [
        {"picture": "grey" if grey else "colour", **row(photo_paths(), sigma, rounded, grey=grey, known=True)}
        for grey in (False, True)
        for sigma in (2, 5, 15, 50)
    ]


def table(title: str, paths: list[Path], sizes: tuple[int, ...], spoil: Spoil, *, grey: bool, known: bool) -> None:
    """Prints one row a size."""
    print(f"\n{title}\n\n| sigma, levels | right | median error | worst photographs |\n|---|---|---|---|")
    for sigma in sizes:
        print(f"| {' | '.join(map(str, row(paths, sigma, spoil, grey=grey, known=known).values()))} |", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=40)
    arguments = parser.parse_args()
    paths = photographs(arguments.folders, arguments.limit)
    for grey in (False, True):
        kind = "grey" if grey else "colour"
        table(f"White noise, floats, {kind}", paths, FLOATS, white, grey=grey, known=True)
        table(f"White noise, 8 bits, {kind}", paths, EIGHT_BITS, rounded, grey=grey, known=True)
        table(f"Variance proportional to brightness, 8 bits, {kind}", paths, OTHERS, growing, grey=grey, known=False)
        table(f"White noise, then JPEG at quality 90, {kind}", paths, OTHERS, compressed, grey=grey, known=False)


if __name__ == "__main__":
    main()
