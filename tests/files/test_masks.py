"""Masks as people make them, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmps_cli.errors import InputError
from dmps_cli.files.images import from_uint8, to_uint8
from dmps_cli.files.masks import load_mask, load_opaque
from tests.shell import Dmps

KEEP = np.full((16, 24), 255, np.uint8)
KEEP[4:9, 6:14] = 0
PHOTO = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
FAST = ("--nfe", "2", "--preset", "fast")


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def painted(colour: tuple[int, int, int], alpha: np.ndarray = 255 - KEEP) -> np.ndarray:
    """A layer of one colour with an opacity."""
    return np.dstack([np.full((*KEEP.shape, 3), colour, np.uint8), alpha])


@pytest.mark.parametrize(
    "picture",
    [
        KEEP,
        KEEP // 255,  # labels 0 and 1
        KEEP.astype(np.uint16) * 257,
        (KEEP // 255).astype(np.uint16),
        KEEP > 0,
        np.dstack([KEEP] * 3),
        painted((0, 0, 0)),  # strokes on transparent ground, whatever their colour
        painted((255, 255, 255)),
        painted((255, 0, 0)),
        np.dstack([PHOTO, KEEP]),  # a picture with a hole
        np.dstack([KEEP, KEEP, KEEP, np.where(KEEP > 0, 255, 254).astype(np.uint8)]),  # an opaque mask, nearly
    ],
)
def test_the_hole_is_where_a_person_put_it(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(tmp_path / "m.png")
    keep, _ = load_mask(tmp_path / "m.png")
    np.testing.assert_array_equal(keep.numpy(), KEEP > 0)
    inverted, _ = load_mask(tmp_path / "m.png", invert=True)
    np.testing.assert_array_equal(inverted.numpy(), KEEP == 0)


def test_soft_and_lossy_masks_are_cut_at_half(tmp_path: Path) -> None:
    Image.fromarray(KEEP).save(tmp_path / "m.jpg", quality=60)
    np.testing.assert_array_equal(load_mask(tmp_path / "m.jpg")[0].numpy(), KEEP > 0)
    Image.fromarray(np.array([[0, 127, 128, 255] + 8 * [0]], np.uint8)).save(tmp_path / "grey.png")
    assert load_mask(tmp_path / "grey.png")[0].tolist() == [[False, False, True, True] + 8 * [False]]


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.full((16, 24), 255, np.uint8), "removes nothing"),
        (np.zeros((16, 24), np.uint8), "removes every pixel"),
        (np.arange(256, dtype=np.uint8).reshape(16, 16), "is no mask: 80%"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path: Path, picture: np.ndarray, said: str) -> None:
    Image.fromarray(picture).save(tmp_path / "m.png")
    with pytest.raises(InputError, match=said):
        load_mask(tmp_path / "m.png")
    with pytest.raises(InputError, match="opaque everywhere"):
        load_opaque(tmp_path / "m.png")


def test_every_level_survives_the_scale() -> None:
    """What kept pixels rely on: 0..255 to floats and back is the identity."""
    levels = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(to_uint8(from_uint8(levels)), levels)


@pytest.mark.parametrize("sigma", ["0", "auto"])
def test_kept_pixels_without_noise_are_the_files_own(dmps: Dmps, tmp_path: Path, sigma: str) -> None:
    """Where the noise is nothing but rounding, by --sigma or by the estimate of a smooth picture."""
    ramp = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8) + 60
    hole = np.ones((48, 64), bool)
    hole[20:24, 30:40] = False
    Image.fromarray(np.dstack([ramp, ramp[::-1], 200 - ramp])).save("p.png")
    Image.fromarray(hole).save("m.png")
    arguments = ("-t", "inpaint", "--mask", "m.png", "--sigma", sigma, "-o", "x.png")
    result = dmps("restore", "p.png", *arguments, *FAST)
    assert (result.code, "m.png removes 1.3% of the pixels" in result.err) == (0, True)
    before, after = pixels("p.png"), pixels("x.png")
    np.testing.assert_array_equal(after[hole], before[hole])
    sidecar = json.loads(Path("x.json").read_text())
    assert sidecar["channels"] == 3
    assert sidecar["sigma_origin"] == ("given" if sigma == "0" else "estimated")


def test_the_pictures_own_holes(dmps: Dmps, tmp_path: Path) -> None:
    """--mask alpha: the colours under half opacity are not laid over white; degrade and restore agree on the hole."""
    alpha = KEEP.copy()
    alpha[0, 0] = 200
    Image.fromarray(np.dstack([PHOTO, alpha])).save("p.png")
    arguments = ("-t", "inpaint", "--mask", "alpha", "--sigma", "0", *FAST)
    assert dmps("restore", "p.png", *arguments, "-o", "x.png").code == 0
    np.testing.assert_array_equal(pixels("x.png")[KEEP > 0], PHOTO[KEEP > 0])
    assert dmps("degrade", "p.png", "-t", "inpaint", "--mask", "alpha", "--sigma", "0", "-o", "y.png").code == 0
    assert np.load("y.npy").shape == (3, (KEEP > 0).sum())
    Image.fromarray(PHOTO).save("opaque.png")
    refused = dmps("restore", "opaque.png", *arguments)
    assert (refused.code, "opaque everywhere" in refused.err) == (1, True)
    refused = dmps("restore", "p.png", "-t", "inpaint", "--box", "1,1,2,2", "--invert-mask")
    assert (refused.code, "--invert-mask belongs to a --mask" in refused.err) == (2, True)


def test_a_random_share_that_removes_nothing_is_refused(dmps: Dmps) -> None:
    Image.fromarray(PHOTO).save("p.png")
    result = dmps("restore", "p.png", "-t", "inpaint", "--fraction", "0", *FAST)
    assert (result.code, result.out) == (1, "")
    assert "--fraction 0 of 24 x 16 px removes nothing" in result.err
    assert not Path("p_restored.png").exists()


def test_a_mask_instead_of_a_recorded_share_is_said(dmps: Dmps) -> None:
    Image.fromarray(PHOTO).save("p.png")
    Image.fromarray(KEEP).save("m.png")
    assert dmps("degrade", "p.png", "-t", "inpaint", "-o", "y.png").code == 0
    result = dmps("restore", "y.png", "--mask", "m.png", *FAST)
    assert result.code == 0
    assert "--mask m.png overrides the sidecar's --fraction 0.5" in result.err


def test_a_mask_that_removes_most_names_the_way_round(dmps: Dmps) -> None:
    Image.fromarray(PHOTO).save("p.png")
    Image.fromarray(255 - KEEP).save("m.png")
    result = dmps("restore", "p.png", "-t", "inpaint", "--mask", "m.png", *FAST)
    assert result.code == 0
    assert "m.png removes 89.6% of the pixels (with --invert-mask the rest instead)" in result.err
