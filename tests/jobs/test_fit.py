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

from dmps_cli.files.images import from_uint8, photo_paths
from dmps_cli.jobs.fit import FLOOR, LEAST_EXCESS, Fit, Usual, fits_of, judged, remark, ripples_of, usual
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
from tests.shell import Dmps, pixels

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


def box9(boundary: str, size: int = 90) -> LinearOperator:
    """Blur by a box of 9 px of a picture of that size."""
    params = resolve("blur", OperatorOptions(kernel="uniform:9", boundary=boundary))
    return build("blur", params, source_shape("blur", params, (size, size)), dtype=torch.float64)


@pytest.mark.parametrize("boundary", ["valid", "circular", "zero"])
def test_ripples_are_waves_that_the_kernel_does_not_pass(boundary: str) -> None:
    """A box of 9 px passes no wave of 9 px along its sides, and half of one of 14 px."""
    op = box9(boundary)
    columns = torch.arange(op.in_shape[2], dtype=torch.float64)
    noise = randn(1, 3, *op.in_shape[1:])
    waves = (20.0 * torch.sin(2 * torch.pi * columns / px) for px in (9, 14))
    white, blocked, passed = (ripples_of(op, noise + wave)[0] for wave in (0.0, *waves))
    assert white is not None
    assert blocked is not None
    assert passed is not None
    assert abs(white - 1.0) < 0.15
    assert blocked > 10.0
    assert passed < white + 0.1


def test_what_has_no_zeros_has_no_ripples() -> None:
    x = randn(2, 3, 40, 40)
    assert ripples_of(Identity((3, 40, 40), dtype=torch.float64, device="cpu"), x) == [None, None]
    sr2 = build("sr2", resolve("sr2", OperatorOptions()), (3, 40, 40), dtype=torch.float64)
    assert ripples_of(sr2, x) == [None, None]
    assert ripples_of(box9("circular", 16), randn(1, 3, 16, 16)) == [None]


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


def test_a_doubted_kernel_must_do_better() -> None:
    fit = Fit(chi2=0.9, outside=0.0, excess=0.015, ripples=1.1)
    assert not judged(fit, KNOWN, 0.05).is_off
    assert judged(fit, KNOWN, 0.05, is_doubted=True).is_off
    small = replace(KNOWN, excess=(0.0, 0.0), ripples=(1.0, 1.2))
    assert not judged(replace(fit, excess=LEAST_EXCESS), small, 0.05).is_off
    rippled = replace(fit, ripples=1.3)
    assert not judged(replace(rippled, excess=LEAST_EXCESS), small, 0.05).is_off
    assert judged(replace(rippled, excess=LEAST_EXCESS + 0.001), replace(small, excess=(0.0, 0.02)), 0.05).is_off
    assert judged(replace(rippled, excess=0.0), small, 0.05, is_doubted=True).is_off


@pytest.mark.parametrize("kernel", ["motion:13,30", "motion:13,0", "defocus:4.3"])
def test_every_photograph_itself_fits(kernel: str) -> None:
    """A mast or a wall has much at the zeros of a kernel along it, and is a picture all the same."""
    params = resolve("blur", OperatorOptions(kernel=kernel, boundary="valid"))
    known = usual(resolve_sampling(task="blur"), "blur", "natural")
    ripples = []
    for path in photo_paths():
        truth = from_uint8(pixels(path))[None]
        op = build("blur", params, (truth.shape[1], *truth.shape[2:]), dtype=torch.float32)
        y = op.A(truth) + 0.02 * torch.randn(1, *op.out_shape, generator=torch.Generator().manual_seed(0))
        (fit,) = fits_of(y, op, truth, 0.02, is_clipped=False)
        assert not judged(fit, known, 0.02).is_off, path.stem
        ripples.append(fit.ripples or 0.0)
    assert max(ripples) > 1.5  # of a picture that could not be better: no sign of a wrong kernel


def test_of_little_noise_chi2_says_nothing() -> None:
    assert remark(Fit(chi2=20.0, outside=0.0, excess=0.0), KNOWN, 0.002, "inpaint") is None


def test_ranges_hold_where_they_were_recorded() -> None:
    fast = resolve_sampling(task="deblur", preset="fast")
    known = usual(fast, "motion", "natural")
    assert known == usual(replace(fast, nfe=22), "blur", "natural")
    assert known is not None
    assert known.chi2[0] < 1.0 < known.chi2[1] + 0.1
    assert usual(replace(fast, nfe=900), "blur", "natural") is None
    assert usual(fast, "sr4", "natural") is None
    assert usual(fast, "blur", "mine") is None


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
    whole = pixels(next(path for path in photo_paths() if path.stem == "coffee")).astype(float)
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
    found = fitting_sigma(y, op, prior, 2 / 127.5, "blur", "natural", seed=0)
    return found.fits, found.sigma_y * 127.5 / 2, found.evaluations


def test_a_wrong_kernel_raises_sigma_and_the_right_one_does_not() -> None:
    y = from_uint8(out_of_focus(80)[0])[None]
    assert searched(y, "defocus:4.3") == (True, 1.0, TRIAL_NFE)
    fits, factor, evaluations = searched(y, "uniform:9")
    assert factor > 3.0 or not fits
    assert 3 * TRIAL_NFE <= evaluations <= 5 * TRIAL_NFE


def test_a_wrong_kernel_gives_softness_not_ruins(dmps: Dmps, tmp_path: Path) -> None:
    blurred, truth = out_of_focus(80)
    Image.fromarray(blurred).save(tmp_path / "y.png")
    wrong = ("restore", "y.png", "-t", "blur", "--kernel", "uniform:9", "--preset", "fast")
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
