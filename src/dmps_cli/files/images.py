"""Picture files and tensors; the only place that knows 0..255 and [-1, 1]."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from dmps_cli.errors import InputError, NumericsError, OutputError, UsageError
from dmps_cli.files.reading import decoding, open_regular

MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
"""Pictures with more pixels are refused as decompression bombs (Pillow's own limit); DMPS_MAX_PIXELS says otherwise."""

_MAX_PIXELS_VARIABLE = "DMPS_MAX_PIXELS"
_DIGITS = 15  # more pixels than any memory holds
_READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Not all that Pillow opens: its EPS reader, for one, starts another program."""

_ORIENTATION = 0x0112  # EXIF tag

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_PROFILE_TOLERANCE = 2
"""Grey levels of 255 by which a profile may differ from sRGB and still be called sRGB: its makers round differently."""

_TRANSPARENT = "is transparent in places; laid over white"


class _WriteFormat(NamedTuple):
    name: str
    options: dict[str, object]
    max_side: int


_WRITE_FORMATS = {
    ".png": _WriteFormat("PNG", {"compress_level": 6}, 2**31 - 1),
    ".jpg": _WriteFormat("JPEG", {"quality": 95, "subsampling": 0}, 65500),
    ".jpeg": _WriteFormat("JPEG", {"quality": 95, "subsampling": 0}, 65500),
    ".webp": _WriteFormat("WEBP", {"lossless": True}, 16383),
    ".tif": _WriteFormat("TIFF", {"compression": "tiff_deflate"}, 2**31 - 1),
    ".tiff": _WriteFormat("TIFF", {"compression": "tiff_deflate"}, 2**31 - 1),
    ".bmp": _WriteFormat("BMP", {}, 2**31 - 1),
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """pixels: (1 or 3, H, W), float32 on [-1, 1]; notes: what was done to the file's own pixels, for the user."""

    pixels: Tensor
    notes: tuple[str, ...] = ()


def load(path: Path, *, over_white: bool = True) -> Picture:
    """Returns a picture file as grey (1 channel) or RGB (3 channels), upright.

    Orientation by EXIF is applied; of an animation or multi-page file the first frame is taken; palettes, CMYK and Lab
    become RGB; an embedded colour profile other than sRGB is converted; transparent parts are laid over white, or keep
    the colour that is stored (over_white = False). Each of these is said in the notes.

    Scale: 8 bits 0..255; integers of more bits 0..65535 (16-bit grey keeps its precision, 16-bit colour is read with 8
    bits); floats 0..1. Numbers outside are refused, for their scale would be a guess.

    Raises InputError for a file that is missing, empty, damaged, no picture, or larger than MAX_PIXELS; the environment
    variable DMPS_MAX_PIXELS sets another limit.
    """
    plain = _plain(path)
    if not over_white and plain.alpha is not None:
        plain = plain._replace(alpha=None, notes=tuple(note for note in plain.notes if note != _TRANSPARENT))
    return _picture(plain, path)


def is_grey(x: Tensor) -> bool:
    """Returns whether a batch (B, 1 or 3, ..) has one channel, or three that are equal."""
    return torch.equal(x, x[:, :1].expand_as(x))


def load_rgb(path: Path) -> Picture:
    """Reads as `load`, always three channels; a grey picture is said in the notes."""
    return load_channels(path, 3)


GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Red, green and blue in the grey value of ITU-R BT.601, which Pillow has as well."""


def to_grey(x: Tensor) -> tuple[Tensor, float]:
    """Returns (the grey value of a batch in colour, the share of the noise that is left in it).

    x: (B, 3, ..); (B, 1, ..).

    sum over c of w_c x_c; noise that the channels have independently of each other keeps ||w|| = 0.67 of its standard
    deviation. Three equal channels are a grey picture already: nothing is averaged, and the share is 1.
    """
    grey = x[:, :1]
    if torch.equal(x, grey.expand_as(x)):
        return grey, 1.0
    weights = torch.tensor(GREY_WEIGHTS, dtype=x.dtype, device=x.device)
    return torch.tensordot(x, weights, dims=([1], [0])).unsqueeze(1), math.hypot(*GREY_WEIGHTS)


def load_channels(path: Path, channels: int) -> Picture:
    """Reads as `load`, with 1 or 3 channels, whatever the file has; a change is said in the notes."""
    return _with_channels(load(path), channels, path)


def load_up_to(path: Path, channels: int) -> Picture:
    """Reads as `load_channels`, but a grey picture keeps its one channel."""
    picture = load(path)
    return picture if picture.pixels.shape[0] == 1 else _with_channels(picture, channels, path)


def load_uint8(path: Path, channels: int) -> np.ndarray:
    """Returns (H, W, C) of 0..255, C = 1 or 3: what `to_uint8` makes of `load_channels`.

    The file's own bytes where it can be.

    For training on many photographs: floats on the way take six times as long, and many times the memory.
    """
    plain = _plain(path)
    if plain.alpha is None and (plain.colour.mode, channels) in (("RGB", 3), ("L", 1)):
        array = np.array(plain.colour)
    else:
        array = to_uint8(_with_channels(_picture(plain, path), channels, path).pixels)
    return array if array.ndim == 3 else array[:, :, None]


def size_of(path: Path) -> tuple[int, int] | None:
    """Returns (width, height) px by a file's header, before any turning; None where none can be read."""
    try:
        with decoding(path), open_regular(path) as file, opened(file, path) as image:
            return image.size
    except InputError:
        return None


def opacity(path: Path) -> Tensor | None:
    """Returns (H, W), float32, 0 (transparent) to 1, of a picture file.

    None if it is opaque everywhere. Raises InputError.
    """
    alpha = _plain(path).alpha
    return None if alpha is None else torch.from_numpy(alpha / 255.0).to(torch.float32)


def from_uint8(values: np.ndarray) -> Tensor:
    """Returns 0..255, (H, W) or (H, W, C), to float32 (C, H, W) on [-1, 1]."""
    if values.ndim == 2:
        values = values[:, :, None]
    return torch.from_numpy(np.array(values)).permute(2, 0, 1).contiguous().to(torch.float32) / 127.5 - 1.0


def to_uint8(x: Tensor) -> np.ndarray:
    """Returns (C, H, W) on [-1, 1], clipped, to the nearest of 0..255 (halves up).

    (H, W, 3), or (H, W) for one channel.

    Raises NumericsError for NaN.
    """
    if x.isnan().any():
        raise NumericsError("the picture holds NaN and cannot be written; try --dtype float32 if another was named")
    levels = ((x.detach().to("cpu", torch.float32).clamp(-1.0, 1.0) + 1.0) * 127.5 + 0.5).floor().to(torch.uint8)
    array = levels.permute(1, 2, 0).numpy()
    return array[:, :, 0] if array.shape[2] == 1 else array


def encode(x: Tensor, target: Path) -> bytes:
    """Returns the bytes of a picture file in the format that the target's suffix names. x: (1 or 3, H, W) on [-1, 1].

    PNG, TIFF, BMP and WebP (lossless) keep the 8-bit picture exactly; JPEG has quality 95 and full colour resolution.
    Raises OutputError for another suffix or a picture too large for the format.
    """
    suffix = target.suffix.lower()
    if suffix not in _WRITE_FORMATS:
        raise OutputError(f"{target} has no suffix of a picture; choose one of {', '.join(_WRITE_FORMATS)}")
    name, _, max_side = _WRITE_FORMATS[suffix]
    if max(x.shape[-2:]) > max_side:
        size = f"{x.shape[-1]} x {x.shape[-2]} px"
        raise OutputError(f"cannot write {target}: {name} holds at most {max_side} px a side, not {size}; use .png")
    return _file_bytes(Image.fromarray(to_uint8(x)), suffix)


def png_bytes(image: Image.Image) -> bytes:
    """Returns the bytes of a PNG file."""
    return _file_bytes(image, ".png")


def _file_bytes(image: Image.Image, suffix: str) -> bytes:
    name, options, _ = _WRITE_FORMATS[suffix]
    buffer = io.BytesIO()
    image.save(buffer, format=name, **options)
    return buffer.getvalue()


def cropped(x: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Returns the part (left, top, width, height) px of images (.., H, W)."""
    left, top, width, height = box
    return x[..., top : top + height, left : left + width]


def photo_paths() -> list[Path]:
    """Returns the bundled photographs, by name."""
    return sorted((Path(str(files("dmps_cli"))) / "data" / "photos").glob("*.png"))


# Files to upright images
def _decoded(path: Path) -> tuple[Image.Image, list[str]]:
    """Returns (the first frame with its pixels, upright; notes). Raises InputError, saying what is wrong with it."""
    with decoding(path), open_regular(path) as file:
        if not os.fstat(file.fileno()).st_size:
            raise InputError(f"{path} is empty")
        with opened(file, path) as image:
            if image.format == "PNG":
                _check_png(path)
            return _first_frame(image)


@contextmanager
def opened(file: IO[bytes], what: object, formats: tuple[str, ...] = _READ_FORMATS) -> Iterator[Image.Image]:
    """Yields a picture of which the header is read and no more. what: its name in messages.

    Raises InputError, on opening or as it is decoded: no picture, damaged, more pixels than the limit.
    """
    limit = _pixel_limit()
    with decoding(what):
        try:
            with _pillow_limit(limit), Image.open(file, formats=formats) as image:
                if image.width * image.height > limit:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
                yield image
        except Image.DecompressionBombError as exc:
            raise InputError(
                f"{what} is too large ({exc}); at most {limit} pixels are read: set {_MAX_PIXELS_VARIABLE} if it is "
                "genuine"
            ) from exc
        except UnidentifiedImageError as exc:
            raise InputError(f"{what} is not a picture in a known format ({', '.join(formats)}), or damaged") from exc


def _check_png(path: Path) -> None:
    """Raises SyntaxError or OSError for a wrong checksum; Pillow's decoder passes over those of the pixels."""
    with open_regular(path) as file, Image.open(file, formats=("PNG",)) as image:
        image.verify()


def _first_frame(image: Image.Image) -> tuple[Image.Image, list[str]]:
    notes = []
    num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1:
        notes.append(f"has {num_frames} frames; the first is taken")
    if image.mode in ("RGB", "RGBA", "LA") and _has_16_bits(image):
        notes.append("has 16 bits per channel; 8 of them are read")
    is_turned = _orientation(image) in _UPRIGHT  # before load(): of a TIFF file that already applies it
    image.load()
    if is_turned:
        notes.append("is turned as its EXIF orientation says")
    method = _UPRIGHT.get(_orientation(image))
    return (image if method is None else image.transpose(method)), notes


def _has_16_bits(image: Image.Image) -> bool:
    """Returns whether the file has 16 bits where the image will have 8, by the decoder's arguments.

    Ask before load().
    """
    tiles = getattr(image, "tile", [])
    arguments = tiles[0].args if tiles else None
    raw_mode, *rest = arguments if isinstance(arguments, tuple) else (arguments,)
    return (isinstance(raw_mode, str) and ";16" in raw_mode) or (image.format == "PPM" and rest[:1] > [255])


def _orientation(image: Image.Image) -> int:
    """Returns 1..8, 1 for upright; damaged EXIF is no reason to refuse the picture."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - whatever Pillow's reader raises
        return 1


def _pixel_limit() -> int:
    text = os.environ.get(_MAX_PIXELS_VARIABLE, str(MAX_PIXELS))
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) > 0):
        raise UsageError(f"{_MAX_PIXELS_VARIABLE} is '{text}'; it must be a number of pixels, such as {MAX_PIXELS}")
    return int(text)


@contextmanager
def _pillow_limit(limit: int) -> Iterator[None]:
    """Pillow refuses more than twice its MAX_IMAGE_PIXELS, in all frames and before it takes memory."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = (limit + 1) // 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata, and on what is only half too large
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


# Images to grey or RGB
class _Plain(NamedTuple):
    """An image in mode L, RGB, I or F; its opacity (H, W) of 0..255 if not opaque everywhere; what was done to it."""

    colour: Image.Image
    alpha: np.ndarray | None
    notes: tuple[str, ...]


def _plain(path: Path) -> _Plain:
    image, notes = _decoded(path)
    image, alpha, of_alpha = _without_alpha(image)
    image, of_mode = _to_plain_mode(image)
    return _Plain(image, alpha, (*notes, *of_alpha, *of_mode))


def _picture(plain: _Plain, path: Path) -> Picture:
    pixels = _to_tensor(plain.colour, path)
    if plain.alpha is not None:
        pixels = _over_white(pixels, plain.alpha)
    return Picture(pixels=pixels, notes=tuple(f"{path} {note}" for note in plain.notes))


def _with_channels(picture: Picture, channels: int, path: Path) -> Picture:
    if picture.pixels.shape[0] == channels:
        return picture
    if channels == 3:
        pixels = picture.pixels.expand(3, -1, -1).contiguous()
        note = f"{path} is grey; its grey value is taken for red, green and blue"
    else:
        pixels = to_grey(picture.pixels[None])[0][0]
        note = f"{path} is in colour; its grey value is taken"
    return Picture(pixels=pixels, notes=(*picture.notes, note))


def _without_alpha(image: Image.Image) -> tuple[Image.Image, np.ndarray | None, list[str]]:
    """Returns (the image without palette and transparency, its opacity (H, W) of 0..255 or None, notes)."""
    notes = []
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        notes.append("has a palette; converted to RGB")
    elif image.mode in ("1", "L", "RGB") and image.has_transparency_data:
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    elif image.mode.startswith("I") and image.has_transparency_data:
        notes.append("has a transparent colour; ignored for 16-bit grey")
    if image.mode not in ("LA", "RGBA"):
        return image, None, notes
    alpha = np.asarray(image.getchannel("A"))
    colour = image.convert(image.mode.removesuffix("A"))
    if alpha.min() == 255:
        return colour, None, notes
    return colour, alpha, [*notes, _TRANSPARENT]


def _over_white(pixels: Tensor, alpha: np.ndarray) -> Tensor:
    """Returns pixels + (1 - alpha) (1 - pixels): white is 1; an opaque pixel stays as it is, to the bit."""
    return pixels + torch.from_numpy(1.0 - alpha / 255.0).to(torch.float32) * (1.0 - pixels)


def _to_plain_mode(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Returns the image in mode L, RGB, I or F, and what was done to it."""
    notes: list[str] = []
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "LAB":
        return _lab_to_srgb(image), ["is Lab; converted to sRGB"]
    if image.info.get("icc_profile"):
        image, notes = _to_srgb(image, image.info["icc_profile"])
    if image.mode not in ("L", "RGB", "F") and not image.mode.startswith("I"):
        notes.append(f"is {image.mode}; converted to RGB")
        image = image.convert("RGB")
    return image, notes


def _lab_to_srgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return _transformed(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))


def _to_srgb(image: Image.Image, icc: bytes) -> tuple[Image.Image, list[str]]:
    """Returns the image by its colour profile in sRGB, and what was done.

    One that is sRGB in effect stays untouched.
    """
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        name = ImageCms.getProfileDescription(profile).strip() or "of no name"
        through = {("RGB ", "RGB"): "RGB", ("RGB ", "L"): "RGB", ("GRAY", "L"): "L", ("CMYK", "CMYK"): "CMYK"}
        mode = through.get((profile.profile.xcolor_space, image.mode))
        if mode is None:
            return image, [f"has the colour profile {name}, which does not fit its mode {image.mode}; ignored"]
        # lcms's short cut for greys is 9 levels off in the dark
        flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError, UnicodeDecodeError):
        return image, ["has a damaged colour profile; ignored"]
    if mode != "CMYK" and _is_identity(transform, mode):
        return image, []
    converted = _transformed(image.convert(mode), transform)
    if image.mode == "L":
        converted = converted.convert("L")
    return converted, [f"has the colour profile {name}; converted to sRGB"]


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Returns whether the transform leaves a cube of colours (mode RGB), or all greys (L), as they are, rounded."""
    ramp = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(ramp, ramp, ramp), axis=-1).reshape(27, 27, 3)
    probe = cube if mode == "RGB" else np.arange(256, dtype=np.uint8)[None]
    result = np.asarray(_transformed(Image.fromarray(probe), transform)).astype(int)
    expected = probe if mode == "RGB" else probe[:, :, None]
    return int(abs(result - expected).max()) <= _PROFILE_TOLERANCE


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    result = ImageCms.applyTransform(image, transform)
    assert result is not None  # None is for inPlace alone
    return result


# Images to tensors
def _to_tensor(image: Image.Image, path: Path) -> Tensor:
    array = np.asarray(image)
    if image.mode.startswith("I"):
        return _scaled(array, 65535.0, path)
    if image.mode == "F":
        return _scaled(array, 1.0, path)
    return from_uint8(array)


def _scaled(array: np.ndarray, white: float, path: Path) -> Tensor:
    """Puts grey values 0 .. white on [-1, 1]. Raises InputError outside that range."""
    if not np.isfinite(array).all():
        raise InputError(f"{path} holds NaN or infinity; repair it")
    low, high = float(array.min()), float(array.max())
    if not 0.0 <= low <= high <= white:
        raise InputError(f"{path} holds values from {low:g} to {high:g}; expected 0 to {white:g}: rescale it")
    return torch.from_numpy(array.astype(np.float64) / white * 2.0 - 1.0).to(torch.float32)[None]
