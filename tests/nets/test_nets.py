"""Networks against recorded outputs of the reference code, and identities that hold for any weights."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import dmps_cli
from dmps_cli.errors import WeightsError
from dmps_cli.nets.adm import ADM, ADMConfig, time_features
from dmps_cli.nets.layers import GroupNorm
from dmps_cli.nets.loading import load_state
from dmps_cli.nets.natural import Block, Natural, NaturalConfig, NaturalNet
from dmps_cli.nets.natural_state import natural_from_state, sigmas_of
from tests.conftest import golden, golden_json, randn, rel, where
from tests.rule import rule_tensor, rule_weights

ADM_GOLDEN = [f"adm_{i}" for i in range(1, 7)]
ADM_REAL = ["ffhq256", "lsun256", "imagenet256_uncond"]
BUNDLED = Path(dmps_cli.__file__).parent / "data" / "natural.safetensors"


def adm_on_meta(facts: dict[str, object]) -> ADM:
    """The architecture of a golden JSON file, without storage."""
    with torch.device("meta"):
        return ADM(ADMConfig.from_reference(facts["config"], where="golden"))


@lru_cache
def adm_weights(name: str) -> dict[str, Tensor]:
    """The rule's weights for a network of the golden data."""
    return rule_weights(adm_on_meta(golden_json(f"nets/{name}")))


def adm(name: str, dtype: torch.dtype = torch.float32) -> ADM:
    """A network of the golden data with the rule's weights."""
    net = adm_on_meta(golden_json(f"nets/{name}"))
    load_state(net, adm_weights(name), where=name)
    return net.to(dtype)


def bundled(dtype: torch.dtype = torch.float32) -> Natural:
    """The denoiser of the package."""
    return natural_from_state(load_file(BUNDLED), where="bundled").to(where(), dtype)


def small_natural(config: NaturalConfig, dtype: torch.dtype = torch.float64) -> Natural:
    """A denoiser of any size with the rule's weights (`fr` as the architecture makes it)."""
    net = NaturalNet(config)
    state = {**net.state_dict(), **rule_weights(net)}
    return natural_from_state(state, where="small").to(where(), dtype)


SMALL = NaturalConfig(widths=(8, 12, 16), emb_width=16, num_frequencies=4)


# The rule and strict loading


def test_weight_rule_gives_the_recorded_values() -> None:
    for key, facts in golden_json("nets/weight_rule_check").items():
        weight = rule_tensor(key, tuple(facts["shape"])).double()
        assert weight.flatten()[:4].tolist() == facts["first"]
        assert float(weight.sum()) == pytest.approx(facts["sum"], abs=1e-9)


def test_load_state_names_every_kind_of_difference_and_loads_nothing() -> None:
    module = torch.nn.Linear(3, 2)
    before = module.weight.clone()
    state = {"weight": torch.zeros(2, 4), "scale": torch.zeros(2)}
    with pytest.raises(WeightsError) as caught:
        load_state(module, state, where="some.pt")
    message = str(caught.value)
    assert message.startswith("some.pt: ")
    assert "1 missing (bias)" in message
    assert "1 unexpected (scale)" in message
    assert "1 of another shape (weight (2, 4) instead of (2, 3))" in message
    assert torch.equal(module.weight, before)


def test_load_state_shortens_long_lists() -> None:
    with pytest.raises(WeightsError, match=r"144 missing \(time_embed.0.weight, .*, .*, \.\.\.\)"):
        load_state(adm_on_meta(golden_json("nets/adm_1")), {}, where="empty")


def test_load_state_converts_and_freezes() -> None:
    module = torch.nn.Linear(3, 2)
    state = {name: value.half() for name, value in torch.nn.Linear(3, 2).state_dict().items()}
    load_state(module, state, where="half")
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, state["weight"].float())
    assert not module.training
    assert not module.weight.requires_grad


# ADM


@pytest.mark.parametrize("name", ADM_GOLDEN)
def test_adm_reproduces_the_reference(name: str) -> None:
    data = golden(f"nets/{name}")
    assert rel(adm(name)(data["x"], data["t"]), data["output"]) <= 1e-5


