"""Every task's operator against dense matrices that are built here, NumPy's SVD, conjugate gradients, golden data."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.linalg import hadamard
from torch import Tensor

from dmps_cli.errors import InputError
from dmps_cli.operators.base import PINV_DAMPING, PINV_RCOND, LinearOperator, SpectralOperator
from dmps_cli.operators.circular import CircularConvolution
from dmps_cli.operators.convolution import BorderedConvolution, ValidConvolution
from dmps_cli.operators.hadamard import PaddedHadamardRows, hadamard_rows
from dmps_cli.operators.kernels import gaussian_taps, line, uniform_taps
from dmps_cli.operators.pointwise import ChannelMean, Mask
from dmps_cli.operators.separable import average_pooling, bicubic_decimation, bicubic_taps, separable_blur
from dmps_cli.tasks.options import BOUNDARIES, OperatorOptions
from dmps_cli.tasks.rows import TASKS
from dmps_cli.tasks.table import build, resolve
from tests.conftest import Iterated, golden, randn, rel, same, where

H, W = 8, 16
SHAPE = (3, H, W)

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in TASKS},
    "sr scale 3": ("sr", {"scale": 3}),
    "sr4 cutoff": ("sr4", {"svd_cutoff": 0.3}),
    "deblur reflect": ("deblur", {"width": 5, "boundary": "reflect"}),
    "deblur circular": ("deblur", {"boundary": "circular"}),
    "deblur valid": ("deblur", {"width": 5, "boundary": "valid"}),
    "deblur replicate": ("deblur", {"width": 5, "boundary": "replicate"}),
    "deblur cutoff": ("deblur", {"svd_cutoff": 0.03}),
    "deblur-gauss narrow": ("deblur-gauss", {"blur_std": 0.8}),
    "motion short": ("motion", {"length": 5, "angle": 30}),
    "blur": ("blur", {"kernel": "defocus:1.8"}),
    **{f"blur {name}": ("blur", {"kernel": "motion:5,40", "boundary": name}) for name in BOUNDARIES},
    "colorize weighted": ("colorize", {"weights": "0.3,0.6,0.1"}),
    "inpaint box": ("inpaint", {"box": "3,2,10,5"}),
    "inpaint most": ("inpaint", {"fraction": 0.9, "operator_seed": 3}),
    "cs ratio 4": ("cs", {"ratio": 4, "operator_seed": 1}),
    "cs padded": ("cs", {"ratio": 2}),
}


def make(case: str, shape: tuple[int, int, int] = SHAPE, dtype: torch.dtype = torch.float64) -> LinearOperator:
    task, options = CASES[case]
    size = (3, 9, 12) if options.get("scale") == 3 or case == "cs padded" else shape
    return build(task, resolve(task, OperatorOptions(**options)), size, dtype=dtype, device=where())


@lru_cache
def dense(case: str) -> np.ndarray:
    """(M, N): the operator applied to each unit image."""
    op = make(case)
    basis = torch.eye(math.prod(op.in_shape), dtype=torch.float64).reshape(-1, *op.in_shape)
    return op.A(basis).flatten(1).T.numpy()


cases = pytest.mark.parametrize("case", CASES)


@cases
def test_adjoint(case: str) -> None:
    op = make(case)
    u, v = randn(2, *op.in_shape, seed=1), randn(2, *op.out_shape, seed=2)
    gap = (op.A(u) * v).sum() - (u * op.At(v)).sum()
    assert abs(gap) <= 1e-12 * op.A(u).norm() * v.norm()


@cases
def test_equals_its_dense_matrix(case: str) -> None:
    op, A = make(case), torch.from_numpy(dense(case))
    x, y = randn(2, *op.in_shape, seed=1), randn(2, *op.out_shape, seed=2)
    torch.testing.assert_close(op.A(x).flatten(1), x.flatten(1) @ A.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(op.At(y).flatten(1), y.flatten(1) @ A, rtol=0, atol=1e-12)


@cases
@pytest.mark.parametrize(("noise_var", "scale"), [(0.05**2, 1.0), (0.25, 1e-3), (1e-3, 50.0)])
def test_solve_is_the_dense_solve(case: str, noise_var: float, scale: float) -> None:
    op, A = make(case), torch.from_numpy(dense(case))
    r = randn(2, *op.out_shape, seed=3)
    inner = noise_var * torch.eye(len(A), dtype=torch.float64) + scale * A @ A.T
    expected = torch.linalg.solve(inner, r.flatten(1).T).T
    tolerance = 1e-9 * float(expected.abs().max())
    torch.testing.assert_close(op.solve(r, noise_var, scale).flatten(1), expected, rtol=0, atol=tolerance)


@cases
def test_solve_is_what_conjugate_gradients_find(case: str) -> None:
    op = make(case)
    r = randn(2, *op.out_shape, seed=3)
    by_iteration = LinearOperator.solve(op, r, 0.05, 1.0)
    torch.testing.assert_close(
        op.solve(r, 0.05, 1.0), by_iteration, rtol=0, atol=1e-8 * float(by_iteration.abs().max())
    )


@cases
def test_correction_is_at_solve_residual(case: str) -> None:
    op, A = make(case), torch.from_numpy(dense(case))
    x, y = randn(2, *op.in_shape, seed=1), randn(2, *op.out_shape, seed=2)
    inner = 0.01 * torch.eye(len(A), dtype=torch.float64) + 0.7 * A @ A.T
    expected = torch.linalg.solve(inner, (y.flatten(1) - x.flatten(1) @ A.T).T).T @ A
    tolerance = 1e-9 * float(expected.abs().max())
    torch.testing.assert_close(op.correction(y)(x, 0.01, 0.7).flatten(1), expected, rtol=0, atol=tolerance)


@cases
def test_norm_is_the_largest_singular_value(case: str) -> None:
    assert make(case).norm == pytest.approx(np.linalg.norm(dense(case), 2), rel=1e-6)


def pinv_tolerance(op: LinearOperator) -> float:
    """What damping by d = PINV_DAMPING costs an iterated pinv: (d norm / s)^2 of a mode s, here all >= 0.03 norm."""
    return (PINV_DAMPING[torch.float64] / 0.03) ** 2 if isinstance(op, PaddedHadamardRows) else 1e-9


DAMPED = [case for case in CASES if isinstance(make(case), (ValidConvolution, BorderedConvolution))]
"""Singular values down to nothing, and no closed form: their pinv is another one."""

cut = pytest.mark.parametrize("case", [case for case in CASES if case not in DAMPED])


@pytest.mark.parametrize("case", DAMPED)
def test_an_iterated_pinv_is_the_damped_one(case: str) -> None:
    """A^T (A A^T + (d norm)^2 I)^-1 y, d = PINV_DAMPING."""
    op, A = make(case), torch.from_numpy(dense(case))
    y = randn(2, *op.out_shape, seed=2)
    damping = (PINV_DAMPING[torch.float64] * float(torch.linalg.matrix_norm(A, 2))) ** 2
    inner = A @ A.T + damping * torch.eye(len(A), dtype=torch.float64)
    expected = torch.linalg.solve(inner, y.flatten(1).T).T @ A
    torch.testing.assert_close(op.pinv(y).flatten(1), expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


@cut
def test_pinv_is_numpys_with_the_same_cutoff(case: str) -> None:
    """NumPy's own SVD, small singular values cut at the named share of the largest."""
    op = make(case)
    y = randn(2, *op.out_shape, seed=2)
    expected = torch.from_numpy(y.flatten(1).numpy() @ np.linalg.pinv(dense(case), rcond=PINV_RCOND).T)
    tolerance = pinv_tolerance(op) * float(expected.abs().max())
    torch.testing.assert_close(op.pinv(y).flatten(1), expected, rtol=0, atol=tolerance)


