"""Pictures and tensors: every kind of file against NumPy, every bad one refused with its reason."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, JpegImagePlugin

from dmps_cli.errors import InputError, NumericsError, OutputError, UsageError
from dmps_cli.files import images
from dmps_cli.files.images import encode, from_uint8, load, load_channels, load_rgb, load_uint8, to_uint8

Array = np.ndarray


def noise(*shape: int, seed: int = 0) -> Array:
    """Random 8-bit values."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def levels(path: Path) -> Array:
    """What `load` read, on the scale 0..255 in float64: (H, W) or (H, W, 3)."""
    array = (load(path).pixels.double().numpy().transpose(1, 2, 0) + 1) * 127.5
    return array[:, :, 0] if array.shape[2] == 1 else array


def assert_levels(path: Path, expected: Array, atol: float = 1e-4) -> None:
    """Equal on the scale 0..255; float32 on [-1, 1] resolves 1e-5 of a grey level."""
    assert levels(path).shape == expected.shape
    np.testing.assert_allclose(levels(path), expected, rtol=0, atol=atol)


def note(path: Path) -> str:
    """The one note of a picture, without its path."""
    (text,) = load(path).notes
    return text.removeprefix(f"{path} ")


def png(path: Path, bits: int, colour_type: int, rows: Array, **chunks: bytes) -> Path:
    """A PNG file by hand, of rows (H, W * channels), with extra chunks before the pixels."""
    height, width = rows.shape[0], rows.shape[1] // {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    raw = b"".join(b"\0" + row.astype(">u2" if bits == 16 else np.uint8).tobytes() for row in rows)
    parts = {"IHDR": struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0), **chunks}
    parts |= {"IDAT": zlib.compress(raw), "IEND": b""}
    content = b"".join(
        struct.pack(">I", len(data)) + name.encode() + data + struct.pack(">I", zlib.crc32(name.encode() + data))
        for name, data in parts.items()
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def profile(space: bytes, name: str, curve: Array | None = None) -> bytes:
    """An ICC profile by hand: sRGB's primaries (or grey); curve: to linear light, 0..65535, None for the identity."""
    entries = [] if curve is None else [int(value) for value in curve]
    curve = struct.pack(f">4sII{len(entries)}H", b"curv", 0, len(entries), *entries)
    text = name.encode() + b"\0"
    description = struct.pack(">4sII", b"desc", 0, len(text)) + text + bytes(78)

    def xyz(*values: float) -> bytes:
        return struct.pack(">4sI3i", b"XYZ ", 0, *(round(value * 65536) for value in values))

    tags = {b"desc": description, b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    if space == b"GRAY":
        tags |= {b"kTRC": curve}
    else:
        tags |= {b"rXYZ": xyz(0.43607, 0.22249, 0.01392), b"gXYZ": xyz(0.38515, 0.71687, 0.09708)}
        tags |= {b"bXYZ": xyz(0.14307, 0.06061, 0.7141), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += padded
    head = struct.pack(">I4sI4s4s4s12x4s", offset + len(body), b"test", 0x02100000, b"mntr", space, b"XYZ ", b"acsp")
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def srgb_of_linear(v: Array) -> Array:
    """sRGB's transfer function (IEC 61966-2-1), 0..255 to 0..255."""
    u = v / 255.0
    return 255.0 * np.where(u <= 0.0031308, 12.92 * u, 1.055 * u ** (1 / 2.4) - 0.055)


# The scale


def test_from_uint8_is_the_affine_map() -> None:
    grid = np.arange(256, dtype=np.uint8).reshape(16, 16)
    x = from_uint8(grid)
    assert (x.shape, x.dtype) == ((1, 16, 16), torch.float32)
    np.testing.assert_allclose(x[0].double().numpy(), grid / 255.0 * 2 - 1, rtol=0, atol=1e-7)
    assert (x.min(), x.max()) == (-1, 1)


@pytest.mark.parametrize("shape", [(16, 16), (5, 7, 3)])
def test_eight_bits_survive_exactly(shape: tuple[int, ...]) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16) if len(shape) == 2 else noise(*shape)
    np.testing.assert_array_equal(to_uint8(from_uint8(values)), values)


def test_rounding_is_to_the_nearest_halves_up_and_clips() -> None:
    x = torch.tensor([-9.0, -1.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 0.0, 0.999, 1.0, 1.0001, float("inf")])
    np.testing.assert_array_equal(to_uint8(x[None, None])[0], [0, 0, 0, 1, 128, 255, 255, 255, 255])


def test_nan_is_not_written() -> None:
    with pytest.raises(NumericsError, match="NaN"):
        encode(torch.full((1, 2, 2), float("nan")), Path("x.png"))


def test_tensors_share_no_memory_with_their_source() -> None:
    values = noise(4, 4)
    x = from_uint8(values)
    before = x.clone()
    values[:] = 0
    assert torch.equal(x, before)


# Writing


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".webp", ".PNG"])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, suffix: str, channels: int) -> None:
    x = from_uint8(noise(9, 13, channels))
    target = tmp_path / f"x{suffix}"
    target.write_bytes(encode(x, target))
    assert torch.equal(load_rgb(target).pixels, x.expand(3, -1, -1))


