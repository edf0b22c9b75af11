"""Operators one after another, at random sizes, against the product of their dense matrices."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dmps_cli.linalg import refine
from dmps_cli.operators.base import PINV_RCOND, LinearOperator
from dmps_cli.operators.composed import AfterFlat, Composed, FlatChain, convolved
from dmps_cli.operators.decimation import DecimatedConvolution, Decimation
from dmps_cli.operators.pointwise import Mask
from dmps_cli.operators.separable import Separable
from dmps_cli.operators.weighted import ScaledRows
from dmps_cli.tasks.chain import is_chain
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from tests.conftest import randn, where

LINKS = (
    "blur(gauss:0.6,3)",
    "blur(motion:3,30)",
    "blur(motion:3,30, boundary=reflect)",
    "blur(gauss:0.6,3, boundary=valid)",
    "deblur(3)",
    "decimate(2)",
    "sr2",
    "colorize",
    "inpaint(fraction=0.4)",
    "denoise",
)
LAST = (*LINKS, "cs(2)")


def make(text: str, shape: tuple[int, ...]) -> LinearOperator:
    params = resolve(text, OperatorOptions())
    return build(text, params, shape, dtype=torch.float64, device=where())  # type: ignore[arg-type]


def matrix(op: LinearOperator) -> Tensor:
    """(M, N): the operator applied to each unit image."""
    count = math.prod(op.in_shape)
    return op.A(torch.eye(count, dtype=torch.float64, device=where()).reshape(count, *op.in_shape)).flatten(1).T


def product(links: list[str], shape: tuple[int, ...]) -> Tensor:
    """The product of the matrices of the links alone; a mask before others sets pixels to 0."""
    whole: Tensor | None = None
    for place, link in enumerate(links):
        op = make(link, shape)
        dense, after = matrix(op), op.out_shape
        if isinstance(op, Mask) and place < len(links) - 1:
            dense, after = torch.diag(op.keep.expand(shape).flatten().double()), shape
        whole = dense if whole is None else dense @ whole
        shape = after
    assert whole is not None
    return whole


def near(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))


def check(links: list[str], shape: tuple[int, ...]) -> LinearOperator:
    """The operator of a chain, whose every form is that of the product of matrices."""
    op, A = make(" | ".join(links), shape), product(links, shape)
    x, y = randn(2, *op.in_shape, seed=1), randn(2, *op.out_shape, seed=2)
    near(op.A(x).flatten(1), x.flatten(1) @ A.T, 1e-12)
    near(op.At(y).flatten(1), y.flatten(1) @ A, 1e-12)
    near(op.gram(y).flatten(1), y.flatten(1) @ (A @ A.T), 1e-12)
    system = 0.05 * torch.eye(len(A), dtype=torch.float64, device=where()) + 0.7 * A @ A.T
    solved = torch.linalg.solve(system, y.flatten(1).T).T
    near(op.solve(y, 0.05, 0.7).flatten(1), solved)
    near(op.correction(y)(x, 0.05, 0.7).flatten(1), torch.linalg.solve(system, (y - op.A(x)).flatten(1).T).T @ A)
    assert op.norm == pytest.approx(float(torch.linalg.matrix_norm(A, 2)), rel=1e-5)
    if not op.is_iterated:
        near(op.pinv(y).flatten(1), y.flatten(1) @ torch.linalg.pinv(A, rtol=PINV_RCOND).T, 1e-7)
    if op.modes is not None:
        known = op.modes.measured
        near(op.modes.Ut(op.A(x))[..., known], (op.modes.singulars * op.modes.Vt(x))[..., known])
        seen = op.modes.V(torch.where(known, op.modes.Vt(x), 0.0))
        near(op.A(seen), op.A(x), 1e-3)  # up to the modes cut
        near(op.modes.V(torch.where(known, op.modes.Vt(seen), 0.0)), seen)
    return op


sizes = st.tuples(st.integers(1, 3), st.integers(3, 5), st.integers(3, 5)).map(lambda s: (s[0], 4 * s[1], 4 * s[2]))


@given(links=st.lists(st.sampled_from(LINKS), min_size=1, max_size=2), last=st.sampled_from(LAST), shape=sizes)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_a_chain_is_the_product_of_its_matrices(links: list[str], last: str, shape: tuple[int, ...]) -> None:
    chain = [*links, last]
    if "colorize" in chain:
        chain, shape = [link for link in chain if link != "colorize"], (3, *shape[1:])
        chain.insert(len(chain) // 2, "colorize")
    if any("valid" in link for link in chain):  # sides that stay multiples of what comes after
        shape = (shape[0], *(side + 2 * sum("valid" in link for link in chain) for side in shape[1:]))
        chain.sort(key=lambda link: "valid" not in link)
    check(chain, shape)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("blur(gauss:0.6,3) | sr2", Separable),
        ("blur(gauss:0.6,3, boundary=zero) | blur(uniform:3, boundary=reflect) | decimate(2)", Separable),
        ("blur(motion:3,30) | decimate(4)", DecimatedConvolution),
        ("blur(motion:3,30) | blur(gauss:0.6,3) | decimate(2)", DecimatedConvolution),
        ("colorize | inpaint(fraction=0.4)", FlatChain),
        ("colorize | blur(motion:3,30) | decimate(2)", AfterFlat),
        ("inpaint(fraction=0.4) | inpaint(fraction=0.3, operator_seed=1)", ScaledRows),
        ("inpaint(fraction=0.4) | decimate(2)", ScaledRows),
        ("denoise | inpaint(fraction=0.4)", Mask),
    ],
)
def test_closed_forms_are_kept(text: str, kind: type[LinearOperator]) -> None:
    op = check(text.split(" | "), (3, 12, 16))
    assert type(op) is kind
    assert not op.is_iterated
    assert op.modes is not None


def test_the_rest_is_iterated_and_a_mask_after_a_closed_form_preconditioned() -> None:
    """By what is its inverse where nothing is missing."""
    op = make("blur(motion:3,30) | inpaint(fraction=0.02)", (1, 12, 16))
    assert type(op) is Composed
    assert op.is_iterated
    assert op.modes is None
    r = randn(1, *op.out_shape)

    def iterations(precondition: Callable[[Tensor], Tensor]) -> int:
        def apply(v: Tensor) -> Tensor:
            return 1e-3 * v + op.gram(v)

        solved = refine(apply, 0.0 * r, r, precondition=precondition, error=1e-3, max_iter=200)
        return int(solved.iterations)

    assert 3 * iterations(lambda v: op.precondition(v, 1e-3, 1.0)) <= iterations(lambda v: v)


def test_links_are_regrouped() -> None:
    """A closed form at the end of a chain that has none as a whole; and operators joined in any order."""
    shape = (1, 12, 16)
    a, b, c = (make(link, shape) for link in ("blur(motion:3,30, boundary=reflect)", "deblur(3)", "deblur(3)"))
    left, right = (a | b) | c, a | (b | c)
    assert isinstance(left, Composed)
    assert isinstance(left.then, Separable)
    x = randn(2, *shape)
    near(left.A(x), c.A(b.A(a.A(x))), 1e-12)
    near(right.A(x), left.A(x), 1e-12)


@pytest.mark.parametrize(("kh", "kw", "lh", "lw"), [(3, 4, 2, 5), (4, 4, 4, 2), (1, 3, 6, 1)])
def test_kernels_of_even_sides_keep_their_centre(kh: int, kw: int, lh: int, lw: int) -> None:
    from scipy import ndimage

    first, then, x = randn(kh, kw, seed=1), randn(lh, lw, seed=2), randn(9, 11, seed=3).cpu().numpy()
    expected = ndimage.convolve(ndimage.convolve(x, first.cpu().numpy(), mode="wrap"), then.cpu().numpy(), mode="wrap")
    actual = ndimage.convolve(x, convolved(first, then).cpu().numpy(), mode="wrap")
    assert abs(actual - expected).max() < 1e-12


def test_the_frame_is_in_pixels_of_x() -> None:
    """5 x 3 px of kernel after 2x reduction need 4 px more of x on both sides together, times 2; before it, once."""
    after = make("decimate(2) | blur(aniso:0.4,0.2, boundary=valid)", (1, 24, 32))
    assert after.frame == (4, 2, 24, 20)
    before = make("blur(aniso:0.4,0.2, boundary=valid) | decimate(2)", (1, 22, 32))
    assert before.frame == (2, 1, 28, 20)
    assert before.picture_size == (20, 28)


@pytest.mark.parametrize("text", ["inpaint(fraction=0.4)", "denoise", "decimate(2)", "blur(motion:3,30)"])
def test_a_mask_before_others_leaves_its_picture_the_size(text: str) -> None:
    """Also one that became a part of what was before it."""
    first, mask = make(text, (2, 16, 24)), None
    shape = first.in_shape if isinstance(first, Mask) else first.out_shape
    mask, blur = make("inpaint(fraction=0.3, operator_seed=4)", shape), make("blur(gauss:0.6,3)", shape)
    kept = mask.V(mask.Vt(torch.ones(1, *shape, dtype=torch.float64, device=where())))  # type: ignore[attr-defined]
    x = randn(2, 2, 16, 24)
    before = first.V(first.A(x)) if isinstance(first, Mask) else first.A(x)
    near(((first | mask) | blur).A(x), blur.A(kept * before), 1e-12)


def test_what_does_not_fit_is_said() -> None:
    blur, mask = make("blur(motion:3,30)", (1, 12, 16)), make("inpaint(fraction=0.5)", (1, 8, 8))
    with pytest.raises(ValueError, match=r"blur\(motion:3,30\) gives \(1, 12, 16\), and inpaint.* takes \(1, 8, 8\)"):
        blur | mask
    single = build("denoise", {}, (1, 12, 16), dtype=torch.float32)
    with pytest.raises(ValueError, match=r"computes in torch\.float64"):
        blur | single


def test_a_composition_in_python_has_the_name_of_its_tasks() -> None:
    first = Decimation((1, 12, 16), 2, dtype=torch.float64, device=where())
    assert (first | make("denoise", (1, 6, 8))) is first
    assert (first | make("deblur(3)", (1, 6, 8))).task is None
    joined = make("deblur(3)", (1, 12, 16)) | make("decimate(2)", (1, 12, 16))
    assert joined.task == "deblur(3) | decimate(2)"
    assert is_chain(joined.task)
