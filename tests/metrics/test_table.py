"""PSNR, SSIM and LPIPS against their formulas, scikit-image and the lpips package's own forward pass."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from urllib.error import URLError

import lpips
import piq
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from dmps_cli.errors import NumericsError, UsageError, WeightsError
from dmps_cli.metrics.lpips import LPIPS_NETS
from dmps_cli.metrics.protocol import Protocol, list_hash
from dmps_cli.metrics.scorer import Scorer
from dmps_cli.metrics.table import METRICS, psnr, ssim

FEATURES = Path(str(files("dmps_cli"))) / "data" / "lpips_alexnet.safetensors"
VGG_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of torch.hub's files, empty, with no network behind it."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("no network in tests")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer()


def pictures(
    size: int, *, batch: int = 1, channels: int = 3, noise: float = 0.2, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """(noisy, clean): waves of random direction and phase, on [-1, 1]; the noise leaves that range now and then."""
    g = torch.Generator().manual_seed(seed)
    row, column = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    frequency = 30 * torch.rand(2, batch, channels, 1, 1, generator=g)
    clean = torch.sin(frequency[0] * row + frequency[1] * column + frequency[0])
    return clean + noise * torch.randn(clean.shape, generator=g), clean


def on_unit_range(x: Tensor) -> Tensor:
    return (x.double().clamp(-1, 1) + 1) / 2


def lpips_by_hand(x: Tensor, reference: Tensor) -> Tensor:
    """The formula of Zhang et al. (2018), eq. 1, on torchvision's AlexNet and the package's linear heads."""
    net = torchvision.models.alexnet(weights=None).features.eval()
    net.load_state_dict({key.removeprefix("features."): value for key, value in load_file(FEATURES).items()})
    heads = torch.load(
        Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth", map_location="cpu", weights_only=True
    )
    shift = torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[None, :, None, None]
    u, v, total = (x - shift) / scale, (reference - shift) / scale, torch.zeros(len(x))
    relus = [i for i, layer in enumerate(net) if isinstance(layer, torch.nn.ReLU)]
    for number, (first, last) in enumerate(zip([0, *(i + 1 for i in relus)], relus, strict=False)):
        u, v = net[first : last + 1](u), net[first : last + 1](v)
        unit_u, unit_v = u / (u.norm(dim=1, keepdim=True) + 1e-10), v / (v.norm(dim=1, keepdim=True) + 1e-10)
        weight = heads[f"lin{number}.model.1.weight"]
        total = total + ((unit_u - unit_v).square() * weight[0]).sum(dim=1).mean(dim=(1, 2))
    return total


def lpips_of_the_package(net: str, features: dict[str, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The package's module; `features` ('features.0.weight', ...) written into its layers one by one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision: `pretrained` is deprecated
        module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    for name, parameter in module.net.named_parameters():
        parameter.copy_(features["features." + name.split(".", 1)[1]])
    return module  # type: ignore[no-any-return]


# --- PSNR


@pytest.mark.parametrize("noise", [0.02, 0.2, 2.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_its_formula_and_skimages(noise: float, channels: int) -> None:
    x, reference = pictures(32, channels=channels, noise=noise)
    u, v = on_unit_range(x), on_unit_range(reference)
    mse = float((u - v).square().mean())
    assert psnr(x, reference) == pytest.approx(-10 * math.log10(mse + 1e-8), abs=1e-12)
    exact = peak_signal_noise_ratio(v.numpy(), u.numpy(), data_range=1.0)
    assert psnr(x, reference) == pytest.approx(exact - 10 * math.log10(1 + 1e-8 / mse), abs=1e-10)


def test_psnr_of_a_constant_difference() -> None:
    """0.25 on [-1, 1] is 1/8 of the range: 20 log10(8) dB."""
    reference = torch.full((1, 3, 4, 5), -0.5)
    assert psnr(reference + 0.25, reference) == pytest.approx(20 * math.log10(8), abs=1e-5)


def test_pictures_are_clipped_first(scorer: Scorer) -> None:
    x, reference = pictures(48, noise=1.0)
    assert float(x.abs().max()) > 2
    assert scorer.score(x, 3 * reference) == scorer.score(x.clamp(-1, 1), (3 * reference).clamp(-1, 1))


def test_identical_pictures(scorer: Scorer) -> None:
    _, reference = pictures(48)
    assert scorer.score(reference, reference) == [{"psnr": pytest.approx(80.0, abs=1e-9), "ssim": 1.0, "lpips": 0.0}]


# --- SSIM


@pytest.mark.parametrize(("size", "channels"), [(64, 3), (64, 1), (512, 3)])
def test_ssim_is_skimages(size: int, channels: int) -> None:
    """skimage averages over the pixels at least (11 - 1) / 2 from the border: the same places as ours."""
    x, reference = pictures(size, channels=channels)
    u, v = (on_unit_range(image)[0].numpy() for image in (x, reference))
    expected = structural_similarity(
        u, v, win_size=11, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=0
    )
    assert ssim(x, reference) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_large_pictures_is_at_full_size() -> None:
    """The test at 512 px sees piq's default, which would average 2 x 2 pixels first."""
    x, reference = pictures(512)
    halved = float(piq.ssim(on_unit_range(x), on_unit_range(reference)))
    assert abs(halved - ssim(x, reference)) > 0.05