def test_jpeg_keeps_colour_resolution(tmp_path: Path) -> None:
    rows, cols = np.mgrid[:64, :64]
    values = np.stack([rows * 4, cols * 4, 255 - rows * 2 - cols * 2], axis=-1).astype(np.uint8)
    (tmp_path / "x.jpg").write_bytes(encode(from_uint8(values), tmp_path / "x.jpg"))
    with Image.open(tmp_path / "x.jpg") as image:
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
    assert np.abs(levels(tmp_path / "x.jpg") - values).max() <= 4


def test_unknown_suffix_is_refused_with_the_known() -> None:
    with pytest.raises(OutputError, match=r"x\.xyz.*\.png, \.jpg"):
        encode(torch.zeros(1, 2, 2), Path("x.xyz"))


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 16384), (".jpg", 65501)])
def test_a_side_too_long_for_the_format_is_refused(suffix: str, side: int) -> None:
    with pytest.raises(OutputError, match=rf"at most {side - 1} px"):
        encode(torch.zeros(1, 1, side), Path(f"x{suffix}"))
    assert encode(torch.zeros(1, 1, side - 1), Path(f"x{suffix}"))


# Orientation and frames

UPRIGHT: dict[int, Callable[[Array], Array]] = {
    # value: where the stored row 0 and column 0 are seen (EXIF 2.3, tag 0x0112)
    1: lambda a: a,  # top, left
    2: lambda a: a[:, ::-1],  # top, right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.swapaxes(0, 1),  # left, top
    6: lambda a: np.rot90(a, -1),  # right, top
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: np.rot90,  # left, bottom
}


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path: Path, name: str, orientation: int) -> None:
    values, exif, path = noise(3, 5, 3), Image.Exif(), tmp_path / name
    exif[0x0112] = orientation
    Image.fromarray(values).save(path, exif=exif, **({"lossless": True} if name == "x.webp" else {}))
    assert_levels(path, UPRIGHT[orientation](values))
    assert len(load(path).notes) == (orientation != 1)
    if orientation != 1:
        assert note(path) == "is turned as its EXIF orientation says"


