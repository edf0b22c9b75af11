"""NCSN++ against recorded outputs of the reference code, and identities that hold for any weights."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dmps_cli.errors import WeightsError
from dmps_cli.nets.loading import load_state
from dmps_cli.nets.ncsnpp import FourierFeatures, NCSNpp, NCSNppConfig, ResBlock, fir_down, fir_up
from tests.conftest import golden, golden_json, randn, rel
from tests.rule import rule_weights

GOLDEN = ["ncsnpp_1", "ncsnpp_2"]
TABLES = [*GOLDEN, "ncsnpp_ckpt_1", "keys_ncsnpp_celebahq256"]
SMALL = NCSNppConfig(base_width=8, multipliers=(1, 2), num_res_blocks=1, attention_at=frozenset({2}))


def on_meta(config: NCSNppConfig) -> NCSNpp:
    with torch.device("meta"):
        return NCSNpp(config)


@lru_cache
def weights(config: NCSNppConfig) -> dict[str, Tensor]:
    return rule_weights(on_meta(config))


def network(config: NCSNppConfig, dtype: torch.dtype = torch.float32) -> NCSNpp:
    """A network with the rule's weights."""
    net = on_meta(config)
    load_state(net, weights(config), where="rule")
    return net.to(dtype)


def of_golden(name: str) -> NCSNppConfig:
    return NCSNppConfig.from_reference(golden_json(f"nets/{name}")["config"], where="golden")


def per_image(output: Tensor, expected: Tensor) -> float:
    """The largest relative error of an image: the outputs' sizes differ a thousandfold between the times."""
    return max(rel(a, b) for a, b in zip(output, expected, strict=True))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["plain", "channels_last"])
@pytest.mark.parametrize("name", GOLDEN)
def test_ncsnpp_reproduces_the_reference(name: str, memory: torch.memory_format) -> None:
    data = golden(f"nets/{name}")
    net = network(of_golden(name)).to(memory_format=memory)
    assert per_image(net(data["x"], data["labels"]), data["output"]) <= 1e-5


@pytest.mark.parametrize("name", TABLES)
def test_ncsnpp_parameters_are_the_published_ones_in_their_order(name: str) -> None:
    facts = golden_json(f"nets/{name}")
    net = on_meta(of_golden(name))
    shapes = {key: list(value.shape) for key, value in net.state_dict().items()}
    published = {key: shape for key, shape in facts["state_dict"].items() if key != "sigmas"}
    assert list(shapes.items()) == list(published.items())
    assert [key for key, _ in net.named_parameters()] == facts["model_parameters_order"]
    trainable = [key for key, parameter in net.named_parameters() if parameter.requires_grad]
    assert trainable == facts["ema_shadow_params_order"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ncsnpp_in_half_precision_stays_near_the_reference(dtype: torch.dtype) -> None:
    data = golden("nets/ncsnpp_2")
    net = network(of_golden("ncsnpp_2"), dtype)
    output = net(data["x"], data["labels"])
    assert output.dtype == torch.float32
    assert net.all_modules[0].W.dtype == torch.float32
    assert per_image(output, data["output"]) <= (0.05 if dtype == torch.bfloat16 else 0.005)  # 8 and 11 bits


def test_ncsnpp_images_of_a_batch_never_meet() -> None:
    net, x, label = network(SMALL, torch.float64), randn(2, 3, 16, 12), torch.tensor([3.0, 900.0])
    alone = torch.cat([net(x[i : i + 1], label[i : i + 1]) for i in range(2)])
    assert per_image(net(x, label), alone) <= 1e-12


def test_ncsnpp_with_and_without_gradients_computes_the_same_and_leaves_its_input() -> None:
    """The network works in place where no gradient is recorded."""
    net, x, label = network(SMALL, torch.float64), randn(2, 3, 16, 12), torch.tensor([3.0, 900.0])
    kept = x.clone()
    with torch.enable_grad():
        recorded = net(x.requires_grad_(), label)
    assert per_image(net(x.detach(), label), recorded) <= 1e-12
    assert torch.equal(x, kept)


def test_ncsnpp_gradient_is_the_slope() -> None:
    net, x, label = network(SMALL, torch.float64), randn(1, 3, 16, 12), torch.tensor([500.0])
    direction, probe, step = randn(1, 3, 16, 12, seed=1), randn(1, 3, 16, 12, seed=2), 1e-5
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad((probe * net(x.requires_grad_(), label)).sum(), x)
    slope = (probe * (net(x + step * direction, label) - net(x - step * direction, label))).sum() / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-7)