def test_ssim_of_smooth_bright_pictures_does_not_cancel() -> None:
    """Constant pictures c and d: the contrast term is 1, the luminance term (2 c d + k) / (c^2 + d^2 + k), k = 1e-4."""
    c, d = 0.999, 0.995  # on [0, 1]
    x, reference = (torch.full((1, 3, 32, 32), 2 * value - 1) for value in (c, d))
    assert ssim(x, reference) == pytest.approx((2 * c * d + 1e-4) / (c * c + d * d + 1e-4), abs=1e-9)


# --- LPIPS


def test_lpips_is_the_formula_and_the_packages_forward_pass(scorer: Scorer) -> None:
    g = torch.Generator().manual_seed(1)
    x, reference = torch.rand(2, 3, 3, 70, 64, generator=g) * 2 - 1
    ours = torch.tensor([row["lpips"] for row in scorer.score(x, reference)])
    package = lpips_of_the_package("alex", load_file(FEATURES))(x, reference).flatten()
    assert float(ours.min()) > 0.05
    torch.testing.assert_close(ours, package, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours, lpips_by_hand(x, reference), rtol=0, atol=1e-6)


def test_lpips_is_symmetric_and_greyscale_is_three_equal_channels(scorer: Scorer) -> None:
    x, reference = pictures(64, channels=1, noise=0.5)
    (grey,) = scorer.score(x, reference)
    (colour,) = scorer.score(x.repeat(1, 3, 1, 1), reference.repeat(1, 3, 1, 1))
    (swapped,) = scorer.score(reference, x)
    assert grey == pytest.approx(colour, abs=1e-7)
    assert swapped == pytest.approx(grey, abs=1e-7)


def test_more_noise_is_worse_in_every_metric(scorer: Scorer) -> None:
    levels = (0.02, 0.05, 0.1, 0.2, 0.4)
    rows = [scorer.score(*pictures(96, noise=noise))[0] for noise in levels]
    for name, metric in METRICS.items():
        values = [row[name] for row in rows]
        assert values == sorted(values, reverse=metric.higher_is_better)
        assert len(set(values)) == len(levels)


# --- The scorer


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_image_scores_the_same_bits_in_any_batch(scorer: Scorer, layout: torch.memory_format) -> None:
    x, reference = pictures(65, batch=5)
    together = scorer.score(*(images.contiguous(memory_format=layout) for images in (x, reference)))
    assert together == [scorer.score(x[i : i + 1].clone(), reference[i : i + 1].clone())[0] for i in range(5)]
    assert scorer.score(x[[3, 1]], reference[[3, 1]]) == [together[3], together[1]]


def test_arguments_are_left_alone(scorer: Scorer) -> None:
    x, reference = pictures(40, noise=1.0)
    before = x.clone(), reference.clone()
    scorer.score(x, reference)
    assert torch.equal(x, before[0]) and torch.equal(reference, before[1])