def test_adm_of_ffhq_reproduces_the_reference() -> None:
    data = golden("nets/real_adm_ffhq256")
    assert rel(adm("keys_adm_ffhq256")(data["x"], data["t"]), data["output"]) <= 1e-5


@pytest.mark.parametrize("name", [*ADM_GOLDEN, *(f"keys_adm_{real}" for real in ADM_REAL)])
def test_adm_parameters_are_the_published_ones(name: str) -> None:
    facts = golden_json(f"nets/{name}")
    net = adm_on_meta(facts)
    assert [(key, list(value.shape)) for key, value in net.state_dict().items()] == list(facts["state_dict"].items())
    assert sum(parameter.numel() for parameter in net.parameters()) == facts["parameters"]


@pytest.mark.parametrize("name", ["adm_1", "adm_6"])
def test_adm_images_of_a_batch_never_meet(name: str) -> None:
    net, x, t = adm(name, torch.float64), randn(2, 3, 16, 24), torch.tensor([3.0, 900.0])
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1]) for i in range(2)])
    assert rel(net(x, t), alone) <= 1e-12


@pytest.mark.parametrize("name", ["adm_1", "adm_6"])
def test_adm_in_channels_last_is_the_same_network(name: str) -> None:
    net, x, t = adm(name, torch.float64), randn(1, 3, 16, 24), torch.tensor([500.0])
    plain = net(x, t)
    assert rel(net.to(memory_format=torch.channels_last)(x, t), plain) <= 1e-12


@pytest.mark.parametrize("name", ["adm_1", "adm_6"])
def test_adm_gradient_is_the_slope(name: str) -> None:
    net, x, t = adm(name, torch.float64), randn(1, 3, 16, 24), torch.tensor([500.0])
    direction = randn(1, 3, 16, 24, seed=1)
    with torch.enable_grad():
        output = net(x.requires_grad_(), t)
        probe = randn(*output.shape, seed=2)
        (gradient,) = torch.autograd.grad((probe * output).sum(), x)
    step = 1e-5
    slope = (probe * (net(x + step * direction, t) - net(x - step * direction, t))).sum() / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-7)


def test_adm_in_bfloat16_stays_near_the_reference() -> None:
    data = golden("nets/adm_1")
    output = adm("adm_1", torch.bfloat16)(data["x"], data["t"])
    assert output.dtype == torch.float32
    assert rel(output, data["output"]) <= 0.05  # 8-bit mantissas through 20 layers; a wrong layer is off by 1


def test_group_norm_of_half_precision_has_float32_statistics() -> None:
    # mean 100, deviation 1: squares in bfloat16, or a float16 sum of them, would lose the variance altogether
    x = (100.0 + randn(1, 64, 32, 32)).to(torch.bfloat16)
    groups = x.double().view(1, 32, -1)
    mean, variance = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, unbiased=False)
    exact = ((groups - mean) / (variance + 1e-5).sqrt()).view_as(x)
    assert rel(GroupNorm(32, 64).to(torch.bfloat16)(x), exact) <= 2**-8


def test_time_features_are_those_of_the_formula() -> None:
    features = time_features(torch.tensor([0.0, 999.0, 12.75]), 8)
    assert features.dtype == torch.float32
    for row, t in zip(features, [0.0, 999.0, 12.75], strict=True):
        phases = [t * 10_000.0 ** (-k / 4) for k in range(4)]
        assert row.tolist() == pytest.approx([f(p) for f in (math.cos, math.sin) for p in phases], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_heds": 4}, "unknown ADM argument num_heds"),
        ({"class_cond": True}, "class-conditional"),
        ({"image_size": 96}, "channel_mult has no default for image size 96"),
    ],
)
def test_adm_config_refuses_what_it_cannot_build(change: dict[str, object], complaint: str) -> None:
    arguments = golden_json("nets/adm_2")["config"]
    with pytest.raises(WeightsError, match=f"card: .*{complaint}"):
        ADMConfig.from_reference({**arguments, **change}, where="card")


def test_adm_config_misses_an_argument() -> None:
    with pytest.raises(WeightsError, match="num_channels is missing"):
        ADMConfig.from_reference({"image_size": 64, "num_res_blocks": 1}, where="card")


