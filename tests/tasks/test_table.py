"""The table of tasks: what options resolve to, what is refused and why, and what sizes are allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest
import torch

from dmps_cli.errors import InputError, UsageError
from dmps_cli.tasks.geometry import crop_box, source_shape
from dmps_cli.tasks.options import RULES, OperatorOptions
from dmps_cli.tasks.rows import OWN, TASKS
from dmps_cli.tasks.table import build, resolve


def test_every_option_is_checked_and_belongs_to_a_task() -> None:
    options = {field.name for field in fields(OperatorOptions)}
    assert options == set(RULES)
    assert options == {option for row in (*TASKS.values(), *OWN.values()) for option in row.params}


@pytest.mark.parametrize("name", TASKS)
def test_resolved_parameters_survive_json_and_resolve_to_themselves(name: str) -> None:
    params = resolve(name, OperatorOptions())
    again = json.loads(json.dumps(params))
    assert again == params
    assert resolve(name, OperatorOptions(**again)) == params


def test_noise_levels_are_the_papers() -> None:
    assert {name: row.sigma_y for name, row in TASKS.items()} == {
        name: 0.5 if name == "denoise" else 0.05 for name in TASKS
    }


def test_defaults_are_the_stated_ones() -> None:
    assert [resolve(name, OperatorOptions())["scale"] for name in ("sr2", "sr4", "sr8", "sr4-avg")] == [2, 4, 8, 4]
    assert resolve("deblur", OperatorOptions()) == {"width": 9, "boundary": "zero", "svd_cutoff": 0.0}
    assert resolve("deblur-gauss", OperatorOptions())["taps"] == 31
    assert resolve("deblur-gauss", OperatorOptions(blur_std=1.0))["taps"] == 11


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("sr4", {"scale": 2}, "--scale 4, not 2"),
        ("sr", {"scale": 3.5}, "--scale is 3.5"),
        ("sr", {"scale": 1}, "--scale is 1"),
        ("deblur", {"width": 8}, "--width is 8; expected an odd number"),
        ("deblur", {"width": -3}, "--width is -3"),
        ("deblur", {"boundary": "wrap"}, "valid, zero, reflect, replicate, circular"),
        ("deblur", {"svd_cutoff": -0.1}, "--svd-cutoff is -0.1"),
        ("deblur-gauss", {"blur_std": 0.0}, "--blur-std is 0"),
        ("deblur-gauss", {"blur_std": float("inf")}, "--blur-std is inf"),
        ("motion", {"length": 0.5}, "--length is 0.5"),
        ("motion", {"angle": float("nan")}, "--angle is nan"),
        ("inpaint", {"fraction": 1.2}, "--fraction is 1.2"),
        ("inpaint", {"fraction": float("nan")}, "--fraction is nan"),
        ("inpaint", {"box": "1,2,3"}, "--box is '1,2,3'"),
        ("inpaint", {"box": "1,2,0,3"}, "--box is '1,2,0,3'"),
        ("inpaint", {"mask": "m.png", "fraction": 0.3}, "--mask and --fraction exclude each other"),
        ("colorize", {"weights": "0,0,0"}, "--weights is '0,0,0'"),
        ("cs", {"ratio": 0}, "--ratio is 0; expected a whole number"),
        ("cs", {"operator_seed": -1}, "--operator-seed is -1"),
        ("denoise", {"width": 9}, "'denoise' takes no --width; it belongs to deblur"),
        ("sr5", {}, "unknown task 'sr5'"),
    ],
)
def test_what_is_refused(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(task, OperatorOptions(**options))
    assert message in str(caught.value)


def test_a_size_that_the_scale_does_not_divide() -> None:
    params = resolve("sr4", OperatorOptions())
    with pytest.raises(InputError, match="30 x 16 px, not a multiple of the scale 4"):
        build("sr4", params, (3, 16, 30), dtype=torch.float32)
    left, top, width, height = crop_box("sr4", params, (17, 31))
    assert (width, height) == (28, 16)
    assert (left, top) == (1, 0)
    with pytest.raises(InputError, match="smaller than the scale 4"):
        crop_box("sr4", params, (3, 31))


@pytest.mark.parametrize("name", [name for name, row in TASKS.items() if row.is_picture])
def test_source_shape_inverts_the_measurement(name: str) -> None:
    """A picture of the measurement of a (16, 24) image implies that size."""
    params = resolve(name, OperatorOptions())
    op = build(name, params, (3, 16, 24), dtype=torch.float32)
    picture = op.to_image(op.A(torch.zeros(1, 3, 16, 24)))
    assert source_shape(name, params, (picture.shape[2], picture.shape[3])) == (3, 16, 24)


def test_masks() -> None:
    named = resolve("inpaint", OperatorOptions(mask="m.png"))
    keep = torch.ones(4, 6, dtype=torch.bool)
    keep[1, 2] = False
    x = torch.arange(72.0).reshape(1, 3, 4, 6)
    op = build("inpaint", named, (3, 4, 6), dtype=torch.float32, mask=keep)
    assert torch.equal(op.A(x), x[..., keep])
    with pytest.raises(ValueError, match=r"m\.png"):
        build("inpaint", named, (3, 4, 6), dtype=torch.float32)
    with pytest.raises(InputError, match="removes every pixel"):
        build("inpaint", resolve("inpaint", OperatorOptions(box="0,0,6,4")), (3, 4, 6), dtype=torch.float32)
    with pytest.raises(InputError, match="does not lie within the picture of 6 x 4 pixels"):
        build("inpaint", resolve("inpaint", OperatorOptions(box="3,0,4,4")), (3, 4, 6), dtype=torch.float32)


@pytest.mark.parametrize("name", ["inpaint", "cs"])
def test_the_seed_decides_the_pattern_and_global_state_does_not(name: str) -> None:
    x = torch.arange(192.0).reshape(1, 3, 8, 8)

    def measured(seed: int) -> torch.Tensor:
        torch.manual_seed(seed + 100)
        params = resolve(name, OperatorOptions(operator_seed=seed % 2))
        return build(name, params, (3, 8, 8), dtype=torch.float32).A(x)

    assert torch.equal(measured(0), measured(2))
    assert not torch.equal(measured(0), measured(1))


def test_the_table_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from dmps_cli.tasks.options import OperatorOptions\n"
        "from dmps_cli.tasks.rows import TASKS\nfrom dmps_cli.tasks.table import resolve\n"
        "[resolve(name, OperatorOptions()) for name in TASKS]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