@pytest.mark.parametrize("exif", [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0", b"garbage", b"II*\0\xff"])
def test_nonsense_in_exif_does_not_matter(tmp_path: Path, exif: bytes) -> None:
    values = noise(3, 5)
    path = png(tmp_path / "x.png", 8, 0, values, eXIf=exif)
    assert_levels(path, values)
    assert load(path).notes == ()


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp", "x.tif"])
def test_of_several_frames_the_first_is_taken(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    first, second = (Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (255, 0))
    options = {"lossless": True} if name == "x.webp" else {}
    first.save(path, save_all=True, append_images=[second, second.rotate(90)], **options)
    assert levels(path).min() == 255
    assert "frames; the first is taken" in load(path).notes[0]


# Modes


def test_bilevel(tmp_path: Path) -> None:
    bits = noise(5, 9) > 127
    Image.fromarray(bits).save(tmp_path / "x.png")
    assert_levels(tmp_path / "x.png", bits * 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_laid_over_white(tmp_path: Path, channels: int) -> None:
    colour, alpha = noise(6, 8, channels), noise(6, 8, 1, seed=1)
    alpha[:2] = 255
    alpha[2] = 0
    rows = np.concatenate([colour, alpha], axis=-1)
    path = png(tmp_path / "x.png", 8, 4 if channels == 1 else 6, rows.reshape(6, -1))
    opacity = alpha / 255
    expected = opacity * colour + (1 - opacity) * 255
    assert_levels(path, expected[:, :, 0] if channels == 1 else expected)
    assert note(path) == "is transparent in places; laid over white"
    np.testing.assert_array_equal(to_uint8(load(path).pixels)[:2], colour[:2, :, 0] if channels == 1 else colour[:2])


def test_opaque_alpha_is_silent(tmp_path: Path) -> None:
    rgba = noise(3, 3, 4)
    rgba[..., 3] = 255
    Image.fromarray(rgba).save(tmp_path / "x.png")
    assert_levels(tmp_path / "x.png", rgba[..., :3])
    assert load(tmp_path / "x.png").notes == ()


@pytest.mark.parametrize("colour_type", [0, 2])
def test_a_transparent_colour_is_laid_over_white(tmp_path: Path, colour_type: int) -> None:
    key, other = ([7], [90]) if colour_type == 0 else ([7, 8, 9], [7, 8, 10])
    trns = struct.pack(f">{len(key)}H", *key)
    path = png(tmp_path / "x.png", 8, colour_type, np.array([key + other]), tRNS=trns)
    assert_levels(path, np.array([[255, 90]]) if colour_type == 0 else np.array([[[255] * 3, other]]))


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path: Path, transparent: bool) -> None:
    palette, indices = noise(4, 3), noise(5, 6, seed=1) % 4
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "x.png", **({"transparency": 2} if transparent else {}))
    expected = palette[indices]
    if transparent:
        expected[indices == 2] = 255
    assert_levels(tmp_path / "x.png", expected)
    assert f"{tmp_path / 'x.png'} has a palette; converted to RGB" in load(tmp_path / "x.png").notes
    assert len(load(tmp_path / "x.png").notes) == 1 + transparent


def test_cmyk_without_a_profile(tmp_path: Path) -> None:
    cmyk = noise(6, 7, 4)
    Image.fromarray(cmyk, mode="CMYK").save(tmp_path / "x.tif")
    assert_levels(tmp_path / "x.tif", (255.0 - cmyk[..., :3]) * (255.0 - cmyk[..., 3:]) / 255, atol=1.0)
    assert note(tmp_path / "x.tif") == "is CMYK; converted to RGB"


def test_lab(tmp_path: Path) -> None:
    """Against the closed form of greys: L* = 116 f(Y) - 16, then sRGB's transfer function."""
    lightness = np.arange(0, 256, 5, dtype=np.uint8)
    lab = np.stack([lightness, np.zeros_like(lightness), np.zeros_like(lightness)], axis=-1)[None]
    Image.fromarray(lab, mode="LAB").save(tmp_path / "x.tif")
    f = (lightness / 2.55 + 16) / 116
    luminance = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    expected = srgb_of_linear(255 * luminance)
    assert_levels(tmp_path / "x.tif", np.repeat(expected[None, :, None], 3, axis=2), atol=1.5)
    assert note(tmp_path / "x.tif") == "is Lab; converted to sRGB"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16"])
def test_bytes_are_those_of_the_floats(tmp_path: Path, mode: str, channels: int) -> None:
    values = noise(9, 13, 4)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(values) if mode == "RGBA" else Image.fromarray(values[..., :3]).convert(mode)
    image.save(tmp_path / "x.png")
    expected = to_uint8(load_channels(tmp_path / "x.png", channels).pixels)
    found = load_uint8(tmp_path / "x.png", channels)
    assert found.shape == (9, 13, channels)
    np.testing.assert_array_equal(found, expected.reshape(found.shape))
    if (mode, channels) == ("RGB", 3):
        np.testing.assert_array_equal(found, values[..., :3])


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bit_grey_keeps_its_precision(tmp_path: Path, name: str) -> None:
    values = np.arange(0, 65536, 61, dtype=np.uint16)[None]
    Image.fromarray(values).save(tmp_path / name)
    x = load(tmp_path / name).pixels
    np.testing.assert_allclose(x[0].double().numpy(), values / 65535 * 2 - 1, rtol=0, atol=6e-8)
    assert load(tmp_path / name).notes == ()


@pytest.mark.parametrize("colour_type", [2, 4, 6])
def test_16_bit_colour_keeps_its_precision_with_an_extra(
    tmp_path: Path, colour_type: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = {2: 3, 4: 2, 6: 4}[colour_type]
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, channels))
    if channels != 3:
        values[..., -1] = 65535
    path = png(tmp_path / "x.png", 16, colour_type, values.reshape(4, -1))
    colour = values[..., 0] if channels == 2 else values[..., :3]
    assert_levels(path, colour / 257)
    assert (load(path).notes, load(path).bits) == ((), 16)
    monkeypatch.setattr(images.deep, "is_there", lambda: False)
    np.testing.assert_allclose(load(path).pixels.mean(), (colour / 65535 * 2 - 1).mean(), rtol=0, atol=0.01)
    assert note(path) == "has 16 bits per channel; 8 of them are read (pip install 'dmps-cli[deep]' reads all)"


def test_16_bit_ppm_says_so_too(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1024, (2, 3, 3))
    (tmp_path / "x.ppm").write_bytes(b"P6 3 2 1023\n" + values.astype(">u2").tobytes())
    assert_levels(tmp_path / "x.ppm", values / 1023 * 255, atol=1.0)
    assert "16 bits" in note(tmp_path / "x.ppm")


def test_floats_on_0_to_1(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 5), dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert_levels(tmp_path / "x.tif", values * 255.0)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0.0, 255.0]], np.float32), "values from 0 to 255; expected 0 to 1"),
        (np.array([[-0.5, 1.0]], np.float32), "values from -0.5 to 1; expected 0 to 1"),
        (np.array([[0.5, np.nan]], np.float32), "NaN or infinity"),
        (np.array([[0, 70000]], np.int32), "values from 0 to 70000; expected 0 to 65535"),
        (np.array([[-1, 5]], np.int32), "values from -1 to 5; expected 0 to 65535"),
    ],
)
def test_a_scale_that_would_be_a_guess_is_refused(tmp_path: Path, values: Array, reason: str) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=reason):
        load(tmp_path / "x.tif")


