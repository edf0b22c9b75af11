"""Picture files to tensors, and back (files.encoding); the only place that knows 0..255 and [-1, 1]."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dmps_cli.errors import InputError, UsageError
from dmps_cli.files import deep
from dmps_cli.files.colours import deep_to_srgb, lab_to_srgb, to_srgb
from dmps_cli.files.encoding import encode, over_white, png_bytes, to_levels
from dmps_cli.files.metadata import NO_METADATA, Metadata, metadata_of, orientation_of
from dmps_cli.files.reading import decoding, open_regular
from dmps_cli.files.suffixes import READ

__all__ = ["Metadata", "Picture", "encode", "load", "over_white", "png_bytes"]

MAX_PIXELS = 2**28
"""Pictures with more pixels are refused as decompression bombs; DMPS_MAX_PIXELS says otherwise."""

_MAX_PIXELS_VARIABLE = "DMPS_MAX_PIXELS"
_DIGITS = 15  # more pixels than any memory holds
_READ_FORMATS = tuple(name for name in READ if name != "MPO")  # its JPEG reader opens them
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_UPRIGHT_ARRAYS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""The same for arrays (H, W, ..)."""

_TRANSPARENT = "is transparent in places; laid over white"
_WHITE_OF_BITS = {8: 255.0, 16: 65535.0}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """pixels: (1 or 3, H, W), float32 on [-1, 1]; notes: what was done to the file's own pixels, for the user.

    alpha: (H, W), float32, 0 (transparent) to 1, where it is not opaque and was not laid over white. bits: of a
    channel, 8 or 16. metadata: what the file says beside, the colour profile only where the pixels still have it.
    """

    pixels: Tensor
    notes: tuple[str, ...] = ()
    alpha: Tensor | None = None
    bits: int = 8
    metadata: Metadata = NO_METADATA


def load(path: Path, *, with_alpha: bool = False, white: float | None = None, own_colours: bool = False) -> Picture:
    """Returns a picture file as grey (1 channel) or RGB (3 channels), upright.

    Orientation by EXIF is applied; of an animation or multi-page file the first frame is taken; palettes, CMYK and Lab
    become RGB; an embedded colour profile other than sRGB is converted, unless the picture keeps its own colours;
    transparent parts are laid over white, or keep the colour that is stored (with_alpha). Each of these is said in the
    notes.

    Scale: integers 0..255 or 0..65535 by their bits, floats 0..1; white: the value that is white instead. Colour of 16
    bits needs an extra (files.deep), or is read with 8. A largest value that fewer bits hold is said. Numbers outside
    are refused where no white is named, for their scale would be a guess.

    Raises InputError for a file that is missing, empty, damaged, no picture, or larger than MAX_PIXELS; the environment
    variable DMPS_MAX_PIXELS sets another limit.
    """
    return _picture(_plain(path, own_colours=own_colours), path, with_alpha=with_alpha, white=white)


def is_grey(x: Tensor) -> bool:
    """Returns whether a batch (B, 1 or 3, ..) has one channel, or three that are equal."""
    return torch.equal(x, x[:, :1].expand_as(x))


def load_rgb(path: Path, *, white: float | None = None) -> Picture:
    """Reads as `load`, always three channels; a grey picture is said in the notes."""
    return load_channels(path, 3, white=white)


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


def load_channels(path: Path, channels: int, *, white: float | None = None) -> Picture:
    """Reads as `load`, with 1 or 3 channels, whatever the file has; a change is said in the notes."""
    return _with_channels(load(path, white=white), channels, path)


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
    values = plain.values
    if plain.alpha is None and values.dtype == np.uint8 and (values.ndim == 3) == (channels == 3):
        array = np.array(values)
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
    return load(path, with_alpha=True).alpha


def from_uint8(values: np.ndarray) -> Tensor:
    """Returns 0..255, (H, W) or (H, W, C), to float32 (C, H, W) on [-1, 1]."""
    if values.ndim == 2:
        values = values[:, :, None]
    planes = torch.from_numpy(np.array(values)).permute(2, 0, 1).contiguous()
    return planes.to(torch.float32).div_(127.5).sub_(1.0)  # in place: of a large picture there is no room for copies


def to_uint8(x: Tensor) -> np.ndarray:
    """Returns (C, H, W) on [-1, 1], clipped, to the nearest of 0..255 (halves up).

    (H, W, 3), or (H, W) for one channel.

    Raises NumericsError for NaN.
    """
    return to_levels(x)


