"""Many inputs in one call: where each result goes, and one failure does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from dmps_cli.cli.console import Console
from dmps_cli.cli.options import OutputFlags
from dmps_cli.errors import DmpsError, OutputError, UsageError
from dmps_cli.files import IMAGE_SUFFIXES, OUTPUT_SUFFIXES, check_writable, expand_inputs, refuse_existing


@dataclass(kw_only=True)
class Batch:
    """What came of each input so far."""

    console: Console
    results: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[str, DmpsError]] = field(default_factory=list)

    @contextmanager
    def item(self, name: str | Path) -> Iterator[None]:
        """Work on one input: a DmpsError inside is reported and remembered, and the batch goes on."""
        try:
            yield
        except DmpsError as exc:
            self.fail(str(name), exc)

    def fail(self, name: str, error: DmpsError) -> None:
        """Reports and remembers the failure of an input."""
        text = str(error)
        self.console.error(text if name in text else f"{name}: {text}")
        self.failures.append((name, error))

    def finish(self, facts: dict[str, Any]) -> None:
        """Prints the JSON object and, after several inputs, the list of failures; leaves with the batch's exit code.

        0: all done. 2: nothing done, and every failure was the command line's. 1: otherwise.
        """
        failures = [{"input": name, "error": str(error)} for name, error in self.failures]
        self.console.object({**facts, "results": self.results, "failures": failures})
        if not failures:
            return
        total = len(failures) + len(self.results)
        if total > 1:
            self.console.error(f"{len(failures)} of {total} failed: {', '.join(name for name, _ in self.failures)}")
        usage_only = not self.results and all(isinstance(error, UsageError) for _, error in self.failures)
        raise typer.Exit(UsageError.exit_code if usage_only else DmpsError.exit_code)


def open_batch(arguments: Sequence[str], console: Console) -> tuple[Batch, list[Path]]:
    """(the batch, its input files); what is missing among the arguments has failed already."""
    batch = Batch(console=console)
    paths, failures = expand_inputs(arguments)
    for name, error in failures:
        batch.fail(name, error)
    return batch, paths


def plan_outputs(batch: Batch, inputs: Sequence[Path], tag: str, flags: OutputFlags) -> list[tuple[Path, Path]]:
    """Pairs (input, output); inputs whose output is taken, already or by another input, are failed or skipped.

    tag: what is added to the input's stem. Raises UsageError where -o names a file for several inputs.
    """
    planned: dict[Path, Path] = {}
    for path in inputs:
        with batch.item(path):
            target = _target(path, tag, flags, several=len(inputs) + len(batch.failures) > 1)
            if target.resolve() == path.resolve():
                raise UsageError(f"{path}: the output would replace the input; choose another -o")
            sidecar = path.with_suffix(".json")
            if sidecar.exists() and target.with_suffix(".json").resolve() == sidecar.resolve():
                raise UsageError(f"{path}: the output's sidecar would replace {sidecar}; choose another name with -o")
            check_writable(target.parent)
            if target in planned:
                raise OutputError(f"{path} and {planned[target]} would both be written to {target}; rename one of them")
            planned[target] = path
    return [(path, target) for target, path in planned.items()]


def taken(pictures: Sequence[Path], companions: Sequence[Path], flags: OutputFlags, console: Console) -> bool:
    """Whether to skip an input: with --skip-existing, if all its pictures exist, which are written last.

    Raises OutputError if a picture or a companion exists otherwise, but with --overwrite.
    """
    if flags.skip_existing and all(map(os.path.lexists, pictures)):
        console.note(f"{pictures[0]} exists; skipped")
        return True
    if not flags.overwrite:
        refuse_existing(*pictures, *companions)
    return False


def _target(path: Path, tag: str, flags: OutputFlags, *, several: bool) -> Path:
    name = f"{path.stem}{tag}.png"
    if flags.output is None:
        return path.with_name(name)
    is_file_name = flags.output.suffix.lower() in IMAGE_SUFFIXES and not flags.output.is_dir()
    if is_file_name and several:
        raise UsageError(f"-o {flags.output} names a file, but there are several inputs; name a folder")
    if is_file_name and flags.output.suffix.lower() not in OUTPUT_SUFFIXES:
        raise UsageError(f"-o {flags.output}: cannot write that format; choose one of {', '.join(OUTPUT_SUFFIXES)}")
    return flags.output if is_file_name else flags.output / name
