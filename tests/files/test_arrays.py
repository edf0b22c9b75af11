"""Arrays as other programs save them: axes and scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmps_cli.errors import InputError, UsageError
from dmps_cli.files.measurements import Taken, read_measurement
from dmps_cli.files.options import ReadingOptions

PATH = Path("x.npy")
SCENE = np.random.default_rng(0).uniform(0.1, 0.9, (3, 5, 7)).astype(np.float32)


def read(array: np.ndarray, value_range: str | None = None) -> np.ndarray:
    np.save(PATH, array)
    pixels: np.ndarray = read_measurement(
        PATH, None, Taken(options=ReadingOptions(value_range=value_range))
    ).pixels.numpy()
    return pixels


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("array", "value_range"),
    [
        (SCENE, "0,1"),
        (SCENE * 255, "0,255"),
        (SCENE * 2 - 1, "-1,1"),
        (SCENE * 2 - 1, None),
        (SCENE[None], "0,1"),
        ((SCENE * 2 - 1).astype(np.float64), None),
    ],
)
def test_a_range_says_the_scale(array: np.ndarray, value_range: str | None) -> None:
    np.testing.assert_allclose(read(array, value_range)[0], SCENE * 2 - 1, rtol=0, atol=1e-6)


def test_whole_numbers_and_grey_planes() -> None:
    whole = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
    np.testing.assert_allclose(read(whole, "0,255"), whole[None, None] / 127.5 - 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (SCENE, "on \\[0, 1\\] or on \\[-1, 1\\].*--range 0,1 or --range -1,1"),
        (SCENE * 255, "on \\[0, 255\\] or, very noisy, on \\[-1, 1\\].*--range 0,255"),
        (SCENE - 3.0, "--range 0,255 or --range -1,1"),
        (np.moveaxis(SCENE * 2 - 1, 0, -1), "HWC"),
        (np.ones((5, 7, 4), np.float32), "HWC.*opacity"),
        (np.zeros((2, 5, 7), np.float32), "not \\(channels, height, width\\)"),
        ((SCENE * 255).astype(np.uint8), "--range 0,255 for whole numbers"),
    ],
)
def test_what_could_be_either_is_refused(array: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(array)


def test_an_unknown_range_is_refused() -> None:
    with pytest.raises(UsageError, match="0,255"):
        ReadingOptions(value_range="0,65535")
