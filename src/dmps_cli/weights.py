"""The table of checkpoints, `weights.toml`, and how a name or a path becomes a prior."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.downloads import Fetched, Hub, Source, cache_dir, downloaded_sha256, fetch, parse_source, verify
from dmps_cli.errors import InputError, UsageError, WeightsError, unknown_name
from dmps_cli.files import sha256_file
from dmps_cli.schedules import SAMPLERS

if TYPE_CHECKING:
    import torch

    from dmps_cli.checkpoints import Weights
    from dmps_cli.priors import Prior

DEFAULT_MODEL = "natural"
DIFFUSERS = "diffusers"
PRIOR_KINDS = {"natural": "denoiser", "adm": "ddpm", "ncsnpp": "flow", DIFFUSERS: "denoiser"}
"""Architecture -> the prior that its networks are: what they predict, on which levels."""

_DATA = Path(str(files("dmps_cli"))) / "data"
_SOURCE_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Card:
    """One table of weights.toml: what a checkpoint is and where it lies.

    prior: 'denoiser' (any level), 'ddpm' (eps on DDPM levels), 'flow' (velocity on flow levels). sampler: the ladder
    that it is used on by default. image_size: side of the one size, px, that the network knows; None: any. bundled: a
    file of the package; path: a file or folder of the user's; sources: downloads, the preferred first; files: those
    of a folder. size: bytes, exactly; megabytes: about. config: options of the network, by the reference's names.
    """

    name: str
    about: str
    architecture: str
    prior: str
    sampler: str = "ddpm"
    config: Mapping[str, Any] = field(default_factory=dict)
    clip_denoised: bool = True
    image_size: int | None = None
    aligned_faces: bool = False
    bundled: str | None = None
    path: str | None = None
    sources: tuple[Source, ...] = ()
    files: tuple[str, ...] = ()
    size: int | None = None
    megabytes: int | None = None
    sha256: str | None = None
    licence: str = "not stated"
    warning: str = ""

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
            return Path(self.path).expanduser()
        folder = cache_dir() / self.name
        return folder if self.architecture == DIFFUSERS else folder / _file_name(self.sources[0], self.name)


def _file_name(source: Source, name: str) -> str:
    """What a download is called in the cache."""
    address = getattr(source, "file", None) or getattr(source, "url", None)
    return Path(address).name if address else f"{name}.pt"


# The table


def weights_file(override: Path | None = None) -> Path:
    """The table in force: `override`, DMPS_WEIGHTS, the package's copy, the source tree's. Raises WeightsError."""
    named = override or (Path(value) if (value := os.environ.get("DMPS_WEIGHTS")) else None)
    candidates = [named] if named else [_DATA / "weights.toml", _SOURCE_ROOT / "weights.toml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise WeightsError(f"no table of checkpoints at {' or '.join(map(str, candidates))}")


def cards(override: Path | None = None) -> dict[str, Card]:
    """Every checkpoint by name: those that come with dmps, and over them those of the user's own table.

    Raises InputError for a table that cannot be read, naming the checkpoint and what is wrong with it.
    """
    builtin = next(path for path in (_DATA / "weights.toml", _SOURCE_ROOT / "weights.toml") if path.is_file())
    named = weights_file(override)
    return _read(builtin) | ({} if named == builtin else _read(named))


def _read(path: Path) -> dict[str, Card]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InputError(f"cannot read the checkpoints of {path}: {exc}") from exc
    return {name: _card(name, table, path) for name, table in tables.items()}


def _card(name: str, table: object, path: Path) -> Card:
    where = f"{path}, [{name}]"
    if not isinstance(table, dict):
        raise InputError(f"{where}: a table is needed, not {table!r}")
    known = {item.name for item in fields(Card)} - {"name"}
    if unknown := table.keys() - known:
        raise InputError(f"{where}: unknown key {min(unknown)}; known are {', '.join(sorted(known))}")
    if missing := {"about", "architecture"} - table.keys():
        raise InputError(f"{where}: {min(missing)} is missing")
    for key, value in table.items():
        if not isinstance(value, _TYPES.get(key, str)) or (_TYPES.get(key) is int and isinstance(value, bool)):
            raise InputError(f"{where}: {key} is {value!r}")
    try:
        sources = tuple(map(_source(table), table.get("sources", ())))
        prior = table.get("prior", PRIOR_KINDS.get(table["architecture"], ""))
        card = Card(
            **{**table, "name": name, "prior": prior, "sources": sources, "files": tuple(table.get("files", ()))}
        )
    except (InputError, AttributeError, TypeError) as exc:
        raise InputError(f"{where}: {exc}") from exc
    _check(card, where)
    return card


_TYPES: dict[str, type] = {
    **dict.fromkeys(("config",), dict),
    **dict.fromkeys(("clip_denoised", "aligned_faces"), bool),
    **dict.fromkeys(("image_size", "size", "megabytes"), int),
    **dict.fromkeys(("sources", "files"), list),
}


def _source(table: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Source]:
    """Reads a source; that of a folder names the repository alone, its files stand in `files`."""
    is_folder = table["architecture"] == DIFFUSERS
    return lambda mapping: parse_source({**mapping, "file": "config.json"} if is_folder else mapping)


def _check(card: Card, where: str) -> None:
    """Raises InputError for what does not fit together."""
    if card.architecture not in PRIOR_KINDS:
        raise InputError(f"{where}: architecture is '{card.architecture}'; choose one of {', '.join(PRIOR_KINDS)}")
    if card.prior != PRIOR_KINDS[card.architecture]:
        raise InputError(
            f"{where}: prior is '{card.prior}'; that of {card.architecture} is {PRIOR_KINDS[card.architecture]}"
        )
    if card.sampler not in SAMPLERS:
        raise InputError(f"{where}: sampler is '{card.sampler}'; choose one of {', '.join(SAMPLERS)}")
    if not card.is_local and not card.sources:
        raise InputError(f"{where}: it names no file: give path or sources")
    if card.architecture == DIFFUSERS and card.sources and not card.files:
        raise InputError(f"{where}: files is missing: those of the folder to fetch")
    if card.image_size is not None and card.image_size < 1:
        raise InputError(f"{where}: image_size is {card.image_size}")


def card(name: str, override: Path | None = None) -> Card:
    """The checkpoint of that name, or the one at that path. Raises UsageError with the nearest name otherwise."""
    table = cards(override)
    if name in table:
        return table[name]
    path = Path(name).expanduser()
    if path.exists():
        return _card_of_path(path)
    if path.suffix or os.sep in name:
        raise UsageError(
            f"the model {name} is no file or folder, and no checkpoint's name; those are {', '.join(table)}"
        )
    raise unknown_name("model", name, table)


def _card_of_path(path: Path) -> Card:
    """A checkpoint without a table: a diffusers folder, or a file whose architecture is seen when it is loaded."""
    architecture = DIFFUSERS if path.is_dir() else ANY
    return Card(name=path.stem, about="a checkpoint of yours", architecture=architecture, prior="", path=str(path))


ANY = ""
"""The architecture of a file that no table describes: the one of the tables' that its tensors fit."""


