"""Whether a restoration fits: the numbers in closed form, what is said of them, and a sigma that is raised by them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d
from torch import Tensor

from dmps_cli.files.images import from_uint8
from dmps_cli.jobs import raised_sigma
from dmps_cli.jobs.fit import FLOOR, LEAST_EXCESS, Fit, Usual, fits_of, judged, remark, usual
from dmps_cli.jobs.raised_sigma import LARGEST, STEP, TRIAL_NFE, busiest, fitting_sigma, rungs
from dmps_cli.methods.choice import resolve_sampling
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.convolution import ValidConvolution
from dmps_cli.operators.pointwise import Identity
from dmps_cli.tasks.geometry import source_shape
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from dmps_cli.weights.loading import load_prior
from tests.conftest import randn
from tests.shell import Dmps, bundled_photo, pixels

# Numbers -------------------------------------------------------------------------------------------------------------


def test_chi2_is_the_mean_square_of_the_noise_in_its_own_units() -> None:
    x = randn(2, 3, 8, 8)
    op = Identity((3, 8, 8), dtype=torch.float64, device="cpu")
    offsets = torch.tensor([0.1, 0.3], dtype=torch.float64)[:, None, None, None]
    first, second = fits_of(x + offsets, op, x, 0.2, is_clipped=False)
    np.testing.assert_allclose([first.chi2, second.chi2], [0.25, 2.25], rtol=1e-12)
    (rounded,) = fits_of(x[:1] + 2 * FLOOR, op, x[:1], 0.0, is_clipped=False)
    np.testing.assert_allclose(rounded.chi2, 4.0, rtol=1e-9)


def test_what_leaves_the_scale_counts_within_the_frame() -> None:
    """A canvas of zeros: 2 of 16 values in the frame are 0.2 and 0.01 beyond the scale, one in the margin far."""
    op = ValidConvolution((1, 6, 6), torch.ones(3, 3), dtype=torch.float64, device="cpu")
    canvas = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    canvas[0, 0, 2, 2], canvas[0, 0, 3, 3], canvas[0, 0, 0, 0] = 1.2, -1.01, 9.0
    y = randn(1, 1, 4, 4)
    (fit,) = fits_of(y, op, canvas, 0.1, is_clipped=False)
    assert fit.outside == 1 / 16
    assert fit.excess is not None
    np.testing.assert_allclose(fit.excess, np.sqrt((0.2**2 + 0.01**2) / 16) / float(y.std(correction=0)), rtol=1e-12)


def test_a_prior_that_clips_shows_no_excess() -> None:
    op = Identity((3, 8, 8), dtype=torch.float64, device="cpu")
    (fit,) = fits_of(randn(1, 3, 8, 8), op, randn(1, 3, 8, 8, seed=1), 0.1, is_clipped=True)
    assert (fit.outside, fit.excess) == (None, None)
    known = Usual(chi2=(0.8, 1.0), excess=(0.01, 0.02))
    assert judged(fit, known, 0.1).noise_is_more


KNOWN = Usual(chi2=(0.8, 1.0), excess=(0.01, 0.02))


@pytest.mark.parametrize(
    ("chi2", "excess", "said"),
    [
        (0.9, 0.015, None),
        (1.25, 0.0, None),  # sigma within a tenth
        (2.9, 0.0, "the noise is more than"),
        (0.25, 0.0, "a smaller --sigma"),
        (0.9, 0.1, "the kernel or the boundary is another"),
    ],
)
def test_what_is_said(chi2: float, excess: float, said: str | None) -> None:
    text = remark(Fit(chi2=chi2, outside=0.1, excess=excess), KNOWN, 0.05, "blur")
    assert (text is None) if said is None else (text is not None and said in text)


def test_little_excess_is_never_said() -> None:
    small = replace(KNOWN, excess=(0.0, 0.0))
    assert not judged(Fit(chi2=0.9, outside=0.0, excess=LEAST_EXCESS), small, 0.05).is_off
    assert judged(Fit(chi2=0.9, outside=0.0, excess=LEAST_EXCESS + 0.001), small, 0.05).is_off


def test_a_bound_is_not_called_too_large() -> None:
    fit = Fit(chi2=0.1, outside=0.0, excess=0.0)
    assert remark(fit, KNOWN, 0.05, "blur") is not None
    assert remark(fit, KNOWN, 0.05, "blur", is_bound=True) is None


def test_a_jpeg_that_is_blurred_is_not_ruined(dmps: Dmps, tmp_path: Path) -> None:
    """Its noise is estimated at nothing: compression has taken what shows it, and left an error of two levels."""
    blurred, truth = out_of_focus(80)
    Image.fromarray(blurred).save(tmp_path / "y.jpg", quality=90)
    found = dmps("restore", "y.jpg", "-t", "blur", "--kernel", "defocus:4.3", "--preset", "fast", "-o", "x.png")
    assert "its JPEG compression is an error of 2.1 of 255 beside" in found.err
    assert "may not fit" not in found.err
    assert gain(pixels("x.png"), blurred, truth) > 1.0


def test_what_a_soft_sample_has_too_is_the_pictures_own() -> None:
    fit = Fit(chi2=0.9, outside=0.1, excess=0.05)
    known = replace(KNOWN, excess=(0.01, 0.04))
    assert judged(fit, known, 0.05).is_off
    assert not judged(fit, known, 0.05, own=0.035).is_off
    less = replace(fit, excess=0.03)
    assert not judged(less, known, 0.05).is_off
    assert judged(less, known, 0.05, own=0.0).is_off


def test_of_little_noise_chi2_says_nothing() -> None:
    assert remark(Fit(chi2=20.0, outside=0.0, excess=0.0), KNOWN, 0.002, "inpaint") is None


def test_ranges_hold_where_they_were_recorded() -> None:
    usually = resolve_sampling(task="deblur")
    known = usual(usually, "motion", "natural")
    assert known == usual(replace(usually, nfe=22), "blur", "natural")
    assert known is not None
    assert known.chi2[0] < 1.0 < known.chi2[1] + 0.1
    assert usual(replace(usually, nfe=900), "blur", "natural") is None
    assert usual(usually, "sr4", "natural") is None
    assert usual(usually, "blur", "mine") is None
    assert usual(resolve_sampling(task="deblur", knobs={"mean_of": 2}), "blur", "natural") is None  # no sample


# A larger sigma ------------------------------------------------------------------------------------------------------


def test_the_ladder_ends_at_the_largest_sigma() -> None:
    for sigma in (FLOOR, 0.0157, 0.19, 0.2):
        ladder = np.array(rungs(sigma))
        assert ladder[0] == (sigma if sigma < LARGEST else LARGEST)
        assert ladder[-1] == LARGEST
        assert (ladder[1:] / ladder[:-1] <= STEP + 1e-9).all()


def test_the_busiest_part_is_tried() -> None:
    y = torch.zeros(1, 3, 40, 60)
    y[..., 25:, 45:] = torch.randn(3, 15, 15, generator=torch.Generator().manual_seed(0))
    assert torch.equal(busiest(y, 20), y[..., 20:, 40:])
    assert busiest(y, 64).shape == y.shape


def disc(radius: float) -> np.ndarray:
    """A lens out of focus, its edge softened over a pixel."""
    reach = int(np.ceil(radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    weights = np.clip(radius + 0.5 - np.hypot(rows, columns), 0.0, 1.0)
    return np.asarray(weights / weights.sum())


def out_of_focus(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(the picture of a lens out of focus, what it would be in focus), 0..255, noise of two levels."""
    whole = pixels(bundled_photo("coffee")).astype(float)
    scene = whole[60 : 60 + size + 10, 60 : 60 + size + 10]
    blurred = np.stack([convolve2d(scene[..., c], disc(4.3), mode="valid") for c in range(3)], -1)
    noisy = blurred + 2.0 * np.random.default_rng(0).normal(size=blurred.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), scene[5:-5, 5:-5]


