"""Where the files of a checkpoint are, fetched and verified."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dmps_cli.errors import WeightsError
from dmps_cli.files.downloads.fetch import fetch, is_offline
from dmps_cli.files.downloads.here import Fetched, in_hub_cache
from dmps_cli.files.downloads.sources import Hub, Source
from dmps_cli.files.formats import CHECKPOINT, format_of
from dmps_cli.files.hashes import verify
from dmps_cli.listener import SILENT, Listener
from dmps_cli.weights.cards import Card


# Where a checkpoint is
def state(card: Card) -> str:
    """Returns 'bundled', 'yours', 'cached' or 'not here'."""
    if card.bundled is not None:
        return "bundled"
    if card.path is not None:
        return "yours" if card.location.exists() else NOT_HERE
    return "cached" if all(places(card)) else NOT_HERE


NOT_HERE = "not here"


def places(card: Card) -> list[Path | None]:
    """Returns each file that a download brings: in our cache or the Hub's; None for one that is in neither."""
    return [path if path.is_file() else _in_hub_cache(card, name) for name, path in _wanted(card).items()]


def _wanted(card: Card) -> dict[str, Path]:
    """Returns the files that a download brings, by their names in a folder ('' for one file): where we put them."""
    return {name: card.location / name for name in card.files} if card.files else {"": card.location}


def _in_hub_cache(card: Card, name: str) -> Path | None:
    found = (in_hub_cache(_of_folder(source, name) if name else source) for source in card.sources)
    return next((path for path in found if path is not None), None)


def fetch_card(
    card: Card,
    *,
    offline: bool = False,
    listener: Listener = SILENT,
) -> list[Fetched]:
    """Returns the files of a checkpoint, downloaded where they are not here yet; its warning is said before a download.

    Raises WeightsError, OutputError.
    """
    if card.is_local:
        if not card.location.exists():
            raise not_here(card)
        return []
    if card.warning and state(card) == NOT_HERE and not offline and not is_offline():
        listener.note(f"{card.name}: {card.warning}")

    def fetched(name: str, path: Path, *, use_hub_cache: bool) -> Fetched:
        return fetch(
            [_of_folder(source, name) for source in card.sources] if name else card.sources,
            path,
            command=f"dmps models fetch {card.name}",
            size=card.size,
            sha256=card.sha256,
            offline=offline,
            use_hub_cache=use_hub_cache,
            listener=listener,
            label=card.name,
            form=format_of(name) if name else CHECKPOINT,
        )

    files = [fetched(name, path, use_hub_cache=True) for name, path in _wanted(card).items()]
    if card.files and len(roots(card, files)) > 1:  # a part of them in the Hub's cache: all into ours
        files = [fetched(name, path, use_hub_cache=False) for name, path in _wanted(card).items()]
    return files


def roots(card: Card, files: Sequence[Fetched]) -> set[Path]:
    """Returns the folders that the files of a folder lie in: one, if they belong together."""
    return {file.path.parents[len(Path(name).parts) - 1] for name, file in zip(card.files, files, strict=True)}


def _of_folder(source: Source, file: str) -> Source:
    """Returns the source of one file of a repository's folder."""
    assert isinstance(source, Hub)
    return Hub(repo=source.repo, file=file, revision=source.revision)


def verify_card(card: Card, listener: Listener = SILENT) -> dict[Path, str]:
    """Returns the sha256 of each file that loading may read, read through and compared.

    It is compared with the table or the first download. Raises WeightsError if one is another or none is here,
    InputError if one cannot be read.
    """
    if card.is_local:
        location = card.location
        paths = sorted(path for path in location.rglob("*") if path.is_file()) if location.is_dir() else [location]
    else:
        paths = [path for path in places(card) if path is not None]
    found = {path: verify(path, card.size, card.sha256, listener) for path in paths}
    if not found:
        raise not_here(card)
    return found


def not_here(card: Card) -> WeightsError:
    """Returns the error for a checkpoint that is missing, with the command that brings it, if one does."""
    if card.is_local:
        return WeightsError(f"the weights of '{card.name}' are not at {card.location}")
    return WeightsError(f"'{card.name}' is not here; dmps models fetch {card.name} brings it to {card.location}")