@cut
def test_pinv_identities(case: str) -> None:
    """Moore and Penrose: A+ A A+ = A+, A+ A and A A+ symmetric; A A+ A = A up to the modes cut."""
    op = make(case)
    x, y = randn(2, *op.in_shape, seed=1), randn(2, *op.out_shape, seed=2)
    z, v = randn(2, *op.in_shape, seed=3), randn(2, *op.out_shape, seed=4)
    plus = op.pinv(y)
    torch.testing.assert_close(op.pinv(op.A(plus)), plus, rtol=0, atol=pinv_tolerance(op) * float(plus.abs().max()))
    assert torch.sum(op.pinv(op.A(x)) * z) == pytest.approx(torch.sum(x * op.pinv(op.A(z))).item(), rel=1e-9, abs=1e-9)
    assert torch.sum(op.A(op.pinv(y)) * v) == pytest.approx(torch.sum(y * op.A(op.pinv(v))).item(), rel=1e-9, abs=1e-9)
    lost = (op.A(op.pinv(op.A(x))) - op.A(x)).flatten(1).norm(dim=1)
    assert bool((lost <= PINV_RCOND * op.norm * x.flatten(1).norm(dim=1)).all())


@cut
def test_without_noise_solve_is_the_pseudo_inverse(case: str) -> None:
    """At noise_var = 0, A^T solve(r, 0, 1) = A^+ r."""
    op = make(case)
    r = randn(2, *op.out_shape, seed=2)
    plus = op.pinv(r)
    tolerance = 10 * pinv_tolerance(op) * float(plus.abs().max())
    torch.testing.assert_close(op.At(op.solve(r, 0.0, 1.0)), plus, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", ["sr4", "inpaint", "colorize", "deblur-gauss narrow"])
def test_the_contract_alone_is_enough(case: str) -> None:
    """solve, pinv, norm and correction by iteration agree with the closed forms."""
    op, slow = make(case), Iterated(make(case))
    x, y = randn(2, *op.in_shape, seed=1), op.A(randn(2, *op.in_shape, seed=2))
    assert slow.norm == pytest.approx(op.norm, rel=1e-5)
    torch.testing.assert_close(slow.solve(y, 0.05, 1.0), op.solve(y, 0.05, 1.0), rtol=0, atol=1e-9)
    torch.testing.assert_close(slow.correction(y)(x, 0.05, 1.0), op.correction(y)(x, 0.05, 1.0), rtol=0, atol=1e-9)
    torch.testing.assert_close(slow.pinv(y), op.pinv(y), rtol=0, atol=1e-3)


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(make(case), SpectralOperator)])
def test_factors_are_a_singular_value_decomposition(case: str) -> None:
    op = make(case)
    assert isinstance(op, SpectralOperator)
    c = randn(2, *op.singulars.shape, seed=5)
    torch.testing.assert_close(op.Ut(op.U(c)), c, rtol=0, atol=1e-11)
    torch.testing.assert_close(op.Vt(op.V(c)), c, rtol=0, atol=1e-11)
    x = randn(2, *op.in_shape, seed=1)
    torch.testing.assert_close(op.U(op.singulars * op.Vt(x)), op.A(x), rtol=0, atol=1e-11)
    ours = np.sort(op.singulars.flatten().numpy())[::-1]
    numpys = np.linalg.svd(dense(case), compute_uv=False)
    np.testing.assert_allclose(ours, numpys[: len(ours)], rtol=0, atol=1e-11 * numpys[0])


