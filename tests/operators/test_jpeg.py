"""JPEG as an operator: against its dense matrix, and against Pillow's encoder and decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn
from torch import Tensor

from dmps_cli.errors import InputError
from dmps_cli.jobs.jpeg import read_coefficients
from dmps_cli.operators.jpeg import COLOURS, HALF_WHITE, Jpeg, Layout, dct_matrix, rounding_sigma
from tests.conftest import rel

FORMS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def smooth(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A colour picture (h, w, 3) of 8 bits without a value near black or white, which YCbCr would clip."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    return np.stack([127 + 80 * np.sin(columns / 5 + rows / 7 + p) for p in phases], -1).round().astype(np.uint8)


def file_of(tmp_path: Path, pixels: np.ndarray, **options: object) -> Path:
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, **options)
    return path


def read(path: Path) -> tuple[Jpeg, Tensor, Layout]:
    found = read_coefficients(path)
    measured = found.measurement(dtype=torch.float64, device="cpu")
    assert isinstance(measured.op, Jpeg)
    return measured.op, measured.y, found.layout


def scaled(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float64) / HALF_WHITE - 1).movedim(-1, 0)[None]


@pytest.mark.parametrize("form", [*FORMS, "grey"])
def test_operator_is_its_dense_matrix(tmp_path: Path, form: str) -> None:
    pixels = smooth((13, 21))[..., 0] if form == "grey" else smooth((13, 21))
    options = {} if form == "grey" else {"subsampling": FORMS[form]}
    op, y, _ = read(file_of(tmp_path, pixels, quality=40, **options))
    count = int(np.prod(op.in_shape))
    dense = op.A(torch.eye(count, dtype=torch.float64).reshape(count, *op.in_shape)).flatten(1).T
    random = torch.Generator().manual_seed(0)
    x = torch.randn((2, *op.in_shape), generator=random, dtype=torch.float64)
    r = torch.randn((2, *op.out_shape), generator=random, dtype=torch.float64)
    assert rel(op.A(x).flatten(1), x.flatten(1) @ dense.T) < 1e-12
    assert rel(op.At(r).flatten(1), r.flatten(1) @ dense) < 1e-12
    solved = torch.linalg.solve(
        0.3 * torch.eye(len(dense), dtype=torch.float64) + 2.0 * dense @ dense.T, r.flatten(1).T
    ).T
    assert rel(op.solve(r, 0.3, 2.0).flatten(1), solved) < 1e-10
    assert rel(op.pinv(y).flatten(1), y.flatten(1) @ torch.linalg.pinv(dense).T) < 1e-9


def test_dct_is_that_of_scipy() -> None:
    block = np.random.default_rng(0).normal(size=(8, 8))
    D = dct_matrix().numpy()
    assert np.allclose(D @ block @ D.T, dctn(block, norm="ortho"), atol=1e-12)


@pytest.mark.parametrize("size", [(32, 48), (37, 51)])
@pytest.mark.parametrize("form", [*FORMS, "grey", "rgb"])
def test_the_encoder_rounds_what_the_operator_measures(tmp_path: Path, form: str, size: tuple[int, int]) -> None:
    """Every coefficient of the file is A x over its step, rounded: to half a step, and what rounding Y, Cb, Cr adds."""
    pixels = smooth(size)[..., 0] if form == "grey" else smooth(size)
    options = {"subsampling": FORMS[form]} if form in FORMS else {"keep_rgb": form == "rgb"}
    op, y, layout = read(file_of(tmp_path, pixels, quality=60, **options))
    x = scaled(pixels[..., None] if form == "grey" else pixels)
    right, below = op.in_shape[2] - x.shape[3], op.in_shape[1] - x.shape[2]
    whole = torch.nn.functional.pad(x, (0, right, 0, below), mode="replicate")  # as the encoder fills its units
    off = (op.A(whole) - y)[0] / op.weights[:, None, None] * HALF_WHITE
    if form in ("4:2:2", "4:2:0") and bool(right or below):
        off = off[:, :-1, :-1]  # blocks that the file need not have are no multiples of a step
    assert bool((off.abs() <= layout.in_unit(layout.steps)[:, None, None] / 2 + 2.5).all())
    assert abs(float(off.mean())) < 0.05  # an offset of half a grey level would be 4 in the constant coefficient


@pytest.mark.parametrize("form", ["4:4:4", "grey"])
def test_the_pseudo_inverse_is_pillow_s_decoder(tmp_path: Path, form: str) -> None:
    pixels = smooth((37, 51))[..., 0] if form == "grey" else smooth((37, 51))
    options = {} if form == "grey" else {"subsampling": 0}
    path = file_of(tmp_path, pixels, quality=30, **options)
    op, y, _ = read(path)
    ours = (op.to_image(y)[0].movedim(0, -1).numpy() + 1) * HALF_WHITE
    with Image.open(path) as image:
        theirs = np.asarray(image, dtype=float).reshape(ours.shape)
    assert np.abs(np.clip(ours, 0, 255) - theirs).max() < 2.0  # theirs rounds samples, then colours
    assert op.to_image(y).shape[2:] == (37, 51)


def test_colours_are_those_of_pillow() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(rgb).convert("YCbCr"), dtype=float) - (0, 128, 128)
    assert np.abs(rgb @ np.array(COLOURS["ycbcr"]).T - theirs).max() < 1.01


def test_deviation_of_rounding_is_that_of_a_laplacian() -> None:
    """Drawn coefficients of known scale, rounded: the root mean square of what rounding took."""
    steps = torch.tensor([4.0, 16.0, 40.0]).double()[:, None].expand(3, 8).repeat_interleave(3, dim=0)[:8]
    drawn = torch.distributions.Laplace(0.0, 10.0)
    torch.manual_seed(0)
    values = drawn.sample((20_000, 8, 8)).double()
    rounded = (values / steps).round() * steps
    wanted = ((values - rounded).square().mean(0) + 1 / 12).sqrt() / HALF_WHITE
    found = rounding_sigma(rounded, steps)
    assert float((found / wanted - 1).abs()[1:, 1:].max()) < 0.05


def test_what_is_no_jpeg_of_colours_is_one_sentence(tmp_path: Path) -> None:
    cmyk = tmp_path / "cmyk.jpg"
    Image.fromarray(np.zeros((9, 9, 4), np.uint8), "CMYK").save(cmyk)
    with pytest.raises(InputError, match="expected YCbCr"):
        read_coefficients(cmyk)
    whole = file_of(tmp_path, smooth((40, 40)))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(whole.read_bytes()[:400])
    with pytest.raises(InputError):
        read_coefficients(broken)
    png = tmp_path / "png.jpg"
    Image.fromarray(smooth((9, 9))).save(png, "PNG")
    with pytest.raises(InputError, match="no JPEG"):
        read_coefficients(png)
