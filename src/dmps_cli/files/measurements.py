"""A measurement on disk: a picture to look at, the exact floats, and a sidecar that says what they are.

y.png shows it, y.npy holds it in float32 without the batch axis, y.json is the sidecar. The sidecar is written first,
so that whatever an interruption leaves is known for ours; the picture last, so that where it stands the other two do.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from dmps_cli import __version__
from dmps_cli.checks import SEED, SIGMA
from dmps_cli.errors import InputError, UsageError
from dmps_cli.files.atomic import refuse_existing, sha256_bytes, sha256_file, write_together
from dmps_cli.files.options import ReadingOptions
from dmps_cli.files.reading import MAX_PICTURE, check_regular, decoding, load_array, read_bytes
from dmps_cli.files.records import FileName, RecordError, as_builtins, as_record, parse_json
from dmps_cli.units import GREY_LEVELS

if TYPE_CHECKING:
    from torch import Tensor

    from dmps_cli.files.metadata import Metadata


KIND = "dmps measurement"
RESTORATION_KIND = "dmps restoration"
EVALUATION_KIND = "dmps evaluation"
FORMAT = 1
MAX_SIDE = 2**24  # px; of what a sidecar may claim
Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
Offset = Annotated[int, Meta(ge=0, le=MAX_SIDE)]
MOST_VALUE = 1e12
"""Of exact floats: the squares of a hundred million such numbers have a sum that float32 holds."""


def versions() -> dict[str, str]:
    """Returns what computed a result: this package, python, torch, numpy."""
    return {
        "dmps": __version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }


class OriginalFile(Struct, frozen=True, kw_only=True):
    """The photograph that was degraded. crop: (left, top, width, height) px of it that were used."""

    file: FileName
    sha256: str
    width: Side
    height: Side
    crop: tuple[Offset, Offset, Side, Side]


class Sidecar(Struct, frozen=True, kw_only=True):
    """What y.json says.

    image_shape: (C, H, W) of x; mask: the inpainting mask as a PNG in base64; pattern_sha256: of the pixels or rows
    that the operator measures, where it chooses some (`LinearOperator.pattern`);
    sigma_values: the noise of each number of y, where they have their own; sigma_y is then their common one. A new
    field has a default, so that older files stay readable.
    """

    task: str
    operator: dict[str, Any]
    sigma_y: float
    seed: int
    image_shape: tuple[Side, Side, Side]
    source: OriginalFile
    picture: FileName
    picture_sha256: str
    measurement: FileName
    measurement_sha256: str
    mask: str | None = None
    pattern_sha256: str | None = None
    sigma_values: dict[str, Any] | None = None
    versions: dict[str, Any] = field(default_factory=versions)

    def __post_init__(self) -> None:
        """Raises ValueError for what no command line could say."""
        SIGMA("sigma_y", self.sigma_y, ValueError)
        SEED("seed", self.seed, ValueError)

    def as_dict(self) -> dict[str, Any]:
        """Returns what JSON says, sigma_y on both scales."""
        return {"kind": KIND, "format": FORMAT, **as_builtins(self), "sigma_y_255": self.sigma_y * GREY_LEVELS}


def siblings(picture: Path) -> tuple[Path, Path]:
    """Returns (floats, sidecar) that belong to a picture's name."""
    return picture.with_suffix(".npy"), picture.with_suffix(".json")


def write_measurement(
    picture: Path, y: Tensor, image: Tensor, *, overwrite: bool, mask: Tensor | None = None, **facts: Any
) -> Sidecar:
    """Writes the three files of a measurement; y: (*out_shape), image: (1 or 3, h, w) to look at.

    facts: the remaining fields of `Sidecar`. Raises OutputError, having written nothing, if one of the files exists.
    """
    import numpy as np

    from dmps_cli.files.images import encode

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
        mask=None if mask is None else encode_mask(mask),
        **facts,
    )
    contents = {sidecar_path: json_bytes(sidecar.as_dict()), floats: buffer.getvalue(), picture: shown}
    write_together(contents, overwrite=overwrite)
    return sidecar


