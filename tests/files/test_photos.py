"""The bundled photographs and where they come from."""

from __future__ import annotations

import csv

import numpy as np
from PIL import Image

from dmps_cli.files.images import load, photo_paths

FREE = {"public domain", "CC0"}


def test_sources_cover_exactly_the_photographs() -> None:
    folder = photo_paths()[0].parent
    with (folder / "SOURCES.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["file"] for row in rows] == [path.name for path in photo_paths()]
    assert {path.name for path in folder.iterdir()} == {row["file"] for row in rows} | {"SOURCES.tsv"}
    assert all(row["licence"] in FREE for row in rows)
    assert all(value for row in rows for value in row.values())


def test_photographs_are_eight_plain_rgb_files() -> None:
    """No metadata: colour profiles are the work of others, and none is needed for sRGB."""
    assert len(photo_paths()) == 8
    assert sum(path.stat().st_size for path in photo_paths()) < 1_300_000
    for path in photo_paths():
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size, image.info) == ("PNG", "RGB", (256, 256), {})
        picture = load(path)
        assert picture.pixels.shape == (3, 256, 256)
        assert picture.notes == ()


def test_photographs_are_different_and_not_flat() -> None:
    arrays = [np.asarray(Image.open(path), dtype=float) for path in photo_paths()]
    assert all(array.std() > 15 for array in arrays)
    flat = np.corrcoef([array.ravel() for array in arrays])
    assert (flat - np.eye(len(arrays))).max() < 0.6