def test_the_net_is_loaded_at_first_use_once_and_without_a_trace(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    built = []
    original = METRICS["lpips"]

    def build(net: str, device: torch.device) -> object:
        built.append(net)
        return original.build(net, device)

    monkeypatch.setitem(METRICS, "lpips", replace(original, build=build))  # type: ignore[arg-type]
    random_state = torch.get_rng_state()
    scorer = Scorer()
    assert not built
    for _ in range(2):
        scorer.score(*pictures(40))
    assert scorer.names == ("psnr", "ssim", "lpips") and scorer.missing == {}
    assert built == ["alex"]
    assert torch.equal(torch.get_rng_state(), random_state)
    assert capfd.readouterr() == ("", "")


def test_only_what_was_asked_for_in_that_order() -> None:
    (row,) = Scorer(["ssim", "psnr"]).score(*pictures(16))
    assert list(row) == ["ssim", "psnr"]


@pytest.mark.parametrize(("size", "metric"), [(10, "ssim"), (30, "lpips")])
def test_pictures_too_small_for_a_metric(scorer: Scorer, size: int, metric: str) -> None:
    """They are left out; the others stay."""
    least = size + 1
    (row,) = scorer.score(*pictures(size))
    assert metric not in row
    assert "psnr" in row
    (row,) = scorer.score(*pictures(least))
    assert metric in row
    assert all(map(math.isfinite, row.values()))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_has_no_score(scorer: Scorer, bad: float) -> None:
    x, reference = pictures(32, batch=2)
    x[1, 0, 3, 4] = bad
    with pytest.raises(NumericsError, match="picture 2 of 2"):
        scorer.score(x, reference)


@pytest.mark.parametrize("shape", [(1, 3, 32, 33), (2, 3, 32, 32), (1, 1, 32, 32)])
def test_shapes_that_differ_are_our_bug(scorer: Scorer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be equal"):
        scorer.score(torch.zeros(shape), torch.zeros(1, 3, 32, 32))


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="unknown metric 'pnsr'; did you mean 'psnr'"):
        Scorer(["pnsr"])
    with pytest.raises(UsageError, match="unknown LPIPS net 'vgg16'; did you mean 'vgg'"):
        Scorer(lpips_net="vgg16")


# --- Other backbones


@pytest.mark.parametrize(
    ("net", "url"),
    [("vgg", VGG_URL), ("squeeze", "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth")],
)
def test_a_backbone_that_cannot_be_fetched_leaves_its_column_out(
    net: str, url: str, hub: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scorer = Scorer(lpips_net=net)
    assert list(scorer.missing) == ["lpips"]
    for part in (url, str(hub / url.rsplit("/", 1)[1]), "no network in tests", "--lpips-net alex"):
        assert part in scorer.missing["lpips"]
    assert "\n" not in scorer.missing["lpips"]
    (row,) = scorer.score(*pictures(40))
    assert list(row) == ["psnr", "ssim"] and scorer.names == ("psnr", "ssim")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("is_new_format", [True, False])
def test_a_backbone_in_the_folder_of_torch_hub_is_used(hub: Path, is_new_format: bool) -> None:
    """torchvision's older files are in torch's older format."""
    features = torchvision.models.squeezenet1_1(weights=None).state_dict()
    hub.mkdir(parents=True)
    torch.save(features, hub / "squeezenet1_1-b8a52dc0.pth", _use_new_zipfile_serialization=is_new_format)
    x, reference = pictures(64, batch=2, noise=0.5)
    scorer = Scorer(["lpips"], lpips_net="squeeze")
    assert scorer.missing == {}
    ours = torch.tensor([row["lpips"] for row in scorer.score(x, reference)])
    package = lpips_of_the_package("squeeze", features)(x.clamp(-1, 1), reference.clamp(-1, 1)).flatten()
    torch.testing.assert_close(ours, package, rtol=1e-5, atol=0)
    (row,) = scorer.score(*pictures(LPIPS_NETS["squeeze"].min_px))
    assert math.isfinite(row["lpips"])


def test_a_damaged_or_foreign_file_is_named(hub: Path) -> None:
    hub.mkdir(parents=True)
    path = hub / "squeezenet1_1-b8a52dc0.pth"
    path.write_text("<html>Sign in to the wireless network</html>")
    assert f"needs {path}, which is missing or damaged" in Scorer(lpips_net="squeeze").missing["lpips"]
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, path)
    assert f"{path} does not hold the features" in Scorer(lpips_net="squeeze").missing["lpips"]


def test_a_package_without_its_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dmps_cli.metrics.lpips._ALEXNET", tmp_path / "gone.safetensors")
    with pytest.raises(WeightsError, match=r"gone\.safetensors.*reinstall"):
        METRICS["lpips"].build("alex", torch.device("cpu"))


# --- What a table says


def test_list_hash_is_that_of_the_sorted_lines() -> None:
    """printf 'a.png\\nb/c.png\\n' | sha256sum"""
    assert list_hash(["b/c.png", "a.png"]) == "432deac439b3eb875f83118ca0a6cc4e2a40eb812b8d9bb010719d3bc7bee7ad"


def test_protocol_names_all_that_must_be_named() -> None:
    protocol = Protocol(
        metrics=("psnr", "ssim", "lpips"), lpips_net="alex", sigma_y=(0.05, 0.5), images=("a.png", "b/c.png")
    )
    for part in (
        "LPIPS v0.1 (alex)",
        "RGB",
        "clipped to [-1, 1]",
        "0.05 on [-1, 1] = 6.375 of 255",
        "0.5 on [-1, 1] = 63.75 of 255",
        "2 images",
        "432deac439b3",
    ):
        assert part in protocol.line()
    assert protocol.as_dict()["images_sha256"] == "432deac439b3eb875f83118ca0a6cc4e2a40eb812b8d9bb010719d3bc7bee7ad"
    assert protocol.as_dict()["sigma_y_255"] == [6.375, 63.75]


def test_protocol_without_lpips_does_not_name_its_net() -> None:
    protocol = Protocol(metrics=("psnr",), lpips_net="vgg", sigma_y=(0.05,), images=("a.png",), channels=1)
    assert "LPIPS" not in protocol.line() and protocol.as_dict()["lpips_net"] is None
    assert "greyscale" in protocol.line() and "1 image," in protocol.line()


def test_the_table_of_metrics_is_there_without_torch() -> None:
    code = (
        "import sys, dmps_cli.metrics.table, dmps_cli.metrics.protocol, dmps_cli.report\n"
        "print({'torch', 'PIL', 'lpips', 'piq'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
