"""Draws grey pictures of ellipses in ellipses, like slices through bodies: python phantoms.py FOLDER COUNT SIDE."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def phantom(rng: np.random.Generator, side: int) -> np.ndarray:
    """Returns (side, side) of 0 to 1: a body, and some organs within it."""
    rows, cols = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    picture = np.zeros((side, side))
    for place in range(9):
        is_body = place == 0
        y, x = (0.0, 0.0) if is_body else rng.uniform(-0.45, 0.45, 2)
        tall, wide = rng.uniform(0.7, 0.9, 2) if is_body else rng.uniform(0.05, 0.3, 2)
        angle = rng.uniform(0.0, np.pi)
        along = (cols - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        across = (rows - y) * np.cos(angle) - (cols - x) * np.sin(angle)
        inside = (along / wide) ** 2 + (across / tall) ** 2 <= 1.0
        picture[inside] = 0.4 if is_body else np.clip(picture[inside] + rng.uniform(-0.3, 0.5), 0.0, 1.0)
    return picture


def main(folder: Path, count: int, side: int) -> None:
    """Writes 0.png, 1.png .. into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        values = phantom(np.random.default_rng(seed), side)
        Image.fromarray(np.rint(255 * values).astype(np.uint8)).save(folder / f"{seed}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