@cases
def test_batch_of_two_is_two_of_one(case: str) -> None:
    """Bit for bit, in float32."""
    op = make(case, dtype=torch.float32)
    x, y = randn(2, *op.in_shape, seed=1).float(), randn(2, *op.out_shape, seed=2).float()
    for function, argument in ((op.A, x), (op.At, y), (lambda r: op.solve(r, 0.1, 1.0), y), (op.pinv, y)):
        both = function(argument)
        for i in range(2):
            assert same(both[i], function(argument[i : i + 1])[0])
    both = op.correction(y)(x, 0.1, 1.0)
    for i in range(2):
        assert same(both[i], op.correction(y[i : i + 1])(x[i : i + 1], 0.1, 1.0)[0])


@cases
def test_arguments_are_not_changed(case: str) -> None:
    op = make(case)
    x, y = randn(2, *op.in_shape, seed=1), randn(2, *op.out_shape, seed=2)
    before = x.clone(), y.clone()
    op.A(x), op.At(y), op.pinv(y), op.correction(y)(x, 0.1, 1.0), op.to_image(y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


# What the matrices are, by other means ------------------------------------------------------------------------------


def image() -> Tensor:
    return randn(1, *SHAPE, seed=7)


@pytest.mark.parametrize(("boundary", "mode"), [("zero", "constant"), ("reflect", "reflect"), ("circular", "wrap")])
@pytest.mark.parametrize("task", ["deblur", "deblur-gauss"])
def test_blur_is_scipys(task: str, boundary: str, mode: str) -> None:
    op = build(task, resolve(task, OperatorOptions(boundary=boundary)), SHAPE, dtype=torch.float64, device=where())
    if task == "deblur":
        taps = np.full(9, 1 / 9)
    else:
        d = np.arange(-15, 16)
        taps = np.exp(-(d**2) / 18)
        taps /= taps.sum()
    expected = image().numpy()
    for axis in (2, 3):
        expected = ndimage.correlate1d(expected, taps, axis=axis, mode=mode)
    torch.testing.assert_close(op.A(image()), torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_anisotropic_blur_is_wide_horizontally() -> None:
    op = build("deblur-aniso", resolve("deblur-aniso", OperatorOptions()), SHAPE, dtype=torch.float64, device=where())
    d = np.arange(-4, 5)
    wide, narrow = (np.exp(-(d**2) / (2 * std**2)) for std in (20.0, 1.0))
    expected = ndimage.correlate1d(image().numpy(), narrow / narrow.sum(), axis=2, mode="constant")
    expected = ndimage.correlate1d(expected, wide / wide.sum(), axis=3, mode="constant")
    torch.testing.assert_close(op.A(image()), torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_motion_is_scipys_convolution() -> None:
    op = build(
        "motion", resolve("motion", OperatorOptions(length=7, angle=30)), SHAPE, dtype=torch.float64, device=where()
    )
    kernel = line(7, 30).values.numpy()
    expected = np.stack([ndimage.convolve(channel, kernel, mode="wrap") for channel in image()[0].numpy()])
    torch.testing.assert_close(op.A(image())[0], torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_a_kernel_without_symmetry() -> None:
    """A line is its own mirror image and cannot tell A from A^T; this kernel can."""
    kernel = randn(4, 5, seed=9)
    op = CircularConvolution((2, 7, 9), kernel, dtype=torch.float64, device=where())
    x, y = randn(1, 2, 7, 9, seed=1), randn(1, 2, 7, 9, seed=2)
    expected = np.stack([ndimage.convolve(channel, kernel.numpy(), mode="wrap") for channel in x[0].numpy()])
    torch.testing.assert_close(op.A(x)[0], torch.from_numpy(expected), rtol=0, atol=1e-12)
    A = op.A(torch.eye(126, dtype=torch.float64).reshape(-1, 2, 7, 9)).flatten(1).T
    torch.testing.assert_close(op.At(y).flatten(), A.T @ y.flatten(), rtol=0, atol=1e-12)
    inner = 0.01 * torch.eye(126, dtype=torch.float64) + 0.7 * A @ A.T
    guided = A.T @ torch.linalg.solve(inner, y.flatten() - A @ x.flatten())
    torch.testing.assert_close(op.correction(y)(x, 0.01, 0.7).flatten(), guided, rtol=0, atol=1e-10)
    plus = torch.linalg.pinv(A, rtol=PINV_RCOND) @ y.flatten()
    torch.testing.assert_close(op.pinv(y).flatten(), plus, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [2, 3, 4, 5, 8])
def test_a_mirrored_picture_is_decimated_to_the_mirror_image(scale: int) -> None:
    """Half a pixel off, or a tap in the wrong place, and it is not."""
    op = bicubic_decimation((1, 6 * scale, 5 * scale), scale, dtype=torch.float64, device=where())
    x = randn(1, 1, 6 * scale, 5 * scale)
    torch.testing.assert_close(op.A(x.flip(2, 3)), op.A(x).flip(2, 3), rtol=0, atol=1e-12)
    ramp = torch.arange(5.0 * scale, dtype=torch.float64).expand(1, 1, 6 * scale, -1)
    middle = op.A(ramp)[0, 0, 3, 2]  # the centre of output 2 of 5 is the centre of the ramp
    assert middle.item() == pytest.approx((5 * scale - 1) / 2)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_bicubic_decimation_by_the_formula(scale: int) -> None:
    """Tap q of output k at k f + f // 2 - 2 f + q is bicubic((q - 2 f + .5) / f); reflection repeats edge pixels."""
    shape = (3, 24, 48)
    op = bicubic_decimation(shape, scale, dtype=torch.float64, device=where())
    x = randn(1, *shape, seed=7).numpy()

    def weight(t: float) -> float:
        t = abs(t)
        return 1.5 * t**3 - 2.5 * t**2 + 1 if t <= 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    taps = np.array([weight((q - 2 * scale + 0.5) / scale) for q in range(4 * scale)])
    taps /= taps.sum()
    for axis in (2, 3):
        before = 2 * scale - scale // 2
        padded = np.pad(x, [(before, 2 * scale) if a == axis else (0, 0) for a in range(4)], mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 4 * scale, axis=axis)
        x = np.take(windows, range(0, x.shape[axis], scale), axis=axis) @ taps
    torch.testing.assert_close(op.A(randn(1, *shape, seed=7)), torch.from_numpy(x), rtol=0, atol=1e-12)


def test_decimation_keeps_a_flat_picture_flat() -> None:
    op = make("sr8", (3, 32, 64))
    torch.testing.assert_close(op.A(torch.full((1, 3, 32, 64), 0.3, dtype=torch.float64)).mean().item(), 0.3)


def test_average_pooling_is_torchs() -> None:
    op = average_pooling(SHAPE, 4, dtype=torch.float64, device=where())
    torch.testing.assert_close(op.A(image()), torch.nn.functional.avg_pool2d(image(), 4), rtol=0, atol=1e-13)


def test_colorize_is_the_mean_of_the_channels() -> None:
    op = make("colorize")
    torch.testing.assert_close(op.A(image()), image().mean(1, keepdim=True), rtol=0, atol=1e-14)


def test_a_removed_pixel_loses_all_channels() -> None:
    op = make("inpaint box")
    shown = op.to_image(op.A(image()))[0]
    inside = torch.zeros(H, W, dtype=torch.bool)
    inside[2:7, 3:13] = True
    assert bool((shown[:, inside] == -1).all())
    assert torch.equal(shown[:, ~inside], image()[0][:, ~inside])
    assert op.out_shape == (3, H * W - 50)


def test_random_mask_removes_the_share_asked_for() -> None:
    assert make("inpaint").out_shape[1] == H * W // 2
    assert make("inpaint most").out_shape[1] == H * W - round(0.9 * H * W)


def test_masks_of_another_size_or_without_a_pixel_are_refused() -> None:
    for keep in (torch.ones(H, W + 1, dtype=torch.bool), torch.zeros(H, W, dtype=torch.bool)):
        with pytest.raises(InputError, match="mask"):
            Mask(SHAPE, keep, dtype=torch.float64, device=where())


@pytest.mark.parametrize("size", [(8, 8), (6, 9)])
def test_hadamard_rows_by_scipy(size: tuple[int, int]) -> None:
    """Rows of SciPy's Sylvester matrix on the pixels, zeros filled in; the mean is among them, no row twice."""
    op = hadamard_rows((2, *size), 4, seed=5, dtype=torch.float64, device=where())
    rows = op.chosen.rows  # type: ignore[attr-defined]
    assert rows[0] == 0
    assert len(set(rows.tolist())) == op.out_shape[1] == size[0] * size[1] // 4
    x = randn(3, 2, *size)
    filled = torch.nn.functional.pad(x.flatten(2), (0, 64 - size[0] * size[1]))
    expected = filled @ torch.from_numpy(hadamard(64) / 8.0)[rows].T
    torch.testing.assert_close(op.A(x), expected, rtol=0, atol=1e-12)


def test_another_seed_chooses_other_rows() -> None:
    chosen = [hadamard_rows(SHAPE, 2, seed=seed, dtype=torch.float64, device=where()).chosen.rows for seed in (0, 1)]  # type: ignore[attr-defined]
    assert set(chosen[0].tolist()) != set(chosen[1].tolist())


def test_a_picture_cannot_hold_a_compressed_measurement() -> None:
    with pytest.raises(InputError, match="npy"):
        make("cs").from_image(image())


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("cs")])
def test_a_picture_of_a_measurement_gives_it_back(case: str) -> None:
    op = make(case)
    y = randn(1, *op.out_shape, seed=2)
    torch.testing.assert_close(op.from_image(op.to_image(y)), y, rtol=0, atol=0)


def test_a_colour_picture_gives_colorize_its_grey_value() -> None:
    op = ChannelMean(SHAPE, [0.2, 0.3, 0.5], dtype=torch.float64, device=where())
    assert torch.equal(op.from_image(image()), op.A(image()))


# Golden data: the authors' code, singular values in the right order ---------------------------------------------------

GOLDEN_SHAPE = (3, 32, 32)


def golden_operator(name: str, dtype: torch.dtype) -> LinearOperator:
    how = {"svd_cutoff": 0.03, "dtype": dtype, "device": where()}
    gauss = gaussian_taps(3, 31)

    def short(std: float) -> list[float]:
        return [0.0, *gaussian_taps(std, 9)[1:]]  # the authors' loop stops one tap early, and does not turn the taps

    if name.startswith("sr_bicubic_x"):
        return bicubic_decimation(GOLDEN_SHAPE, int(name[-1]), **how)  # type: ignore[arg-type]
    table = {
        "sr_avgpool_x4": lambda: average_pooling(GOLDEN_SHAPE, 4, dtype=dtype, device=where()),
        "deblur_uniform9_true": lambda: separable_blur(GOLDEN_SHAPE, uniform_taps(9), uniform_taps(9), **how),
        "deblur_gauss_true": lambda: separable_blur(GOLDEN_SHAPE, gauss, gauss, **how),
        "deblur2d_aniso_true": lambda: separable_blur(GOLDEN_SHAPE, short(3), short(3), **how),
        "deblur2d_s1_s20_true": lambda: separable_blur(GOLDEN_SHAPE, short(1), short(20), **how),
        "colorization": lambda: ChannelMean(GOLDEN_SHAPE, [0.3333, 0.3334, 0.3333], dtype=dtype, device=where()),
        "denoise": lambda: build("denoise", {}, GOLDEN_SHAPE, dtype=dtype, device=where()),
        "inpaint_random": lambda: Mask(
            GOLDEN_SHAPE,
            golden("operators/inpaint_random_32")["mask"].reshape(-1, 32, 32)[0] > 0,
            dtype=dtype,
            device=where(),
        ),
    }
    return table[name]()


GOLDEN_NAMES = (
    *("sr_bicubic_x2", "sr_bicubic_x4", "sr_bicubic_x8", "sr_avgpool_x4", "deblur_uniform9_true", "deblur_gauss_true"),
    *("deblur2d_aniso_true", "deblur2d_s1_s20_true", "colorization", "denoise", "inpaint_random"),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_operator(name: str, dtype: torch.dtype) -> None:
    """y and A^T u to 2e-5, scores to 1e-4, the tolerances of the golden data."""
    op, data = golden_operator(name, dtype), golden(f"operators/{name}_32")
    inputs = {key: value.to(dtype) for key, value in golden("operators/inputs_32").items()}

    def as_y(flat: Tensor) -> Tensor:
        if name == "inpaint_random":  # pixel-major, the channel fastest
            return flat.to(dtype).unflatten(1, (-1, 3)).transpose(1, 2)
        return flat.to(dtype).reshape(-1, *op.out_shape)

    assert rel(op.A(inputs["x"]), as_y(data["y"])) < 2e-5
    assert rel(op.At(as_y(data["u"])).flatten(1), data["Htu"].flatten(1)) < 2e-5
    for sigma in (0.05, 0.5):
        for bar in (0.999, 0.5, 0.01):
            y = as_y(data["y"] + sigma * data["y_noise"])
            root = math.sqrt(bar)
            score = op.correction(y)(inputs["x_t"] / root, sigma**2, (1 - bar) / bar) / root
            assert rel(score.flatten(1), data[f"score_sigma{sigma}_abar{bar}"].flatten(1)) < 1e-4
    ours = torch.sort(op.singulars.flatten()).values  # type: ignore[attr-defined]
    assert rel(ours, torch.sort(data["singulars_sorted"].flatten()).values) < 2e-5


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_golden_taps(scale: int) -> None:
    data = golden(f"operators/sr_bicubic_x{scale}_32")
    taps = next(value for key, value in data.items() if key.startswith("taps"))
    assert rel(torch.tensor(bicubic_taps(scale)), taps.flatten()) < 1e-6


@pytest.mark.parametrize(("size", "ratio"), [((33, 47), 2), ((20, 20), 1), ((100, 90), 1)])
def test_padded_rows_that_coincide_have_a_pseudo_inverse(size: tuple[int, int], ratio: int) -> None:
    """A A^T is singular here; a y in A's range is explained, and one outside it does not blow up."""
    op = hadamard_rows((1, *size), ratio, seed=0, dtype=torch.float64, device=where())
    size_in = math.prod(size)
    if size_in < 2000:  # the dense matrix, of less than full rank
        dense_rows = op.A(torch.eye(size_in, dtype=torch.float64).reshape(size_in, *op.in_shape)).flatten(1).T
        assert int(torch.linalg.matrix_rank(dense_rows)) < len(dense_rows)
    x = randn(1, *op.in_shape, seed=1)
    y = op.A(x)
    lost = (op.A(op.pinv(y)) - y).norm()
    assert lost <= PINV_DAMPING[torch.float64] * op.norm * x.norm()
    noisy = op.pinv(y + randn(1, *op.out_shape, seed=2))
    assert bool(noisy.isfinite().all())
    solved = op.solve(y, 0.01, 1.0)
    torch.testing.assert_close(0.01 * solved + op.A(op.At(solved)), y, rtol=0, atol=1e-9 * float(y.abs().max()))