# Where a checkpoint is


def state(card: Card) -> str:
    """'bundled', 'yours', 'cached' or 'not here'."""
    if card.is_local:
        return "bundled" if card.bundled else "yours" if card.location.exists() else "not here"
    return "cached" if all(path.exists() for path in _wanted(card)) or _converted(card).exists() else "not here"


def places(card: Card) -> list[Path]:
    """Every file of ours that holds its weights, there or not: what was downloaded, the mapped copy of it."""
    return [*_wanted(card), _converted(card)]


def _wanted(card: Card) -> list[Path]:
    """The files that a download brings."""
    return [card.location / name for name in card.files] if card.files else [card.location]


def _converted(card: Card) -> Path:
    """Where the mapped copy of a pickle lies; that of a user's file is named by its place too."""
    place = hashlib.sha256(os.fsencode(card.location.absolute())).hexdigest()[:12] if card.is_local else ""
    return cache_dir() / "converted" / f"{'-'.join(filter(None, (card.name, place)))}.safetensors"


def fetch_card(
    card: Card,
    *,
    offline: bool = False,
    progress: Callable[[int, int | None], object] = lambda done, total: None,
    note: Callable[[str], object] = lambda text: None,
) -> list[Fetched]:
    """The files of a checkpoint, downloaded where they are not here yet; its warning is said before a download.

    Raises WeightsError, OutputError.
    """
    if card.is_local:
        if not card.location.exists():
            raise WeightsError(f"the weights of '{card.name}' are not at {card.location}")
        return []
    if card.warning and state(card) == "not here" and not offline:
        note(f"{card.name}: {card.warning}")
    return [
        fetch(
            [_of_folder(source, path.name) for source in card.sources] if card.files else card.sources,
            path,
            command=f"dmps models fetch {card.name}",
            size=None if card.files else card.size,
            sha256=None if card.files else card.sha256,
            offline=offline,
            progress=progress,
            note=note,
        )
        for path in _wanted(card)
    ]


def _of_folder(source: Source, file: str) -> Source:
    """The source of one file of a repository's folder."""
    assert isinstance(source, Hub)
    return Hub(repo=source.repo, file=file, revision=source.revision)


def verify_card(card: Card) -> dict[Path, str]:
    """The sha256 of each file, read through and compared with the table or the first download.

    Raises WeightsError if one is another, InputError if one cannot be read.
    """
    if card.is_local:
        location = card.location
        paths = sorted(location.iterdir()) if location.is_dir() else [location]
        return {path: verify(path, card.size, card.sha256) for path in paths if path.is_file()}
    exact = not card.files
    return {path: verify(path, card.size if exact else None, card.sha256 if exact else None) for path in _wanted(card)}


