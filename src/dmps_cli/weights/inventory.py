"""What is known of a checkpoint, and what of it is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from dmps_cli.weights.cards import Card, metadata_of
from dmps_cli.weights.store import places, state

MEGABYTE = 1_000_000


def files(entry: Card) -> list[Path]:
    """Returns what is here of a checkpoint."""
    if entry.is_local:
        return [entry.location] if entry.location.exists() else []
    return [path for path in places(entry) if path is not None]


def facts(entry: Card) -> dict[str, Any]:
    """Returns a checkpoint's row."""
    size = entry.size or sum(path.stat().st_size for path in files(entry)) or None
    return {
        "name": entry.name,
        "state": state(entry),
        "MB": round(size / MEGABYTE) if size else entry.megabytes,
        "sampler": entry.sampler,
        "px": entry.image_size or "any",
        "about": entry.about,
        "licence": entry.licence,
    }


def described(entry: Card) -> dict[str, Any]:
    """Returns all that is known of a checkpoint, and what its file says of itself.

    Raises WeightsError for a damaged file.
    """
    return {
        **{key: value for key, value in asdict(entry).items() if value not in (None, "", (), {})},
        "sources": [str(source) for source in entry.sources],
        "state": state(entry),
        "location": str(entry.location),
        "metadata": metadata_of(entry),
    }