def cropped(x: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Returns the part (left, top, width, height) px of images (.., H, W)."""
    left, top, width, height = box
    return x[..., top : top + height, left : left + width]


def photo_paths() -> list[Path]:
    """Returns the bundled photographs, by name."""
    return sorted((Path(str(files("dmps_cli"))) / "data" / "photos").glob("*.png"))


# Files to upright images
class _Plain(NamedTuple):
    """A picture's values, (H, W) or (H, W, 3), and what is white; opacity (H, W) of 0..1 if not opaque everywhere.

    notes: what was done to the file's own pixels.
    """

    values: np.ndarray
    white: float
    alpha: np.ndarray | None
    notes: tuple[str, ...]
    metadata: Metadata


def _plain(path: Path, *, own_colours: bool = False) -> _Plain:
    with decoding(path), open_regular(path) as file:
        if not os.fstat(file.fileno()).st_size:
            raise InputError(f"{path} is empty")
        with opened(file, path) as found:
            if found.format == "PNG":
                _check_png(path)
            is_deep = _has_16_bits(found)
            values = _deep(file, found) if is_deep else None
            orientation = orientation_of(found)  # reading EXIF may load the pixels; then a TIFF file is upright already
            kept = metadata_of(found)
            if values is None:
                image, notes = _first_frame(found, orientation, is_deep=is_deep)
    if values is not None:
        return _deep_plain(values, orientation, kept, own_colours=own_colours)
    image, alpha, of_alpha = _without_alpha(image)
    image, of_mode, is_own = _to_plain_mode(image, own_colours=own_colours)
    white = 65535.0 if image.mode.startswith("I") else 1.0 if image.mode == "F" else 255.0
    kept = kept if is_own else Metadata(exif=kept.exif, dpi=kept.dpi)
    shares = None if alpha is None else (alpha / 255.0).astype(np.float32)
    return _Plain(np.asarray(image), white, shares, (*notes, *of_alpha, *of_mode), kept)


@contextmanager
def opened(file: IO[bytes], what: object, formats: tuple[str, ...] = _READ_FORMATS) -> Iterator[Image.Image]:
    """Yields a picture of which the header is read and no more. what: its name in messages.

    Raises InputError, on opening or as it is decoded: no picture, damaged, more pixels than the limit.
    """
    limit = pixel_limit()
    with decoding(what):
        try:
            with _pillow_limit(limit), Image.open(file, formats=formats) as image:
                check_pixels(what, image.width, image.height)
                yield image
        except Image.DecompressionBombError as exc:
            raise _too_large(what, str(exc), limit) from exc
        except UnidentifiedImageError as exc:
            raise InputError(f"{what} is not a picture in a known format ({_some(formats)}), or damaged") from exc


def _some(formats: tuple[str, ...]) -> str:
    return ", ".join(formats if len(formats) <= 10 else (*formats[:10], "others that Pillow reads"))


def _check_png(path: Path) -> None:
    """Raises SyntaxError or OSError for a wrong checksum; Pillow's decoder passes over those of the pixels."""
    with open_regular(path) as file, Image.open(file, formats=("PNG",)) as image:
        image.verify()


def _deep(file: BinaryIO, image: Image.Image) -> np.ndarray | None:
    """Returns colour of 16 bits, (H, W, 2 to 4), by other decoders; None where they are not there."""
    if image.format not in deep.FORMATS or not deep.is_there() or getattr(image, "n_frames", 1) > 1:
        return None
    values = deep.read(file, image.format)
    return values if values.dtype == np.uint16 and values.ndim == 3 and values.shape[2] in (2, 3, 4) else None


def _deep_plain(values: np.ndarray, orientation: int, kept: Metadata, *, own_colours: bool) -> _Plain:
    notes, alpha = [], None
    if orientation in _UPRIGHT:
        values = _UPRIGHT_ARRAYS[orientation](values)
        notes.append("is turned as its EXIF orientation says")
    if values.shape[2] in (2, 4):
        values, alpha = values[:, :, :-1], (values[:, :, -1] / 65535.0).astype(np.float32)
        alpha = None if alpha.min() == 1.0 else alpha
    if values.shape[2] == 3 and kept.icc and not own_colours:
        values, converted = deep_to_srgb(np.ascontiguousarray(values), kept.icc)
        notes += converted
        kept = Metadata(exif=kept.exif, dpi=kept.dpi)
    values = values[:, :, 0] if values.shape[2] == 1 else values
    return _Plain(np.ascontiguousarray(values), 65535.0, alpha, tuple(notes), kept)


def _first_frame(image: Image.Image, orientation: int, *, is_deep: bool) -> tuple[Image.Image, list[str]]:
    notes = []
    num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1:
        notes.append(f"has {num_frames} frames; the first is taken")
    if is_deep:
        way = f" ({deep.INSTALL} reads all)" if image.format in deep.FORMATS and not deep.is_there() else ""
        notes.append(f"has 16 bits per channel; 8 of them are read{way}")
    image.load()
    if orientation in _UPRIGHT:
        notes.append("is turned as its EXIF orientation says")
    method = _UPRIGHT.get(orientation_of(image))
    return (image if method is None else image.transpose(method)), notes


def _has_16_bits(image: Image.Image) -> bool:
    """Returns whether the file has 16 bits where the image will have 8, by the decoder's arguments.

    Ask before load().
    """
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    tiles = getattr(image, "tile", [])
    arguments = tiles[0].args if tiles else None
    raw_mode, *rest = arguments if isinstance(arguments, tuple) else (arguments,)
    return (isinstance(raw_mode, str) and ";16" in raw_mode) or (image.format == "PPM" and rest[:1] > [255])


def check_pixels(what: object, width: int, height: int) -> None:
    """Raises InputError for a picture of more pixels than are read."""
    if width * height > (limit := pixel_limit()):
        raise _too_large(what, f"{width} x {height} px, {width * height} pixels", limit)


def _too_large(what: object, size: str, limit: int) -> InputError:
    return InputError(
        f"{what} is too large ({size}); at most {limit} pixels are read: set {_MAX_PIXELS_VARIABLE} if it is genuine"
    )


def pixel_limit() -> int:
    """Returns the most pixels that are read of one picture. Raises UsageError where the environment says no number."""
    text = os.environ.get(_MAX_PIXELS_VARIABLE, str(MAX_PIXELS))
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) > 0):
        raise UsageError(f"{_MAX_PIXELS_VARIABLE} is '{text}'; it must be a number of pixels, such as {MAX_PIXELS}")
    return int(text)


