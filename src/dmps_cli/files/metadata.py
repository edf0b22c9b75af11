"""What a picture file says beside its pixels: EXIF, a colour profile, a resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

_ORIENTATION, _WIDTH, _HEIGHT = 0x0112, 0xA002, 0xA003  # EXIF tags
_EXIF_SUB = 0x8769
_OF_THE_PICTURE = {0x010E, 0x010F, 0x0110, 0x0112, 0x0131, 0x0132, 0x013B, 0x8298}
"""EXIF tags: description, maker, model, orientation, software, time, artist, copyright."""

_SUB_TABLES = (0x8769, 0x8825)  # of the shot, and of its place


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a file says beside its pixels. exif: its bytes; icc: its colour profile; dpi: (x, y) px per inch."""

    exif: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None

    def named(self) -> list[str]:
        """Returns the names of what is there, but for a resolution, which every camera invents."""
        return ["EXIF"] * (self.exif is not None) + ["a colour profile"] * (self.icc is not None)

    def upright(self, size: tuple[int, int]) -> bytes | None:
        """Returns the EXIF of a picture of (width, height) px that stands upright."""
        if self.exif is None:
            return None
        exif = Image.Exif()
        exif.load(self.exif)
        if _ORIENTATION in exif:
            exif[_ORIENTATION] = 1
        sub = exif.get_ifd(_EXIF_SUB) if _EXIF_SUB in exif else {}
        for tag, side in zip((_WIDTH, _HEIGHT), size, strict=True):
            if tag in sub:
                sub[tag] = side
        return exif.tobytes()


NO_METADATA = Metadata()


def metadata_of(image: Image.Image) -> Metadata:
    """Returns what the file says beside its pixels; damaged EXIF is none."""
    dpi: Any = image.info.get("dpi")
    known = isinstance(dpi, tuple) and len(dpi) == 2 and all(0.0 < float(value) < 1e6 for value in dpi)
    return Metadata(
        exif=_exif(image),
        icc=image.info.get("icc_profile") or None,
        dpi=(float(dpi[0]), float(dpi[1])) if known else None,
    )


def _exif(image: Image.Image) -> bytes | None:
    """Returns the EXIF; of a TIFF file, whose other tags say how its pixels lie, what is of the picture."""
    try:
        found = image.getexif()
        if image.format == "TIFF":
            own = Image.Exif()
            for tag in _OF_THE_PICTURE & found.keys():
                own[tag] = found[tag]
            for tag in _SUB_TABLES:
                if table := found.get_ifd(tag):
                    own.get_ifd(tag).update(table)
            found = own
        return found.tobytes() if found else None
    except Exception:  # noqa: BLE001 - whatever Pillow's reader raises
        return None


def orientation_of(image: Image.Image) -> int:
    """Returns 1..8, 1 for upright; damaged EXIF is no reason to refuse the picture."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - whatever Pillow's reader raises
        return 1
