"""Diffusers folders against the package's own network and schedules."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dmps_cli.errors import WeightsError
from dmps_cli.levels import CLEAN, Level, ddpm_levels
from dmps_cli.levels import alpha_bars as linear_bars
from dmps_cli.nets.diffusers_unet import Schedule, alpha_bars, schedule_of
from dmps_cli.priors import DDPMPrior, DenoiserPrior, Prior
from dmps_cli.weights.building import load_diffusers
from tests.conftest import randn, rel
from tests.rule import rule_weights

diffusers = pytest.importorskip("diffusers")

SCHEDULES: dict[str, dict[str, Any]] = {
    "linear": {},
    "linear of other betas": {"beta_start": 2e-4, "beta_end": 0.03, "num_train_timesteps": 500},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0155},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "by hand": {"trained_betas": [0.01, 0.02, 0.05, 0.1, 0.3], "num_train_timesteps": 5},
}


def unet(**options: Any) -> Any:
    """A tiny UNet2DModel with the rule's weights."""
    net = diffusers.UNet2DModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=None,  # one head, as the published models
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **options,
    )
    net.load_state_dict(rule_weights(net))
    return net.eval().requires_grad_(False)


def save(folder: Path, net: Any, **schedule: Any) -> Path:
    """The folder that diffusers writes of a network and a schedule."""
    net.save_pretrained(folder)
    diffusers.DDPMScheduler(**schedule).save_pretrained(folder)
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def x0_at(prior: Prior, x_t: Tensor, bar: float) -> Tensor:
    return prior.predict(x_t, Level(math.sqrt(bar), math.sqrt(1 - bar), -1.0), CLEAN)[0]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_denoiser_is_the_schedulers_prediction(tmp_path: Path, name: str, prediction: str, clip: bool) -> None:
    options = {**SCHEDULES[name], "prediction_type": prediction, "clip_sample": clip}
    scheduler, net = diffusers.DDPMScheduler(**options), unet().double()
    prior = load_diffusers(save(tmp_path, net, **options), dtype=torch.float64)[0]
    bars, x_t = scheduler.alphas_cumprod, randn(2, 3, 8, 12)
    for step in (1, len(bars) // 2, len(bars) - 2):
        output = net(x_t, step).sample
        expected = scheduler.step(output, step, x_t, generator=torch.Generator()).pred_original_sample
        assert rel(x0_at(prior, x_t, float(bars[step])), expected) <= 1e-3  # its alpha_bar are float32


@pytest.mark.parametrize("name", SCHEDULES)
def test_alpha_bars_are_the_schedulers(name: str) -> None:
    scheduler = diffusers.DDPMScheduler(**SCHEDULES[name])
    bars = torch.tensor(alpha_bars(schedule_of(scheduler.config, "x"), "x"), dtype=torch.float64)
    assert torch.allclose(bars, scheduler.alphas_cumprod.double(), rtol=3e-5, atol=1e-9)


def test_on_the_linear_chain_it_is_the_ddpm_prior(tmp_path: Path) -> None:
    """The same network as an eps network of whole steps."""
    net = unet().double()
    prior = load_diffusers(save(tmp_path, net), dtype=torch.float64)[0]
    assert isinstance(prior, DenoiserPrior)
    assert alpha_bars(Schedule(), "x") == list(linear_bars())
    ddpm = DDPMPrior(lambda x, t: net(x, t.float()).sample, learned_range=False, clip_denoised=True)
    x_t, levels = randn(1, 3, 8, 8), ddpm_levels(20)
    for cur, nxt in ((levels[0], levels[1]), (levels[9], levels[10]), (levels[18], levels[19])):
        assert rel(prior.predict(x_t, cur, nxt)[0], ddpm.predict(x_t, cur, nxt)[0]) <= 1e-6  # steps are told in float32


def test_pipeline_folders_and_pickled_weights_of_old_names_are_read(tmp_path: Path) -> None:
    net, x_t = unet(), randn(1, 3, 8, 8).float()
    plain = save(tmp_path / "plain", net, clip_sample=False)
    pipeline = tmp_path / "pipeline"
    net.save_pretrained(pipeline / "unet")
    diffusers.DDPMScheduler(clip_sample=False).save_pretrained(pipeline / "scheduler")
    file = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for new, before in old.items():
        state = {name.replace(f".{new}.", f".{before}."): value for name, value in state.items()}
    torch.save(state, file.with_suffix(".bin"))
    file.unlink()
    assert rel(x0_at(load_diffusers(pipeline)[0], x_t, 0.5), x0_at(load_diffusers(plain)[0], x_t, 0.5)) <= 1e-6


def test_half_precision_network_keeps_the_images_type(tmp_path: Path) -> None:
    folder, x_t = save(tmp_path, unet()), randn(1, 3, 8, 8).float()
    exact, half = (x0_at(load_diffusers(folder, dtype=dtype)[0], x_t, 0.5) for dtype in (torch.float32, torch.bfloat16))
    assert half.dtype == torch.float32
    assert rel(half, exact) <= 0.05


def test_no_noise_leaves_the_image_and_sizes_must_halve(tmp_path: Path) -> None:
    prior, z = load_diffusers(save(tmp_path, unet(), clip_sample=False))[0], randn(1, 3, 8, 8).float()
    assert isinstance(prior, DenoiserPrior)
    assert torch.equal(prior.denoise(z, 0.0), z)
    with pytest.raises(ValueError, match="9 x 8 is not divisible by 2"):
        prior.denoise(randn(1, 3, 9, 8).float(), 1.0)
    with pytest.raises(ValueError, match=r"s is -1\.0"):
        prior.denoise(z, -1.0)


def test_gradient_passes(tmp_path: Path) -> None:
    prior = load_diffusers(save(tmp_path, unet(), clip_sample=False), dtype=torch.float64)[0]
    x, direction, step = randn(1, 3, 8, 8), randn(1, 3, 8, 8, seed=1), 1e-5
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(x0_at(prior, x.requires_grad_(), 0.5).sum(), x)
    slope = (x0_at(prior, x + step * direction, 0.5) - x0_at(prior, x - step * direction, 0.5)).sum() / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path, unet())


