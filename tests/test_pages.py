"""What the pages name is there: links, headings, files of the repository, modules."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

import dmps_cli
from dmps_cli.tasks.purposes import PURPOSES

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / ".github" / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
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
def test_pictures_are_there(page: Path) -> None:
    assert all((page.parent / source).is_file() for source in re.findall(r'src="([^":]+)"', page.read_text("utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:src|tests|benchmarks|docs)/[\w/.]*\w", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`([a-z_/]+\.py)`", text):
        assert (ROOT / name).exists() or any(PACKAGE.rglob(name)), name
    for name in re.findall(r"\bdmps_cli(?:\.[a-z_]+)+", text):
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_of_the_site_link_below_docs(page: Path) -> None:
    if page.is_relative_to(ROOT / "docs"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).resolve().is_relative_to(ROOT / "docs"), target


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(r"(?m): ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert len(named) == len(set(named))
    assert set(named) == pages


def test_the_readme_has_the_commands_of_the_program_for_what_is_wrong() -> None:
    rows = re.findall(r"\| `dmps restore \S+ (--task [^`]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(rows) == 8
    assert set(rows) <= {purpose.arguments for purpose in PURPOSES}


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    assert [name for name in dmps_cli.__all__ if not re.search(rf"\b{name}\b", page)] == ["__version__"]


def test_what_is_shown_as_added_is_in_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (*PACKAGE.rglob("*.py"), ROOT / "weights.toml"))
    diffs = re.findall(r"```diff\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(diffs) >= 9
    for diff in diffs:
        assert re.sub(r"(?m)^\+", "", diff) in code, diff
