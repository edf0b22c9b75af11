"""The comparison of docs/results.md (benchmarks/results.py): which photographs, plain solutions, cells."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from benchmarks.plain import PLAIN, linear
from benchmarks.results import HERE, STAGES, TASKS
from benchmarks.results_page import Found, cell, difference
from dmps_cli.methods.table import METHODS
from dmps_cli.operators.measurement import Measurement
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve


def test_no_photograph_both_chose_and_is_reported() -> None:
    chosen, reported = (
        [line.split() for line in (HERE / f"photographs_{name}.txt").read_text(encoding="utf-8").splitlines()]
        for name in ("chosen", "reported")
    )
    assert (len(chosen), len(reported)) == (8, 12)
    assert all(re.fullmatch(r"[0-9a-f]{64}", sha256) for sha256, _ in chosen + reported)
    assert len({name for _, name in chosen + reported} | {sha256 for sha256, _ in chosen + reported}) == 40


def test_every_method_is_compared_but_the_authors_code_of_dmps() -> None:
    named = {name for stage in STAGES for run in stage.values() for name in run.methods.split(",")}
    assert named >= METHODS.keys() - {"dmps (sample)"}
    assert set(TASKS.split(",")) == PLAIN.keys()


@pytest.mark.parametrize("task", ["inpaint", "cs", "colorize"])
def test_plain_solutions_of_what_they_are_exact_for(task: str) -> None:
    """A ramp is linear between its pixels; a grey picture needs no colour; A^+ y gives y again."""
    op = build(task, resolve(task, OperatorOptions()), (3, 16, 16), dtype=torch.float64)
    ramp = torch.linspace(-1.0, 1.0, 16, dtype=torch.float64).expand(1, 3, 16, 16)
    y = op.A(ramp)
    x = PLAIN[task].solve(Measurement(y, op, 0.05))
    torch.testing.assert_close(op.A(x), y, rtol=0, atol=1e-12)
    if task == "inpaint":
        inner = (linear(y, op) - ramp).abs()[..., 3:-3, 3:-3]
        assert inner.median() < 1e-12
    if task == "colorize":
        torch.testing.assert_close(x, ramp, rtol=0, atol=1e-12)


def test_intervals_are_of_the_differences() -> None:
    psnr = np.array([[24.1, 23.9], [27.3, 26.8], [21.0, 20.9], [25.5, 25.0]])
    lpips = np.array([[0.31, 0.30], [0.22, 0.25], [0.41, 0.40], [0.28, 0.31]])
    ours, theirs = ([{"psnr": p[k], "lpips": q[k]} for p, q in zip(psnr, lpips, strict=True)] for k in (0, 1))
    low, high = scipy.stats.ttest_rel(psnr[:, 0], psnr[:, 1]).confidence_interval(0.95)
    assert difference(ours, theirs).startswith(
        f"{(low + high) / 2:+.2f} ± {(high - low) / 2:.2f} / \N{MINUS SIGN}.010 ± "
    )
    low, high = scipy.stats.ttest_1samp(psnr[:, 0], 0).confidence_interval(0.95)
    assert cell(ours).startswith(f"{psnr[:, 0].mean():.2f} ± {(high - low) / 2:.2f} / .305 ± ")
    assert cell(ours[:2]) == "25.70 / .265"


def test_a_column_is_of_the_photographs_that_all_methods_have() -> None:
    def row(image: str, run: str, label: str) -> dict[str, Any]:
        return {"image": image, "run": run, "label": label, "task": "sr4", "nfe": 20}

    rows = [row("a", "ddpm-20", "ddrm"), row("b", "ddpm-20", "ddrm"), row("a", "flow-20", "flow: ot-ode")]
    found = Found(rows=rows, plain=[])
    assert found.images == {20: ["a"]}
    assert found.of("sr4", "ddrm", 20, ["a", "b"]) == rows[:2]
    assert found.of("sr4", "flow: ot-ode", 20, ["a", "b"]) == []
