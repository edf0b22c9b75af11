"""The error that JPEG leaves, by its header, against the error itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from dmps_cli.files.compression import rounding, rounding_of


@pytest.mark.parametrize("quality", [75, 90, 98])
def test_the_rounding_is_that_of_the_lower_frequencies(tmp_path: Path, quality: int) -> None:
    """White noise so strong that every coefficient is rounded: uniform over a step, in the transform of each block."""
    noise = np.clip(np.rint(128 + 40 * np.random.default_rng(0).normal(size=(256, 256))), 0, 255).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "y.jpg", quality=quality)
    error = np.asarray(Image.open(tmp_path / "y.jpg"), float) - noise
    blocks = error.reshape(32, 8, 32, 8).swapaxes(1, 2)
    coefficients = dctn(blocks, axes=(2, 3), norm="ortho")
    lower = np.add.outer(np.arange(8), np.arange(8)) < 8
    found = rounding_of(tmp_path / "y.jpg")
    assert found is not None
    found = np.hypot(found, 1 / np.sqrt(12))  # whole levels again
    np.testing.assert_allclose(found, np.sqrt((coefficients**2).mean((0, 1))[lower].mean()), rtol=0.1)


def test_other_files_are_not_rounded(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "y.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert rounding_of(tmp_path / "y.png") is None
    assert rounding_of(tmp_path / "broken.jpg") is None
    assert rounding([12] * 64) == pytest.approx(np.sqrt(12.0))
