"""Picture files and tensors; the only place that knows 0..255 and [-1, 1]."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from dmps_cli.errors import InputError, OutputError

MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
"""Pictures with more pixels are refused as decompression bombs (Pillow's own limit)."""

_ORIENTATION = 0x0112  # EXIF tag

_FORMATS = {
    ".png": ("PNG", {"compress_level": 6}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
    ".bmp": ("BMP", {}),
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """pixels: (1 or 3, H, W), float32 on [-1, 1]; notes: what was done to the file's own pixels, for the user."""

    pixels: Tensor
    notes: tuple[str, ...] = ()


def load(path: Path) -> Picture:
    """A picture file as grey (1 channel) or RGB (3 channels), upright.

    Orientation by EXIF is applied; of an animation or multi-page file the first frame is taken; palettes and CMYK become
    RGB; transparent parts are laid over white; 16-bit keeps its precision; floats must lie on [0, 1]; an embedded colour
    profile other than sRGB is converted. Each of these is said in the notes. Raises InputError for a file that is
    missing, empty, damaged, no picture, or larger than MAX_PIXELS.
    """
    image, num_frames = _decoded(path)
    notes = []
    if num_frames > 1:
        notes.append(f"{path} has {num_frames} frames; the first is taken")
    if image.getexif().get(_ORIENTATION, 1) != 1:
        notes.append(f"{path} is turned as its EXIF orientation says")
    converted, more = _to_plain_mode(ImageOps.exif_transpose(image), path)
    return Picture(pixels=_to_tensor(converted, path), notes=(*notes, *more))


def load_rgb(path: Path) -> Picture:
    """Like `load`, always three channels; a grey picture is said in the notes."""
    picture = load(path)
    if picture.pixels.shape[0] == 3:
        return picture
    notes = (*picture.notes, f"{path} is grey; its grey value is taken for red, green and blue")
    return Picture(pixels=picture.pixels.expand(3, -1, -1).contiguous(), notes=notes)


def load_mask(path: Path) -> Tensor:
    """(H, W) of bool from a mask picture: True (kept) where it is at least half white. Raises InputError."""
    return load(path).pixels.mean(0) >= 0.0


def from_uint8(values: np.ndarray) -> Tensor:
    """0..255, (H, W) or (H, W, C), to float32 (C, H, W) on [-1, 1]."""
    if values.ndim == 2:
        values = values[:, :, None]
    return torch.from_numpy(np.array(values)).permute(2, 0, 1).contiguous().to(torch.float32) / 127.5 - 1.0


def to_uint8(x: Tensor) -> np.ndarray:
    """(C, H, W) on [-1, 1], clipped, to the nearest of 0..255: (H, W, 3), or (H, W) for one channel."""
    levels = ((x.detach().to("cpu", torch.float32).clamp(-1.0, 1.0) + 1.0) * 127.5 + 0.5).floor().to(torch.uint8)
    array = levels.permute(1, 2, 0).numpy()
    return array[:, :, 0] if array.shape[2] == 1 else array


def encode(x: Tensor, target: Path) -> bytes:
    """The bytes of a picture file in the format that the target's suffix names. x: (1 or 3, H, W) on [-1, 1]."""
    suffix = target.suffix.lower()
    if suffix not in _FORMATS:
        raise OutputError(f"{target} has no suffix of a picture; choose one of {', '.join(_FORMATS)}")
    return _file_bytes(Image.fromarray(to_uint8(x)), suffix)


def png_bytes(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    return _file_bytes(image, ".png")


def _file_bytes(image: Image.Image, suffix: str) -> bytes:
    name, options = _FORMATS[suffix]
    buffer = io.BytesIO()
    image.save(buffer, format=name, **options)
    return buffer.getvalue()


def photo_paths() -> list[Path]:
    """The bundled photographs, by name."""
    return sorted((Path(str(files("dmps_cli"))) / "data" / "photos").glob("*.png"))


def _decoded(path: Path) -> tuple[Image.Image, int]:
    """(the first frame with its pixels, number of frames). Raises InputError, naming the file and what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on metadata; the size limit is checked below
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height}")
                num_frames = getattr(image, "n_frames", 1)
                image.seek(0)
                image.load()
                return image, num_frames
    except Image.DecompressionBombError as exc:
        raise InputError(f"{path} is too large to be a picture ({exc}); at most {MAX_PIXELS} pixels are read") from exc
    except UnidentifiedImageError as exc:
        reason = "is empty" if path.stat().st_size == 0 else "is not a picture in a format that is known here"
        raise InputError(f"{path} {reason}") from exc
    except (FileNotFoundError, IsADirectoryError, PermissionError) as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    except (OSError, SyntaxError, ValueError, EOFError) as exc:  # what Pillow's decoders raise for damaged files
        raise InputError(f"cannot read {path}: the file is damaged ({exc})") from exc


def _to_plain_mode(image: Image.Image, path: Path) -> tuple[Image.Image, list[str]]:
    """The image in mode L, RGB, I;16 or F, and what was done to it."""
    notes = []
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
        notes.append(f"{path} has a palette; converted to RGB")
    if image.mode in ("LA", "RGBA", "La", "RGBa") or (image.mode in ("L", "RGB") and "transparency" in image.info):
        has_colour = image.mode.startswith("RGB")
        layer = image.convert("RGBA")
        if layer.getextrema()[3][0] < 255:  # type: ignore[index]
            notes.append(f"{path} is transparent in places; laid over white")
        white = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(white, layer).convert("RGB" if has_colour else "L")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"{path} is {image.mode}; converted to RGB")
    if image.mode in ("CMYK", "RGB") and "icc_profile" in image.info:
        image, more = _to_srgb(image, path)
        notes += more
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "RGB", "F") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    return image, notes


def _to_srgb(image: Image.Image, path: Path) -> tuple[Image.Image, list[str]]:
    """Converts an embedded colour profile other than sRGB; a damaged one is ignored, and said."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        name = ImageCms.getProfileDescription(profile).strip()
        if "sRGB" in name:
            return image, []
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image, [f"{path} has a damaged colour profile; ignored"]
    assert converted is not None
    return converted, [f"{path} has the colour profile {name}; converted to sRGB"]


def _to_tensor(image: Image.Image, path: Path) -> Tensor:
    array = np.asarray(image)
    if image.mode.startswith("I"):
        return _scaled(array.astype(np.float64), 65535.0, path)
    if image.mode == "F":
        return _scaled(array.astype(np.float64), 1.0, path)
    return from_uint8(array)


def _scaled(array: np.ndarray, white: float, path: Path) -> Tensor:
    """Grey values 0 .. white on [-1, 1]. Raises InputError outside that range, where the scale would be a guess."""
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(array).all() and low >= 0.0 and high <= white):
        raise InputError(f"{path} holds values from {low:g} to {high:g}; expected 0 to {white:g}: rescale it")
    return torch.from_numpy(array / white * 2.0 - 1.0).to(torch.float32)[None]