def gain(restored: np.ndarray, blurred: np.ndarray, truth: np.ndarray) -> float:
    """dB over the picture as it was."""
    return float(10 * np.log10(((blurred - truth) ** 2).mean() / ((restored - truth) ** 2).mean()))


def searched(y: Tensor, kernel: str) -> tuple[bool, float, int]:
    """(fits, sigma over the one given, evaluations) of a search."""
    params = resolve("blur", OperatorOptions(kernel=kernel, boundary="valid"))
    size = (y.shape[-2], y.shape[-1])
    op = build("blur", params, source_shape("blur", params, size), dtype=torch.float32)
    prior = load_prior("natural", torch.device("cpu")).prior
    found = fitting_sigma((y, op), None, prior, 2 / 127.5, "blur", "natural", seed=0)
    return found.fits, found.sigma_y * 127.5 / 2, found.evaluations


def test_a_wrong_kernel_raises_sigma_and_the_right_one_does_not() -> None:
    y = from_uint8(out_of_focus(80)[0])[None]
    assert searched(y, "defocus:4.3") == (True, 1.0, TRIAL_NFE)
    fits, factor, evaluations = searched(y, "uniform:9")
    assert factor > 3.0 or not fits
    assert 3 * TRIAL_NFE <= evaluations <= 5 * TRIAL_NFE