@pytest.mark.parametrize("size", [(6, 8), (2, 2), (16, 4)])
def test_fir_filters_are_the_formula(size: tuple[int, int]) -> None:
    """Against the dense convolution of the padded, or zero-filled, image."""
    x = randn(2, 3, *size)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    kernel = (torch.outer(taps, taps) / 64).expand(3, 1, 4, 4)
    assert (
        rel(fir_down(x), functional.conv2d(functional.pad(x, (1, 1, 1, 1)), kernel, groups=3)[..., ::2, ::2]) <= 1e-15
    )
    holes = torch.zeros(2, 3, 2 * size[0], 2 * size[1], dtype=torch.float64)
    holes[..., ::2, ::2] = x
    filtered = functional.conv2d(functional.pad(holes, (2, 1, 2, 1)), 4 * kernel, groups=3)
    assert rel(fir_up(x), filtered) <= 1e-15


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fir_taps_are_exact_in_half_precision(dtype: torch.dtype) -> None:
    one = torch.zeros(1, 1, 8, 8, dtype=dtype)
    one[..., 4, 4] = 1
    assert fir_up(one).double().sum() == 4
    assert torch.equal(fir_up(one).double(), fir_up(one.double()))
    assert torch.equal(fir_down(one).double(), fir_down(one.double()))


def test_enlarging_block_moves_its_linear_map_before_the_filter() -> None:
    block = ResBlock(4, 8, 8, fir_up).double()
    x = randn(1, 8, 4, 6)
    assert block.Conv_2 is not None
    assert rel(block._skip(x), block.Conv_2(fir_up(x))) <= 1e-14


def test_fourier_features_are_the_formula_in_float32_whatever_the_weights() -> None:
    features = FourierFeatures(3).to(torch.bfloat16)
    frequencies = [0.125, -3.7, 40.001]
    features.W.copy_(torch.tensor(frequencies))
    label = 998.5
    phases = [2 * math.pi * w * math.log(label) for w in frequencies]
    expected = [f(phase) for f in (math.sin, math.cos) for phase in phases]
    output = features(torch.tensor([label]))
    assert output.dtype == torch.float32
    assert output[0].tolist() == pytest.approx(expected, abs=4e-4)  # phases up to 1736: half an ulp is 6e-5


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"nonlinearty": "swish"}, "unknown NCSN.. option nonlinearty"),
        ({"fir": False}, "fir False is not supported, only True"),
        ({"progressive": "none"}, "progressive 'none' is not supported, only 'output_skip'"),
        ({"fir_kernel": [1, 1]}, r"fir_kernel \[1, 1\] is not supported"),
    ],
)
def test_config_refuses_what_it_cannot_build(change: dict[str, Any], complaint: str) -> None:
    sections = golden_json("nets/ncsnpp_1")["config"]
    with pytest.raises(WeightsError, match=f"card: .*{complaint}"):
        NCSNppConfig.from_reference({**sections, "model": {**sections["model"], **change}}, where="card")


def test_config_is_the_same_flat_and_in_sections_and_needs_five_names() -> None:
    sections = golden_json("nets/keys_ncsnpp_celebahq256")["config"]
    names = ("nf", "ch_mult", "num_res_blocks", "attn_resolutions")
    flat = {"image_size": 256, **{name: sections["model"][name] for name in names}}
    assert NCSNppConfig.from_reference(flat, "card") == NCSNppConfig.from_reference(sections, "card")
    del flat["nf"]
    with pytest.raises(WeightsError, match=r"card: the NCSN.. option nf is missing"):
        NCSNppConfig.from_reference(flat, "card")


def test_ncsnpp_refuses_sizes_that_do_not_halve() -> None:
    net = on_meta(of_golden("ncsnpp_2"))
    with pytest.raises(ValueError, match="48 x 36 is not divisible by 8"):
        net(torch.zeros(1, 3, 48, 36, device="meta"), torch.ones(1, device="meta"))