@contextmanager
def _pillow_limit(limit: int) -> Iterator[None]:
    """Lets Pillow refuse more than twice its MAX_IMAGE_PIXELS, in all frames and before it takes memory."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = (limit + 1) // 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata, and on what is only half too large
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


# Images to grey or RGB
def _picture(plain: _Plain, path: Path, *, with_alpha: bool = False, white: float | None = None) -> Picture:
    pixels, notes = _to_tensor(plain, path, white), list(plain.notes)
    alpha = None if plain.alpha is None else torch.from_numpy(plain.alpha)
    if alpha is not None and not with_alpha:
        pixels, alpha = over_white(pixels, alpha), None
        notes.append(_TRANSPARENT)
    if white is None and (remark := _range_remark(plain)):
        notes.append(remark)
    return Picture(
        pixels=pixels,
        notes=tuple(f"{path} {note}" for note in notes),
        alpha=alpha,
        bits=8 if plain.white == _WHITE_OF_BITS[8] else 16,
        metadata=plain.metadata,
    )


def _with_channels(picture: Picture, channels: int, path: Path) -> Picture:
    if picture.pixels.shape[0] == channels:
        return picture
    if channels == 3:
        pixels = picture.pixels.expand(3, -1, -1).contiguous()
        note = f"{path} is grey; its grey value is taken for red, green and blue"
    else:
        pixels = to_grey(picture.pixels[None])[0][0]
        note = f"{path} is in colour; its grey value is taken"
    return Picture(pixels=pixels, notes=(*picture.notes, note), bits=picture.bits, metadata=picture.metadata)


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
    return colour, None if alpha.min() == 255 else alpha, notes


def _to_plain_mode(image: Image.Image, *, own_colours: bool) -> tuple[Image.Image, list[str], bool]:
    """Returns the image in mode L, RGB, I or F, what was done to it, and whether its colour profile still holds."""
    notes: list[str] = []
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "LAB":
        return lab_to_srgb(image), ["is Lab; converted to sRGB"], False
    is_own = own_colours and image.mode in ("L", "RGB")
    if image.info.get("icc_profile") and not is_own:
        image, notes = to_srgb(image, image.info["icc_profile"])
    if image.mode not in ("L", "RGB", "F") and not image.mode.startswith("I"):
        notes.append(f"is {image.mode}; converted to RGB")
        image = image.convert("RGB")
    return image, notes, is_own


# Images to tensors
def _to_tensor(plain: _Plain, path: Path, white: float | None) -> Tensor:
    """Puts values 0 .. white on [-1, 1]. Raises InputError outside that range, where no white is named."""
    values = plain.values
    if values.dtype == np.uint8 and white is None:
        return from_uint8(values)
    if not np.isfinite(values).all():
        raise InputError(f"{path} holds NaN or infinity; repair it")
    low, high = float(values.min()), float(values.max())
    if white is None and not 0.0 <= low <= high <= plain.white:
        raise InputError(
            f"{path} holds values from {low:g} to {high:g}; expected 0 to {plain.white:g}: --white {high:g} if that is "
            "its white, or rescale it"
        )
    scaled = torch.from_numpy(values.astype(np.float64) / (white or plain.white) * 2.0 - 1.0).to(torch.float32)
    return scaled[None] if values.ndim == 2 else scaled.permute(2, 0, 1).contiguous()


def _range_remark(plain: _Plain) -> str | None:
    """Returns what to say of integers whose largest value fewer bits hold: 12 bits in 16, for one."""
    if plain.white != _WHITE_OF_BITS[16] or not plain.values.size:
        return None
    low, high = int(plain.values.min()), int(plain.values.max())
    if high.bit_length() > 15 or high <= 1:  # 0 and 1 are a mask
        return None
    most = 2 ** high.bit_length() - 1
    return (
        f"holds values from {low} to {high} of 65535, as {high.bit_length()} bits do; --white {most} if that is its "
        "white"
    )
