"""`restore --task jpeg`: a file of coefficients, against Pillow's decoder and encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmps_cli.jobs.jpeg import jpeg_measurement, read_coefficients
from dmps_cli.operators.jpeg import HALF_WHITE
from tests.shell import Dmps, break_import, bundled_photo, pixels


def crop(name: str, size: tuple[int, int]) -> Image.Image:
    with Image.open(bundled_photo(name)) as image:
        left, top = image.width // 2, image.height // 2
        return image.convert("RGB").crop((left, top, left + size[0], top + size[1]))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_file_is_restored_beyond_what_a_decoder_makes_of_it(tmp_path: Path, dmps: Dmps, mode: str) -> None:
    truth = crop("chelsea", (61, 48)).convert(mode)
    source = tmp_path / "a.jpg"
    truth.save(source, quality=10)
    result = dmps("restore", source, "--task", "jpeg", "--nfe", "10", "-o", tmp_path / "x.png")
    assert result.code == 0, result.err
    restored, decoded = pixels(tmp_path / "x.png"), pixels(source)
    assert restored.shape == decoded.shape
    assert psnr(restored, np.asarray(truth)) > psnr(decoded, np.asarray(truth)) + 0.5
    facts = json.loads((tmp_path / "x.json").read_text())
    assert (facts["task"], facts["sigma_origin"]) == ("jpeg", "of the file's rounding")

    # encoded anew with the same tables every coefficient is the file's, or the next
    with Image.open(source) as image:
        tables = image.quantization
    again = tmp_path / "again.jpg"
    Image.fromarray(restored).save(again, qtables=tables, subsampling=2 if mode == "RGB" else -1)
    first, second = (read_coefficients(path) for path in (source, again))
    off = [((a - b) / steps).abs() for a, b, steps in zip(first.planes, second.planes, first.layout.steps, strict=True)]
    whole = [part[:-2, :-2] for part in off]  # not those that reach beyond the picture
    assert max(float(part.max()) for part in whole) <= 1.01
    kept = torch.cat([(part < 0.5)[a[:-2, :-2].abs() > 0.5] for part, a in zip(whole, first.planes, strict=True)])
    assert float(kept.double().mean()) > 0.8


def test_a_prior_of_grey_pictures_is_given_the_luma(tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    crop("coffee", (40, 40)).save(source, quality=50)
    measured, _ = jpeg_measurement(source, 1, "cpu", torch.float64)
    decoded = (measured.op.to_image(measured.y)[0, 0] + 1) * HALF_WHITE
    assert measured.op.in_shape == (1, 40, 40)
    with Image.open(source) as image:
        theirs = torch.from_numpy(np.asarray(image.convert("L")).astype(float))
    assert float((decoded - theirs).abs().mean()) < 1.5


def test_what_cannot_be_is_one_sentence(tmp_path: Path, dmps: Dmps, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, source = tmp_path / "a.png", tmp_path / "a.jpg"
    crop("coffee", (20, 20)).save(picture)
    crop("coffee", (20, 20)).save(source)
    for arguments, code, said in (
        (["restore", picture, "--task", "jpeg"], 1, "no JPEG file"),
        (["restore", source, "--task", "jpeg", "--sigma", "0.1"], 2, "--sigma does not apply"),
        (["restore", source, "--task", "jpeg", "--scale", "2"], 2, "takes no --scale"),
        (["degrade", picture, "--task", "jpeg"], 2, "restore takes them"),
        (["eval", "--dataset", tmp_path, "--tasks", "jpeg"], 2, "restore takes them"),
    ):
        result = dmps(*arguments)
        assert (result.code, result.out) == (code, ""), result.err
        assert said in result.err
    break_import(monkeypatch, "jpeglib", ImportError("no jpeglib"))
    result = dmps("restore", source, "--task", "jpeg")
    assert (result.code, result.out) == (2, "")
    assert "pip install 'dmps-cli[jpeg]'" in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "a.png"]
