"""The folder of an evaluation: whether results may go there, and beginning it, anew or where it was."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmps_cli.checks import option
from dmps_cli.errors import InputError, OutputError
from dmps_cli.evaluation.configuration import CONFIG, how_they_differ, read_config, write_config
from dmps_cli.evaluation.picture_files import PICTURES, picture_files
from dmps_cli.evaluation.rows import read_rows, row_files
from dmps_cli.files.atomic import check_writable, remove_left_overs, remove_left_overs_below
from dmps_cli.files.measurements import is_evaluation
from dmps_cli.files.reading import inside
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.metrics.table import METRICS
from dmps_cli.report.writers import REPORTS, TABLES
from dmps_cli.tasks.chain import slug

REPORT_FOLDERS = ("sheets", "plots")


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Where results go."""

    out: Path | None = option(
        "Write rows.jsonl and pictures as images finish, at the end tables (CSV, JSON, Markdown, LaTeX), "
        "contact sheets, plots, report.html. Started again, an evaluation goes on where it was.",
        "FOLDER",
        names=(
            "--out",
            "-o",
        ),
    )
    overwrite: bool = option("Begin anew what is in --out.", names=("--overwrite",), default=False)
    no_images: bool = option("Write no pictures to --out.", names=("--no-images",), default=False)


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raises OutputError or InputError for what can be refused before the configuration is complete."""
    check_writable(folder)
    if whose := evaluation_around(folder):
        raise OutputError(f"{folder} lies among the pictures of the evaluation {whose}; choose another --out")
    if read_config(folder) is not None:
        return
    # an evaluation writes into these folders, and --overwrite removes what it wrote
    if taken := [folder / name for name in (*PICTURES, *REPORT_FOLDERS) if _holds_anything(folder / name)]:
        raise OutputError(f"{taken[0]} holds files, and {folder} is no evaluation's; choose another --out")
    existing = [*(folder / name for name in (*TABLES, *REPORTS) if (folder / name).exists()), *row_files(folder)]
    if existing and not overwrite:
        raise OutputError(f"{', '.join(map(str, existing))}: there already; --overwrite replaces what is named here")


def evaluation_around(path: Path) -> Path | None:
    """Returns the evaluation in whose own folders a path lies, if it does."""
    place = path.absolute()
    inner = (parent.parent for parent in (place, *place.parents) if parent.name in (*PICTURES, *REPORT_FOLDERS))
    return next((folder for folder in inner if is_evaluation(folder)), None)


def _holds_anything(path: Path) -> bool:
    """Returns whether it is a folder with something in it, or a file. Raises OutputError if that cannot be seen."""
    try:
        return next(path.iterdir(), None) is not None
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return True
    except OSError as exc:
        raise OutputError(f"cannot read {path}: {exc.strerror}") from exc


def open_run(
    folder: Path, config: Mapping[str, Any], facts: Mapping[str, Any], *, overwrite: bool, advice: str = ""
) -> None:
    """Makes the folder one of this configuration; overwrite: anew. Raises OutputError if it is another's.

    facts: what is worth knowing but changes no result; advice: added to what that error says.
    """
    content = read_config(folder)
    if content is not None:
        for name in (*PICTURES, *REPORT_FOLDERS):
            remove_left_overs_below(folder / name)
    remove_left_overs(folder / name for name in (CONFIG, *TABLES, *REPORTS))
    if content is not None and not overwrite:
        if content.config != config:
            said = how_they_differ(content.config, config, ("there", "here"))
            raise OutputError(
                f"{folder} holds another configuration: {said}; choose another --out, or begin anew with "
                f"--overwrite{advice}"
            )
        return
    if content is not None:
        _remove_pictures(folder, content.config)
    for path in (*row_files(folder), *(folder / name for name in (*TABLES, *REPORTS))):
        _remove(path)
    write_config(folder, config, facts)


def _remove_pictures(folder: Path, config: Mapping[str, Any]) -> None:
    """Removes what an evaluation of this configuration wrote there, and the folders that are empty then.

    What a row names, and reports by their names; nothing that a link leads to. Raises OutputError.
    """
    try:
        rows, _ = read_rows(folder)
    except InputError:  # damaged; what it tells of nobody knows
        rows = []
    names = {*picture_files(rows), *_report_files(folder, config)}
    places = {place for name in names for place in name.parents if place.name}
    for name in (*sorted(names), *sorted(places, reverse=True)):
        with suppress(InputError):  # behind a link: not of this folder
            _remove(inside(folder, name))


def _remove(path: Path) -> None:
    """Removes a file, or a folder that is empty, if there is one. Raises OutputError."""
    try:
        if path.is_dir():
            with suppress(OSError):  # not empty
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
    except NotADirectoryError:
        pass
    except OSError as exc:
        raise OutputError(f"cannot remove {path}: {exc.strerror}") from exc


def _report_files(folder: Path, config: Mapping[str, Any]) -> Iterator[Path]:
    """Yields the sheets and plots of the configuration's tasks that are there, relative to the folder."""
    tasks, number = "|".join(map(re.escape, {slug(problem["task"]) for problem in config["problems"]})), r"\d[\d.e-]*"
    against = "|".join(["nfe", "seconds", "sigma_y", *(re.escape(knob.label) for knob in KNOBS.values())])
    forms = {
        "sheets": rf"({tasks})(_{number})?\.png",
        "plots": rf"({tasks})(_{number})?_({'|'.join(METRICS)})_({against})\.svg",
    }
    for name, pattern in forms.items():
        yield from (Path(name, path.name) for path in (folder / name).glob("*") if re.fullmatch(pattern, path.name))