@pytest.mark.parametrize(
    ("file", "changes", "complaint"),
    [
        ("config", {"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel; only unconditional"),
        ("config", {"num_class_embeds": 10}, "num_class_embeds is 10; conditional"),
        ("config", {"class_embed_type": "timestep"}, "conditional"),
        ("config", {"time_embedding_type": "fourier"}, "time_embedding_type 'fourier'"),
        ("config", {"out_channels": 6}, "different numbers of channels"),
        ("config", {"down_block_types": ["NoBlock2D", "DownBlock2D"]}, "diffusers cannot build this network"),
        ("config", {"block_out_channels": [8, 32]}, "not those of this architecture"),
        ("scheduler_config", {"beta_schedule": "sigmoid"}, "DDPMScheduler with beta_schedule 'sigmoid'"),
        ("scheduler_config", {"_class_name": "KarrasVeScheduler", "beta_schedule": None}, "KarrasVeScheduler with"),
        ("scheduler_config", {"prediction_type": "flow"}, "prediction_type is 'flow'; expected one of epsilon"),
        ("scheduler_config", {"thresholding": True}, "thresholding is not supported"),
        ("scheduler_config", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is not supported"),
        (
            "scheduler_config",
            {"trained_betas": [0.5, 1.0]},
            r"trained_betas\[1\] is 1.0; expected a number, less",
        ),
        ("scheduler_config", {"beta_start": "small"}, "beta_start is 'small'; expected a number"),
        ("scheduler_config", {"num_train_timesteps": 10**9}, "num_train_timesteps is 1000000000; expected"),
        ("scheduler_config", {"clip_sample_range": -1}, "clip_sample_range is -1; expected a number, more than 0"),
        ("config", {"layers_per_block": 10_000_000}, "layers_per_block is 10000000; expected a whole number, at most"),
        ("config", {"block_out_channels": 3}, "block_out_channels is 3; expected a list"),
        ("config", {"norm_num_groups": 7}, "diffusers cannot build this network"),
    ],
)
def test_other_networks_and_schedules_are_refused(
    folder: Path, file: str, changes: dict[str, Any], complaint: str
) -> None:
    edit(folder / f"{file}.json", **changes)
    with pytest.raises(WeightsError, match=complaint):
        load_diffusers(folder)


@pytest.mark.parametrize("name", ["config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        load_diffusers(folder)


def test_spoilt_files_are_named(folder: Path) -> None:
    weights, config = folder / "diffusion_pytorch_model.safetensors", folder / "config.json"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="is damaged"):
        load_diffusers(folder)
    config.write_text("[1]")
    with pytest.raises(WeightsError, match=r"config\.json holds no JSON object"):
        load_diffusers(folder)
    config.write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json is not JSON"):
        load_diffusers(folder)
    with pytest.raises(WeightsError, match="is not a folder"):
        load_diffusers(config)


def test_latent_pipelines_are_refused(folder: Path) -> None:
    (folder / "vqvae").mkdir()
    save_file({"w": torch.zeros(1)}, folder / "vqvae" / "model.safetensors")
    with pytest.raises(WeightsError, match="codes of a vqvae"):
        load_diffusers(folder)


def test_without_the_package_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(WeightsError, match=r"pip install dmps-cli\[diffusers\]"):
        load_diffusers(folder)
