"""The table of checkpoints, `weights.toml`, and how a name or a path becomes a prior."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from dmps_cli.errors import InputError, OptionsError, UsageError, WeightsError, unknown_name
from dmps_cli.files.cache import cache_dir
from dmps_cli.files.downloads.sources import Source, parse_source
from dmps_cli.files.reading import read_bytes
from dmps_cli.files.records import (
    FileName,
    PathText,
    RecordError,
    RelativePath,
    Sha256,
    as_record,
    expanded,
    form,
    one_of,
    parse_toml,
)
from dmps_cli.levels import SAMPLERS

DEFAULT_MODEL = "natural"
DIFFUSERS = "diffusers"
PRIOR_KINDS = {"natural": "denoiser", "adm": "ddpm", "ncsnpp": "flow", DIFFUSERS: "denoiser"}
"""Architecture -> the prior that its networks are: what they predict, on which levels."""

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
"""Of the noise of DDPM chains of 1000 steps, by diffusers' names."""


if TYPE_CHECKING:
    Sources = tuple[Source, ...]
else:  # read by `parse_source`
    Sources = tuple[Any, ...]


_DATA = Path(str(files("dmps_cli"))) / "data"
_SOURCE_ROOT = Path(__file__).parents[3]
PlaceText = Annotated[str, Meta(min_length=1, max_length=500)]
Positive = Annotated[int, Meta(ge=1, le=2**50)]


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a table of weights.toml says of a checkpoint: what it is and where it lies.

    prior: 'denoiser' (any level), 'ddpm' (eps on DDPM levels), 'flow' (velocity on flow levels). sampler: the ladder
    that it is used on by default. schedule: of the DDPM chain that it was trained on. image_size: side of the one
    size, px, that the network knows; None: any. bundled: a file of the package; path: a file or folder of the user's;
    sources: downloads, the preferred first; files: those of a folder. size: bytes, exactly; megabytes: about. config:
    options of the network, by the reference's names. entry, prefix: where in the file its weights lie, for one that
    holds several (`weights.finding`). cautions: by task, what its restorations are worth, said before them.
    """

    about: str
    architecture: Annotated[str, one_of(PRIOR_KINDS)]
    entry: PlaceText | None = None
    prefix: PlaceText | None = None
    prior: Annotated[str, one_of(sorted({*PRIOR_KINDS.values()}))]
    sampler: Annotated[str, one_of(SAMPLERS)] = "ddpm"
    config: dict[str, Any] = {}
    clip_denoised: bool = True
    schedule: Annotated[str, one_of(SCHEDULES)] = "linear"
    image_size: Annotated[int, Meta(ge=1, le=2**16)] | None = None
    aligned_faces: bool = False
    bundled: RelativePath | None = None
    path: PathText | None = None
    sources: Sources = ()
    files: tuple[RelativePath, ...] = ()
    size: Positive | None = None
    megabytes: Positive | None = None
    sha256: Sha256 | None = None
    licence: str = "not stated"
    warning: str = ""
    cautions: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Raises ValueError for what does not fit together."""
        kind, is_folder = PRIOR_KINDS[self.architecture], self.architecture == DIFFUSERS
        places = [place for place in (self.bundled, self.path, self.sources) if place]
        problems = {
            f"prior is '{self.prior}'; that of {self.architecture} is {kind}": self.prior != kind,
            "it names no file: give path or sources": not places,
            "it names several places: give path or sources": len(places) > 1,
            "files is missing: those of the folder to fetch": is_folder and bool(self.sources) and not self.files,
            "files belong to a diffusers folder": bool(self.files) and not is_folder,
            "size and sha256 are of one file; a folder has several": is_folder
            and (self.size or self.sha256) is not None,
            "aligned_faces needs image_size": self.aligned_faces and self.image_size is None,
        }
        for problem, is_there in problems.items():
            if is_there:
                raise ValueError(problem)


class _Head(Struct, frozen=True, kw_only=True):
    """What of a table must be known to read the rest."""

    architecture: str
    sources: list[dict[str, Any]] = []


