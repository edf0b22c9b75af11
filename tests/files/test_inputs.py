"""Folders of folders, lists, and what is skipped."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from PIL import Image

from dmps_cli.errors import InputError
from dmps_cli.files.inputs import Found, expand_inputs
from dmps_cli.files.options import InputOptions
from dmps_cli.files.suffixes import IMAGE_SUFFIXES, READ

NOT_READ = {"EPS", "WMF", "GRIB", "HDF5", "BUFR", "FITS", "MPEG", "IPTC"}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/x/a.png", "in/x/y/b.jpg", "in/x/.hidden/c.png", "in/n.txt", "in/x/m.MP4", "in/a.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def places(found: Found) -> dict[str, str]:
    assert found.failures == []
    return {str(path): str(place) for path, place in found.places.items()}


def test_suffixes_are_those_that_pillow_reads() -> None:
    Image.init()
    known = {suffix: name for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    assert {suffix for suffix, name in known.items() if name not in NOT_READ} | {".mpo"} == set(IMAGE_SUFFIXES)
    assert {known[suffix] for suffix in IMAGE_SUFFIXES if suffix in known} | {"MPO"} == set(READ)


def test_a_folder_of_folders_keeps_its_tree() -> None:
    found = expand_inputs(["in"], options=InputOptions(recursive=True))
    assert places(found) == {"in/a.png": ".", "in/x/a.png": "x", "in/x/y/b.jpg": "x/y"}
    assert found.skipped_note() == "skipped: 2 files with no suffix of a picture (1 .txt, 1 .mp4)"
    assert places(expand_inputs(["in"])) == {"in/a.png": "."}


def test_a_glob_keeps_the_tree_below_its_beginning() -> None:
    assert places(expand_inputs(["in/**/a.png"])) == {"in/a.png": ".", "in/x/a.png": "x"}
    assert places(expand_inputs(["in/x/*/*.jpg"])) == {"in/x/y/b.jpg": "y"}


def test_names_and_lists() -> None:
    Path("list.txt").write_text("in/a.png\n\nin/x/a.png\n")
    listed = InputOptions(listed=Path("list.txt"))
    assert places(expand_inputs([], options=listed)) == {"in/a.png": ".", "in/x/a.png": "."}
    both = InputOptions(listed=Path("list.txt"), recursive=True)
    assert places(expand_inputs([], options=both)) == {"in/a.png": ".", "in/x/a.png": "x"}
    assert expand_inputs(["in/a.png"], options=InputOptions(recursive=True)).places == {Path("in/a.png"): PurePath()}
    for text, said in (("", "names no file"), (None, "cannot read the list")):
        Path("list.txt").unlink() if text is None else Path("list.txt").write_text(text)
        with pytest.raises(InputError, match=said):
            expand_inputs([], options=listed)


def test_a_folder_without_pictures_names_the_way_to_those_below() -> None:
    Path("in/a.png").unlink()
    ((_, error),) = expand_inputs(["in"]).failures
    assert "--recursive takes those of its folders" in str(error)
