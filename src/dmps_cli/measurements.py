"""A measurement on disk: a picture to look at, the exact floats, and a sidecar that says what they are.

y.png shows it, y.npy holds it in float32 without the batch axis, y.json is the sidecar. The picture is written last, so
that where it stands the other two do.
"""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli import __version__
from dmps_cli.errors import InputError
from dmps_cli.files import atomic_write, refuse_existing, sha256_bytes, sha256_file
from dmps_cli.metrics import GREY_LEVELS

if TYPE_CHECKING:
    from torch import Tensor

KIND = "dmps measurement"
FORMAT = 1


def versions() -> dict[str, str]:
    """What computed a result: this package, python, torch, numpy."""
    return {
        "dmps": __version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }


@dataclass(frozen=True, kw_only=True)
class Source:
    """The photograph that was degraded. crop: (left, top, width, height) px of it that were used."""

    file: str
    sha256: str
    width: int
    height: int
    crop: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What y.json says. image_shape: (C, H, W) of x; mask: the inpainting mask as a PNG in base64."""

    task: str
    operator: Mapping[str, Any]
    sigma_y: float
    seed: int
    image_shape: tuple[int, int, int]
    source: Source
    picture: str
    picture_sha256: str
    measurement: str
    measurement_sha256: str
    mask: str | None = None
    versions: Mapping[str, str] = field(default_factory=versions)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, sigma_y on both scales."""
        flat = asdict(self)
        return {"kind": KIND, "format": FORMAT, **flat, "sigma_y_255": self.sigma_y * GREY_LEVELS}


def siblings(picture: Path) -> tuple[Path, Path]:
    """(floats, sidecar) that belong to a picture's name."""
    return picture.with_suffix(".npy"), picture.with_suffix(".json")


def write_measurement(
    picture: Path, y: Tensor, image: Tensor, *, overwrite: bool, mask: Tensor | None = None, **facts: Any
) -> Sidecar:
    """Writes the three files of a measurement; y: (*out_shape), image: (1 or 3, h, w) to look at.

    facts: the remaining fields of `Sidecar`. Raises OutputError, having written nothing, if one of the files exists.
    """
    import numpy as np

    from dmps_cli.images import encode

    floats, sidecar_path = siblings(picture)
    if not overwrite:
        refuse_existing(picture, floats, sidecar_path)
    buffer = BytesIO()
    np.save(buffer, y.cpu().numpy().astype(np.float32, copy=False), allow_pickle=False)
    shown = encode(image, picture)
    sidecar = Sidecar(
        picture=picture.name,
        picture_sha256=sha256_bytes(shown),
        measurement=floats.name,
        measurement_sha256=sha256_bytes(buffer.getvalue()),
        mask=None if mask is None else _encode_mask(mask),
        **facts,
    )
    atomic_write(floats, buffer.getvalue(), overwrite=overwrite)
    atomic_write(sidecar_path, json_bytes(sidecar.as_dict()), overwrite=overwrite)
    atomic_write(picture, shown, overwrite=overwrite)
    return sidecar


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """A sidecar's text."""
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def read_sidecar(path: Path) -> tuple[Sidecar | None, list[str]]:
    """(the sidecar of a measurement or picture of one, notes); None if the file stands alone.

    A neighbouring .json of another kind is none of ours and left alone. Raises InputError for a sidecar of ours that
    is damaged or of a later format.
    """
    sidecar_path = path.with_suffix(".json")
    if not sidecar_path.is_file():
        return None, []
    try:
        content = json.loads(sidecar_path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InputError(f"cannot read {sidecar_path}: {exc.strerror}") from exc
    except ValueError:
        return None, [f"{sidecar_path} is not JSON; ignored"]
    if not isinstance(content, dict) or content.get("kind") != KIND:
        return None, []
    if path.name not in (content.get("picture"), content.get("measurement"), sidecar_path.name):
        return None, [f"{sidecar_path} describes {content.get('picture')}, not {path.name}; ignored"]
    return _parse(content, sidecar_path), []


def _parse(content: dict[str, Any], path: Path) -> Sidecar:
    if content.get("format") != FORMAT:
        raise InputError(f"{path} has format {content.get('format')}; this version reads format {FORMAT}: upgrade dmps")
    try:
        fields = {name: content[name] for name in Sidecar.__dataclass_fields__}
        source = dict(fields.pop("source"))
        crop = tuple(source.pop("crop"))
        shape = tuple(fields.pop("image_shape"))
        return Sidecar(**fields, source=Source(**source, crop=crop), image_shape=shape)
    except (KeyError, TypeError) as exc:
        raise InputError(f"{path} is damaged ({exc}); restore from the picture with it moved away") from exc


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an input file holds: exact floats of y (1, *out_shape), or a degraded picture (1, C, h, w)."""

    pixels: Tensor
    is_exact: bool
    notes: tuple[str, ...]


def read_measurement(path: Path, sidecar: Sidecar | None) -> Reading:
    """The exact floats where the sidecar vouches for them, the picture's pixels otherwise.

    An edited picture or measurement (its hash differs from the sidecar's) is said in the notes: an edited picture is
    taken as it now is; edited floats too. Raises InputError if nothing can be read.
    """
    if path.suffix == ".npy":
        return _read_floats(path, sidecar)
    if sidecar is not None:
        floats = path.with_name(sidecar.measurement)
        if path.suffix == ".json":
            return _read_floats(floats, sidecar)
        if sha256_file(path) != sidecar.picture_sha256:
            note = f"{path} was changed since its measurement was written: its 8-bit pixels are restored, not {floats}"
            return _read_picture(path, note)
        if floats.is_file():
            return _read_floats(floats, sidecar)
        return _read_picture(path, f"{floats} is missing: the 8-bit pixels of {path} are restored")
    if path.suffix == ".json":
        raise InputError(f"{path} is not a measurement's sidecar; name an image or a .npy file")
    return _read_picture(path)


def _read_floats(path: Path, sidecar: Sidecar | None) -> Reading:
    import numpy as np
    import torch

    try:
        array = np.load(path, allow_pickle=False)
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (ValueError, EOFError) as exc:
        raise InputError(f"cannot read {path}: it is not a NumPy array file ({exc})") from exc
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(f"{path} does not hold one array of real numbers")
    if not np.isfinite(array).all():
        raise InputError(f"{path} holds NaN or infinity; repair it or take a measurement without")
    notes: tuple[str, ...] = ()
    if sidecar is not None and sha256_file(path) != sidecar.measurement_sha256:
        notes = (f"{path} was changed since it was written (its hash differs from the sidecar's)",)
    return Reading(pixels=torch.from_numpy(array.astype(np.float32))[None], is_exact=True, notes=notes)


def _read_picture(path: Path, *notes: str) -> Reading:
    from dmps_cli.images import load

    image = load(path)
    return Reading(pixels=image.pixels[None], is_exact=False, notes=(*notes, *image.notes))


def _encode_mask(mask: Tensor) -> str:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(mask.cpu().numpy()).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def decode_mask(text: str) -> Tensor:
    """The (H, W) bool mask of a sidecar, True = kept."""
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(BytesIO(base64.b64decode(text))) as picture:
        return torch.from_numpy(np.array(picture.convert("1")))
