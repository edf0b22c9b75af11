"""`--help` of every command as it was last read by a person, and the frozen list of options.

A change is recorded by `python -m tests.cli.record_help`, and read before it is committed.
"""

from __future__ import annotations

import re

import pytest

from tests.cli.record_help import FOLDER, OPTIONS, help_texts

RECORDED = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return help_texts()


def test_help_is_as_recorded(texts: dict[str, str]) -> None:
    assert texts == RECORDED, "if the change is meant: python -m tests.cli.record_help"


def test_every_option_is_explained_and_nothing_is_cut(texts: dict[str, str]) -> None:
    pages = {name.removesuffix(".txt").replace("_", " "): text for name, text in texts.items() if name != OPTIONS}
    for line in texts[OPTIONS].splitlines():
        command, _, option = line.rpartition(" ")
        if command != "dmps" or option not in ("--install-completion", "--show-completion"):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", pages[command]), line
    assert all(len(line) <= 100 and "…" not in line for text in pages.values() for line in text.splitlines())
