"""Which pictures an evaluation takes, under which names, and what of each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.checks import Rule, check_fields, choice, option, whole
from dmps_cli.errors import InputError, UsageError
from dmps_cli.evaluation.data_cards import DataCard, data_card, data_cards
from dmps_cli.evaluation.named import row_origin, row_pictures
from dmps_cli.evaluation.picture_files import png_name
from dmps_cli.evaluation.shards import Link
from dmps_cli.files.atomic import name_key
from dmps_cli.files.inputs import STDIN, is_picture, stdin_names
from dmps_cli.files.measurements import is_evaluation, sidecar_kind
from dmps_cli.files.reading import read_bytes
from dmps_cli.files.suffixes import common
from dmps_cli.listener import Listener

if TYPE_CHECKING:
    from torch import Tensor


SAMPLES = "samples"
FITS = ("crop", "resize")


def list_pictures(
    dataset: str, listed: Path | None = None, limit: int | None = None, link: Link | None = None
) -> dict[str, Path]:
    """Returns name in the data set -> file, by name.

    The name is the path relative to the folder, or a row's number.

    dataset: SAMPLES, a name of the table of data sets, or else a folder; listed: a file of the names wanted, one a
    line; limit: the first so many by name; link: how what is not in the cache is fetched. Raises InputError for a data
    set without pictures and for a name that is not in it, and as `row_pictures`.
    """
    wanted = None if listed is None else _names(listed)
    if card := named_card(dataset):
        found = _named(card, wanted, limit, link or Link())
    else:
        found = _samples() if dataset == SAMPLES else _below(Path(dataset))
    if wanted is not None:
        if missing := [name for name in wanted if name not in found]:
            raise InputError(f"{listed}: '{missing[0]}' is no picture of {dataset}; names are relative to it")
        found = {name: found[name] for name in wanted}
    return dict(sorted(found.items())[:limit])


def _named(card: DataCard, wanted: Sequence[str] | None, limit: int | None, link: Link) -> dict[str, Path]:
    """Returns the pictures of a named data set; all of those listed, so that a wrong name is found."""
    if Path(card.name).is_dir():
        link.listener.note(f"{card.name} is the data set of that name; the folder is ./{card.name}")
    return row_pictures(card, link, wanted, None if wanted is not None else limit)


def origin(dataset: str) -> dict[str, str] | None:
    """Returns where the pictures of a named data set come from: repo, commit, split, column.

    None for a folder or SAMPLES.
    """
    card = named_card(dataset)
    return None if card is None else row_origin(card)


def named_card(dataset: str) -> DataCard | None:
    """Returns that of the table of data sets; None for SAMPLES, and for a folder. Raises InputError for a bad one."""
    return None if dataset == SAMPLES else data_card(dataset)


def share(pictures: Mapping[str, Path], index: int, count: int) -> dict[str, Path]:
    """Returns the share `index` (from 1) of `count`: every count-th picture in the order of their keys, by name."""
    by_key = sorted(pictures, key=name_key)
    return {name: pictures[name] for name in sorted(by_key[index - 1 :: count])}


def _samples() -> dict[str, Path]:
    from dmps_cli.files.images import photo_paths

    return {path.name: path for path in photo_paths()}


def _below(root: Path) -> dict[str, Path]:
    """Returns the pictures of a folder and its subfolders, without hidden ones and results of dmps.

    Links are not descended.
    """
    if not root.is_dir():
        raise InputError(f"the data set {root} is not a folder; name one, or {', '.join([SAMPLES, *data_cards()])}")
    found: dict[str, Path] = {}

    def fail(exc: OSError) -> None:
        raise InputError(f"cannot read {exc.filename}: {exc.strerror}") from exc

    for parent, folders, files in os.walk(root, onerror=fail):
        here = Path(parent)
        folders[:] = [name for name in folders if not name.startswith(".") and not is_evaluation(here / name)]
        found |= {(here / name).relative_to(root).as_posix(): here / name for name in files if is_picture(here / name)}
    if not found:
        raise InputError(f"the folder {root} holds no pictures ({common()})")
    wanted = {name: path for name, path in found.items() if sidecar_kind(path) is None}
    if not wanted:
        raise InputError(f"{root} holds no inputs, only results and companions of pictures")
    return wanted


def _names(path: Path) -> list[str]:
    try:
        lines = stdin_names() if str(path) == STDIN else read_bytes(path).decode(errors="surrogateescape").splitlines()
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    names = [*dict.fromkeys(Path(line.strip()).as_posix() for line in lines if line.strip())]
    if not names:
        raise InputError(f"{path} names no picture; write one name a line")
    return names


@dataclass(frozen=True, kw_only=True)
class Framing:
    """What of a picture is used: size px a side by `how`, one of FITS; None: all of it, as it is."""

    size: int | None = None
    how: str | None = None

    def __post_init__(self) -> None:
        if self.size is None and self.how is not None:
            raise UsageError(f"--fit {self.how} says how pictures are brought to --image-size; name that too")

    def as_dict(self) -> dict[str, Any]:
        """Returns what config.json says."""
        return {"image_size": self.size, "fit": self.how}

    def describe(self) -> str:
        """Says it for the line under a table; empty where pictures are used as they are."""
        kept = {"crop": "their central", "resize": "their central square resized (bicubic, antialiased) to"}
        return f"{kept[self.how]} {self.size} x {self.size} px" if self.how else ""

    def apply(self, x: Tensor) -> Tensor:
        """Returns the part of pictures (B, C, H, W) that is used. Raises InputError for one too small to be cropped."""
        if self.size is None:
            return x
        height, width = x.shape[-2:]
        side = self.size if self.how == "crop" else min(height, width)
        if side > min(height, width):
            raise InputError(f"it is {width} x {height} px, smaller than --image-size {side}; --fit resize enlarges it")
        top, left = (height - side) // 2, (width - side) // 2
        square = x[..., top : top + side, left : left + side]
        if side == self.size:
            return square.contiguous()
        from torch.nn.functional import interpolate

        return interpolate(square, (self.size, self.size), mode="bicubic", antialias=True).clamp(-1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """Which pictures, and what of each."""

    dataset: str | None = option(
        "Photographs, subfolders included; samples: the bundled ones; ffhq, celebahq and other names of "
        "docs/datasets.md: downloaded. A name goes before a folder; ./ffhq is the folder.",
        "FOLDER|NAME|samples",
    )
    listed: Path | None = option(
        "Only the photographs it names, one a line, relative to FOLDER.", "FILE", names=("--list",)
    )
    limit: int | None = option("Only the first N photographs by name.", "N", rule=whole(1))
    image_size: int | None = option("Use N x N px of each, as --fit says.", "N", rule=whole(1, 2**14, unit="px"))
    fit: str | None = option(
        f"crop: the central N x N px; resize: the central square, resized to N x N. Default: {FITS[0]}.",
        "|".join(FITS),
        rule=choice(FITS),
    )
    shard: str | None = option("Only share I of N of the photographs; --merge joins the shares' folders.", "I/N")

    def fitted(self) -> Framing:
        """Returns what is used of each. Raises UsageError."""
        check_fields(self)
        return Framing(size=self.image_size, how=self.fit or (FITS[0] if self.image_size else None))

    def share(self) -> tuple[int, int]:
        """Returns the share, (I, N). Raises UsageError."""
        return _SHARD("--shard", "1/1" if self.shard is None else self.shard)

    def pictures(self, listener: Listener, *, offline: bool) -> dict[str, Path]:
        """Returns name -> file, of all shares, downloaded if need be. Raises UsageError, InputError, WeightsError."""
        if self.dataset is None:
            raise UsageError("name a --dataset: a folder, ffhq or another name of docs/datasets.md, or samples")
        check_fields(self)
        found = list_pictures(self.dataset, self.listed, self.limit, Link(offline=offline, listener=listener))
        written: dict[str, str] = {}
        for name in found:
            if (other := written.setdefault(png_name(name), name)) != name:
                raise InputError(f"{other} and {name} would give results of one name; rename one of them")
        return found


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (_is_count(index) and _is_count(count) and 1 <= int(index) <= int(count)):
        raise ValueError
    return int(index), int(count)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(2**31))


_SHARD = Rule(what="I/N with I from 1 to N, as 1/4", read=_shard)
