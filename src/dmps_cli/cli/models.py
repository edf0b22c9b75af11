"""`dmps models`: which checkpoints there are, where they lie, fetching them ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer

from dmps_cli.cli.completion import COMPLETE
from dmps_cli.cli.console import Console
from dmps_cli.cli.options import Offline, Quiet, WeightsFile
from dmps_cli.errors import DmpsError
from dmps_cli.files.cache import cache_dir
from dmps_cli.weights.cards import CARD_TEXTS, bad_cards, card, cards
from dmps_cli.weights.inventory import described, facts, files
from dmps_cli.weights.store import NOT_HERE, fetch_card, not_here, state, verify_card

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A checkpoint's name or path.", autocompletion=COMPLETE["models"]),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def list_models(weights_file: WeightsFile = None, as_json: AsJson = False) -> None:
    """List the checkpoints: whether they are here, their size, what they are, their licence.

    Example: dmps models list
    """
    rows = [facts(entry) for entry in cards(weights_file).values()]
    console = Console(as_json=as_json)
    for name, error in bad_cards(weights_file).items():
        console.error(str(error))
        rows.append(dict.fromkeys(rows[0]) | {"name": name, "state": "bad", "about": str(error)})
    console.object({"cache": str(cache_dir()), "models": rows})
    if not as_json:
        shown = ("name", "state", "MB", "sampler", "px", "licence")
        console.table([{key: row[key] for key in shown} for row in rows])


def show(name: Name, weights_file: WeightsFile = None, as_json: AsJson = False) -> None:
    """Show what is known of a checkpoint, what its file says of itself, and its model card if it has one.

    Example: dmps models show natural
    """
    entry = card(name, weights_file)
    content = described(entry)
    console = Console(as_json=as_json)
    console.object(content)
    if not as_json:
        rows = [{"checkpoint": key, entry.name: _text(value)} for key, value in _shown(content)]
        console.table(rows)
    if entry.bundled and (text := CARD_TEXTS.get(entry.name)):
        console.markdown(text())


def _shown(content: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yields what the table shows: of its file, what the rest does not say."""
    for key, value in content.items():
        if key == "metadata":
            yield from ((f"{field} (its file)", said) for field, said in value.items() if said != content.get(field))
        elif value not in ([], {}) and key not in ("name", "path", "bundled"):  # those say where, as location does
            yield key, value


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def fetch(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Checkpoints to download.", autocompletion=COMPLETE["models"]),
    ],
    weights_file: WeightsFile = None,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Download checkpoints that are not here yet, for a machine without a network, say; prints their paths.

    Example: dmps models fetch ffhq
    """
    console = Console(quiet=quiet)
    entries = [card(name, weights_file) for name in names]
    for entry in entries:
        fetched = fetch_card(entry, offline=offline, listener=console)
        for file in fetched:
            console.note(f"{file.path.name}: sha256 {file.sha256}{f', from {file.source}' if file.source else ''}")
            console.path(file.path)
        for path in [] if fetched else files(entry):
            console.path(path)


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]", help="Checkpoints; none: all that are here.", autocompletion=COMPLETE["models"]
        ),
    ] = None,
    weights_file: WeightsFile = None,
) -> None:
    """Read checkpoints through and compare size and sha256 with the table or with the first download.

    Example: dmps models verify natural
    """
    console = Console()
    entries = [card(name, weights_file) for name in names or ()]
    entries = entries or [entry for entry in cards(weights_file).values() if state(entry) != NOT_HERE]
    failures = 0
    for entry in entries:
        try:
            for path, sha256 in verify_card(entry, console).items():
                console.result(f"{entry.name}  ok  {sha256}  {path}")
        except DmpsError as exc:
            console.error(str(exc))
            failures += 1
    if failures:
        raise typer.Exit(DmpsError.exit_code)


def path(name: Name, weights_file: WeightsFile = None) -> None:
    """Print where the files of a checkpoint lie; exit code 1 if it is not here.

    Example: dmps models path natural
    """
    entry = card(name, weights_file)
    if state(entry) == NOT_HERE:
        raise not_here(entry)
    for place in files(entry):
        Console().path(place)


MODELS: dict[str, Callable[..., None]] = {
    "list": list_models,
    "show": show,
    "fetch": fetch,
    "verify": verify,
    "path": path,
}