# Colour profiles


def test_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    values = noise(6, 6, 3)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(values).save(tmp_path / "x.png", icc_profile=icc)
    np.testing.assert_array_equal(to_uint8(load(tmp_path / "x.png").pixels), values)
    assert load(tmp_path / "x.png").notes == ()


def test_another_makers_srgb_changes_nothing(tmp_path: Path) -> None:
    """Its rounding shows in lcms's result, by one level; the pixels are not worth touching for it."""
    u = np.linspace(0, 1, 64)
    curve = np.where(u <= 0.04045, u / 12.92, ((u + 0.055) / 1.055) ** 2.4) * 65535
    icc, values = profile(b"RGB ", "none of your business", curve.round()), noise(32, 32, 3)
    theirs, ours = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(Image.fromarray(values), theirs, ours)
    assert np.abs(np.asarray(converted).astype(int) - values).max() == 1
    Image.fromarray(values).save(tmp_path / "x.png", icc_profile=icc)
    np.testing.assert_array_equal(to_uint8(load(tmp_path / "x.png").pixels), values)
    assert load(tmp_path / "x.png").notes == ()


@pytest.mark.parametrize(("space", "channels"), [(b"RGB ", 3), (b"RGB ", 4), (b"RGB ", 1), (b"GRAY", 1)])
def test_another_profile_is_converted(tmp_path: Path, space: bytes, channels: int) -> None:
    """Linear light, whatever the profile's name says; transparency does not lose the profile."""
    values = noise(8, 8) if channels == 1 else noise(8, 8, channels)
    path = tmp_path / "x.png"
    Image.fromarray(values).save(path, icc_profile=profile(space, "sRGB linear"))
    expected = srgb_of_linear(values[..., :3] if channels > 1 else values)
    if channels == 4:
        opacity = values[..., 3:] / 255
        expected = opacity * expected + (1 - opacity) * 255
    assert_levels(path, expected, atol=1.0)
    assert f"{path} has the colour profile sRGB linear; converted to sRGB" in load(path).notes


