"""Formats of picture files by their suffixes: what is read, what is written; no decoder is imported."""

from __future__ import annotations

from pathlib import PurePath

READ = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe"),
    "MPO": (".mpo",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "PSD": (".psd",),
    "PCX": (".pcx",),
    "DCX": (".dcx",),
    "DDS": (".dds",),
    "BLP": (".blp",),
    "FTEX": (".ftc", ".ftu"),
    "FLI": (".fli", ".flc"),
    "GBR": (".gbr",),
    "ICNS": (".icns",),
    "ICO": (".ico",),
    "CUR": (".cur",),
    "IM": (".im",),
    "MSP": (".msp",),
    "PCD": (".pcd",),
    "PIXAR": (".pxr",),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".bw", ".rgb", ".rgba"),
    "SUN": (".ras",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
}
"""By Pillow's names. Not all that it opens: its EPS reader starts another program; FITS, GRIB, HDF5, BUFR and WMF need
readers of others, MPEG has no pixels for it, IPTC files are news."""

IMAGE_SUFFIXES = tuple(suffix for suffixes in READ.values() for suffix in suffixes)

WRITTEN = {
    "png": (".png",),
    "jpg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "bmp": (".bmp",),
}
"""What is written, by the names of --format; the first suffix is a new file's."""

OUTPUT_SUFFIXES = tuple(suffix for suffixes in WRITTEN.values() for suffix in suffixes)

DEEP = ("png", "tiff")
"""Formats that hold 16 bits."""

WITH_ALPHA = ("png", "webp", "tiff")
"""Formats that hold opacity."""

WITH_QUALITY = ("jpg", "webp")
"""Formats that lose some of a picture, the less the higher their quality."""


def written_as(path: PurePath) -> str | None:
    """Returns the name in WRITTEN of a path's format; None for one that is not written."""
    suffix = path.suffix.lower()
    return next((name for name, suffixes in WRITTEN.items() if suffix in suffixes), None)


def can_be_deep(path: PurePath) -> bool:
    """Returns whether the format of a path's suffix holds 16 bits."""
    return written_as(path) in DEEP


def common(suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> str:
    """Returns the first few suffixes, for messages."""
    return ", ".join((*suffixes[:8], "..")) if len(suffixes) > 8 else ", ".join(suffixes)
