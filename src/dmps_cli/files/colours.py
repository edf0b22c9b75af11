"""Colour profiles: a picture's own colours into sRGB."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from dmps_cli.files import deep

_PROFILE_TOLERANCE = 2
"""Grey levels of 255 by which a profile may differ from sRGB and still be called sRGB: its makers round differently."""


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """Returns a picture in mode LAB in RGB."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return _transformed(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))


def to_srgb(image: Image.Image, icc: bytes) -> tuple[Image.Image, list[str]]:
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


def deep_to_srgb(values: np.ndarray, icc: bytes) -> tuple[np.ndarray, list[str]]:
    """Does as `to_srgb`, for (H, W, 3) of 16 bits: whether something is to be done is asked of 8 bits."""
    probe, notes = to_srgb(Image.fromarray(_cube()), icc)
    if not any("converted" in note for note in notes) or probe.mode != "RGB":
        return values, notes
    return deep.to_srgb(values, icc), notes


def _cube() -> np.ndarray:
    """Returns a cube of colours as a picture (27, 27, 3)."""
    ramp = np.linspace(0, 255, 9).round().astype(np.uint8)
    return np.stack(np.meshgrid(ramp, ramp, ramp), axis=-1).reshape(27, 27, 3)


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Returns whether the transform leaves a cube of colours (mode RGB), or all greys (L), as they are, rounded."""
    probe = _cube() if mode == "RGB" else np.arange(256, dtype=np.uint8)[None]
    result = np.asarray(_transformed(Image.fromarray(probe), transform)).astype(int)
    expected = probe if mode == "RGB" else probe[:, :, None]
    return int(abs(result - expected).max()) <= _PROFILE_TOLERANCE


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    result = ImageCms.applyTransform(image, transform)
    assert result is not None  # None is for inPlace alone
    return result
