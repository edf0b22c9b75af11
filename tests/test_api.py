"""The library by name: the documented lines as they stand, against the command, closed forms and plain solutions."""

from __future__ import annotations

import inspect
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

import dmps_cli as library
from dmps_cli.errors import InputError, OutputError, UsageError
from dmps_cli.files.images import photo_paths, to_uint8
from dmps_cli.sampling import Noise
from tests.shell import Dmps, photo, pixels

ROOT = Path(__file__).parents[1]
SIZE = 64


def blocks(page: str) -> str:
    """The Python of a page, one line for one of the page's, so that an error names its line."""
    inside, lines = False, []
    for line in (ROOT / page).read_text("utf-8").splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        inside = line == "```python" if fence else inside
    return "\n".join(lines)


def psnr(x: Tensor, truth: Tensor) -> float:
    """dB, of [-1, 1]."""
    return 10.0 * math.log10(4.0 / float((x.clamp(-1.0, 1.0) - truth).double().square().mean()))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one, with a part of a photograph in it: photo.png."""
    monkeypatch.chdir(tmp_path)
    (coffee,) = [path for path in photo_paths() if path.stem == "coffee"]
    x = library.load_image(coffee)[..., 100 : 100 + SIZE, 60 : 60 + SIZE]
    library.save_image(x, "photo.png")
    return tmp_path


@pytest.fixture(scope="module")
def prior() -> Any:
    return library.load_prior("natural")


def run(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": page}
    with torch.enable_grad():  # as a script has it
        exec(compile(blocks(page), page, "exec"), names)
    return names


def test_the_lines_of_the_readme_restore_a_photograph(folder: Path) -> None:
    names = run("README.md")
    x, y = names["x"], names["m"].y
    plain = max(
        psnr(names["A"].pinv(y), x),
        psnr(interpolate(y, scale_factor=4, mode="bicubic"), x),
        psnr(interpolate(y, scale_factor=4), x),
    )
    assert psnr(names["x_hat"], x) > plain + 1.0  # 26.9 dB against 25.6
    assert np.array_equal(pixels("restored.png"), to_uint8(names["x_hat"][0]))
    assert not names["x_hat"].requires_grad


def test_every_line_of_the_page_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library.save_image(library.load_image("photo.png")[..., :32, :32], "photo.png")
    names = run("docs/python.md")
    x, said = names["x"], capsys.readouterr().out
    assert psnr(names["apart"], x) > psnr(names["rows"].pinv(names["two_in_one"].y), x) + 1.0
    assert torch.equal(names["shaken"].A(torch.ones_like(x)), torch.ones_like(x))
    assert torch.equal(names["masked"].At(names["masked"].A(x)), x * names["keep"])
    assert names["four"].shape == (4, *x.shape[1:]) and float(names["spread"].min()) > 0.0
    errors = [(one - x).square().mean() for one in (names["mean"], *names["four"].split(1))]
    scatter = 3 / 4 * names["spread"].square().mean()  # E |x_k - x|^2 = |mean - x|^2 + scatter
    assert torch.allclose(torch.stack(errors[1:]).mean(), errors[0] + scatter)
    assert [line for line in said.splitlines() if line.endswith(" of 20")] == [f"{k} of 20" for k in range(1, 21)]
    for name in ("fast", "flow", "baseline", "x_hat", "on_flow", "projected"):
        assert psnr(names[name], x) > psnr(interpolate(names["m"].y, scale_factor=4), x) + 1.0, name
    assert "unknown task 'upscale'; did you mean 'sr4'" in said
    assert "estimated at" in said and Path("estimated.json").is_file() and "psnr" in Path("estimated.json").read_text()
    assert names["written"].path == Path("y_restored.png") and Path("y_restored.png").is_file()


def test_files_and_tensors_give_the_bits_of_the_command(dmps: Dmps, folder: Path, prior: Any) -> None:
    few = ["--nfe", "3", "--samples", "2", "--seed", "5"]
    assert not dmps("degrade", "photo.png", "--task", "deblur", "--seed", "3", "-o", "y.png").code
    degraded = library.degrade_file(Path("photo.png"), task="deblur", seed=3, output="z.png")
    assert degraded.path.read_bytes() == Path("y.png").read_bytes()
    assert Path("z.npy").read_bytes() == Path("y.npy").read_bytes()
    assert json.loads(json.dumps(degraded.facts)) == json.loads(Path("z.json").read_text())
    assert not dmps("restore", "y.png", "-o", "command.png", *few).code
    written = library.restore_file("y.png", nfe=3, samples=2, seed=5, prior=prior, output="file.png")
    assert [result.path.name for result in written] == ["file_1.png", "file_2.png"]

    x = library.load_image("photo.png")
    m = library.degrade(x, library.operator("deblur", x.shape[1:]), 0.05, seed=3)
    assert torch.equal(m.y[0], torch.from_numpy(np.load("y.npy")))
    restored = library.restore(m, prior, nfe=3, samples=2, seed=5)
    for k in range(2):
        picture = pixels(f"command_{k + 1}.png")
        assert np.array_equal(pixels(f"file_{k + 1}.png"), picture)
        assert np.array_equal(to_uint8(restored[k]), picture)


def test_a_blur_has_its_own_default_and_an_operator_of_ones_own_the_general_one(prior: Any, folder: Path) -> None:
    x = library.load_image("photo.png")
    blur = library.degrade(x, library.operator("deblur", x.shape[1:]), 0.05)
    of_blurs, general = (library.restore(blur, prior, nfe=2, weight=weight) for weight in (1.0, 1.75))
    assert torch.equal(library.restore(blur, prior, nfe=2, score_at="x_t"), of_blurs)
    blur.op.task = None
    assert torch.equal(library.restore(blur, prior, nfe=2, score_at="x_t"), general)


class Columns(library.LinearOperator):
    """One dense matrix on each column of a picture, given as A and At alone; wrong: by how much At is."""

    def __init__(self, wrong: float = 0.0) -> None:
        super().__init__((1, 16, 4000), (9, 4000))
        self.matrix, self.wrong = torch.randn(9, 16, generator=torch.Generator().manual_seed(0)), wrong

    def A(self, x: Tensor) -> Tensor:
        return self.matrix @ x[:, 0]

    def At(self, y: Tensor) -> Tensor:
        return (1.0 + self.wrong) * (self.matrix.T @ y)[:, None]


def test_an_operator_of_ones_own_meets_the_dense_posterior() -> None:
    """x ~ N(0, I), for which PGDM is exact: N(A^T S y, I - A^T S A), S = (A A^T + sigma_y^2 I)^-1, of every column."""
    op, steps = Columns(), 200
    y = op.A(torch.randn(1, 1, 16, 1, generator=torch.Generator().manual_seed(1)).expand(-1, -1, -1, 4000))
    m = library.Measurement(y, op, 0.3)
    drawn = library.restore(m, lambda z, s: z / (1 + s**2), method="pgdm", sampler="ddpm", nfe=steps, weight=1.0)
    a, columns = op.matrix.double(), drawn[0, 0].double()
    gain = a.T @ torch.linalg.inv(a @ a.T + 0.09 * torch.eye(9, dtype=torch.float64))
    mean, covariance = gain @ y[0, :, 0].double(), torch.eye(16, dtype=torch.float64) - gain @ a
    assert float((columns.mean(1) - mean).abs().max()) < 0.06  # 4 standard deviations of a mean of 4000 are 0.06
    assert float((torch.cov(columns) - covariance).norm() / covariance.norm()) < 0.1


def test_a_wrong_transpose_is_the_callers_mistake() -> None:
    m = library.Measurement(torch.zeros(1, 9, 4000), Columns(wrong=0.01), 0.1)
    with pytest.raises(ValueError, match="At is not the transpose of A"):
        library.restore(m, lambda z, s: z)


def test_sampling_by_hand_is_what_restore_does(prior: Any, folder: Path) -> None:
    x = library.load_image("photo.png")
    m = library.degrade(x, library.operator("sr4", x.shape[1:]), 0.05)
    z = Noise(7, Noise.START, [(0, 0)]).like(x)
    twice = library.Measurement(m.y.expand(2, -1, -1, -1), m.op, m.sigma_y)
    levels = prior.levels("ddpm", 3, "quadratic")
    posterior = library.methods.CountedDmps(prior, m, variance_factor=3.0, eta=0.85, eta_y=1.0)
    steps: list[tuple[int, int]] = []
    restored = library.restore(m, prior, nfe=3, samples=2, seed=7, on_step=lambda *told: steps.append(told))
    assert torch.equal(library.sample(posterior, levels, z, seed=7), restored[:1])
    assert steps == [(k, 6) for k in range(1, 7)]
    batch = library.restore(twice, prior, nfe=3, samples=2, seed=7)
    assert torch.equal(batch, restored.repeat(2, 1, 1, 1))
    assert torch.equal(library.restore(m, prior.prior, nfe=3, seed=7), restored[:1])


def test_a_bare_denoiser_is_a_prior_of_any_channels() -> None:
    """y = x exactly and a prior N(0, 1): with sigma_y = 1 the posterior of each pixel is N(y / 2, 1 / 2)."""
    x = torch.zeros(1, 2, 64, 64)
    m = library.Measurement(x + 1.0, library.operator("denoise", x.shape[1:]), 1.0)
    drawn = library.restore(m, lambda z, s: z / (1 + s**2), method="pgdm", sampler="ddpm", nfe=300, guidance="bayes")
    assert drawn.shape == x.shape
    assert abs(float(drawn.mean()) - 0.5) < 0.03 and abs(float(drawn.var()) - 0.5) < 0.05


def test_noise_follows_pixels_and_equal_images_have_their_own() -> None:
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    op = library.operator("denoise", x.shape[1:])
    alone, batch = library.degrade(x, op, 0.5), library.degrade(torch.cat([x + 0.1, x, x]), op, 0.5)
    assert torch.equal(batch.y[1], alone.y[0])
    assert not torch.equal(batch.y[1], batch.y[2]) and not torch.equal(batch.y[0] - 0.1, batch.y[1])
    assert not torch.equal(library.degrade(x, op, 0.5, seed=1).y, alone.y)


def test_grey_and_colour_files_have_the_channels_asked_for(tmp_path: Path) -> None:
    x = library.load_image(photo(tmp_path / "colour.png"))
    grey = library.load_image(tmp_path / "colour.png", channels=1)
    assert torch.allclose(grey[:, 0], torch.einsum("c,bchw->bhw", torch.tensor([0.299, 0.587, 0.114]), x), atol=1e-6)
    library.save_image(grey, tmp_path / "grey.png")
    assert library.load_image(tmp_path / "grey.png").shape == x.shape
    assert library.load_image(tmp_path / "grey.png", channels=None).shape == grey.shape
    with pytest.raises(OutputError, match="exists"):
        library.save_image(grey, tmp_path / "grey.png", overwrite=False)


def wrong_calls() -> dict[str, tuple[Callable[[Any], object], type[Exception], str]]:
    """By name: a call with a measurement of 8 x 8 px, what it raises, and what that says."""
    lib = library

    def flat(z: Tensor, s: float) -> Tensor:
        return z

    return {
        "shape": (lambda m: lib.operator("sr4", (8, 8)), ValueError, r"shape is \(8, 8\); expected \(C, H, W\)"),
        "size": (lambda m: lib.operator("sr4", (3, 9, 8)), InputError, "8 x 9 px, not a multiple of the scale 4"),
        "task": (lambda m: lib.operator("sr3", (3, 9, 9)), UsageError, "unknown task 'sr3'"),
        "option": (lambda m: lib.operator("sr", (3, 8, 8), scal=2), TypeError, "no option 'scal'; it has scale"),
        "not its": (lambda m: lib.operator("denoise", (3, 8, 8), scale=2), UsageError, "'denoise' takes no --scale"),
        "mask": (lambda m: lib.operator("inpaint", (3, 8, 8), mask=m.y[0, 0]), ValueError, "expected torch.bool"),
        "none": (lambda m: lib.degrade(m.y[:0], m.op, 0.1), ValueError, r"x is \(0, 3, 8, 8\); expected \(B, 3"),
        "denoiser": (lambda m: lib.restore(m, lambda z, s: z[:, :1]), ValueError, r"gives \(1, 1, .*expected"),
        "x": (lambda m: lib.degrade(torch.zeros(3, 8, 8), m.op, 0.1), ValueError, r"x is \(3, 8, 8\); expected \(B, 3"),
        "dtype": (lambda m: lib.degrade(torch.zeros(1, 3, 8, 8).double(), m.op, 0.1), ValueError, "x is torch.float64"),
        "sigma": (lambda m: lib.degrade(m.y, m.op, math.nan), ValueError, "sigma_y is nan"),
        "seed": (lambda m: lib.restore(m, flat, seed=-1), ValueError, "seed is -1"),
        "samples": (lambda m: lib.restore(m, flat, samples=0), ValueError, "samples is 0"),
        "knob": (lambda m: lib.restore(m, flat, wieght=1.0), TypeError, "no option 'wieght'; it has weight"),
        "method": (lambda m: lib.restore(m, flat, method="dsp"), UsageError, "unknown method 'dsp'"),
        "measurement": (lambda m: lib.restore(m.y, flat), TypeError, "measurement is a Tensor; expected a Measurement"),
        "prior": (lambda m: lib.restore(m, 3), TypeError, "prior is a int; expected a Prior"),
        "channels": (lambda m: lib.restore(m, lib.DenoiserPrior(flat, 1)), ValueError, "the prior is of 1 channels"),
        "nan": (lambda m: lib.restore(lib.Measurement(m.y / 0.0, m.op, 1.0), flat), ValueError, "y holds NaN"),
        "eta": (lambda m: lib.sample(lib.DenoiserPrior(flat), [], m.y, eta=2.0), ValueError, "eta is 2.0"),
        "picture": (lambda m: lib.save_image(torch.zeros(2, 3, 8, 8), "x.png"), ValueError, r"x is \(2, 3, 8, 8\)"),
        "file": (lambda m: lib.load_image("none.png"), InputError, "none.png"),
        "restored": (lambda m: lib.restore_file("none.png", task="sr4"), InputError, "none.png does not exist"),
        "degraded": (lambda m: lib.degrade_file("none.png", task="sr4"), InputError, "none.png does not exist"),
        "its noise": (lambda m: lib.degrade_file("n.png", task="sr4", sigma_y=-1), ValueError, "sigma_y is -1; expec"),
        "its option": (lambda m: lib.degrade_file("n.png", task="sr4", nfe=3), TypeError, "degrade_file.. has no opt"),
        "noise": (lambda m: lib.restore_file("none.png", sigma_y="0.1"), ValueError, "sigma_y is '0.1'; expected"),
        "model": (lambda m: lib.load_prior("naturall"), UsageError, "did you mean 'natural'"),
        "channels of a file": (lambda m: lib.load_image("none.png", channels=2), ValueError, "channels is 2"),
    }  # fmt: skip


@pytest.mark.parametrize("name", wrong_calls())
def test_a_mistake_is_named_with_its_value(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, kind, said = wrong_calls()[name]
    m = library.Measurement(torch.zeros(1, 3, 8, 8), library.operator("denoise", (3, 8, 8)), 0.5)
    with pytest.raises(kind, match=said) as caught:
        call(m)
    assert caught.type is kind


def test_a_file_that_fails_raises_what_was_wrong(folder: Path, prior: Any) -> None:
    with pytest.raises(UsageError, match=r"photo\.png: nothing says how it was degraded"):
        library.restore_file("photo.png", prior=prior)
    options = {"task": "denoise", "sigma_y": 0.2, "nfe": 1, "prior": prior, "output": "out.png"}
    (first,) = library.restore_file("photo.png", **options)
    with pytest.raises(OutputError, match=r"out\.(png|json) exists"):
        library.restore_file("photo.png", **options)
    (again,) = library.restore_file("photo.png", overwrite=True, **options)
    assert again.facts["picture_sha256"] == first.facts["picture_sha256"]
    with pytest.raises(ValueError, match=r"device is cuda; the prior is on cpu: load it with load_prior"):
        library.restore_file("photo.png", overwrite=True, device="cuda", **options)
    library.degrade_file("photo.png", task="sr2", output="made/y.png")
    with pytest.raises(OutputError, match=r"y\.png exists"):
        library.degrade_file("photo.png", task="sr2", output="made/y.png")
    library.degrade_file("photo.png", task="blur", kernel=[[0.5, 0.5]], output="made/y.png", overwrite=True)
    (own,) = library.restore_file("photo.png", overwrite=True, **options | {"prior": lambda z, s: z / (1 + s**2)})
    assert (own.facts["model"], own.facts["model_sha256"]) == ("own", "")


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, dmps_cli as dmps\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "dmps.methods, dir(dmps), dir(dmps.methods), dmps.DmpsError\n"
        "assert 'torch' not in sys.modules\n"
        "dmps.methods.Dmps\n"
        "assert 'torch' in sys.modules and 'torchvision' not in sys.modules\n"
        "try: dmps.degradee\n"
        "except AttributeError as exc: print(exc)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "module 'dmps_cli' has no attribute 'degradee'\n"


@pytest.mark.parametrize("module", ["dmps_cli", "dmps_cli.methods"])
def test_every_public_name_is_there_and_says_what_it_is(module: str) -> None:
    home = sys.modules[module]
    for name in home.__all__:
        value = getattr(home, name)
        assert name == "__version__" or (inspect.getdoc(value) and value.__doc__), name


@pytest.mark.parametrize("name", [name for name in library.__all__ if inspect.isfunction(getattr(library, name))])
def test_a_docstring_names_every_parameter_and_the_errors(name: str) -> None:
    function = getattr(library, name)
    text = inspect.getdoc(function) or ""
    assert re.match(r"[A-Z][a-z]+s ", text) and re.search(r"\bRaises\s", text)
    assert not [name for name in inspect.signature(function).parameters if not re.search(rf"\b{name}\b", text)]
