"""Files as people have them, through the command: depth, opacity, formats, trees."""

from __future__ import annotations

import json
import re
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from dmps_cli import fields, pipeline
from tests.shell import Dmps, Result, photo, pixels

FAST = ("-t", "denoise", "--sigma", "0.05", "--nfe", "1", "--preset", "fast")


def restored(dmps: Dmps, *arguments: str) -> Result:
    result = dmps("restore", *arguments, *FAST)
    assert result.code == 0, result.err
    return result


def test_depth_follows_the_input(dmps: Dmps) -> None:
    ramp = np.linspace(0, 65535, 24 * 32).astype(np.uint16).reshape(24, 32)
    Image.fromarray(ramp).save("deep.png")
    Path("colour.png").write_bytes(imagecodecs.png_encode(np.stack([ramp, ramp[::-1], 65535 - ramp], -1)))
    photo(Path("shallow.png"))
    restored(dmps, "deep.png", "colour.png", "shallow.png", "-o", "out/")
    kinds = {name: imagecodecs.png_decode(Path(f"out/{name}_restored.png").read_bytes()) for name in ("deep", "colour")}
    assert {name: (kind.dtype, kind.ndim) for name, kind in kinds.items()} == {
        "deep": (np.uint16, 2),
        "colour": (np.uint16, 3),
    }
    assert pixels("out/shallow_restored.png").dtype == np.uint8
    assert json.loads(Path("out/colour_restored.json").read_text())["bits"] == 16
    restored(dmps, "deep.png", "-o", "eight/", "--bit-depth", "8")
    with Image.open("eight/deep_restored.png") as image:
        assert image.mode == "L"
    result = restored(dmps, "deep.png", "-o", "x.jpg")
    assert ".jpg holds 8 bits a channel, not 16" in result.err
    refused = dmps("restore", "deep.png", "-o", "y.jpg", "--bit-depth", "16", *FAST)
    assert (refused.code, "take .png or .tif" in refused.err) == (2, True)


def test_twelve_bits_in_sixteen_are_said_and_white_sets_them(dmps: Dmps) -> None:
    ramp = np.linspace(0, 4095, 24 * 32).astype(np.uint16).reshape(24, 32)
    Image.fromarray(ramp).save("x.png")
    assert "holds values from 0 to 4095 of 65535, as 12 bits do; --white 4095" in restored(dmps, "x.png").err
    result = restored(dmps, "x.png", "-o", "white.png", "--white", "4095")
    assert "65535" not in result.err
    Image.fromarray((ramp / 4095).astype(np.float32)).save("float.tif")
    restored(dmps, "float.tif", "-o", "float.png")
    found, expected = (pixels(name).astype(int) for name in ("white.png", "float.png"))
    assert np.abs(found - expected).max() <= 1
    assert dmps("degrade", "x.png", "-t", "denoise", "--white", "4095", "--sigma", "0", "-o", "y.png").code == 0
    np.testing.assert_allclose(np.load("y.npy")[0], ramp / 4095 * 2 - 1, rtol=0, atol=1e-6)


