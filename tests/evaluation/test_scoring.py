"""`dmps score`: pairs by name, PSNR and SSIM against scikit-image, what has no partner."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dmps_cli.evaluation.scoring import luma
from tests.shell import Dmps, photo, pixels


def spoiled(source: Path, target: Path, seed: int = 1) -> Path:
    """The picture with noise of 8 grey levels."""
    target.parent.mkdir(parents=True, exist_ok=True)
    values = pixels(source) + np.random.default_rng(seed).normal(0.0, 8.0, pixels(source).shape)
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(target)
    return target


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    truth, restored = tmp_path / "truth", tmp_path / "restored"
    (truth / "sub").mkdir(parents=True)
    for name, seed in (("a.png", 0), ("sub/b.png", 1)):
        spoiled(photo(truth / name, (40, 36), seed), restored / name)
    return restored, truth


def test_luma_is_that_of_matlab() -> None:
    values = np.random.default_rng(0).random((5, 4, 3))
    ours = luma(torch.from_numpy(values).movedim(-1, 0)[None] * 2 - 1)
    assert np.allclose((ours[0, 0].numpy() + 1) / 2 * 255, rgb2ycbcr(values)[..., 0], atol=1e-10)


@pytest.mark.parametrize("crop", [0, 3])
def test_scores_of_the_y_channel_are_those_of_scikit_image(folders: tuple[Path, Path], dmps: Dmps, crop: int) -> None:
    restored, truth = folders
    result = dmps("score", restored, truth, "--y-channel", "--crop", crop, "--json")
    assert result.code == 0, result.err
    cut = slice(crop, -crop or None)
    for row in json.loads(result.out)["rows"]:
        x, y = (rgb2ycbcr(pixels(folder / row["image"]))[cut, cut, 0] / 255 for folder in (restored, truth))
        assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(y, x, data_range=1.0), abs=2e-3)
        kept = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        assert row["ssim"] == pytest.approx(structural_similarity(y, x, **kept), abs=2e-4)


def test_scores_are_those_of_eval(tmp_path: Path, dmps: Dmps) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    photo(photos / "a.png", (40, 36))
    run = tmp_path / "run"
    options = ["--dataset", photos, "--tasks", "denoise", "--nfe", "2", "--out", run]
    assert dmps("eval", *options).code == 0
    restored = next((run / "restored").rglob("a.png"))
    scored = json.loads(dmps("score", restored, run / "truth" / "denoise" / "a.png", "--json").out)["rows"][0]
    measured = json.loads((run / "results.json").read_text())["rows"][0]
    # the file is rounded to 8 bits, what eval measured was not: 1/12 of a squared level
    assert scored["psnr"] == pytest.approx(measured["psnr"], abs=0.05)
    assert scored["lpips"] == pytest.approx(measured["lpips"], abs=2e-3)


def test_folders_are_ranked_beside_each_other_and_written(
    folders: tuple[Path, Path], tmp_path: Path, dmps: Dmps
) -> None:
    restored, truth = folders
    out = tmp_path / "out"
    result = dmps("score", restored, truth, truth, "--out", out)
    assert result.code == 0, result.err
    assert truth.name in result.out  # the path, in as many lines as it takes
    assert "*80.00" in result.out
    with (out / "rows.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [row["image"] for row in rows] == ["a.png", "sub/b.png"] * 2
    again = dmps("score", restored, truth, "--out", out)
    assert (again.code, again.out) == (1, "")


def test_a_missing_partner_is_an_error_that_names_it(folders: tuple[Path, Path], tmp_path: Path, dmps: Dmps) -> None:
    restored, truth = folders
    (restored / "a.png").unlink()
    extra = photo(restored / "z.png")
    out = tmp_path / "out"
    result = dmps("score", restored, truth, "--out", out)
    assert result.code == 1
    assert str(truth / "a.png") in result.err
    assert str(extra) in result.err
    assert not out.exists()
    result = dmps("score", restored, truth, "--matched-only", "--json")
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert [row["image"] for row in content["rows"]] == ["sub/b.png"]
    assert sorted(content["unmatched"]) == sorted([str(extra), str(truth / "a.png")])


def test_another_suffix_is_a_partner_where_it_is_the_only_one(tmp_path: Path, dmps: Dmps) -> None:
    truth, restored = tmp_path / "t", tmp_path / "r"
    truth.mkdir(), restored.mkdir()
    photo(truth / "a.png")
    photo(restored / "a.bmp")
    assert "80.00" in dmps("score", restored, truth).out
    photo(restored / "a.tif", seed=1)
    result = dmps("score", restored, truth)
    assert result.code == 1
    assert "no picture" in result.err


def test_a_pair_of_different_sizes_fails_alone(folders: tuple[Path, Path], dmps: Dmps) -> None:
    restored, truth = folders
    photo(restored / "a.png", (20, 20))
    result = dmps("score", restored, truth, "--json")
    assert result.code == 1
    assert "20 x 20 px and 40 x 36 px" in result.err
    assert [row["image"] for row in json.loads(result.out)["rows"]] == ["sub/b.png"]


def test_grey_beside_colour_stands_for_three_equal_channels(tmp_path: Path, dmps: Dmps) -> None:
    colour = photo(tmp_path / "colour.png", (40, 36))
    grey = tmp_path / "grey.png"
    Image.open(colour).convert("L").save(grey)
    as_rgb = tmp_path / "rgb.png"
    Image.open(grey).convert("RGB").save(as_rgb)
    one, three = (json.loads(dmps("score", x, colour, "--json").out)["rows"][0] for x in (grey, as_rgb))
    assert one["psnr"] == pytest.approx(three["psnr"], abs=1e-9)


@pytest.mark.parametrize(
    ("options", "said"), [(["--crop", "-1"], "--crop is -1"), (["--crop", "18"], "leaves nothing"), ([], "got")]
)
def test_wrong_input_is_one_sentence(
    folders: tuple[Path, Path], tmp_path: Path, dmps: Dmps, options: list[str], said: str
) -> None:
    restored, truth = folders
    arguments = [restored, truth] if options else [restored]
    result = dmps("score", *arguments, *options)
    assert result.code in (1, 2)
    assert said in result.err
    assert result.out == ""
