"""Blurred pictures through the command: scenes that go on beyond the frame, kernels in files, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve, convolve1d

from dmps_cli.cli.groups import COMPLETE
from tests.shell import FAST, Dmps, photo, pixels

SIDE, AROUND = 64, 16


def scene(side: int, seed: int) -> np.ndarray:
    """(side, side, 3) on 0..1: waves of colour, boxes, two lines."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    picture = np.stack([0.5 + 0.3 * np.sin(x / (9 + 3 * k) + k) * np.cos(y / (7 + 2 * k) - k) for k in range(3)], -1)
    for _ in range(12):
        top, left = random.integers(0, side - 4, 2)
        height, width = random.integers(3, side // 3, 2)
        box = (slice(top, top + height), slice(left, left + width))
        picture[box] = 0.4 * picture[box] + 0.6 * random.random(3)
    picture[side // 3 : side // 3 + 2] *= 0.4
    picture[:, side // 2 : side // 2 + 2] = 1 - 0.5 * picture[:, side // 2 : side // 2 + 2]
    return picture.clip(0, 1)


def write(path: str, picture: np.ndarray) -> None:
    Image.fromarray((picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)).save(path)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.square(a.astype(float) - b.astype(float)).mean())


@pytest.fixture
def camera(dmps: Dmps) -> None:
    """truth.png, and it blurred as a camera does it: with what is beyond the frame, and a little noise."""
    del dmps  # for its folder
    large, inside = scene(SIDE + 2 * AROUND, 5), slice(AROUND, -AROUND)
    random, taps = np.random.default_rng(1), np.full(9, 1 / 9)
    motion = convolve1d(large, taps, axis=1)
    write("truth.png", large[inside, inside])
    disc = np.hypot(*np.mgrid[-3:4, -3:4]) <= 3.3
    Image.fromarray(disc.astype(np.uint8) * 255).save("disc.png.kernel", format="PNG")
    round_ = np.stack([convolve(large[:, :, k], disc / disc.sum()) for k in range(3)], axis=2)
    for name, blurred in {"box": convolve1d(motion, taps, axis=0), "motion": motion, "disc": round_}.items():
        sharp = blurred[inside, inside]
        write(f"{name}.png", sharp + 0.01 * random.standard_normal(sharp.shape))


@pytest.mark.parametrize(
    ("name", "arguments", "gain"),
    [
        ("box", ["deblur"], 5.0),
        ("motion", ["motion", "--length", "9", "--angle", "0"], 5.0),
        ("motion", ["blur", "--kernel", "k.npy", "--boundary", "replicate"], 4.0),
        ("disc", ["blur", "--kernel", "disc.png.kernel"], 5.0),
    ],
)
def test_a_camera_picture_becomes_better_up_to_its_border(
    dmps: Dmps, camera: None, name: str, arguments: list[str], gain: float
) -> None:
    """By the whole picture, and by its outermost eight pixels alone."""
    np.save("k.npy", np.ones((1, 9)))
    result = dmps("restore", f"{name}.png", "-t", *arguments, "--sigma", "0.02", "-o", "x.png")
    assert (result.code, result.out) == (0, "x.png\n"), result.err
    if "--boundary" not in arguments:
        assert "boundary valid" in result.err
    truth, blurred, restored = (pixels(file) for file in ("truth.png", f"{name}.png", "x.png"))
    assert restored.shape == truth.shape
    assert psnr(restored, truth) > psnr(blurred, truth) + gain
    border = np.ones((SIDE, SIDE), dtype=bool)
    border[8:-8, 8:-8] = False
    assert psnr(restored[border], truth[border]) > psnr(blurred[border], truth[border]) + gain - 2.0


def test_a_measurement_within_a_scene_needs_no_kernel_file(dmps: Dmps, tmp_path: Path) -> None:
    """The picture that is degraded is the scene; y shows less; what is restored and scored is what y shows."""
    photo(tmp_path / "p.png", (40, 30))
    np.save("k.npy", np.random.default_rng(0).random((4, 7)))
    result = dmps("degrade", "p.png", "-t", "blur", "--kernel", "k.npy", "--boundary", "valid", "-o", "y.png")
    assert "kernel 7 x 4 px, boundary valid" in result.err
    assert "the measurement shows 34 x 27 px from (3, 1) of 40 x 30" in result.err
    assert pixels("y.png").shape == (27, 34, 3)
    recorded = json.loads(Path("y.json").read_text())
    assert (recorded["image_shape"], recorded["operator"]["kernel"]["size"]) == ([3, 30, 40], [4, 7])
    Path("k.npy").unlink()
    Image.fromarray(pixels("p.png")[1:28, 3:37]).save("shown.png")
    for reference in ("p.png", "shown.png"):
        result = dmps("restore", "y.png", "--reference", reference, "-o", "x.png", "--overwrite", "--json", *FAST)
        assert result.code == 0, result.err
        restored = json.loads(result.out)["results"][0]
        assert restored["operator"] == recorded["operator"]
        assert pixels("x.png").shape == (27, 34, 3)
        assert restored["psnr"] == pytest.approx(psnr(pixels("x.png"), pixels("shown.png")), abs=0.02)
    Image.fromarray(pixels("p.png")[:28]).save("other.png")
    result = dmps("restore", "y.png", "--reference", "other.png", "-o", "z.png", *FAST)
    assert result.code == 1
    assert "the reference other.png is 40 x 28 px, the restoration would be 34 x 27" in result.err


@pytest.mark.parametrize(
    ("task", "boundary"), [("deblur", "zero"), ("deblur-gauss", "zero"), ("motion", "circular"), ("blur", "circular")]
)
def test_measurements_keep_the_boundary_of_their_task(dmps: Dmps, tmp_path: Path, task: str, boundary: str) -> None:
    photo(tmp_path / "p.png")
    flags = ["--kernel", "motion:5,20"] if task == "blur" else []
    assert f"boundary {boundary}" in dmps("degrade", "p.png", "-t", task, *flags, "-o", "y.png").err
    assert f"boundary {boundary}" in dmps("restore", "y.png", "-o", "x.png", *FAST).err


def test_another_boundary_wins_over_the_recorded_one(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    dmps("degrade", "p.png", "-t", "deblur", "-o", "y.png")
    result = dmps("restore", "y.png", "--boundary", "valid", "--reference", "p.png", "-o", "x.png", *FAST)
    assert result.code == 0, result.err
    assert "--boundary valid overrides the sidecar's zero" in result.err
    assert pixels("x.png").shape == (24, 32, 3)


def test_the_same_kernel_named_again_is_no_other_one(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    np.save("k.npy", np.eye(3))
    dmps("degrade", "p.png", "-t", "blur", "--kernel", "k.npy", "-o", "y.png")
    np.save("again.npy", np.eye(3))
    assert "overrides" not in dmps("restore", "y.png", "--kernel", "again.npy", "-o", "x.png", *FAST).err
    said = dmps("restore", "y.png", "--kernel", "uniform:3", "-o", "z.png", *FAST).err
    assert "--kernel uniform:3 overrides the sidecar's 3 x 3 px" in said


BAD: dict[str, tuple[Any, int, str]] = {
    "zeros": (np.zeros((3, 3)), 1, "is 0 everywhere"),
    "NaN": (np.full((3, 3), math.nan), 1, "holds NaN or infinity"),
    "three dimensions": (np.ones((3, 3, 3)), 1, "has the shape 3 x 3 x 3; expected two dimensions"),
    "larger than the picture": (np.ones((3, 33)), 1, "33 x 3 px, larger than the picture of 32 x 24"),
    "unreadable": (b"no kernel", 1, "its content is none of PNG, NPY and MAT"),
    "missing": (None, 1, "the kernel k.npy does not exist"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_kernel_is_one_line_and_nothing_is_written(dmps: Dmps, tmp_path: Path, case: str) -> None:
    photo(tmp_path / "p.png")
    content, code, message = BAD[case]
    if isinstance(content, bytes):
        Path("k.npy").write_bytes(content)
    elif content is not None:
        np.save("k.npy", content)
    before = sorted(tmp_path.iterdir())
    for command in (["degrade"], ["restore"], ["restore", "--boundary", "reflect"]):
        result = dmps(command[0], "p.png", "-t", "blur", "--kernel", "k.npy", *command[1:])
        assert result.code == code
        assert result.err.count("error:") == 1
        assert message in result.err
        assert result.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_bad_kernel_is_said_once_for_many_pictures(dmps: Dmps, tmp_path: Path) -> None:
    for name in ("p.png", "q.png"):
        photo(tmp_path / name)
    result = dmps("restore", "p.png", "q.png", "-t", "blur", "--kernel", "gaus:3")
    assert (result.code, result.err.count("error:")) == (2, 1)


def test_a_picture_is_not_deblurred_by_invention(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    result = dmps("restore", "p.png", "-t", "blur")
    assert result.code == 2
    assert "say what was done to the picture with --kernel" in result.err


def test_a_kernels_file_is_not_written_over(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    Image.fromarray(np.eye(5, dtype=np.uint8) * 255).save("k.png")
    for command in ("degrade", "restore"):
        result = dmps(command, "p.png", "-t", "blur", "--kernel", "k.png", "-o", "k.png", "--overwrite")
        assert result.code == 2
        assert "would replace the input k.png" in result.err


def test_eval_scores_what_the_measurement_shows(dmps: Dmps, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    photo(tmp_path / "set" / "p.png", (40, 40))
    arguments = ["--kernel", "motion:5,0", "--boundary", "valid", "--image-size", "36", "--fit", "crop"]
    result = dmps("eval", "--dataset", "set", "--tasks", "blur,deblur", *arguments, "--out", "run", *FAST)
    assert result.code == 0, result.err
    assert "36 x 36 px (blur: 32 x 36, deblur: 28 x 28)" in " ".join(result.out.split())
    sizes = {
        pixels(path).shape[:2]
        for path in Path("run").rglob("*.png")
        if "blur" in str(path) and "plots" not in str(path)
    }
    assert (36, 32) in sizes


def test_time_takes_a_kernel(dmps: Dmps) -> None:
    arguments = [
        "--kernel",
        "motion:5,0",
        "--boundary",
        "valid",
        "--image-size",
        "24x32",
        "--repeats",
        "1",
        "--no-memory",
    ]
    result = dmps("time", "-t", "blur", *arguments, "--json", *FAST)
    assert result.code == 0, result.err
    assert json.loads(result.out)["operator"]["kernel"] == "motion:5,0"


def test_completion(dmps: Dmps, tmp_path: Path) -> None:
    del dmps
    np.save("k.npy", np.eye(3))
    assert COMPLETE["kernel"]("") == ["gauss:", "uniform:", "aniso:", "motion:", "defocus:", "k.npy"]
    assert COMPLETE["kernel"]("k") == ["k.npy"]
    assert COMPLETE["boundary"]("re") == ["reflect", "replicate"]
