"""Picture files against NumPy's reading of the same numbers; every kind of bad file."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from dmps_cli import images
from dmps_cli.errors import InputError, OutputError
from dmps_cli.images import encode, from_uint8, load, load_mask, load_rgb, photo_paths, to_uint8

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def scaled(array: np.ndarray, white: float = 255) -> torch.Tensor:
    """0 .. white, (H, W) or (H, W, C), on [-1, 1], (C, H, W)."""
    array = array if array.ndim == 3 else array[:, :, None]
    return torch.from_numpy(array.astype(np.float64) / white * 2 - 1).permute(2, 0, 1).float()


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def assert_pixels(path: Path, expected: torch.Tensor, said: str | None = None) -> None:
    picture = load(path)
    torch.testing.assert_close(picture.pixels, expected, rtol=0, atol=1e-6)
    assert any(said in note for note in picture.notes) if said else picture.notes == ()


def test_eight_bits_survive_the_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for array in (levels, np.stack([levels, levels.T, levels[::-1]], -1)):
        np.testing.assert_array_equal(to_uint8(from_uint8(array)), array)


def test_values_are_clipped_and_rounded_to_the_nearest_level() -> None:
    x = torch.tensor([[[-3.0, -1.0, 0.0, 1.0, 7.0, (100.4 / 127.5) - 1, (100.6 / 127.5) - 1]]])
    assert to_uint8(x)[0].tolist() == [0, 0, 128, 255, 255, 100, 101]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".tiff", ".bmp"])
def test_lossless_formats_give_the_pixels_back(tmp_path: Path, suffix: str) -> None:
    for array in (RGB, RGB[:, :, 0]):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(encode(from_uint8(array), path))
        np.testing.assert_array_equal(
            to_uint8(load_rgb(path).pixels)[:, :, 0], array if array.ndim == 2 else array[:, :, 0]
        )


def test_unknown_suffix_is_refused() -> None:
    with pytest.raises(OutputError, match=r"\.png"):
        encode(from_uint8(RGB), Path("x.xyz"))


def test_rgb_and_grey(tmp_path: Path) -> None:
    assert_pixels(saved(tmp_path / "c.png", Image.fromarray(RGB)), scaled(RGB))
    assert_pixels(saved(tmp_path / "g.png", Image.fromarray(RGB[:, :, 0])), scaled(RGB[:, :, 0]))
    bits = RGB[:, :, 0] > 127
    assert_pixels(saved(tmp_path / "b.png", Image.fromarray(bits)), scaled(bits * 255.0))
    grey = load_rgb(tmp_path / "g.png")
    assert grey.pixels.shape == (3, 6, 9)
    assert any("grey" in note for note in grey.notes)


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "x.png", Image.fromarray(RGB), exif=exif)
    assert_pixels(path, scaled(TURNS[orientation](RGB).copy()), None if orientation == 1 else "EXIF")


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (6, 9, 1), dtype=np.uint8)
    path = saved(tmp_path / "x.png", Image.fromarray(np.concatenate([RGB, alpha], -1)))
    share = alpha / 255
    expected = scaled(RGB * share + 255 * (1 - share))
    picture = load(path)
    assert any("transparent" in note for note in picture.notes)
    torch.testing.assert_close(picture.pixels, expected, rtol=0, atol=1.01 / 127.5)
    opaque = saved(tmp_path / "o.png", Image.fromarray(np.concatenate([RGB, np.full_like(alpha, 255)], -1)))
    assert_pixels(opaque, scaled(RGB))


def test_grey_with_alpha_stays_grey(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", Image.fromarray(np.dstack([RGB[:, :, 0], np.full((6, 9), 255, np.uint8)])))
    assert_pixels(path, scaled(RGB[:, :, 0]))


def test_palette_and_cmyk(tmp_path: Path) -> None:
    few = RGB // 128 * 255
    path = saved(tmp_path / "p.png", Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE, colors=8))
    assert_pixels(path, scaled(few), "palette")
    ink = np.dstack([RGB, np.zeros((6, 9), np.uint8)])
    path = saved(tmp_path / "c.tif", Image.fromarray(ink, mode="CMYK"))
    assert_pixels(path, scaled(255 - RGB), "CMYK")


def test_sixteen_bits_keep_their_precision(tmp_path: Path) -> None:
    deep = np.random.default_rng(2).integers(0, 65536, (6, 9), dtype=np.uint16)
    for name in ("x.png", "x.tif"):
        assert_pixels(saved(tmp_path / name, Image.fromarray(deep)), scaled(deep, 65535))


def test_float_pictures_lie_on_zero_to_one(tmp_path: Path) -> None:
    values = np.random.default_rng(3).uniform(0, 1, (6, 9)).astype(np.float32)
    assert_pixels(saved(tmp_path / "x.tif", Image.fromarray(values)), scaled(values, 1))
    for wrong in (values * 300, values - 0.5, np.full_like(values, np.nan)):
        with pytest.raises(InputError, match="expected 0 to 1"):
            load(saved(tmp_path / "x.tif", Image.fromarray(wrong)))


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    path = saved(tmp_path / "x.webp", frames[0], save_all=True, append_images=frames[1:], lossless=True)
    assert_pixels(path, scaled(RGB), "2 frames")
    path = saved(tmp_path / "x.tif", frames[0], save_all=True, append_images=frames[1:])
    assert_pixels(path, scaled(RGB), "2 frames")


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert_pixels(saved(tmp_path / "x.png", Image.fromarray(RGB), icc_profile=profile), scaled(RGB))
    damaged = saved(tmp_path / "d.png", Image.fromarray(RGB), icc_profile=b"nonsense" * 20)
    assert_pixels(damaged, scaled(RGB), "damaged colour profile")


def test_masks_keep_white(tmp_path: Path) -> None:
    keep = RGB[:, :, 0] > 127
    path = saved(tmp_path / "m.png", Image.fromarray((keep * 255).astype(np.uint8)))
    assert torch.equal(load_mask(path), torch.from_numpy(keep))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"text", "not a picture"), (b"\x89PNG\r\n\x1a\n", "x.png"), ("cut", "damaged")],
)
def test_bad_files(tmp_path: Path, content: bytes | str, said: str) -> None:
    path = tmp_path / "x.png"
    if content == "cut":
        noise = np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        content = saved(path, Image.fromarray(noise)).read_bytes()[:5000]
    path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=said):
        load(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "no.png", tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            load(path)


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.png", Image.fromarray(RGB))
    monkeypatch.setattr(images, "MAX_PIXELS", 53)
    with pytest.raises(InputError, match="9 x 6"):
        load(path)


def test_bundled_photographs_and_their_sources() -> None:
    with (photo_paths()[0].parent / "SOURCES.tsv").open(encoding="utf-8") as table:
        rows = {row["file"]: row for row in csv.DictReader(table, delimiter="\t")}
    assert sorted(rows) == [path.name for path in photo_paths()]
    assert {row["terms"] for row in rows.values()} <= {"CC0", "public domain"}
    for path in photo_paths():
        assert load_rgb(path).pixels.shape == (3, 256, 256)
