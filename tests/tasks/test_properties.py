"""Every task of the table, at sizes and options that nobody chose, against its dense matrix in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dmps_cli.errors import InputError
from dmps_cli.operators.base import PINV_DAMPING, PINV_RCOND, LinearOperator
from dmps_cli.tasks.options import BOUNDARIES, RULES, OperatorOptions
from dmps_cli.tasks.rows import TASKS
from dmps_cli.tasks.table import build, resolve
from tests.conftest import randn, where

ODD = st.sampled_from([1, 3, 5, 7])
LENGTHS = st.floats(0.3, 4.0)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "scale": st.sampled_from([2, 3, 4]),
    "width": ODD,
    "blur_std": LENGTHS,
    "blur_std_x": LENGTHS,
    "blur_std_y": LENGTHS,
    "taps": ODD,
    "length": st.floats(1.0, 6.0),
    "angle": st.floats(-180.0, 180.0),
    "kernel": st.sampled_from(["gauss:1.3", "uniform:5", "aniso:2,0.7", "motion:4,70", "defocus:1.9"]),
    "boundary": st.sampled_from(BOUNDARIES),
    "svd_cutoff": st.sampled_from([0.0, 0.03, 0.3]),
    "weights": st.lists(st.integers(-5, 9), min_size=3, max_size=3).filter(any).map(lambda w: ",".join(map(str, w))),
    "box": st.tuples(*[st.integers(0, 3)] * 2, *[st.integers(1, 6)] * 2).map(lambda box: ",".join(map(str, box))),
    "fraction": st.floats(0.1, 0.9),
    "ratio": st.integers(1, 5),
    "operator_seed": st.integers(0, 99),
}
OF_FILES = {"mask", "invert_mask", "kernel_as_is", "matrix", "image_shape", "operator"}
"""Options that say something about a file."""


def test_every_option_has_values_to_try() -> None:
    assert VALUES.keys() | OF_FILES == RULES.keys()


@st.composite
def operators(draw: st.DrawFn, name: str) -> LinearOperator:
    """The operator of a task with some of its options given, of a picture of 4 to 12 px and one or three channels."""
    task = TASKS[name]
    free = [option for option in task.params if option in VALUES and option not in task.fixed]
    given_options = {option: draw(VALUES[option]) for option in free if draw(st.booleans())}
    if {"box", "fraction"} <= given_options.keys():
        del given_options["fraction"]
    if "box" in given_options:
        given_options.pop("operator_seed", None)
    params = resolve(name, OperatorOptions(**given_options))
    scale = params.get("scale", 1)
    sides = [scale * draw(st.integers(max(1, -(-4 // scale)), max(1, 12 // scale))) for _ in range(2)]
    channels = 3 if task.needs_colour or draw(st.booleans()) else 1
    try:
        return build(name, params, (channels, *sides), dtype=torch.float64, device=where())
    except InputError:  # a kernel larger than the picture, a box that covers it
        assume(False)
        raise


def near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(
        actual.flatten(1), expected, rtol=0, atol=tolerance * max(1e-300, float(expected.abs().max()))
    )


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data(), noise_var=st.floats(1e-3, 1.0), scale=st.floats(1e-3, 30.0))
def test_a_task_is_its_matrix(name: str, data: st.DataObject, noise_var: float, scale: float) -> None:
    """A and its transpose, `gram`, `solve`, `correction`, `norm`, and `pinv`, cut or damped as the contract has it."""
    op = data.draw(operators(name))
    count = math.prod(op.in_shape)
    A = op.A(torch.eye(count, dtype=torch.float64, device=where()).reshape(count, *op.in_shape)).flatten(1).T
    x, y = randn(2, *op.in_shape, seed=1), randn(2, *op.out_shape, seed=2)
    flat_x, flat_y = x.flatten(1), y.flatten(1)
    assert abs((op.A(x) * y).sum() - (x * op.At(y)).sum()) <= 1e-12 * (1e-300 + op.A(x).norm() * y.norm())
    near(op.A(x), flat_x @ A.T, 1e-12)
    near(op.At(y), flat_y @ A, 1e-12)
    near(op.gram(y), flat_y @ A @ A.T, 1e-12)
    system = noise_var * torch.eye(len(A), dtype=torch.float64, device=where()) + scale * A @ A.T
    near(op.solve(y, noise_var, scale), torch.linalg.solve(system, flat_y.T).T, 1e-9)
    near(op.correction(y)(x, noise_var, scale), torch.linalg.solve(system, (flat_y - flat_x @ A.T).T).T @ A, 1e-8)
    singulars = torch.linalg.svdvals(A)
    assert op.norm == pytest.approx(float(singulars[0]), rel=1e-5)
    if op.is_iterated:
        damped = (PINV_DAMPING[torch.float64] * op.norm) ** 2 * torch.eye(len(A), dtype=torch.float64) + A @ A.T
        near(op.pinv(y), torch.linalg.solve(damped, flat_y.T).T @ A, 1e-6)
    else:
        assume(not ((singulars / (PINV_RCOND * singulars[0]) - 1.0).abs() < 1e-6).any())  # neither kept nor cut
        plus = torch.from_numpy(np.linalg.pinv(A.cpu().numpy(), rcond=PINV_RCOND))
        near(op.pinv(y), flat_y @ plus.T, 1e-8)
