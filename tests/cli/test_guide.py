"""A person who does not know the tasks: what is typed by mistake leads to the right name, a picture to what fits it."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmps_cli.errors import UsageError
from dmps_cli.jobs.inspection import edge_width, look
from dmps_cli.tasks.purposes import OF_A_PICTURE, PURPOSES, meant_by
from dmps_cli.tasks.rows import TASKS
from dmps_cli.tasks.table import task
from tests.shell import Dmps, photo


@pytest.mark.parametrize(
    ("typed", "options"),
    [
        ("upscale", ["sr4"]),
        ("super-resolution", ["sr4"]),
        ("Super Resolution", ["sr4"]),
        ("superresolution", ["sr4"]),
        ("x4", ["sr4"]),
        ("2x", ["sr2"]),
        ("upscale-8x", ["sr8"]),
        ("sr3", ["sr --scale 3"]),
        ("sr1", ["sr4"]),
        ("defocus", ["blur --kernel defocus:4.5"]),
        ("unblur", ["blur --kernel defocus:4.5", "blur --kernel motion:15,30", "blur --kernel gauss:2"]),
        ("sharpen", ["blur --kernel defocus:4.5", "blur --kernel motion:15,30", "blur --kernel gauss:2"]),
        ("deblurr", ["deblur"]),
        ("motion_blur", ["blur --kernel motion:15,30"]),
        ("denoising", ["denoise"]),
        ("remove-noise", ["denoise"]),
        ("dnoise", ["denoise"]),
        ("colourize", ["colorize"]),
        ("coluorise", ["colorize"]),
        ("fill", ["inpaint"]),
        ("scratches", ["inpaint"]),
        ("compressed-sensing", ["cs"]),
        ("artefacts", ["jpeg"]),
        ("compressed", ["jpeg", "cs"]),
        ("SR4-AVG", ["sr4-avg"]),
    ],
)
def test_a_synonym_leads_to_the_name(typed: str, options: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        task(typed, "dmps restore p.png")
    for option in options:
        assert f"dmps restore p.png --task {option}" in str(caught.value)


@pytest.mark.parametrize("typed", ["gimp", "denmark", "q", "", "7"])
def test_what_nobody_can_tell_is_answered_with_the_list(typed: str) -> None:
    assert meant_by(typed, TASKS) == ()
    with pytest.raises(UsageError, match=r"choose one of .*colorize, cs, "):
        task(typed)


def test_every_word_has_one_meaning() -> None:
    words = [word for purpose in PURPOSES for word in purpose.words.split()]
    assert len(words) == len({*words})
    assert not {*words} & {*TASKS}


@pytest.mark.parametrize("purpose", OF_A_PICTURE, ids=lambda purpose: purpose.fault)
def test_what_the_guide_says_can_be_typed(purpose: object, dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    Image.fromarray(np.arange(24 * 32).reshape(24, 32) % 7 > 0).save(tmp_path / "mask.png")
    said = dmps("restore", "p.png")
    assert (said.code, said.out) == (2, "")
    line = next(line for line in said.err.splitlines() if line.strip().startswith(purpose.fault))  # type: ignore[attr-defined]
    arguments = re.search(r"--task .*?(?=  |$)", line)
    assert arguments, line
    photo(tmp_path / "p.jpg")
    picture = "p.jpg" if arguments[0] == "--task jpeg" else "p.png"
    done = dmps("restore", picture, *shlex.split(arguments[0]), "--nfe", "1")
    assert done.code == 0, done.err


def test_the_guide_is_given_once_and_not_to_the_quiet(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    photo(tmp_path / "b c.png", seed=1)
    both = dmps("restore", "a.png", "b c.png")
    assert (both.code, both.err.count("name a --task"), both.err.count("camera or subject moved")) == (2, 2, 1)
    assert "dmps restore 'b c.png' --task" in dmps("restore", "b c.png").err
    assert dmps("restore", "a.png", "--quiet").err.splitlines() == [
        "dmps: error: a.png: nothing says how it was degraded; name a --task"
    ]


@pytest.mark.parametrize("width", [1, 3, 6, 9])
def test_a_step_blurred_by_a_box_is_as_wide_as_the_box(width: int) -> None:
    profile = torch.cat([torch.full((30,), -0.5), torch.linspace(-0.5, 0.5, width + 1), torch.full((30,), 0.5)])
    grey = profile.repeat(40, 1)[None, None]
    measured = edge_width(grey)
    assert measured is not None
    assert math.isclose(measured, width, rel_tol=1e-4)
    assert edge_width(grey.mT) is None


def test_what_a_picture_shows(dmps: Dmps, tmp_path: Path) -> None:
    """A street of posts, moved along the rows: grey in three equal channels, half of it transparent."""
    rows, columns = np.mgrid[:64, :96]
    posts = (((rows // 16 + columns // 24) % 2) * 180 + 30).astype(float)
    moved = sum(np.roll(posts, shift, 1) for shift in range(-5, 6)) / 11
    rgba = np.stack([moved] * 3 + [np.where(rows < 32, 255, 0)], -1).astype(np.uint8)
    Image.fromarray(rgba[:32, :, :3]).save(tmp_path / "rgb.png")
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    seen = look(tmp_path / "rgb.png")
    assert seen is not None
    assert (seen.width, seen.height, seen.is_grey, seen.transparent) == (96, 32, True, 0.0)
    assert seen.moved_along == "horizontally"
    across, down = seen.edges
    assert across is not None
    assert down is not None
    assert abs(across - 11) < 0.5
    assert down < 1.1
    assert "--kernel motion:" in dmps("restore", "rgb.png").err.split("may fit")[1]
    transparent = look(tmp_path / "rgba.png")
    assert transparent is not None
    assert transparent.transparent == 0.5
    assert "--task inpaint" in dmps("restore", "rgba.png").err.split("may fit")[1]


def test_floats_that_are_no_picture_are_called_that(dmps: Dmps, tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.zeros((3, 50), np.float32))
    result = dmps("restore", "y.npy")
    assert (result.code, "no picture" in result.err) == (2, True)


def test_a_task_that_is_meant_for_several_reasons_is_named_once(dmps: Dmps) -> None:
    result = dmps("restore", "p.png", "--task", "unblur")
    assert result.code == 2
    assert result.err.count("'blur'") == 1