def test_adm_refuses_sizes_that_do_not_halve() -> None:
    net = adm_on_meta(golden_json("nets/adm_5"))
    with pytest.raises(ValueError, match="48 x 64 is not divisible by 32"):
        net(torch.zeros(1, 3, 48, 64, device="meta"), torch.zeros(1, device="meta"))


# natural


# Root mean square error against the photograph of the float32 denoiser, mean over 24 validation photographs
# (BSDS500) at the noise levels of the golden pairs, of other noise than in docs/natural.md.
GOLDEN_RMSE = {0: 0.0069, 1: 0.0357, 2: 0.0907, 3: 0.1939, 4: 0.4723}


@pytest.mark.parametrize("pair", GOLDEN_RMSE)
def test_bundled_file_reproduces_the_float32_weights(pair: int) -> None:
    """Recorded outputs are `published_denoiser`'s of the float32 weights; the bundled file holds them in float16.

    If the float32 output has rmse m against the truth, an output at distance d (rms) from it has one within m +- d:
    a PSNR within 20 log10(1 + d / m) decibels of the float32 one, whatever the truth.
    """
    data = golden("nets/natural")
    difference = bundled().denoise(data[f"{pair}.x"], float(data[f"{pair}.sigma"])) - data[f"{pair}.x0"]
    assert float(difference.abs().max()) <= 4e-4  # 11-bit mantissas; the float32 weights themselves give 1.2e-6
    distance = float(difference.square().mean().sqrt())
    assert 20.0 * math.log10(1.0 + distance / GOLDEN_RMSE[pair]) <= 0.01


def published_denoiser(state: dict[str, Tensor], z: Tensor, s: float) -> Tensor:
    """D(z; s) of docs/natural.md written down once more, one operation a line."""
    w = {name: value.to(z) for name, value in state.items()}
    conv, v = torch.nn.functional.conv2d, s**2 + 0.25
    phases = math.log(min(s, 200.0)) / 4.0 * w["fr"]
    e = torch.cat([phases.sin(), phases.cos()])
    e = torch.nn.functional.silu(w["emb.0.weight"] @ e + w["emb.0.bias"])
    e = torch.nn.functional.silu(w["emb.2.weight"] @ e + w["emb.2.bias"])

    def block(x: Tensor, name: str) -> Tensor:
        h = conv(x, w[f"{name}.c1.weight"], w[f"{name}.c1.bias"], padding=1)
        h = h / (h.pow(2).mean(1, keepdim=True) + 1e-4).sqrt()
        p, q = (w[f"{name}.aff.weight"] @ e + w[f"{name}.aff.bias"])[:, None, None].chunk(2)
        h = torch.nn.functional.silu(h * (1 + p) + q)
        return x + conv(h, w[f"{name}.c2.weight"], w[f"{name}.c2.bias"], padding=1)

    height, width = z.shape[-2:]
    u = torch.nn.functional.pad(z / v**0.5, (0, -width % 16, 0, -height % 16), mode="replicate")
    x = conv(torch.nn.functional.pixel_unshuffle(u, 2), w["inp.weight"], w["inp.bias"], padding=1)
    skips = []
    for level in range(4):
        x = block(block(x, f"enc.{level}.0"), f"enc.{level}.1")
        if level < 3:
            skips.append(x)
            x = conv(x, w[f"down.{level}.weight"], w[f"down.{level}.bias"], stride=2)
    x = block(block(x, "mid.0"), "mid.1")
    for j in range(3):
        x = torch.nn.functional.conv_transpose2d(x, w[f"up.{j}.weight"], w[f"up.{j}.bias"], stride=2) + skips[2 - j]
        x = block(block(x, f"dec.{j}.0"), f"dec.{j}.1")
    f = torch.nn.functional.pixel_shuffle(conv(x, w["out.weight"], w["out.bias"], padding=1), 2)
    return 0.25 / v * z + 0.5 * s / v**0.5 * f[:, :, :height, :width]


@pytest.mark.parametrize("pair", GOLDEN_RMSE)
def test_natural_is_what_the_card_says(pair: int) -> None:
    data = golden("nets/natural")
    z, s = data[f"{pair}.x"].double(), float(data[f"{pair}.sigma"])
    assert rel(bundled(torch.float64).denoise(z, s), published_denoiser(load_file(BUNDLED), z, s)) <= 1e-7