def test_white_walls_are_no_ripples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that leaves the scale as far at the largest sigma is not softened."""
    y = from_uint8(out_of_focus(80)[0])[None]
    exact = raised_sigma.fits_of

    def brighter(y: Tensor, op: LinearOperator, x: Tensor, sigma_y: float, *, is_clipped: bool) -> list[Fit]:
        return [replace(fit, excess=0.1) for fit in exact(y, op, x, sigma_y, is_clipped=is_clipped)]

    monkeypatch.setattr(raised_sigma, "fits_of", brighter)
    assert searched(y, "defocus:4.3") == (True, 1.0, 2 * TRIAL_NFE)


def test_a_wrong_kernel_gives_softness_not_ruins(dmps: Dmps, tmp_path: Path) -> None:
    blurred, truth = out_of_focus(80)
    Image.fromarray(blurred).save(tmp_path / "y.png")
    wrong = ("restore", "y.png", "-t", "blur", "--kernel", "uniform:9")
    told = dmps(*wrong, "--sigma", "2/255", "-o", "told.png")
    assert "told.png: may not fit: the kernel or the boundary is another" in told.err
    asked = dmps(*wrong, "-o", "asked.png")
    assert "this kernel does not fit" in asked.err or "raised to" in asked.err
    assert gain(pixels("told.png"), blurred, truth) < -1.0
    assert gain(pixels("asked.png"), blurred, truth) > -0.2
    facts = json.loads(Path("asked.json").read_text())
    assert facts["sigma_y"] > 2 * facts["sigma_search"]["before"]
    assert facts["fit"]["remark"] in asked.err
    assert facts["fit"]["excess"] < json.loads(Path("told.json").read_text())["fit"]["excess"]


def test_a_boundary_that_gives_ripples_is_left_for_the_scene_that_goes_on(dmps: Dmps, tmp_path: Path) -> None:
    blurred, truth = out_of_focus(80)
    Image.fromarray(blurred).save(tmp_path / "y.png")
    periodic = ("restore", "y.png", "-t", "blur", "--kernel", "defocus:4.3", "--boundary", "circular")
    found = dmps(*periodic, "-o", "x.png")
    assert "with this kernel the boundary gives ripples; the boundary valid gives less, and is taken" in found.err
    facts = json.loads(Path("x.json").read_text())
    assert facts["operator"]["boundary"] == "valid"
    assert facts["sigma_search"]["is_beyond"]
    assert facts["sigma_search"]["evaluations"] <= 3 * TRIAL_NFE
    assert gain(pixels("x.png"), blurred, truth) > 2.0


def test_a_kernel_that_would_ruin_the_picture_is_refused(dmps: Dmps, tmp_path: Path) -> None:
    """A box of 5 px taken for a motion of 15: stripes at any sigma."""
    scene = np.asarray(Image.open(bundled_photo("coffee")).convert("RGB"))
    part = scene[150:254, 200:304].astype(float)
    blurred = np.stack([convolve2d(part[..., c], np.full((5, 5), 1 / 25), mode="valid") for c in range(3)], -1)
    Image.fromarray(np.rint(blurred).astype(np.uint8)).save(tmp_path / "y.png")
    wrong = dmps("restore", tmp_path / "y.png", "--task", "blur", "--kernel", "motion:25,30", "--nfe", "2")
    assert (wrong.code, wrong.out) == (1, "")
    assert "this kernel does not fit" in wrong.err and "nothing is written" in wrong.err
    assert [path.name for path in tmp_path.iterdir()] == ["y.png"]
    right = dmps("restore", tmp_path / "y.png", "--task", "blur", "--kernel", "uniform:5", "--nfe", "2")
    assert right.code == 0, right.err


@pytest.mark.parametrize("sigma", [[], ["--sigma", "18/255"]])
def test_less_noise_than_sigma_is_no_surprise_in_a_jpeg_file(dmps: Dmps, tmp_path: Path, sigma: list[str]) -> None:
    scene = np.asarray(Image.open(bundled_photo("coffee")).convert("RGB"))
    noisy = scene[100:180, 100:180] + np.random.default_rng(0).normal(0.0, 18.0, (80, 80, 3))
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(tmp_path / "y.jpg", quality=90)
    said = dmps("restore", tmp_path / "y.jpg", "--task", "denoise", *sigma)
    assert said.code == 0, said.err
    assert "smaller --sigma" not in said.err


def test_a_compressed_picture_without_noise_is_led_to_the_right_task(dmps: Dmps, tmp_path: Path) -> None:
    scene = Image.open(bundled_photo("coffee")).convert("RGB")
    scene.crop((200, 150, 280, 230)).save(tmp_path / "y.jpg", quality=15)
    assert "--task jpeg restores that" in dmps("restore", tmp_path / "y.jpg", "--task", "denoise", "--nfe", "1").err