def pattern_hash(pattern: Tensor | None) -> str | None:
    """Returns sha256 of an operator's pattern, as 64-bit little-endian numbers."""
    return None if pattern is None else sha256_bytes(pattern.cpu().numpy().astype("<i8").tobytes())


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Returns a sidecar's text."""
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def sidecar_kind(path: Path) -> str | None:
    """Returns the kind of result that a neighbouring .json says this file is (KIND, RESTORATION_KIND).

    None if it is silent.
    """
    content = _neighbour(path)
    return content.get("kind") if content.get("picture") == path.name else None


def is_evaluation(folder: Path) -> bool:
    """Returns whether a folder is what `dmps eval --out` made, by its config.json."""
    return _neighbour(folder / "config").get("kind") == EVALUATION_KIND


def is_of(picture: Path, made_of: Mapping[str, Any]) -> bool:
    """Returns whether the sidecar of a picture (there or not) says all of this.

    `source_sha256` is that of its source.
    """
    content = _neighbour(picture)
    if isinstance(source := content.get("source"), dict):
        content |= {"source_sha256": source.get("sha256")}
    return content.get("picture") == picture.name and all(
        name in content and content[name] == value for name, value in made_of.items()
    )


def _neighbour(path: Path) -> dict[str, Any]:
    """Returns the object in the .json beside a file; empty if there is none."""
    try:
        content = parse_json(read_bytes(path.with_suffix(".json")))
    except (OSError, RecordError):
        return {}
    return content if isinstance(content, dict) else {}


