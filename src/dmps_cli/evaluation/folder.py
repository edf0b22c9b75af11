"""The folder of an evaluation: what was asked for, a row for each restoration as it is done, pictures.

config.json says what is computed. rows.jsonl grows by whole lines, one JSON object each, that are on the disk before
the next restoration begins: an evaluation that is killed goes on where it was. Each process has a file of its own
(rows.RANK.jsonl, rows.IofN.jsonl): appends of several to one file are not atomic on network file systems. A reader
takes all of them. Only quality and time differ between rows of equal keys: see `row_key`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from msgspec import Meta, Struct, defstruct

from dmps_cli.checks import MAX_SAMPLES, SAMPLES, SIGMA, option
from dmps_cli.errors import InputError, OutputError, UsageError
from dmps_cli.files.atomic import (
    atomic_write,
    check_writable,
    remove_left_overs,
    remove_left_overs_below,
    sha256_bytes,
    try_lock,
)
from dmps_cli.files.measurements import EVALUATION_KIND, Side, is_evaluation, json_bytes, versions
from dmps_cli.files.reading import MAX_LOG, check_regular, inside, read_bytes
from dmps_cli.files.records import Label, RecordError, RelativePath, as_builtins, as_record, form, one_of, parse_json
from dmps_cli.levels import SAMPLERS, SPACINGS
from dmps_cli.methods.choice import as_typed, of_today
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.table import METHODS, family
from dmps_cli.metrics.lpips import LPIPS_NETS
from dmps_cli.metrics.protocol import OF_SAMPLES
from dmps_cli.metrics.table import METRICS
from dmps_cli.report.writers import REPORTS, RESULTS, TABLES
from dmps_cli.tasks.chain import slug
from dmps_cli.tasks.rows import OWN, TASKS
from dmps_cli.tasks.table import resolve_recorded
from dmps_cli.units import MAX_SIGMA

Row = dict[str, Any]
CONFIG = "config.json"
FORMAT = 1
REPORT_FOLDERS = ("sheets", "plots")
PICTURES = ("truth", "measurements", "restored", "mean", "spread")
MEASURED = {*METRICS, *OF_SAMPLES, "seconds"}
"""Columns that say what came out; all others say of what."""

KnownTask = Annotated[
    str,
    form(
        f"one of {', '.join((*TASKS, *OWN))}, or several with bars between",
        rf"{'|'.join((*TASKS, *OWN))}|[^\x00-\x1f]*[(|][^\x00-\x1f]*",
    ),
]
SigmaY = Annotated[float, Meta(ge=0.0, le=MAX_SIGMA)]
Number = Annotated[float, Meta(ge=-1e9, le=1e9)]
Count = Annotated[int, Meta(ge=0, le=10**9)]

_Row = defstruct(
    "_Row",
    [
        ("image", RelativePath),
        ("task", KnownTask),
        ("sigma_y", SigmaY),
        ("method", Annotated[str, one_of(METHODS)]),
        ("sampler", Annotated[str, one_of(SAMPLERS)]),
        ("spacing", Annotated[str, one_of(SPACINGS)]),
        ("nfe", Annotated[int, Meta(ge=1, le=10**9)]),
        ("seed", int),
        ("model_sha256", str),
        ("sample", Annotated[int, Meta(ge=1, le=MAX_SAMPLES)], 1),
        *((knob.label, Number | Label | None, None) for knob in KNOBS.values()),
        *((name, Number | None, None) for name in (*METRICS, *OF_SAMPLES)),
        ("seconds", Annotated[float, Meta(ge=0.0, le=1e9)]),
    ],
    frozen=True,
    kw_only=True,
)
"""What a row must say; those of the columns that name files name none outside of the folder."""


class ProblemRecord(Struct, frozen=True, kw_only=True):
    """A task of a configuration, its noise, the ways in which it is solved."""

    task: KnownTask
    operator: dict[str, Any]
    sigma_y: float
    samplings: list[dict[str, str | float | None]]

    def __post_init__(self) -> None:
        SIGMA("sigma_y", self.sigma_y, ValueError)
        try:
            resolve_recorded(self.task, self.operator)
        except (InputError, UsageError, TypeError) as exc:
            raise ValueError(f"no operator: {exc}") from exc


class Configuration(Struct, frozen=True, kw_only=True):
    """What reports read of a configuration; results depend on all of it."""

    num_images: Count
    image_size: Side | None
    prepared: str
    model_sha256: str
    channels: Literal[1, 3]
    samples: int
    metrics: list[Annotated[str, one_of(METRICS)]]
    lpips_net: Annotated[str, one_of(LPIPS_NETS)]
    problems: list[ProblemRecord]

    def __post_init__(self) -> None:
        SAMPLES("samples", self.samples, ValueError)


class RunFile(Struct, frozen=True, kw_only=True):
    """What config.json holds; facts: what is worth knowing but changes no result."""

    kind: Literal["dmps evaluation"]
    format: int
    config_sha256: str
    config: dict[str, Any]
    facts: dict[str, Any]
    versions: dict[str, Any]


class Failure(Struct, frozen=True, kw_only=True):
    """A picture that could not be done, and why."""

    input: str
    error: str


class Report(Struct, frozen=True, kw_only=True):
    """What is read again of results.json."""

    failures: list[Failure]


_DIFFERENCES_SAID = 3
_HASH = re.compile("[0-9a-f]{64}")


# --- Rows
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


def row_key(row: Row) -> str:
    """Returns what a row is of: image, task, noise, method with all knobs, sample, seed, model."""
    return json.dumps({name: value for name, value in row.items() if name not in MEASURED}, sort_keys=True)


def unique(rows: Iterable[Row]) -> list[Row]:
    """Returns one row for each key, the first. Raises InputError if another differs in more than its seconds."""
    known: dict[str, Row] = {}
    for row in rows:
        first = known.setdefault(row_key(row), row)
        if {**first, "seconds": None} != {**row, "seconds": None}:
            name = next(name for name in (*first, *row) if name != "seconds" and first.get(name) != row.get(name))
            raise InputError(
                f"two results of {row['image']} ({row['task']}, {row['method']}) differ: {name} is {first.get(name)} "
                f"and {row.get(name)}; evaluate it anew"
            )
    return list(known.values())


def ordered(rows: Iterable[Row], config: Mapping[str, Any]) -> list[Row]:
    """Returns the rows by image, then as the configuration has its problems, then by sample: whoever was done first.

    Raises InputError for a row that the configuration does not ask for.
    """
    numbers = count()
    places = {
        _setting({"task": problem["task"], "sigma_y": problem["sigma_y"], **sampling}): next(numbers)
        for problem in config["problems"]
        for sampling in problem["samplings"]
    }
    about = {name for problem in config["problems"] for sampling in problem["samplings"] for name in sampling}

    def place(row: Row) -> tuple[str, int, int]:
        setting = _setting({name: row[name] for name in ("task", "sigma_y", *about) if name in row})
        if setting not in places:
            raise InputError(
                f"a result of {row['image']} is none that config.json asks for ({setting}); evaluate it anew"
            )
        return row["image"], places[setting], row.get("sample", 1)

    return sorted(rows, key=place)


def _setting(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def read_rows(folder: Path) -> tuple[list[Row], list[str]]:
    """Returns (the rows of all rows*.jsonl of a folder, notes on lines cut short).

    Raises InputError for other damage.
    """
    rows: list[Row] = []
    notes: list[str] = []
    for path in _row_files(folder):
        try:
            *lines, rest = read_bytes(path, MAX_LOG).split(b"\n")
        except OSError as exc:
            raise InputError(f"cannot read {path}: {exc.strerror}") from exc
        if rest:
            notes.append(f"{path}: its last line was cut short and is dropped")
        for number, line in enumerate(lines, 1):
            try:
                rows.append(_parsed_row(line))
            except RecordError as exc:
                raise InputError(f"{path} is damaged at line {number} ({exc}); delete that line and try again") from exc
    return rows, notes


def _parsed_row(line: bytes) -> Row:
    """Returns a row as it stands in its file. Raises RecordError for what is none."""
    row = of_today(as_record(parse_json(line), dict[str, str | int | float | bool | None]))
    as_record(row, _Row)
    return row


def _row_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("rows*.jsonl") if _ROWS_NAME.fullmatch(path.name))


_ROWS_NAME = re.compile(r"rows(\.\d+of\d+)?(\.\d+)?\.jsonl")  # as `rows_file` names them


def rows_file(folder: Path, rank: int, shard: tuple[int, int]) -> Path:
    """Returns the file that this process appends to: rows.jsonl for a process alone."""
    part = f".{shard[0]}of{shard[1]}" if shard[1] > 1 else ""
    return inside(folder, f"rows{part}{f'.{rank}' if rank else ''}.jsonl")


class RowLog:
    """A rows file, open for appending; what a killed process left of a line is cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self) -> Iterator[RowLog]:
        """Raises OutputError if it cannot be written, or another process does so."""
        try:
            with suppress(FileNotFoundError):
                check_regular(self.path)
            with self.path.open("a+b") as file:
                if try_lock(file) is False:
                    raise OutputError(
                        f"another dmps eval is writing to {self.path}; let it end, or choose another --out"
                    )
                _cut_torn_line(file)
                self._file = file
                yield self
        except OSError as exc:
            raise OutputError(f"cannot write {self.path}: {exc.strerror or exc}") from exc

    def append(self, rows: Sequence[Row]) -> None:
        """Appends the rows in one write, to the disk."""
        self._file.write(b"".join(json.dumps(row, allow_nan=False).encode("ascii") + b"\n" for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())


def _cut_torn_line(file: BinaryIO) -> None:
    file.seek(0)
    content = file.read()
    file.truncate(content.rfind(b"\n") + 1)


# --- Configurations
def config_hash(config: Mapping[str, Any]) -> str:
    """Returns sha256 of a configuration, whatever the order of its keys."""
    return sha256_bytes(json.dumps(config, sort_keys=True).encode())


def differences(one: object, other: object, name: str = "") -> Iterator[tuple[str, object, object]]:
    """Yields (name, value in one, value in the other) of what differs between two configurations."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys((*one, *other)):
            yield from differences(one.get(key), other.get(key), key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for left, right in zip(one, other, strict=True):
            yield from differences(left, right, name)
    elif isinstance(one, list) and isinstance(other, list):
        yield f"the number of {name}", len(one), len(other)
    elif one != other:
        yield name, one, other


def _said(one: object, other: object, places: tuple[str, str]) -> str:
    """Returns 'seed is 0 there, 1 here; ...', a long list cut short. places: what is said for 'there' and 'here'."""
    found = [*dict.fromkeys(_difference(*difference, places) for difference in differences(one, other))]
    more = f" and {len(found) - _DIFFERENCES_SAID} more" if len(found) > _DIFFERENCES_SAID else ""
    return "; ".join(found[:_DIFFERENCES_SAID]) + more


def _difference(name: str, one: object, other: object, places: tuple[str, str]) -> str:
    """Returns what differs and how; of two hashes only what they are of."""
    if all(isinstance(value, str) and _HASH.fullmatch(value) for value in (one, other)):
        return f"not the same {name.removesuffix('_sha256')}"
    return f"{name} is {as_typed(one)} {places[0]}, {as_typed(other)} {places[1]}"


def read_config(folder: Path) -> RunFile | None:
    """Returns what config.json of a folder says; None if there is none. Raises InputError if it is not ours."""
    path = folder / CONFIG
    try:
        content = as_record(parse_json(read_bytes(path)), RunFile)
        if content.format != FORMAT:
            raise InputError(f"{path} has format {content.format}; this version reads format {FORMAT}: upgrade dmps")
        if content.config_sha256 != config_hash(content.config):
            raise RecordError("config_sha256 is not that of its config")
        as_record(content.config, Configuration)
        for problem in content.config["problems"]:
            problem["samplings"] = [of_today(sampling) for sampling in problem["samplings"]]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    except RecordError as exc:
        raise InputError(f"{path} is not of dmps eval, or damaged ({exc}); choose another --out") from exc
    return content


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
    existing = [*(folder / name for name in (*TABLES, *REPORTS) if (folder / name).exists()), *_row_files(folder)]
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
            raise OutputError(
                f"{folder} holds another configuration: {_said(content.config, config, ('there', 'here'))}; choose "
                f"another --out, or begin anew with --overwrite{advice}"
            )
        return
    if content is not None:
        _remove_pictures(folder, content.config)
    for path in (*_row_files(folder), *(folder / name for name in (*TABLES, *REPORTS))):
        _remove(path)
    head = {"kind": EVALUATION_KIND, "format": FORMAT, "config_sha256": config_hash(config)}
    written = {**head, "config": dict(config), "facts": dict(facts), "versions": versions()}
    atomic_write(folder / CONFIG, json_bytes(written), overwrite=True)


def _remove_pictures(folder: Path, config: Mapping[str, Any]) -> None:
    """Removes what an evaluation of this configuration wrote there, and the folders that are empty then.

    What a row names, and reports by their names; nothing that a link leads to. Raises OutputError.
    """
    try:
        rows, _ = read_rows(folder)
    except InputError:  # damaged; what it tells of nobody knows
        rows = []
    names = {*_picture_files(rows), *_report_files(folder, config)}
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


def _picture_files(rows: Iterable[Row]) -> Iterator[Path]:
    """Yields whatever pictures rows may have, relative to the folder."""
    for row in rows:
        yield from (file_of(row) for file_of in (truth_file, measurement_file, restored_file, mean_file, spread_file))


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
            said = _said(contents[0].config, content.config, (f"in {folders[0]}", f"in {folder}"))
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
    names = sorted({*_picture_files(rows)})
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


# --- Pictures
def truth_file(row: Row) -> Path:
    """Returns where the part of a row's photograph that was used is, relative to the folder."""
    return Path("truth") / slug(row["task"]) / png_name(row["image"])


def measurement_file(row: Row) -> Path:
    """Returns where the measurement of a row is, relative to the folder."""
    return Path("measurements") / _problem(row) / png_name(row["image"])


def restored_file(row: Row) -> Path:
    """Returns where the restoration of a row is, relative to the folder."""
    name = png_name(row["image"])
    sample = f"_{row['sample']}" if "sample" in row else ""
    return Path("restored") / _problem(row) / _method(row) / f"{name.removesuffix('.png')}{sample}.png"


def mean_file(row: Row) -> Path:
    """Returns where the mean of the samples of a row's image is, relative to the folder."""
    return Path("mean") / _problem(row) / _method(row) / png_name(row["image"])


def spread_file(row: Row) -> Path:
    """Returns where the standard deviation of the samples of a row's image is, relative to the folder."""
    return Path("spread") / _problem(row) / _method(row) / png_name(row["image"])


def png_name(image: str) -> str:
    """Returns the name of a picture made of an image: photo.png, photo.jpg.png."""
    return image if image.endswith(".png") else f"{image}.png"


def _problem(row: Row) -> str:
    return f"{slug(row['task'])}_sigma{row['sigma_y']}"


def _method(row: Row) -> str:
    knobs = [f"{label}{row[label]}" for knob in KNOBS.values() if (label := knob.label) in row]
    return "_".join([family(row["method"]), row["sampler"], row["spacing"], f"nfe{row['nfe']}", *knobs])
