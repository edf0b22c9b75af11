"""Many inputs in one call: where each result goes, and one failure does not stop the others."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from dmps_cli.checks import option
from dmps_cli.errors import DmpsError, InputError, OutputError, UsageError, memory_errors
from dmps_cli.files.atomic import check_name, check_writable, refuse_existing, remove_left_overs
from dmps_cli.files.inputs import expand_inputs
from dmps_cli.files.measurements import KIND, is_of, siblings, sidecar_kind
from dmps_cli.files.options import InputOptions
from dmps_cli.files.suffixes import IMAGE_SUFFIXES, OUTPUT_SUFFIXES
from dmps_cli.listener import SILENT, Listener

FAILURES_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where results go, and what becomes of those that are there."""

    output: str | None = option(
        "A file for one input, a folder (made if it is missing) for several. Default: beside the input.",
        "PATH",
        names=("--output", "-o"),
    )
    overwrite: bool = option("Replace existing output files.", names=("--overwrite",), default=False)
    skip_existing: bool = option(
        "Leave inputs alone whose output exists; go on after an interruption.",
        names=("--skip-existing",),
        default=False,
    )

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise UsageError("--overwrite and --skip-existing exclude each other")


@dataclass(kw_only=True)
class Batch:
    """What came of each input so far. places: the folder that -o keeps of an input, where it has one."""

    listener: Listener = SILENT
    results: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[str, DmpsError]] = field(default_factory=list)
    places: Mapping[Path, PurePath] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def note_once(self, kind: str, text: str) -> None:
        """Says a thing of its kind for the first input that it is true of, and for no other."""
        if kind not in self.said:
            self.said.add(kind)
            self.listener.note(text)

    @contextmanager
    def item(self, name: str | Path) -> Iterator[None]:
        """Stands around the work on one input: a failure that a person can be told is told, and the batch goes on."""
        try:
            with memory_errors():
                yield
        except DmpsError as exc:
            self.fail(str(name), exc)
        except OSError as exc:  # of the system, about a name or a file: the others may be better
            self.fail(str(name), InputError(f"{name}: {exc.filename or name}: {exc.strerror or exc}"))

    def fail(self, name: str, error: DmpsError) -> None:
        """Reports and remembers the failure of an input."""
        text = str(error)
        self.listener.error(text if name in text else f"{name}: {text}")
        self.failures.append((name, error))

    def described(self) -> dict[str, Any]:
        """Returns what came of each input, for the JSON."""
        failures = [{"input": name, "error": str(error)} for name, error in self.failures]
        return {"results": self.results, "failures": failures}

    def finish(self) -> int:
        """Returns the batch's exit code; after several inputs the list of failures is said.

        0: all done. 2: nothing done, and every failure was the command line's. 1: otherwise.
        """
        if not self.failures:
            return 0
        failed = [*dict.fromkeys(name for name, _ in self.failures)]
        total = len({*failed, *(result["input"] for result in self.results)})
        if total > 1:
            self.listener.error(failure_list(failed, total))
        usage_only = not self.results and all(isinstance(error, UsageError) for _, error in self.failures)
        return UsageError.exit_code if usage_only else DmpsError.exit_code


def failure_list(failed: Sequence[str], total: int) -> str:
    """Returns '2 of 5 failed: a.png, b.png', a long list cut short."""
    more = f" and {len(failed) - FAILURES_LISTED} more" if len(failed) > FAILURES_LISTED else ""
    return f"{len(failed)} of {total} failed: {', '.join(failed[:FAILURES_LISTED])}{more}"


def open_batch(
    arguments: Sequence[str], listener: Listener, left_out: Sequence[str], options: InputOptions | None = None
) -> tuple[Batch, list[Path]]:
    """Returns (the batch, its input files); what is missing among the arguments has failed already.

    left_out: kinds of results that a folder or glob does not bring in: a second run over it must not take the results
    of the first. Named, such a picture is an input like any other. Of a measurement's three files, one is its input.
    """
    batch = Batch(listener=listener)
    results: list[Path] = []

    def is_input(path: Path) -> bool:
        if sidecar_kind(path) in left_out:
            results.append(path)
            return False
        return path.suffix.lower() in (*IMAGE_SUFFIXES, ".npy")

    if not arguments and (options is None or options.listed is None):
        raise UsageError("name an INPUT: a file, a folder or a glob; or --list FILE")
    found = expand_inputs(arguments, is_input, options)
    paths, batch.places = found.paths, found.places
    for name, error in found.failures:
        batch.fail(name, error)
    if skipped := found.skipped_note():
        listener.note(skipped)
    if results:
        count = "1 result" if len(results) == 1 else f"{len(results)} results, {results[0]} for one,"
        listener.note(f"left out of the inputs: {count} of dmps; name such a file to take it")
    pictures = {path.with_suffix(""): path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES}
    return batch, [path for path in paths if not is_companion(path, pictures.get(path.with_suffix("")))]


