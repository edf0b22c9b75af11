"""Decimation of large pictures against the same with dense matrices and their decomposition."""

from __future__ import annotations

import pytest
import torch

from dmps_cli import fields
from dmps_cli.operators import banded, separable
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from tests.conftest import randn

HOW = {"dtype": torch.float64, "device": "cpu"}
PAIRS = [(banded.bicubic, separable.bicubic_decimation), (banded.average, separable.average_pooling)]


@pytest.mark.parametrize("size", [(3, 5), (20, 150)])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize(("by_bands", "dense"), PAIRS)
def test_strips_are_the_dense_operator(by_bands: object, dense: object, scale: int, size: tuple[int, int]) -> None:
    shape = (2, scale * size[0], scale * size[1])
    op, expected = by_bands(shape, scale, **HOW), dense(shape, scale, **HOW)  # type: ignore[operator]
    x, y = randn(1, *shape), randn(1, *expected.out_shape, seed=1)

    def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
        torch.testing.assert_close(fields.whole(found), wanted, rtol=0, atol=1e-11)

    field, lazy = fields.field(x, torch.device("cpu")), op.by_strips()
    for each in (op, lazy):
        same(each.A(x), expected.A(x))
        same(each.A(field), expected.A(x))
        same(each.At(y), expected.At(y))
        same(each.solve(y, 0.01, 0.7), expected.solve(y, 0.01, 0.7))
        same(each.pinv(y), expected.pinv(y))
        same(each.correction(y)(field, 0.01, 0.5), expected.correction(y)(x, 0.01, 0.5))
    same(op.Vt(op.V(y)), y)
    same(op.V(op.singulars * op.Ut(y)), expected.At(y))
    assert op.norm == pytest.approx(expected.norm, rel=1e-12)
    assert isinstance(lazy.At(y), fields.Field)


def test_large_pictures_have_it() -> None:
    for name, size in (("sr2", 2050), ("sr4-avg", 2052)):
        op = build(name, resolve(name, OperatorOptions()), (1, size, 2048), dtype=torch.float32)
        assert isinstance(op, banded.BandedDecimation)
    assert not isinstance(
        build("sr2", resolve("sr2", OperatorOptions()), (1, 64, 64), dtype=torch.float32), banded.BandedDecimation
    )