@pytest.mark.parametrize(
    ("icc", "reason"),
    [
        (b"no profile at all", "has a damaged colour profile; ignored"),
        (profile(b"GRAY", "grey"), "has the colour profile grey, which does not fit its mode RGB; ignored"),
    ],
)
def test_a_useless_profile_is_ignored_and_said(tmp_path: Path, icc: bytes, reason: str) -> None:
    values = noise(6, 6, 3)
    Image.fromarray(values).save(tmp_path / "x.png", icc_profile=icc)
    assert_levels(tmp_path / "x.png", values)
    assert note(tmp_path / "x.png") == reason


# What cannot be read


def encoded(kind: str) -> bytes:
    """A picture file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(noise(32, 32, 3)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files(tmp_path: Path, kind: str, share: float) -> None:
    content = encoded(kind)
    path = tmp_path / "x.png"
    path.write_bytes(content[: max(4, int(share * len(content)))])
    with pytest.raises(InputError, match=r"x\.png.*damaged"):
        load(path)


def test_a_damaged_checksum(tmp_path: Path) -> None:
    content = bytearray(encoded("PNG"))
    content[content.index(b"IDAT") + 20] ^= 1
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path / "x.png")


@pytest.mark.parametrize("seed", range(4))
def test_bytes_changed_at_random_never_crash(tmp_path: Path, seed: int) -> None:
    rng, path = np.random.default_rng(seed), tmp_path / "x"
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "PPM"):
        for _ in range(20):
            content = np.frombuffer(encoded(kind), np.uint8).copy()
            content[rng.integers(0, min(200, len(content)), 4)] = rng.integers(0, 256, 4)
            path.write_bytes(content.tobytes())
            try:
                assert load(path).pixels.isfinite().all()
            except InputError as exc:
                assert str(path) in str(exc)


def test_no_picture(tmp_path: Path) -> None:
    cases = {"gone.png": None, "empty.png": b"", "text.png": b"hello, world", "x.eps": encoded("EPS")}
    reasons = ["No such file", "is empty", "not a picture in a known format", "not a picture in a known format"]
    for (name, content), reason in zip(cases.items(), reasons, strict=True):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.*{reason}"):
            load(path)


@pytest.mark.posix
def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(InputError, match="not a regular file"):
        load(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="name too long"):
        load(tmp_path / ("x" * 300))


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stub: permissions do not bind root."""
    (tmp_path / "x.png").write_bytes(encode(torch.zeros(1, 2, 2), tmp_path / "x.png"))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images.Image, "open", denied)
    with pytest.raises(InputError, match=r"cannot read .*x\.png: Permission denied"):
        load(tmp_path / "x.png")


def test_a_decompression_bomb_names_its_pixels(tmp_path: Path) -> None:
    path = png(tmp_path / "x.png", 8, 0, noise(1, 1))
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 20000, 20000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"too large .*400000000 pixels.*DMPS_MAX_PIXELS"):
        load(path)


def test_the_limit_is_set_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, path = noise(5, 5), tmp_path / "x.png"
    Image.fromarray(values).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    for limit in ("1", "24"):
        monkeypatch.setenv("DMPS_MAX_PIXELS", limit)
        with pytest.raises(InputError, match=f"at most {limit} pixels"):
            load(path)
    monkeypatch.setenv("DMPS_MAX_PIXELS", "25")
    assert_levels(path, values)
    assert Image.MAX_IMAGE_PIXELS == 3
    monkeypatch.setenv("DMPS_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="'many'"):
        load(path)


# Grey


def test_load_rgb_repeats_grey_and_says_so(tmp_path: Path) -> None:
    values = noise(4, 5)
    Image.fromarray(values).save(tmp_path / "x.png")
    picture = load_rgb(tmp_path / "x.png")
    np.testing.assert_array_equal(to_uint8(picture.pixels), np.repeat(values[:, :, None], 3, axis=2))
    assert "is grey" in picture.notes[0]