def read_sidecar(path: Path) -> tuple[Sidecar | None, list[str]]:
    """Returns (the sidecar of a measurement or picture of one, notes); None if the file stands alone.

    A neighbouring .json of another kind is none of ours and left alone. One that names other files is ours still if a
    hash in it is this file's: the three were renamed together. Raises InputError for a sidecar of ours that is damaged
    or of a later format.
    """
    sidecar_path = path.with_suffix(".json")
    try:
        content = parse_json(read_bytes(sidecar_path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None, []
    except OSError as exc:
        raise InputError(f"cannot read {sidecar_path}: {exc.strerror}") from exc
    except RecordError:
        return None, [f"{sidecar_path} is damaged, for it is not JSON; ignored"]
    if not isinstance(content, dict) or content.get("kind") != KIND:
        return None, []
    sidecar = _of_this_name(_parse(content, sidecar_path), path)
    return sidecar, [] if sidecar else [f"{sidecar_path} describes {content['picture']}, not {path.name}; ignored"]


def _of_this_name(sidecar: Sidecar, path: Path) -> Sidecar | None:
    """Returns the sidecar, its names those that stand beside the path now; None if it is another file's."""
    if path.name in (sidecar.picture, sidecar.measurement):
        return sidecar
    is_sidecar = path.suffix.lower() == ".json"
    if is_sidecar and path.with_name(sidecar.measurement).is_file():
        return sidecar
    if is_sidecar or sha256_file(path, limit=MAX_PICTURE) in (sidecar.picture_sha256, sidecar.measurement_sha256):
        return replace(sidecar, picture=path.name, measurement=siblings(path)[0].name)
    return None


def _parse(content: dict[str, Any], path: Path) -> Sidecar:
    if content.get("format") != FORMAT:
        raise InputError(f"{path} has format {content.get('format')}; this version reads format {FORMAT}: upgrade dmps")
    try:
        return as_record(content, Sidecar)
    except RecordError as exc:
        raise InputError(f"{path} is damaged ({exc}); restore from the picture with it moved away") from exc


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an input file holds: exact floats of y (1, *out_shape), or a degraded picture (1, C, h, w).

    alpha, bits, metadata: of a picture, as `images.Picture` has them; alpha only where its colours are kept.
    """

    pixels: Tensor
    is_exact: bool
    notes: tuple[str, ...]
    alpha: Tensor | None = None
    bits: int = 8
    metadata: Metadata | None = None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """How pixels are taken. is_picture: whether floats that nothing vouches for must be a picture's.

    options: as they are asked for; own_colours: whether a colour profile is not converted to sRGB.
    """

    is_picture: bool = True
    options: ReadingOptions = dataclasses.field(default_factory=ReadingOptions)
    own_colours: bool = False

    def picture(self, path: Path, *notes: str) -> Reading:
        """Reads a picture file."""
        from dmps_cli.files.images import load

        with_alpha, white = self.options.alpha == "keep", self.options.white
        image = load(path, with_alpha=with_alpha, white=white, own_colours=self.own_colours)
        return Reading(
            pixels=image.pixels[None],
            is_exact=False,
            notes=(*notes, *image.notes),
            alpha=image.alpha,
            bits=image.bits,
            metadata=image.metadata,
        )


def read_measurement(path: Path, sidecar: Sidecar | None, taken: Taken | None = None) -> Reading:
    """Returns the exact floats if the sidecar vouches for them, else the picture's pixels, by default over white.

    An edited picture or measurement (its hash differs from the sidecar's) is said in the notes: an edited picture is
    taken as it now is; edited floats too. Raises InputError if nothing can be read.
    """
    taken = taken or Taken(options=ReadingOptions(alpha="white"))
    if path.suffix.lower() == ".npy":
        return _read_floats(path, sidecar, taken)
    if sidecar is not None:
        floats = path.with_name(sidecar.measurement)
        if path.suffix.lower() == ".json":
            return _read_floats(floats, sidecar, taken)
        if sha256_file(path, limit=MAX_PICTURE) != sidecar.picture_sha256:
            note = f"{path} was changed since its measurement was written: its 8-bit pixels are restored, not {floats}"
            return taken.picture(path, note)
        if floats.is_file():
            return _read_floats(floats, sidecar, taken)
        note = f"{floats} {_what_is_wrong_with(floats)}: the 8-bit pixels of {path} are restored"
        return taken.picture(path, note)
    if path.suffix.lower() == ".json":
        raise InputError(f"{path} is not a measurement's sidecar; name an image or a .npy file")
    return taken.picture(path)


def _what_is_wrong_with(floats: Path) -> str:
    try:
        check_regular(floats)
    except FileNotFoundError:
        return "is missing"
    except OSError as exc:
        return f"cannot be read ({exc.strerror})"
    return "was not there"


def _read_floats(path: Path, sidecar: Sidecar | None, taken: Taken) -> Reading:
    import numpy as np
    import torch

    from dmps_cli.files.arrays import as_picture

    array, ends = load_array(path), taken.options.ends
    if sidecar is not None and ends is not None:
        raise UsageError(f"{path}: its sidecar says what its values mean; leave --range out")
    if array.dtype.kind not in ("f" if ends is None else "fiu") or not array.size:
        held = f"{array.dtype} of shape {array.shape}"
        whole = "--range 0,255 for whole numbers of 8 bits" if array.dtype.kind in "iu" else "v / 127.5 - 1 for 0..255"
        raise InputError(f"{path} holds {held}; it must be one array of floats on [-1, 1]: {whole}")
    if not np.isfinite(array).all():
        raise InputError(f"{path} holds NaN or infinity; repair it or take a measurement without")
    if float(abs(array).max()) > MOST_VALUE:
        raise InputError(f"{path} holds {abs(array).max():g}, too large for float32, in which dmps works; rescale it")
    notes: tuple[str, ...] = ()
    if sidecar is not None and sha256_file(path, limit=MAX_PICTURE) != sidecar.measurement_sha256:
        notes = (f"{path} was changed since it was written (its hash differs from the sidecar's)",)
    if sidecar is None and taken.is_picture:
        array = as_picture(array, ends, path)
    return Reading(pixels=torch.from_numpy(array.astype(np.float32))[None], is_exact=True, notes=notes)


def encode_mask(mask: Tensor) -> str:
    """Returns a mask (H, W) of bool as a PNG in base64."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(mask.cpu().numpy()).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def decode_mask(text: str, size: tuple[int, int] | None = None) -> Tensor:
    """Returns the (H, W) bool mask of a sidecar, True = kept. size: what it must have. Raises InputError."""
    import numpy as np
    import torch

    from dmps_cli.files.images import opened

    what = "the mask in the sidecar"
    try:
        with decoding(what), opened(BytesIO(base64.b64decode(text, validate=True)), what, ("PNG",)) as picture:
            if size is not None and picture.size != size[::-1]:
                raise InputError(f"it is {picture.width} x {picture.height} px, the picture {size[1]} x {size[0]}")
            return torch.from_numpy(np.array(picture.convert("1")))
    except InputError as exc:
        raise InputError(f"{what} is damaged ({exc}); name the mask's file with --mask") from exc