def is_companion(path: Path, picture: Path | None) -> bool:
    """Returns whether a file only belongs to a picture among the inputs: its .json, or the floats of a measurement."""
    if picture is None or path == picture:
        return False
    suffix = path.suffix.lower()
    return suffix == ".json" or (suffix == ".npy" and sidecar_kind(picture) == KIND)


def plan_outputs(
    batch: Batch,
    inputs: Sequence[Path],
    name: Callable[[PurePath], str],
    flags: OutputOptions,
    written: Callable[[Path], Sequence[Path]],
    *,
    kept: Sequence[Path] = (),
    check: Callable[[Path], object] = lambda path: None,
) -> list[tuple[Path, Path]]:
    """Pairs (input, output); inputs whose output would take the place of an input, or of another output, are failed.

    name: that of an input's output. Inputs of one folder whose names differ in their suffix alone keep it in their
    outputs' names, for companions have none of it: a_jpg_restored.png, a_png_restored.png.

    written: all files that an output's name stands for. kept: further files that are read and must not be replaced;
    check: raises what else is wrong with an output's name. Raises UsageError where -o cannot be what it should.
    """
    several = len(inputs) + len(batch.failures) > 1
    folder = _is_folder(flags.output, several=several)
    guarded = {
        os.path.realpath(file): file for path in inputs for file in (path, *filter(os.path.exists, siblings(path)))
    }
    guarded |= {os.path.realpath(file): file for file in kept}
    own_name = _names(inputs, name, batch.places, flags.output)
    claimed: dict[str, Path] = {}
    planned: list[tuple[Path, Path]] = []
    for path in inputs:
        with batch.item(path):
            target = _target(path, own_name[path], flags.output, batch.places.get(path), is_folder=folder)
            names = written(target)
            files = [os.path.realpath(file) for file in names]
            if taken := [guarded[file] for file in files if file in guarded]:
                raise UsageError(f"{path}: the output {target} would replace the input {taken[0]}; choose another -o")
            if others := [claimed[file] for file in files if file in claimed]:
                raise OutputError(
                    f"{path} and {others[0]} would both be written to {target}; rename one of them, or keep their "
                    "folders with --recursive"
                )
            check_writable(target.parent)
            check(target)
            for file in names:
                check_name(file)
            claimed |= dict.fromkeys(files, path)
            planned.append((path, target))
    remove_left_overs(file for _, target in planned for file in written(target))
    return planned


def may_write(
    target: Path, companions: Sequence[Path], made_of: Mapping[str, Any], flags: OutputOptions, listener: Listener
) -> bool | None:
    """Returns whether to write a picture, the last of its files.

    False as a new one, True over what is there, None: skip it.

    With --skip-existing a picture that exists is skipped. Companions without it are what an interrupted run left, and
    are written anew, if their sidecar says `made_of` too: the same result of the same input. Raises OutputError where
    something exists otherwise, but with --overwrite.
    """
    if flags.overwrite:
        return True
    if flags.skip_existing and os.path.lexists(target):
        listener.note(f"{target} exists; skipped")
        return None
    if flags.skip_existing and is_of(target, made_of):
        return True
    refuse_existing(target, *companions)
    return False


def _is_folder(output: str | None, *, several: bool) -> bool:
    """Returns whether -o means a folder.

    Raises UsageError for a file where several are due, or one that is no picture's.
    """
    if output == "":
        raise UsageError("-o is empty; name a file or a folder")
    if output == "-":
        raise UsageError("-o -: pictures are not written to standard output; name a file or a folder")
    if output is None or os.path.isdir(output) or output.endswith(("/", os.sep)):  # noqa: PTH112 - no error for odd names
        return output is not None
    suffix = Path(output).suffix.lower()
    if not suffix:
        return True
    if suffix not in OUTPUT_SUFFIXES:
        raise UsageError(
            f"-o {output}: cannot write the format {suffix}; choose one of {', '.join(OUTPUT_SUFFIXES)}, "
            f"or write {output}/ if a folder is meant"
        )
    if several:
        raise UsageError(f"-o {output} names a file, but there are several inputs; name a folder")
    return False


def _target(path: Path, name: str, output: str | None, place: PurePath | None, *, is_folder: bool) -> Path:
    if output is None:
        return path.with_name(name)
    return Path(output) / (place or "") / name if is_folder else Path(output)


def _names(
    inputs: Sequence[Path], name: Callable[[PurePath], str], places: Mapping[Path, PurePath], output: str | None
) -> dict[Path, str]:
    """Returns the name of each input's output; two of one folder whose stems are equal keep their suffixes in them."""

    def stem(path: Path) -> tuple[PurePath, str]:
        folder = path.parent if output is None else places.get(path, PurePath())
        return folder, PurePath(name(path)).stem.casefold()

    count = Counter(map(stem, inputs))

    def told(path: Path) -> PurePath:
        return path.with_stem(f"{path.stem}_{path.suffix[1:]}") if path.suffix and count[stem(path)] > 1 else path

    suffixes = Counter((*stem(path), path.suffix.lower()) for path in inputs)
    return {path: name(told(path) if suffixes[(*stem(path), path.suffix.lower())] == 1 else path) for path in inputs}
