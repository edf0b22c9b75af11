"""A grey value is one measurement with one noise: the operator against its matrix, and the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dmps_cli.operators.grey import OfGreyValue
from dmps_cli.operators.pointwise import ChannelMean, Identity
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.rows import TASKS
from dmps_cli.tasks.table import build, resolve
from tests.shell import Dmps

SHAPE = (1, 8, 12)
FAST = ("--nfe", "2")
GREY_TASKS = [name for name, row in TASKS.items() if not row.needs_colour]


def grey_operator(task: str) -> OfGreyValue:
    params = resolve(task, OperatorOptions(**({"scale": 2} if task == "sr" else {})))
    shape = (1, 16, 24) if task == "sr8" else SHAPE
    if "boundary" in params:
        shape = (1, 24, 24)
    return OfGreyValue(build(task, params, shape, dtype=torch.float64), 3)


def matrix(op: OfGreyValue) -> Tensor:
    """A as (M, N), column by column of the inner operator; the mean over channels by hand."""
    num = op.in_shape[1] * op.in_shape[2]
    inner = op.inner.A(torch.eye(num, dtype=torch.float64).reshape(num, 1, *op.in_shape[1:])).flatten(1).T
    return torch.cat([inner] * 3, dim=1) / 3.0


@pytest.mark.parametrize("task", GREY_TASKS)
def test_every_form_is_that_of_the_matrix(task: str) -> None:
    op = grey_operator(task)
    A, g = matrix(op), torch.Generator().manual_seed(0)
    x = torch.randn(2, *op.in_shape, generator=g, dtype=torch.float64)
    y = torch.randn(2, *op.out_shape, generator=g, dtype=torch.float64)
    noise_var, scale = 0.3, 1.7
    system = noise_var * torch.eye(len(A), dtype=torch.float64) + scale * A @ A.T

    def flat(t: Tensor) -> Tensor:
        return t.flatten(1)

    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(flat(op.A(x)), flat(x) @ A.T, **close)
    torch.testing.assert_close(flat(op.At(y)), flat(y) @ A, **close)
    torch.testing.assert_close(flat(op.gram(y)), flat(y) @ (A @ A.T), **close)
    solved = torch.linalg.solve(system, flat(y).T).T
    torch.testing.assert_close(flat(op.solve(y, noise_var, scale)), solved, **close)
    corrected = torch.linalg.solve(system, (flat(y) - flat(x) @ A.T).T).T @ A
    torch.testing.assert_close(flat(op.correction(y)(x, noise_var, scale)), corrected, **close)
    assert op.norm == pytest.approx(float(torch.linalg.matrix_norm(A, 2)), rel=1e-5)
    if op.modes is not None:
        spectrum = op.modes.singulars.abs().max()
        assert float(spectrum) == pytest.approx(float(torch.linalg.matrix_norm(A, 2)), rel=1e-5)
        projected = op.modes.V(op.modes.Vt(x))
        torch.testing.assert_close(op.modes.V(op.modes.Vt(projected)), projected, **close)
        torch.testing.assert_close(op.modes.Ut(op.A(x)), op.modes.singulars * op.modes.Vt(x), **close)


def test_noise_alone_of_a_grey_picture_is_colorization() -> None:
    shape = (3, 4, 5)
    ours = OfGreyValue(Identity((1, 4, 5), dtype=torch.float64, device="cpu"), 3)
    theirs = ChannelMean(shape, dtype=torch.float64, device="cpu")
    y = torch.randn(1, 1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for form in ("At", "pinv"):
        torch.testing.assert_close(getattr(ours, form)(y), getattr(theirs, form)(y), rtol=1e-12, atol=1e-12)


def shades() -> np.ndarray:
    y, x = np.mgrid[0:32, 0:48]
    return (128 + 60 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)


def mode_of(path: str | Path) -> str:
    with Image.open(path) as image:
        return image.mode


def test_grey_in_grey_out(dmps: Dmps, tmp_path: Path) -> None:
    """Also of a colour file whose channels are equal; the two are one restoration. Colorization stays colour."""
    Image.fromarray(shades()).save("g.png")
    Image.fromarray(np.dstack([shades()] * 3)).save("rgb.png")
    for name in ("g", "rgb"):
        arguments = ("-t", "denoise", "--sigma", "15/255", "-o", f"{name}_x.png", *FAST)
        result = dmps("restore", f"{name}.png", *arguments)
        assert (result.code, "channels are equal" in result.err) == (0, name == "rgb")
        assert json.loads(Path(f"{name}_x.json").read_text())["sigma_y"] == pytest.approx(15 / 127.5)
    assert (mode_of("g_x.png"), mode_of("rgb_x.png")) == ("L", "L")
    assert Path("g_x.png").read_bytes() == Path("rgb_x.png").read_bytes()
    assert dmps("restore", "g.png", "-t", "colorize", "--sigma", "0.1", "-o", "c.png", *FAST).code == 0
    assert mode_of("c.png") == "RGB"


def test_degrade_goes_by_the_file_and_restore_by_the_sidecar(dmps: Dmps, tmp_path: Path) -> None:
    """One channel: one noise. Three equal ones: three, as the paper has it, and a result in colour."""
    Image.fromarray(shades()).save("g.png")
    Image.fromarray(np.dstack([shades()] * 3)).save("rgb.png")
    for name, channels, mode in (("g", 1, "L"), ("rgb", 3, "RGB")):
        assert dmps("degrade", f"{name}.png", "-t", "denoise", "--sigma", "0.2", "-o", f"{name}_y.png").code == 0
        assert json.loads(Path(f"{name}_y.json").read_text())["image_shape"] == [channels, 32, 48]
        assert np.load(f"{name}_y.npy").shape == (channels, 32, 48)
        assert dmps("restore", f"{name}_y.png", "-o", f"{name}_x.png", *FAST).code == 0
        assert mode_of(f"{name}_x.png") == mode


def test_eval_measures_grey_files_once(dmps: Dmps, tmp_path: Path) -> None:
    Path("set").mkdir()
    Image.fromarray(shades()).save("set/g.png")
    result = dmps("eval", "--dataset", "set", "--tasks", "denoise,colorize", "--nfe", "2", "-o", "out")
    assert result.code == 0, result.err
    modes = {path.parent.name: mode_of(path) for path in Path("out").rglob("g*.png")}
    assert set(modes.values()) == {"L", "RGB"}
