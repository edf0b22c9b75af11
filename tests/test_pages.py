"""What the pages name is there: links, headings, files of the repository, modules."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / ".github" / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
PACKAGE = ROOT / "src" / "dmps_cli"


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        led = page.parent / target if target else page
        assert led.exists(), target
        assert not anchor or anchor in anchors(led), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:src|tests|benchmarks|docs)/[\w/.]*\w", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`([a-z_/]+\.py)`", text):
        assert (ROOT / name).exists() or any(PACKAGE.rglob(name)), name
    for name in re.findall(r"\bdmps_cli(?:\.[a-z_]+)+", text):
        pkgutil.resolve_name(name)
