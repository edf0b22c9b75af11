"""Blur by any kernel at any boundary, against SciPy's convolution as a dense matrix; formulas, files, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from scipy.io import savemat
from scipy.signal import convolve2d
from torch import Tensor

from dmps_cli.errors import DmpsError, InputError, UsageError
from dmps_cli.linalg import fast_length
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.circular import CircularConvolution
from dmps_cli.operators.convolution import BorderedConvolution, ValidConvolution, convolution
from dmps_cli.operators.kernels import Kernel, disc, factored, line
from dmps_cli.operators.separable import Separable
from dmps_cli.tasks import kernels
from dmps_cli.tasks.geometry import scene_shape, source_shape
from dmps_cli.tasks.options import BOUNDARIES, OperatorOptions
from dmps_cli.tasks.table import build, resolve
from tests.conftest import randn

FORMULAS = ("gauss:0.7,5", "uniform:3", "uniform:4", "aniso:2,0.6,5", "motion:4,30", "motion:5,0", "defocus:1.9")
PAD_MODES = {"zero": "constant", "reflect": "symmetric", "replicate": "edge", "circular": "wrap"}

float64 = partial(convolution, dtype=torch.float64, device="cpu")


# The operators -------------------------------------------------------------------------------------------------------


def scipys(x: np.ndarray, kernel: np.ndarray, boundary: str) -> np.ndarray:
    """The convolution of one channel (H, W): padded so that the centre is (kh // 2, kw // 2), then the valid part.

    convolve2d's own `same` has another centre at even sizes.
    """
    if boundary != "valid":
        x = np.pad(x, [((n - 1) // 2, n // 2) for n in kernel.shape], mode=PAD_MODES[boundary])  # type: ignore[call-overload]
    return convolve2d(x, kernel, mode="valid")


def matrix(kernel: np.ndarray, boundary: str, size: tuple[int, int]) -> np.ndarray:
    """(M, N): SciPy's convolution of each unit picture."""
    units = np.eye(math.prod(size)).reshape(-1, *size)
    return np.stack([scipys(unit, kernel, boundary).ravel() for unit in units], axis=1)


def check_against_matrix(op: LinearOperator, dense: np.ndarray, seed: int) -> None:
    """A, A^T, A A^T, solve, correction; modes where it has them; a preconditioner that is symmetric and definite."""
    A, (x, y, v) = (
        torch.from_numpy(dense),
        (randn(1, *shape, seed=seed + k) for k, shape in enumerate((op.in_shape, op.out_shape, op.out_shape))),
    )
    near = partial(torch.testing.assert_close, rtol=0, atol=1e-11 * max(1.0, float(A.abs().sum(1).max())))

    def each_channel(image: Tensor, by: Tensor) -> Tensor:
        return image.flatten(2) @ by.T

    near(op.A(x).flatten(2), each_channel(x, A))
    near(op.At(y).flatten(2), each_channel(y, A.T))
    near(op.gram(y).flatten(2), each_channel(y, A @ A.T))
    inner = 0.01 * torch.eye(len(A), dtype=torch.float64) + 0.7 * A @ A.T
    solved = torch.linalg.solve(inner, y.flatten(2).mT).mT
    loosely = partial(torch.testing.assert_close, rtol=0, atol=1e-8 * float(solved.abs().max()))
    loosely(op.solve(y, 0.01, 0.7).flatten(2), solved)
    pulled = each_channel(torch.linalg.solve(inner, (y.flatten(2) - each_channel(x, A)).mT).mT, A.T)
    loosely(op.correction(y)(x, 0.01, 0.7).flatten(2), pulled)
    assert op.norm == pytest.approx(float(torch.linalg.matrix_norm(A, 2)), rel=1e-6)
    gap = (op.precondition(y, 0.01, 0.7) * v).sum() - (y * op.precondition(v, 0.01, 0.7)).sum()
    assert abs(float(gap)) <= 1e-9 * float(y.norm() * v.norm())
    assert float((op.precondition(y, 0.01, 0.7) * y).sum()) > 0.0
    if (modes := op.modes) is not None:
        near(modes.V(modes.singulars * modes.Ut(y)).flatten(2), each_channel(y, A.T))
        c = modes.Vt(x)
        near(modes.Vt(modes.V(c)), c)


@st.composite
def blurs(draw: st.DrawFn) -> tuple[np.ndarray, str, tuple[int, int]]:
    """(kernel, boundary, size of x): even and odd kernels, rows and columns among them, of rank 1 and more."""
    size = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    kh, kw = draw(st.integers(1, size[0])), draw(st.integers(1, size[1]))
    values = np.random.default_rng(draw(st.integers(0, 99))).normal(0.3, 1.0, (kh, kw))
    if draw(st.booleans()):
        values = np.outer(values[:, 0], values[0])
    return values, draw(st.sampled_from(BOUNDARIES)), size


@settings(max_examples=40, deadline=None, derandomize=True)
@given(blurs())
def test_any_blur_is_scipys_matrix(blur: tuple[np.ndarray, str, tuple[int, int]]) -> None:
    values, boundary, size = blur
    kernel = factored(torch.from_numpy(values))
    op = float64((2, *size), kernel, boundary)  # type: ignore[arg-type]
    assert isinstance(op, Separable) == (kernel.factors is not None and boundary != "circular")
    check_against_matrix(op, matrix(values, boundary, size), seed=values.size)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("formula", FORMULAS)
def test_every_formula_has_every_boundary(formula: str, boundary: str) -> None:
    kernel = kernels.build(formula)
    op = float64((1, 8, 9), kernel, boundary)  # type: ignore[arg-type]
    check_against_matrix(op, matrix(kernel.values.numpy(), boundary, (8, 9)), seed=1)


@pytest.mark.parametrize("size", [(2, 3), (5, 4)])
@pytest.mark.parametrize("boundary", PAD_MODES)
def test_a_named_blur_may_be_larger_than_the_picture(boundary: str, size: tuple[int, int]) -> None:
    """Folded again and again, as np.pad does it."""
    kernel = line(13, 35)
    op = float64((1, *size), kernel, boundary)  # type: ignore[arg-type]
    dense = matrix(kernel.values.numpy(), boundary, size)
    x, y = randn(1, 1, *size), randn(1, 1, *size, seed=1)
    torch.testing.assert_close(op.A(x).flatten(), torch.from_numpy(dense) @ x.flatten(), rtol=0, atol=1e-13)
    torch.testing.assert_close(op.At(y).flatten(), torch.from_numpy(dense).T @ y.flatten(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (3, 6), (1, 5), (4, 1), (6, 6)])
def test_the_frame_is_where_ndimage_centres_the_kernel(shape: tuple[int, int]) -> None:
    """A blurred scene, cropped to the frame, is the valid convolution of it."""
    kernel = factored(randn(*shape, seed=3))
    op = float64((1, 12, 13), kernel, "valid")
    scene = randn(1, 1, 12, 13, seed=4)
    blurred = torch.from_numpy(ndimage.convolve(scene[0, 0].numpy(), kernel.values.numpy()))
    torch.testing.assert_close(op.A(scene)[0, 0], op.picture(blurred), rtol=0, atol=1e-13)
    left, top, width, height = op.frame or ()
    assert (left, top) == ((shape[1] - 1) // 2, (shape[0] - 1) // 2)
    assert (height, width) == (12 - shape[0] + 1, 13 - shape[1] + 1) == op.picture_size


def test_which_blurs_have_modes() -> None:
    """Separable kernels at every boundary, any kernel on a periodic picture."""
    flat, round_ = kernels.build("motion:5,0"), disc(2.5)
    for boundary in BOUNDARIES:
        assert float64((1, 9, 9), flat, boundary).modes is not None  # type: ignore[arg-type]
        has_modes = float64((1, 9, 9), round_, boundary).modes is not None  # type: ignore[arg-type]
        assert has_modes == (boundary == "circular")
    assert isinstance(float64((1, 9, 9), round_, "circular"), CircularConvolution)
    assert isinstance(float64((1, 9, 9), round_, "valid"), ValidConvolution)
    assert isinstance(float64((1, 9, 9), round_, "reflect"), BorderedConvolution)


def test_the_preconditioner_is_near_the_inverse() -> None:
    """Twenty steps of conjugate gradients with it leave a thirtieth of what they leave without."""
    op = float64((1, 40, 44), disc(3.5), "valid")
    b = op.A(randn(1, *op.in_shape).cumsum(2).cumsum(3))

    def residual(steps: int, precondition: Callable[[Tensor], Tensor]) -> float:
        x, r = torch.zeros_like(b), b
        z = precondition(r)
        p, rz = z, float((r * z).sum())
        for _ in range(steps):
            q = 4e-4 * p + op.gram(p)
            a = rz / float((p * q).sum())
            x, r = x + a * p, r - a * q
            z = precondition(r)
            p, rz = z + float((r * z).sum()) / rz * p, float((r * z).sum())
        return float(r.norm() / b.norm())

    assert residual(20, lambda r: op.precondition(r, 4e-4, 1.0)) < residual(20, lambda r: r) / 30


@pytest.mark.parametrize(("least", "length"), [(1, 1), (7, 8), (532, 540), (541, 576), (1021, 1024), (1025, 1080)])
def test_lengths_for_the_fft(least: int, length: int) -> None:
    assert fast_length(least) == length


# Kernels by formula --------------------------------------------------------------------------------------------------


def test_a_line_is_equal_pixels_and_turns_counter_clockwise() -> None:
    torch.testing.assert_close(line(9, 0).values, torch.full((1, 9), 1 / 9, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(line(9, 90).values, torch.full((9, 1), 1 / 9, dtype=torch.float64), rtol=0, atol=1e-15)
    soft = line(4, 0).values[0]
    torch.testing.assert_close(soft, torch.tensor([0.5, 1, 1, 1, 0.5], dtype=torch.float64) / 4, rtol=0, atol=1e-15)
    rising = line(9, 45).values
    assert rising[-2, 1] > 10 * rising[1, 1]  # lower left is on the line, upper left is not
    torch.testing.assert_close(rising, rising.flip(0, 1), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("length", "angle"), [(7.0, 30.0), (12.0, -70.0), (5.5, 110.0)])
def test_a_line_weighs_pixels_by_their_distance(length: float, angle: float) -> None:
    """From the nearest of many points on the segment."""
    kernel = line(length, angle).values.numpy()
    t = np.linspace(-(length - 1) / 2, (length - 1) / 2, 4001)
    points = np.stack([-t * math.sin(math.radians(angle)), t * math.cos(math.radians(angle))], axis=1)
    rows, cols = (np.arange(n) - n // 2 for n in kernel.shape)
    pixels = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1)[:, :, None]
    weights = np.maximum(1 - np.linalg.norm(pixels - points, axis=-1).min(-1), 0)
    np.testing.assert_allclose(kernel, weights / weights.sum(), atol=1e-6)


@pytest.mark.parametrize("radius", [0.4, 1.0, 2.3, 4.5])
def test_a_disc_is_the_area_of_each_pixel(radius: float) -> None:
    """By counting 400 x 400 points in each pixel."""
    kernel = disc(radius).values.numpy()
    reach = kernel.shape[0] // 2
    fine = (np.arange(kernel.shape[0] * 400) + 0.5) / 400 - reach - 0.5
    inside = (fine[:, None] ** 2 + fine[None] ** 2 <= radius**2).reshape(len(kernel), 400, len(kernel), 400)
    np.testing.assert_allclose(kernel, inside.mean((1, 3)) / (math.pi * radius**2), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("formula", "task", "options"),
    [
        ("uniform:9", "deblur", {}),
        ("gauss:3", "deblur-gauss", {}),
        ("aniso:20,1,9", "deblur-aniso", {}),
        ("motion:15,45", "motion", {}),
        ("gauss:1.5", "deblur-gauss", {"blur_std": 1.5}),
    ],
)
def test_todays_tasks_are_names_for_kernels(formula: str, task: str, options: dict[str, Any]) -> None:
    """At every boundary the same operator."""
    for boundary in BOUNDARIES:
        params = resolve(task, OperatorOptions(boundary=boundary, **options))
        given_kernel = resolve("blur", OperatorOptions(kernel=formula, boundary=boundary))
        shape = scene_shape(task, params, (40, 48), channels=1)
        named, op = (build(name, p, shape, dtype=torch.float64) for name, p in ((task, params), ("blur", given_kernel)))
        x = randn(1, *shape)
        assert torch.equal(named.A(x), op.A(x))


def test_a_gaussian_reaches_to_five_deviations() -> None:
    wide = kernels.build("aniso:4,1")
    assert wide.size == (11, 41)
    row = wide.values.sum(0)
    variance = float((row * torch.arange(-20.0, 21.0, dtype=torch.float64) ** 2).sum())
    assert variance == pytest.approx(16.0, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gauss:-1", "gauss:STD[,TAPS] takes numbers from 0.05 to 900 where it has -1"),
        ("gauss:nan", "gauss:STD[,TAPS] takes numbers"),
        ("gauss:", "--kernel is 'gauss:'; expected gauss:STD[,TAPS]"),
        ("gauss:x", "expected gauss:STD[,TAPS]"),
        ("gauss", "expected gauss:STD[,TAPS]"),
        ("uniform:4.5", "takes whole numbers from 1"),
        ("uniform:3,4", "expected uniform:WIDTH"),
        ("motion:15", "expected motion:LENGTH,ANGLE"),
        ("aniso:3", "expected aniso:STD_X,STD_Y[,TAPS]"),
        ("defocus:0", "defocus:RADIUS takes numbers from 0.1 to 500"),
        ("motion:2001,0", "takes numbers from 1 to 2000"),
        ("gausian:3", "unknown kernel 'gausian'; did you mean 'gauss'?"),
    ],
)
def test_formulas_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("blur", OperatorOptions(kernel=text))
    assert message in str(caught.value)


# Kernels in files ----------------------------------------------------------------------------------------------------


def of_file(text: str, *, as_is: bool | None = None) -> Kernel:
    params = resolve("blur", OperatorOptions(kernel=text, kernel_as_is=as_is))
    return kernels.build(params["kernel"], as_is=params["kernel_as_is"])


LEVELS = np.array([[0, 10, 200, 3], [255, 40, 0, 0], [5, 6, 7, 8]], dtype=np.uint8)


@pytest.mark.parametrize("name", ["k.npy", "k.mat", "k.npz", "k.png", "k16.png", "rgb.png", "single.npy", "nested.mat"])
def test_a_file_gives_its_numbers_normalised(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, LEVELS.astype(np.float32) if name.startswith("single") else LEVELS)
    elif name.endswith(".npz"):
        np.savez(path, psf=LEVELS, sigma=3.0)
    elif name.startswith("nested"):
        cell = np.empty((1, 1), dtype=object)
        cell[0, 0] = LEVELS
        savemat(path, {"kernels": cell})
    elif name.endswith(".mat"):
        savemat(path, {"note": "camera 3", "psf": LEVELS.astype(float), "sigma": 3.0})
    elif name == "k16.png":
        Image.fromarray(LEVELS.astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(LEVELS).convert("RGB" if name == "rgb.png" else "L").save(path)
    kernel = of_file(str(path))
    np.testing.assert_allclose(kernel.values.numpy(), LEVELS / LEVELS.sum(), rtol=1e-12)
    assert kernel.factors is None


def test_as_is_is_not_normalised_and_a_picture_counts_from_0_to_1(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", LEVELS / 100)
    np.testing.assert_allclose(of_file(f"{tmp_path}/k.npy", as_is=True).values.numpy(), LEVELS / 100, rtol=1e-15)
    Image.fromarray(LEVELS).save(tmp_path / "k.png")
    np.testing.assert_allclose(of_file(f"{tmp_path}/k.png", as_is=True).values.numpy(), LEVELS / 255, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_separable_file_is_seen_to_be_one(tmp_path: Path, dtype: type) -> None:
    taps = np.exp(-(np.arange(-6, 7) ** 2) / 8)
    np.save(tmp_path / "k.npy", np.outer(taps, taps[2:]).astype(dtype))
    kernel = of_file(f"{tmp_path}/k.npy")
    assert kernel.factors is not None
    outer = np.outer(*kernel.factors)
    np.testing.assert_allclose(outer, kernel.values.numpy(), atol=1e-7 * outer.max())


def test_one_of_several_arrays_is_named(tmp_path: Path) -> None:
    path = tmp_path / "k.mat"
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = LEVELS.astype(float), np.eye(5)
    savemat(path, {"kernels": cells, "other": np.ones((3, 2))})
    with pytest.raises(InputError, match=r"kernels\.1 \(3 x 4\), kernels\.2 \(5 x 5\), other \(3 x 2\); choose one"):
        of_file(str(path))
    assert of_file(f"{path}:kernels.2").size == (5, 5)
    assert of_file(f"{path}:other").size == (3, 2)
    with pytest.raises(InputError, match="holds no array 'third'"):
        of_file(f"{path}:third")


def written(path: Path, content: Any) -> Path:
    """A file that holds it: an array, the arrays of a MATLAB file, or bytes."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        savemat(path, content)
    elif content is not None:
        np.save(path, content)
    return path


BAD_FILES = {
    "zeros": ("k.npy", np.zeros((3, 3)), "is 0 everywhere"),
    "nan": ("k.npy", np.array([[1.0, math.nan]]), "NaN or infinity"),
    "infinite": ("k.npy", np.array([[1.0, math.inf]]), "NaN or infinity"),
    "three dimensions": ("k.npy", np.ones((3, 5, 5)), "has the shape 3 x 5 x 5; expected two dimensions"),
    "one dimension": ("k.npy", np.ones(5), "expected two dimensions"),
    "no dimension": ("k.npy", np.array(1.0), "expected two dimensions"),
    "empty": ("k.npy", np.ones((0, 3)), "has the shape 0 x 3"),
    "complex": ("k.npy", np.ones((3, 3)) * 1j, "complex128; expected real numbers"),
    "objects": ("k.npy", np.array([[None]]), "Object arrays cannot be loaded"),
    "sum 0": ("k.npy", np.array([[-1.0, 1.0]]), "sum to 0, which cannot be made 1; take it with --kernel-as-is"),
    "large": ("k.npy", np.ones((1025, 1024), dtype=np.uint8), "expected 1 to 1048576 numbers"),
    "cut": ("k.npy", b"\x93NUMPY\x01\x00v\x00{'descr'", "the file is damaged"),
    "no table": ("k.mat", {"a": np.ones((2, 3, 4)), "b": np.ones((3, 2, 2))}, "no array of two dimensions; it holds a"),
    "one of three": ("k.mat", {"a": np.ones((2, 3, 4))}, "has the shape 2 x 3 x 4"),
    "text alone": ("k.mat", {"a": "text"}, "it holds none of numbers"),
    "no MATLAB": ("k.mat", b"MATLAB 5.0 MAT-file, but what follows is not", "the file is damaged"),
    "MATLAB 7.3": (
        "k.mat",
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM".ljust(400),
        "version 7.3; save it with -v7",
    ),
    "no archive": ("k.npz", b"PK\x03\x04 and no more", "the file is damaged"),
    "no picture": ("k.png", b"no picture at all", "not a picture in a known format"),
    "nothing": ("k.png", b"", "k.png is empty"),
    "missing": ("k.png", None, "does not exist; name a file (PNG, NPY, MAT) or one of gauss:STD[,TAPS], uniform"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_hold_no_kernel(tmp_path: Path, case: str) -> None:
    name, content, message = BAD_FILES[case]
    path = written(tmp_path / name, content)
    with pytest.raises(DmpsError) as caught:
        of_file(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value) or case == "sum 0"


def test_a_kernel_in_colour_is_none(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([LEVELS, LEVELS, LEVELS.T.reshape(3, 4)])).save(tmp_path / "k.png")
    with pytest.raises(InputError, match="in colour"):
        of_file(f"{tmp_path}/k.png")


def test_every_cut_of_a_matlab_file_is_said(tmp_path: Path) -> None:
    savemat(tmp_path / "k.mat", {"psf": np.random.default_rng(0).random((9, 9))}, do_compression=True)
    content = (tmp_path / "k.mat").read_bytes()
    for length in range(1, len(content) - 1, 37):
        (tmp_path / "k.mat").write_bytes(content[:length])
        with pytest.raises(InputError, match=r"k\.mat"):
            of_file(f"{tmp_path}/k.mat")


@pytest.mark.parametrize("gain", [1e-4, 1e4])
def test_as_is_far_from_1_is_refused(tmp_path: Path, gain: float) -> None:
    np.save(tmp_path / "k.npy", gain * np.ones((2, 2)))
    with pytest.raises(InputError, match="leave --kernel-as-is out"):
        of_file(f"{tmp_path}/k.npy", as_is=True)


# Sizes ---------------------------------------------------------------------------------------------------------------


def test_the_scene_of_a_picture_is_larger_by_the_kernel_less_one() -> None:
    params = resolve("blur", OperatorOptions(kernel="aniso:0.4,0.2", boundary="valid"))  # 5 wide, 3 high
    assert source_shape("blur", params, (20, 30)) == (3, 22, 34)
    op = build("blur", params, (3, 22, 34), dtype=torch.float64)
    assert op.out_shape == (3, 20, 30)
    assert source_shape("blur", {**params, "boundary": "reflect"}, (20, 30)) == (3, 20, 30)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_kernel_larger_than_the_picture_is_refused(boundary: str) -> None:
    params = resolve("blur", OperatorOptions(kernel="uniform:9", boundary=boundary))
    with pytest.raises(InputError, match="9 x 9 px, larger than the picture of 12 x 8"):
        build("blur", params, (3, 8, 12), dtype=torch.float32)
    with pytest.raises(InputError, match="9 x 9 px, larger than the picture of 12 x 8"):
        source_shape("blur", params, (8, 12))
