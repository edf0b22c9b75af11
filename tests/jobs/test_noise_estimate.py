"""The noise of a picture: known sizes on the bundled photographs, sizes and kinds of pictures, what is said of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from dmps_cli.files.images import photo_paths
from dmps_cli.jobs.noise_estimate import FLOOR, Estimate, _clipped_ratio, estimate_sigma
from tests.shell import Dmps

LEVELS = 127.5


SIDE = 160


def photograph(index: int = 0, *, grey: bool = False) -> np.ndarray:
    """(160, 160, 3 or 1) of 0..255."""
    image = Image.open(photo_paths()[index]).convert("L" if grey else "RGB")
    return np.asarray(image, dtype=float).reshape(256, 256, -1)[:SIDE, :SIDE]


def levels(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x), 0, 255)


def noisy(x: np.ndarray, sigma: float) -> np.ndarray:
    return x + sigma * np.random.default_rng(3).standard_normal(x.shape)


def found(y: np.ndarray, keep: np.ndarray | None = None) -> tuple[float, Estimate]:
    """(levels, the estimate)."""
    pixels = torch.from_numpy(y / LEVELS - 1.0).permute(2, 0, 1)
    estimate = estimate_sigma(pixels, None if keep is None else torch.from_numpy(keep))
    return estimate.sigma_y * LEVELS, estimate


@pytest.mark.parametrize("index", range(0, 8, 2))
def test_white_noise_on_photographs(index: int) -> None:
    """Floats at 5 to 130 levels within 10 %, 8 bits at 5 to 50, which clips; 2 levels within 1."""
    x = photograph(index)
    for sigma in (5.0, 25.0, 130.0):
        assert found(noisy(x, sigma))[0] == pytest.approx(sigma, rel=0.1)
    for sigma in (5.0, 50.0):
        assert found(levels(noisy(x, sigma)))[0] == pytest.approx(sigma, rel=0.1)
    assert found(levels(noisy(x, 2.0)))[0] == pytest.approx(2.0, abs=1.0)


@pytest.mark.parametrize("sigma", [15.0, 50.0])
def test_grey(sigma: float) -> None:
    right = [abs(found(noisy(photograph(k, grey=True), sigma))[0] - sigma) <= 0.1 * sigma for k in range(8)]
    assert sum(right) >= 7


def test_what_clipping_leaves_is_that_of_the_truncated_moments() -> None:
    """Against the moments by numerical integration with scipy: at the mean of clipped noise, its variance."""
    sigma, true_mean = 60.0, 30.0
    z = norm.ppf((np.arange(200_000) + 0.5) / 200_000) * sigma + true_mean
    clipped = np.clip(z, 0.0, 255.0)
    ratio = _clipped_ratio(np.array([[clipped.mean()]]), sigma)
    assert ratio[0] == pytest.approx(clipped.var() / sigma**2, rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 77.0, 255.0])
def test_constant_pictures_have_no_noise(value: float) -> None:
    size, estimate = found(np.full((20, 30, 3), value))
    assert size == pytest.approx(FLOOR)
    assert (estimate.is_floor, estimate.is_white) == (True, True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 2), (5, 3), (9, 9)])
def test_tiny_pictures_have_an_answer(shape: tuple[int, int]) -> None:
    size, estimate = found(noisy(np.full((*shape, 3), 120.0), 10.0))
    assert FLOOR <= size < 25.0
    assert estimate.notes or size > 1.0


def test_frames_and_what_is_saturated_do_not_count() -> None:
    x = photograph()
    framed = np.full((224, 224, 3), 128.0)
    framed[32:192, 32:192] = levels(noisy(x, 10.0))
    assert found(framed)[0] == pytest.approx(10.0, rel=0.1)
    x[:70] = 400.0
    assert found(levels(noisy(x, 10.0)))[0] == pytest.approx(10.0, rel=0.1)


def test_what_is_kept_counts_alone() -> None:
    """The removed part holds noise of another size; a random half leaves patches of two pixels a side."""
    y = noisy(photograph(), 10.0)
    keep = np.ones((SIDE, SIDE), bool)
    keep[:, 80:] = False
    y[:, 80:] = noisy(y[:, 80:], 90.0)
    assert found(y, keep)[0] == pytest.approx(10.0, rel=0.1)
    keep = np.random.default_rng(0).random((SIDE, SIDE)) < 0.5
    assert found(noisy(photograph(), 10.0), keep)[0] == pytest.approx(10.0, rel=0.1)
    assert found(y, np.zeros((SIDE, SIDE), bool))[1].notes


def jpeg(y: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(levels(y).astype(np.uint8)).save(buffer, format="JPEG", quality=90)
    return np.asarray(Image.open(buffer), dtype=float)


def test_other_noise_is_said() -> None:
    """Smoothed and compressed noise is not white; film grain is one draw for all channels; photons grow."""
    x = photograph()
    smooth = x + 30.0 * gaussian_filter(noisy(np.zeros_like(x), 1.0), (1.0, 1.0, 0.0))
    for y in (smooth, jpeg(noisy(x, 15.0))):
        estimate = found(y)[1]
        assert not estimate.is_white
        assert "not white" in estimate.notes[0]
    grain = found(x + noisy(np.zeros_like(x[:, :, :1]), 12.0))
    assert "share their noise" in grain[1].notes[0]
    assert grain[0] == pytest.approx(12.0, rel=0.15)
    ramp = np.linspace(20.0, 235.0, SIDE)[None, :, None] * np.ones((SIDE, 1, 3))
    photons = levels(noisy(np.zeros_like(ramp), 15.0) * np.sqrt(ramp / 128.0) + ramp)
    size, estimate = found(photons)
    assert "grows with brightness" in estimate.notes[0]
    assert size == pytest.approx(float(np.sqrt(np.mean((photons - ramp) ** 2))), rel=0.1)
    assert found(noisy(x, 15.0))[1].notes == ()


def test_restore_estimates_what_nobody_says(dmps: Dmps, tmp_path: Path) -> None:
    """Of pictures and floats without a sidecar; --sigma and the sidecar come before; both are in the result's."""
    y = levels(noisy(photograph()[:96, :96], 20.0))
    Image.fromarray(y.astype(np.uint8)).save("y.png")
    np.save("f.npy", (y / LEVELS - 1.0).transpose(2, 0, 1).astype(np.float32))
    for name in ("y.png", "f.npy"):
        result = dmps("restore", name, "-t", "denoise", "-o", "x.png", "--nfe", "2", "--overwrite")
        assert (result.code, "its noise is estimated at" in result.err) == (0, True)
        sidecar = json.loads(Path("x.json").read_text())
        assert sidecar["sigma_origin"] == "estimated"
        assert sidecar["sigma_y_255"] == pytest.approx(20.0, rel=0.1)
    refused = dmps("degrade", "y.png", "-t", "denoise", "--sigma", "auto")
    assert (refused.code, "give a number" in refused.err) == (2, True)
