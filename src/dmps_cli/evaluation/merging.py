"""Folders of one evaluation read again as one: their rows, their failures, their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from dmps_cli.errors import InputError
from dmps_cli.evaluation.configuration import CONFIG, RunFile, how_they_differ, read_config
from dmps_cli.evaluation.picture_files import picture_files
from dmps_cli.evaluation.rows import Row, ordered, read_rows, unique
from dmps_cli.files.atomic import atomic_write
from dmps_cli.files.reading import MAX_LOG, inside, read_bytes
from dmps_cli.files.records import RecordError, as_builtins, as_record, parse_json
from dmps_cli.report.writers import RESULTS


class Failure(Struct, frozen=True, kw_only=True):
    """A picture that could not be done, and why."""

    input: str
    error: str


class Report(Struct, frozen=True, kw_only=True):
    """What is read again of results.json."""

    failures: list[Failure]


def read_runs(folders: Sequence[Path]) -> tuple[RunFile, list[Row], list[str]]:
    """Returns (config.json of the first, the rows of all in order, notes).

    Raises InputError if configurations differ, for a folder of another kind, and for rows that contradict each other.
    """
    contents: list[RunFile] = []
    rows: list[Row] = []
    notes: list[str] = []
    for folder in folders:
        content = read_config(folder)
        if content is None:
            raise InputError(f"{folder} holds no evaluation ({CONFIG})")
        contents.append(content)
        if content.config != contents[0].config:
            said = how_they_differ(contents[0].config, content.config, (f"in {folders[0]}", f"in {folder}"))
            raise InputError(f"folders of different configurations cannot be merged: {said}")
        more, cut = read_rows(folder)
        rows += more
        notes += cut
    return contents[0], ordered(unique(rows), contents[0].config), notes


def read_failures(folders: Sequence[Path]) -> tuple[list[dict[str, str]], list[str]]:
    """Returns (the failures that the last report of each folder names, notes on reports that cannot be read)."""
    found: list[dict[str, str]] = []
    notes: list[str] = []
    for folder in folders:
        try:
            content = as_record(parse_json(read_bytes(folder / RESULTS, MAX_LOG)), Report)
        except FileNotFoundError:  # interrupted before its report
            continue
        except (OSError, RecordError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            notes.append(f"{folder / RESULTS} cannot be read ({reason}); what failed there is not known")
            continue
        found += [as_builtins(failure) for failure in content.failures]
    return found, notes


def copy_pictures(folders: Sequence[Path], rows: Sequence[Row], target: Path) -> None:
    """Copies what the folders have of the rows' pictures into the target. Raises OutputError, InputError."""
    names = sorted({*picture_files(rows)})
    for folder in folders:
        if folder.resolve() == target.resolve():
            continue
        for name in names:
            path = inside(folder, name)
            try:
                data = read_bytes(path, MAX_LOG)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as exc:
                raise InputError(f"cannot read {path}: {exc.strerror}") from exc
            atomic_write(inside(target, name), data, overwrite=True)