def _model_card() -> str:
    """The bundled prior's, from the package or the source tree."""
    candidates = (_DATA / "natural.md", _SOURCE_ROOT / "docs" / "natural.md")
    return next(path for path in candidates if path.is_file()).read_text(encoding="utf-8")


CARD_TEXTS: dict[str, Callable[[], str]] = {DEFAULT_MODEL: _model_card}
"""Model cards in Markdown, of what comes with the package."""


# Loading


@dataclass(frozen=True, kw_only=True)
class LoadedPrior:
    """A prior ready to run, with what its outputs must record. sha256: of the published file."""

    name: str
    prior: Prior
    sha256: str
    dtype: str
    aligned_faces: bool = False


def load_prior(
    name: str,
    device: torch.device,
    dtype: str = "float32",
    *,
    override: Path | None = None,
    offline: bool = False,
    batch: int = 1,
    progress: Callable[[int, int | None], object] = lambda done, total: None,
    note: Callable[[str], object] = lambda text: None,
) -> LoadedPrior:
    """The checkpoint of a name or path, fetched if need be, checked against its architecture, on the device.

    dtype: of the network. override: the user's table. batch: windows per call of a network that knows one size. Raises
    UsageError for an unknown name, WeightsError for a file that is missing, damaged or of another architecture.
    """
    from dmps_cli import checkpoints
    from dmps_cli.device import DTYPES
    from dmps_cli.nets.natural import PEAK_BYTES_PER_PIXEL
    from dmps_cli.windows import WindowedPrior

    entry = card(name, override)
    if entry.architecture == DIFFUSERS:
        folder, sha256 = _folder(entry, offline=offline, progress=progress, note=note)
        prior = checkpoints.load_diffusers(folder, device=device, dtype=DTYPES[dtype])
    else:
        entry, weights = _weights(entry, cards(override), offline=offline, progress=progress, note=note)
        sha256 = weights.sha256
        prior = checkpoints.build_prior(
            entry.architecture,
            entry.config,
            weights.tensors,
            where=weights.where,
            device=device,
            dtype=DTYPES[dtype],
            clip_denoised=entry.clip_denoised,
            metadata=weights.metadata,
        )
    if entry.architecture == "natural":
        prior.bytes_per_pixel = PEAK_BYTES_PER_PIXEL[dtype]
    if entry.image_size is not None:
        prior = WindowedPrior(prior, entry.image_size, batch=batch)
    return LoadedPrior(name=name, prior=prior, sha256=sha256, dtype=dtype, aligned_faces=entry.aligned_faces)


def _folder(entry: Card, **fetching: Any) -> tuple[Path, str]:
    """(a diffusers folder, the sha256 of its weights)."""
    from dmps_cli.nets.diffusers_unet import weights_path

    fetched = fetch_card(entry, **fetching)
    folders = {file.path.parent for file in fetched} or {entry.location}
    if len(folders) > 1:
        raise WeightsError(
            f"the files of '{entry.name}' lie in {' and '.join(map(str, folders))}; run dmps models fetch"
        )
    folder = folders.pop()
    return folder, sha256_file(weights_path(folder))


def _weights(entry: Card, table: Mapping[str, Card], **fetching: Any) -> tuple[Card, Weights]:
    """(the card, its architecture known; the tensors, mapped). A pickle's mapped copy serves without the pickle."""
    from dmps_cli.checkpoints import load_converted, load_weights

    copy = _converted(entry)
    if not entry.is_local:
        with contextlib.suppress(WeightsError):  # absent, stale or damaged: made again below
            known = entry.sha256 or downloaded_sha256(entry.location)
            return entry, load_converted(copy, architecture=entry.architecture, sha256=known)
    fetched = fetch_card(entry, **fetching)
    source, sha256 = (fetched[0].path, fetched[0].sha256) if fetched else (entry.location, "")
    if entry.architecture == ANY:
        entry = _recognised(entry, source, table)
    loaded = load_weights(source, copy, architecture=entry.architecture, config=entry.config, sha256=sha256)
    if entry.is_local and entry.sha256 not in (None, loaded.sha256):
        raise WeightsError(f"{source}: the file's sha256 is {loaded.sha256}, {entry.sha256} is due by its table")
    return entry, loaded


def _recognised(entry: Card, path: Path, table: Mapping[str, Card]) -> Card:
    """The card of a file without a table: that of the network in the table whose tensors it holds. WeightsError."""
    from dmps_cli.checkpoints import fits

    tried = []
    for known in table.values():
        network = (known.architecture, dict(known.config))
        if known.architecture == DIFFUSERS or network in tried:
            continue
        tried.append(network)
        if fits(path, *network):
            return replace(
                known, name=entry.name, about=entry.about, bundled=None, path=entry.path, sha256=None, size=None
            )
    raise WeightsError(
        f"{path} holds the weights of none of the networks in the table; describe its network in a table of your own "
        "(docs/checkpoints.md)"
    )