def test_opacity_is_carried_and_enlarged(dmps: Dmps) -> None:
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[4:12, 5:20] = 0
    photo(Path("p.png"))
    Image.fromarray(np.dstack([pixels("p.png"), alpha])).save("a.png")
    restored(dmps, "a.png", "-o", "x.png")
    np.testing.assert_array_equal(pixels("x.png")[..., 3], alpha)
    restored(dmps, "p.png", "-o", "plain.png")
    np.testing.assert_array_equal(pixels("x.png")[..., :3], pixels("plain.png"))  # the colours below are restored
    assert dmps("restore", "a.png", "-t", "sr2", *FAST[2:], "-o", "large.png").code == 0
    larger = Image.fromarray(alpha.astype(np.float32)).resize((64, 48), Image.Resampling.LANCZOS)
    assert np.abs(pixels("large.png")[..., 3] - np.asarray(larger).clip(0, 255)).max() <= 0.51
    result = restored(dmps, "a.png", "-o", "white.png", "--alpha", "white")
    assert (pixels("white.png").shape[2], "laid over white" in result.err) == (3, True)
    Image.fromarray(np.dstack([alpha // 2 + 30, alpha])).save("la.png")
    restored(dmps, "la.png", "-o", "grey.png")
    assert pixels("grey.png").shape == (24, 32, 2)


def test_formats_and_names(dmps: Dmps) -> None:
    Path("in").mkdir()
    for name in ("a.png", "a.jpg", "b.jfif", "c.tga"):
        photo(Path("in") / name)
    Path("in/notes.txt").touch()
    result = restored(dmps, "in", "-o", "out/")
    assert "skipped: 1 file with no suffix of a picture (1 .txt)" in result.err
    expected = ["a_jpg_restored.png", "a_png_restored.png", "b_restored.png", "c_restored.png"]
    assert sorted(path.name for path in Path("out").glob("*.png")) == expected
    result = restored(dmps, "in", "-o", "same/", "--format", "same", "--suffix", "_x")
    expected = ["a_jpg_x.jpg", "a_png_x.png", "b_x.jfif", "c_x.png"]
    assert sorted(path.name for path in Path("same").iterdir() if path.suffix != ".json") == expected
    assert ".tga is not written; its result is .png" in result.err
    restored(dmps, "in/a.png", "-o", "w/", "--format", "webp", "--quality", "10")
    assert Path("w/a_restored.webp").is_file()
    for wrong in (
        ("-o", "x.png", "--format", "jpg"),
        ("-o", "x.png", "--quality", "3"),
        ("--format", "gif"),
        ("--suffix", ""),
        ("--suffix", "/x"),
        ("--metadata", "some"),
        ("--alpha", "black"),
        ("--white", "0"),
    ):
        assert dmps("restore", "in/a.png", *FAST, *wrong).code == 2, wrong


def test_metadata_are_left_out_unless_kept(dmps: Dmps) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"
    photo(Path("p.png"))
    with Image.open("p.png") as image:
        image.save("p.jpg", exif=exif, dpi=(300, 300), quality=95)
    result = restored(dmps, "p.jpg", "-o", "x.jpg")
    assert "p.jpg: its EXIF will not be in the result; --metadata keep carries it" in result.err
    with Image.open("x.jpg") as image:
        assert not image.getexif()
    restored(dmps, "p.jpg", "-o", "kept.jpg", "--metadata", "keep")
    with Image.open("kept.jpg") as image:
        assert (dict(image.getexif()), image.size) == ({0x0112: 1, 0x010F: "a maker"}, (24, 32))
        assert image.info["dpi"] == pytest.approx((300, 300))


def test_a_tree_is_kept(dmps: Dmps) -> None:
    for folder in ("in/a", "in/b"):
        Path(folder).mkdir(parents=True)
        photo(Path(folder) / "0001.png")
    refused = dmps("restore", "in", *FAST)
    assert "--recursive takes those of its folders" in refused.err
    expected = [str(Path("out/a/0001_restored.png")), str(Path("out/b/0001_restored.png"))]
    assert restored(dmps, "in", "--recursive", "-o", "out/").out.split() == expected
    again = restored(dmps, "in/**/*.png", "-o", "out/", "--skip-existing")
    assert again.err.count("exists; skipped") == 2
    Path("list.txt").write_text("in/a/0001.png\nin/b/0001.png\n")
    flat = dmps("restore", "--list", "list.txt", "-o", "flat/", *FAST)
    assert (flat.code, "keep their folders with --recursive" in flat.err) == (1, True)
    assert restored(dmps, "--list", "list.txt", "--recursive", "-o", "l/").out.split() == [
        "l/a/0001_restored.png",
        "l/b/0001_restored.png",
    ]
    assert dmps("restore", *FAST).code == 2


def test_an_array_says_its_range(dmps: Dmps) -> None:
    np.save("x.npy", np.random.default_rng(0).random((3, 24, 32), dtype=np.float32))
    refused = dmps("restore", "x.npy", *FAST)
    assert (refused.code, "--range 0,1 or --range -1,1" in refused.err) == (1, True)
    restored(dmps, "x.npy", "--range", "0,1")


def test_a_large_picture_says_its_time_and_keeps_its_bits(dmps: Dmps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large by a lower limit; the state in memory, then in a file."""
    photo(Path("p.png"), (96, 80))
    monkeypatch.setattr(pipeline, "LARGE_PIXELS", 5000)
    result = restored(dmps, "p.png", "-o", "a.png")
    assert re.search(r"p\.png: 96 x 80 px in 1 windows?, 1 evaluations? of each: about \d+ s to come", result.err)
    monkeypatch.setattr(fields, "FILE_BYTES", 100)
    restored(dmps, "p.png", "-o", "b.png")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_a_result_that_would_not_be_read_again_is_refused_first(dmps: Dmps, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(Path("p.png"), (96, 80))
    monkeypatch.setenv("DMPS_MAX_PIXELS", "10000")
    result = dmps("restore", "p.png", "-t", "sr4", "--sigma", "0.05", "--nfe", "1")
    assert result.code == 1
    assert "the restoration of p.png is too large (384 x 320 px, 122880 pixels)" in result.err
    assert not Path("p_restored.png").exists()