class Card(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checkpoint: its table and its name."""

    name: Annotated[str, form("letters, digits, dots, _ and -", r"\w[\w.-]{0,99}")]

    @property
    def is_local(self) -> bool:
        """Whether it needs no download: part of the package, or the user's own."""
        return self.bundled is not None or self.path is not None

    @property
    def location(self) -> Path:
        """The file or folder, there or not: in the package, where the user says, in the cache."""
        if self.bundled is not None:
            return _DATA / self.bundled
        if self.path is not None:
            return expanded(self.path)
        folder = cache_dir() / self.name
        return folder if self.architecture == DIFFUSERS else folder / _file_name(self.sources[0], self.name)


def _file_name(source: Source, name: str) -> str:
    """Returns what a download is called in the cache."""
    address = getattr(source, "file", None) or getattr(source, "url", None) or ""
    try:
        return as_record(Path(address).name, FileName)
    except RecordError:
        return f"{name}.pt"


# The table
def weights_file(override: Path | None = None) -> Path:
    """Returns the table in force: `override`, DMPS_WEIGHTS, the package's copy, the source tree's.

    Raises WeightsError.
    """
    named = override or (Path(value) if (value := os.environ.get("DMPS_WEIGHTS")) else None)
    candidates = [named] if named else [_DATA / "weights.toml", _SOURCE_ROOT / "weights.toml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise WeightsError(f"no table of checkpoints at {' or '.join(map(str, candidates))}")


def cards(override: Path | None = None) -> dict[str, Card]:
    """Returns every checkpoint by name: those that come with dmps, and over them those of the user's own table.

    Those that cannot be used are left out (`bad_cards`). Raises InputError for a file that cannot be read.
    """
    return {name: entry for name, entry in _rows(override).items() if isinstance(entry, Card)}


def bad_cards(override: Path | None = None) -> dict[str, InputError]:
    """Returns name -> what is wrong, of the tables that describe no checkpoint. Raises InputError as `cards`."""
    return {name: entry for name, entry in _rows(override).items() if isinstance(entry, InputError)}


def _rows(override: Path | None) -> dict[str, Card | InputError]:
    builtin = next(path for path in (_DATA / "weights.toml", _SOURCE_ROOT / "weights.toml") if path.is_file())
    named = weights_file(override)
    return _read(builtin) | ({} if named == builtin else _read(named))


def _read(path: Path) -> dict[str, Card | InputError]:
    try:
        tables = parse_toml(read_bytes(path))
    except OSError as exc:
        raise InputError(f"cannot read the checkpoints of {path}: {exc.strerror}") from exc
    except RecordError as exc:
        raise InputError(f"cannot read the checkpoints of {path}: {exc}") from exc
    return {name: _card_or_error(name, table, path) for name, table in tables.items()}


def _card_or_error(name: str, table: object, path: Path) -> Card | InputError:
    try:
        return _card(name, table)
    except InputError as exc:
        return InputError(f"{path}, [{name}]: {exc}")


def _card(name: str, table: object) -> Card:
    """Returns the card of a table. Raises InputError, saying what is wrong."""
    head = as_record(table, _Head)
    sources = [
        parse_source({**source, "file": "config.json"} if head.architecture == DIFFUSERS else source)
        for source in head.sources
    ]  # that of a folder names the repository alone, its files stand in `files`
    prior = PRIOR_KINDS.get(head.architecture, "denoiser")
    known = as_record({"prior": prior, **as_record(table, dict[str, Any]), "sources": sources}, Table)
    entry = as_record({**asdict(known), "name": name}, Card)
    if entry.path is not None:
        expanded(entry.path)
    return entry


def card(name: str, override: Path | None = None) -> Card:
    """Returns the checkpoint of that name, or the one at that path.

    Raises UsageError with the nearest name otherwise.
    """
    rows = _rows(override)
    if name in rows and isinstance(entry := rows[name], InputError):
        raise entry
    table = {known: entry for known, entry in rows.items() if isinstance(entry, Card)}
    if name in table:
        return table[name]
    path = expanded(name)
    if name and (path.is_file() or path.is_dir()):
        return _card_of_path(path, table)
    if path.suffix or os.sep in name:
        raise UsageError(f"the model {name} is no file or folder, nor a checkpoint's name: {', '.join(table)}")
    raise unknown_name("model", name, table)


_OF_ITS_OWN_FILE: dict[str, Any] = {
    **dict.fromkeys(("bundled", "sha256", "size", "megabytes", "entry", "prefix")),
    "sources": (),
    "warning": "",
    "cautions": {},
}
"""What of a table is not true of another file with the same network."""


def _card_of_path(path: Path, table: Mapping[str, Card]) -> Card:
    """Returns the card of a checkpoint without one.

    A diffusers folder, or a file with the tensors of a network in the table.

    Raises WeightsError if it is neither.
    """
    from dmps_cli.weights.building import fits, folder_size
    from dmps_cli.weights.reading import read_content

    own: dict[str, Any] = {"name": path.stem, "about": "a checkpoint of yours", "path": str(path), "licence": "yours"}
    if path.is_dir():
        return Card(**own, architecture=DIFFUSERS, prior=PRIOR_KINDS[DIFFUSERS], image_size=folder_size(path))
    content, tried = read_content(path), []
    for known in table.values():
        network = (known.architecture, dict(known.config))
        if known.architecture == DIFFUSERS or network in tried:
            continue
        tried.append(network)
        try:
            is_this = fits(content, *network, str(path))
        except OptionsError:  # of a table that has nothing to do with this file
            continue
        if is_this:
            found = replace(known, **own, **_OF_ITS_OWN_FILE)
            return replace(found, licence=metadata_of(found).get("licence", found.licence))
    raise WeightsError(
        f"{path} holds the weights of none of the networks in the table; describe its network in a table of your own "
        "(docs/checkpoints.md)"
    )


def metadata_of(card: Card) -> dict[str, str]:
    """Returns what a safetensors file says of itself: of a trained prior steps, photographs, validation, terms.

    Else nothing.

    Raises WeightsError for a damaged one.
    """
    from dmps_cli.weights.reading import read_metadata

    return dict(sorted(read_metadata(card.location).items())) if card.location.is_file() else {}


def _model_card() -> str:
    """Returns the bundled prior's, from the package or the source tree."""
    candidates = (_DATA / "natural.md", _SOURCE_ROOT / "docs" / "natural.md")
    return next(path for path in candidates if path.is_file()).read_text(encoding="utf-8")


CARD_TEXTS: dict[str, Callable[[], str]] = {DEFAULT_MODEL: _model_card}
"""Model cards in Markdown, of what comes with the package."""