def test_bundled_file_says_what_it_is() -> None:
    with safe_open(BUNDLED, "pt") as file:
        facts = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    config = NaturalConfig.from_state(state, where="bundled")
    assert facts["architecture"] == "natural"
    assert facts["widths"] == ",".join(map(str, config.widths)) == "64,96,128,192"
    assert (len(state), sum(value.numel() for value in state.values())) == (117, 5_675_052)
    assert float(facts["sigma_data"]) == 0.5
    assert "non-commercial" in facts["licence"]


def test_natural_frequencies_keep_their_precision() -> None:
    expected = 2.0 * math.pi * torch.linspace(math.log(0.05), math.log(4.0), 32, dtype=torch.float64).exp()
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        assert rel(bundled(dtype).net.fr, expected) <= 1e-6


def test_natural_in_bfloat16_stays_near_the_reference() -> None:
    data, denoiser = golden("nets/natural"), bundled(torch.bfloat16)
    for pair in range(5):
        x0 = denoiser.denoise(data[f"{pair}.x"], float(data[f"{pair}.sigma"]))
        assert x0.dtype == torch.float32
        assert float((x0 - data[f"{pair}.x0"]).abs().max()) <= 0.02


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (16, 5), (63, 64)])
def test_natural_repeats_the_edge_up_to_the_next_multiple(size: tuple[int, int]) -> None:
    height, width = size
    denoiser, z = bundled(torch.float64), randn(1, 3, height, width)
    rows = torch.arange(-(-height // 16) * 16).clamp(max=height - 1)
    columns = torch.arange(-(-width // 16) * 16).clamp(max=width - 1)
    padded = z[:, :, rows][:, :, :, columns]
    assert rel(denoiser.denoise(z, 0.3), denoiser.denoise(padded, 0.3)[:, :, :height, :width]) <= 1e-12


@pytest.mark.parametrize("size", [(16, 16), (48, 32)])
def test_natural_pads_nothing_at_a_multiple(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, z = bundled(torch.float64), randn(1, 3, *size)
    before = denoiser.denoise(z, 0.3)
    monkeypatch.setattr(torch.nn.functional, "pad", None)
    assert torch.equal(denoiser.denoise(z, 0.3), before)


def test_natural_images_of_a_batch_never_meet() -> None:
    denoiser, z = bundled(torch.float64), randn(3, 3, 32, 40)
    alone = torch.cat([denoiser.denoise(z[i : i + 1], 0.3) for i in range(3)])
    assert rel(denoiser.denoise(z, 0.3), alone) <= 1e-12


def test_natural_in_either_memory_format_is_the_same_network() -> None:
    denoiser, z = bundled(torch.float64), randn(1, 3, 33, 40)
    last = denoiser.denoise(z, 0.3)
    plain = denoiser.to(memory_format=torch.contiguous_format).denoise(z, 0.3)
    assert rel(last, plain) <= 1e-12


@pytest.mark.parametrize("recorded", [False, True])
def test_natural_block_is_the_formula(recorded: bool) -> None:
    """With convolutions that copy, and x so small that the 1e-4 counts."""
    block = Block(6, 4).double()
    for conv in (block.c1, block.c2):
        torch.nn.init.dirac_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    x, p1, q = 0.01 * randn(2, 6, 5, 4), randn(1, 6, 1, 1, seed=1), randn(1, 6, 1, 1, seed=2)
    h = x / (x.pow(2).sum(1, keepdim=True) / 6 + 1e-4).sqrt() * p1 + q
    with torch.set_grad_enabled(recorded):
        output = block(x, p1, q).detach()
    assert rel(output, x + h / (1 + (-h).exp())) <= 1e-14


def test_natural_with_and_without_gradients_computes_the_same() -> None:
    """The network works in place where no gradient is recorded."""
    denoiser, z = bundled(torch.float64), randn(2, 3, 33, 40)
    kept = z.clone()
    with torch.enable_grad():
        recorded = denoiser.denoise(z, 0.3)
    assert rel(denoiser.denoise(z, 0.3), recorded) <= 1e-13
    assert torch.equal(z, kept)


def test_natural_gradient_is_the_slope() -> None:
    denoiser, z = small_natural(SMALL), randn(2, 3, 13, 10)
    direction, probe = randn(2, 3, 13, 10, seed=1), randn(2, 3, 13, 10, seed=2)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad((probe * denoiser.denoise(z.requires_grad_(), 0.7)).sum(), z)
    step = 1e-5
    difference = denoiser.denoise(z + step * direction, 0.7) - denoiser.denoise(z - step * direction, 0.7)
    assert float((gradient * direction).sum()) == pytest.approx(
        float((probe * difference).sum()) / (2 * step), rel=1e-7
    )


def test_natural_tends_to_the_identity_as_the_noise_vanishes() -> None:
    """Below sigma_min the network is told sigma_min: D - z is then linear in s to first order, and 0 at 0."""
    denoiser, z = bundled(torch.float64), randn(1, 3, 32, 32)
    assert torch.equal(denoiser.denoise(z, 0.0), z)
    far, near = (denoiser.denoise(z, s) - z for s in (2e-6, 1e-6))
    assert rel(far, 2.0 * near) <= 1e-4


def network_output(denoiser: Natural, u: Tensor, s: float) -> Tensor:
    """F, recovered from D at z = sqrt(v) u with the coefficients of the true s."""
    v = s**2 + 0.25
    z = math.sqrt(v) * u
    return (denoiser.denoise(z, s) - 0.25 / v * z) * math.sqrt(v) / (0.5 * s)


def test_natural_is_told_at_most_200_and_keeps_the_true_coefficients() -> None:
    denoiser, u = bundled(torch.float64), randn(1, 3, 32, 32)
    at_most, beyond, below = (network_output(denoiser, u, s) for s in (200.0, 999.0, 100.0))
    assert rel(beyond, at_most) <= 1e-9
    assert rel(below, at_most) >= 1e-3


@pytest.mark.parametrize(
    "config", [SMALL, NaturalConfig(widths=(4, 8), num_blocks=1, emb_width=6, num_frequencies=3)], ids=str
)
def test_natural_reads_its_sizes_off_the_shapes(config: NaturalConfig) -> None:
    assert NaturalConfig.from_state(NaturalNet(config).state_dict(), where="small") == config
    assert torch.isfinite(small_natural(config).denoise(randn(1, 3, 5, 7), 0.3)).all()


@pytest.mark.parametrize("name", ["sigma_data", "sigma_min", "sigma_max"])
@pytest.mark.parametrize("text", ["-1", "0", "1e300", "nan", "inf", "", "x", "1" * 5000])
def test_absurd_noise_levels_are_refused(name: str, text: str) -> None:
    with pytest.raises(WeightsError, match=rf"file: its metadata are damaged \({name} is"):
        sigmas_of({name: text}, "file")


def test_natural_takes_its_noise_levels_from_the_metadata() -> None:
    state, z = load_file(BUNDLED), randn(1, 3, 16, 16).float()
    other = natural_from_state(state, where="file", metadata={"sigma_data": "2.0", "licence": "any"})
    v = 0.3**2 + 4.0  # the same network inside other coefficients
    u = z / math.sqrt(v)
    f = other.net(u, torch.tensor([math.log(0.3) / 4.0]))
    assert rel(other.denoise(z, 0.3), 4.0 / v * z + 2.0 * 0.3 / math.sqrt(v) * f) <= 1e-6
    with pytest.raises(WeightsError, match=r"file: its metadata are damaged \(sigma_data is 'half'"):
        natural_from_state(state, where="file", metadata={"sigma_data": "half"})


def test_natural_refuses_other_weights_and_negative_noise() -> None:
    with pytest.raises(WeightsError, match=r"adm\.pt: no tensor 'inp\.weight'"):
        natural_from_state(rule_weights(adm_on_meta(golden_json("nets/adm_1"))), where="adm.pt")
    damaged = load_file(BUNDLED)
    del damaged["mid.0.c2.bias"]
    with pytest.raises(WeightsError, match=r"1 missing \(mid\.0\.c2\.bias\)"):
        natural_from_state(damaged, where="file")
    with pytest.raises(ValueError, match=r"s is -1\.0"):
        bundled().denoise(torch.zeros(1, 3, 16, 16), -1.0)
