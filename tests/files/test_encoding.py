"""Pictures written: by depth, opacity and metadata, read by other libraries."""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from dmps_cli.errors import OutputError
from dmps_cli.files import deep, encoding, png
from dmps_cli.files.encoding import Written, encode, lost
from dmps_cli.files.images import load
from dmps_cli.files.metadata import Metadata


def noise(*shape: int, bits: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**bits, shape, dtype=np.uint8 if bits == 8 else np.uint16)


def tensor(values: np.ndarray) -> torch.Tensor:
    """(H, W, C) of a whole type to (C, H, W) on [-1, 1]."""
    white = np.iinfo(values.dtype).max
    return torch.from_numpy(values.astype(np.float64) / white * 2 - 1).permute(2, 0, 1).to(torch.float32)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_row_by_row_is_what_others_read(channels: int, bits: int) -> None:
    """Noise and a ramp, which take other filters; strips of any height."""
    ramp = np.arange(23 * 31 * channels).reshape(23, 31, channels).astype(noise(1, bits=bits).dtype) * 7
    values = np.concatenate([noise(20, 31, channels, bits=bits), ramp])
    strips = [values[:1], values[1:30], values[30:]]
    content = b"".join(png.chunks((31, 43), channels, bits, strips, {}))
    np.testing.assert_array_equal(imagecodecs.png_decode(content).reshape(values.shape), values)
    with Image.open(io.BytesIO(content)) as image:
        image.verify()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["x.png", "x.tif"])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_sixteen_bits_survive_exactly(tmp_path: Path, name: str, channels: int, has_alpha: bool) -> None:
    values, opacity = noise(9, 13, channels, bits=16), noise(9, 13, 1, bits=16)
    alpha = torch.from_numpy(opacity[..., 0] / 65535.0).float() if has_alpha else None
    content = encode(tensor(values), tmp_path / name, Written(bits=16, alpha=alpha))
    found = tifffile.imread(io.BytesIO(content)) if name == "x.tif" else imagecodecs.png_decode(content)
    expected = np.concatenate([values, opacity], axis=-1) if has_alpha else values
    if (name, channels, has_alpha) == ("x.tif", 1, True):
        expected = expected[..., [0, 0, 0, 1]]  # Pillow has no grey with opacity of 16 bits
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    (tmp_path / name).write_bytes(content)
    picture = load(tmp_path / name, with_alpha=True)
    torch.testing.assert_close(picture.pixels, tensor(values).expand_as(picture.pixels), rtol=0, atol=1e-7)
    assert picture.bits == 16
    if has_alpha:
        torch.testing.assert_close(picture.alpha, alpha, rtol=0, atol=1e-7)


def test_what_is_too_large_for_one_piece_is_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise(150, 7, 3)
    monkeypatch.setattr(encoding, "LARGE_PIXELS", 1)
    content = encode(tensor(values), Path("x.png"))
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(np.asarray(image), values)


def test_formats_without_opacity_are_laid_over_white_and_said(tmp_path: Path) -> None:
    values, how = noise(8, 8, 3), Written(alpha=torch.zeros(8, 8), bits=16)
    content = encode(tensor(values), tmp_path / "x.bmp", how)
    with Image.open(io.BytesIO(content)) as image:
        assert np.asarray(image).min() == 255
    assert lost(how, Path("x.bmp")) == [
        ".bmp holds no opacity: it is laid over white",
        ".bmp holds 8 bits a channel, not 16",
    ]
    assert lost(how, Path("x.png")) == []


def test_quality() -> None:
    x = tensor(noise(64, 64, 3))
    for name in ("x.jpg", "x.webp"):
        assert len(encode(x, Path(name), Written(quality=30))) < 0.5 * len(encode(x, Path(name)))


def test_deep_tiff_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep, "is_there", lambda: False)
    with pytest.raises(OutputError, match=r"pip install 'dmps-cli\[deep\]'"):
        encode(torch.zeros(3, 2, 2), Path("x.tif"), Written(bits=16))


@pytest.mark.parametrize("name", ["x.png", "deep.png", "x.jpg", "x.webp", "x.tif"])
def test_metadata_are_carried_upright(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"
    exif.get_ifd(0x8769).update({0xA002: 5, 0xA003: 4, 0x829A: 0.5})
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise(4, 5, 3)).save(tmp_path / "source.jpg", exif=exif, icc_profile=icc, dpi=(300, 150))
    picture = load(tmp_path / "source.jpg", own_colours=True)
    assert picture.metadata.named() == ["EXIF", "a colour profile"]
    bits = 16 if name == "deep.png" else 8
    (tmp_path / name).write_bytes(
        encode(picture.pixels, tmp_path / name, Written(bits=bits, metadata=picture.metadata))
    )
    with Image.open(tmp_path / name) as image:
        found = image.getexif()
        assert (found[0x0112], found[0x010F]) == (1, "a maker")
        sub = found.get_ifd(0x8769)
        assert (sub[0xA002], sub[0xA003], sub[0x829A]) == (4, 5, 0.5)
        assert image.info["icc_profile"] == icc
        if name != "x.webp":
            np.testing.assert_allclose([float(v) for v in image.info["dpi"]], (300, 150), atol=0.02)


def test_a_picture_in_its_own_colours_is_not_converted(tmp_path: Path) -> None:
    """A profile of other primaries: the pixels stay, and the profile says what they are."""
    values = noise(6, 6, 3)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(values).save(tmp_path / "x.png", icc_profile=icc)
    picture = load(tmp_path / "x.png", own_colours=True)
    torch.testing.assert_close(picture.pixels, tensor(values), rtol=0, atol=1e-7)
    assert picture.metadata.icc == icc
    assert load(tmp_path / "x.png").metadata.icc is None


def test_no_metadata_are_none() -> None:
    assert Metadata().named() == []
    assert Metadata().upright((1, 1)) is None
