"""Standard output: written at once or given up, with a reason."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from dmps_cli import processes

_LEAST_WIDTH, _USUAL_WIDTH = 40, 80


class StdoutError(Exception):
    """Standard output takes no more: its disk is full, for one."""


class ReaderLeftError(StdoutError):
    """Its reader has left, as `head` does: nobody is waiting for more."""


def print_result(render: Callable[[TextIO], str]) -> None:
    """Writes a text on stdout, at once; on none where it is closed; of several ranks the first. Raises StdoutError."""
    if processes.rank() or sys.stdout is None:
        return
    with whole_stdout():  # rich asks the stream while it lays a table out
        print(render(sys.stdout), flush=True)


@contextmanager
def whole_stdout() -> Iterator[None]:
    """Ends when what is printed meanwhile, by whomever, has left. Raises StdoutError if that cannot be."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails on it again as it leaves
        has_left = exc.errno == errno.EPIPE or (os.name == "nt" and exc.errno == errno.EINVAL)
        raise (ReaderLeftError if has_left else StdoutError)(exc.strerror or str(exc)) from exc


def is_terminal(stream: TextIO | None) -> bool:
    """Returns whether a person reads there."""
    return stream is not None and stream.isatty()


def wrapped(text: str, stream: TextIO) -> str:
    """Returns a line for a terminal broken between words where it ends; elsewhere as it is."""
    if not is_terminal(stream):
        return text
    indent = " " * (len(text) - len(text.lstrip()))
    width = shutil.get_terminal_size().columns if os.environ.get("COLUMNS") else _columns(stream)
    return textwrap.fill(
        text,
        max(width, _LEAST_WIDTH),
        subsequent_indent=f"{indent}  ",
        break_long_words=False,  # paths and hashes stay whole
        break_on_hyphens=False,
    )


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return _USUAL_WIDTH
