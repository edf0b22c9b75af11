"""The command as a person meets it: exit codes, stdout and stderr apart, files written, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dmps_cli import __version__, device
from dmps_cli.errors import OutputError
from dmps_cli.files import atomic as files
from dmps_cli.files.images import load_rgb
from dmps_cli.methods.choice import resolve_sampling
from dmps_cli.metrics.scorer import Scorer
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import FILE_KEY, degrade, picture_key, restore
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from dmps_cli.weights.loading import load_prior
from tests.shell import FAST, Dmps, break_import, photo, pixels

# Without torch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["restore", "--help"], ["tasks"], ["--version"], ["restore", "x.png"]]
)
def test_what_needs_no_torch_does_not_import_it(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from dmps_cli.cli.main import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'lpips', 'piq', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(dmps: Dmps) -> None:
    assert dmps("--version").out == f"dmps {__version__}\n"


def test_every_option_has_help(dmps: Dmps) -> None:
    for command in ("restore", "degrade", "eval", "time"):
        text = dmps(command, "--help").out
        assert "Example: dmps " + command in text
        for option in ("--scale", "--blur-std", "--mask", "--fraction", "--ratio", "--sigma", "--seed"):
            assert option in text, (command, option)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["degrade", "p.png", "--task", "sr5"], "did you mean 'sr"),
        (["degrade", "p.png"], "--task"),
        (["degrade", "p.png", "--task", "sr4", "--sigma", "-0.1"], "--sigma is -0.1"),
        (["degrade", "p.png", "--task", "sr4", "--sigma", "nan"], "--sigma is nan"),
        (["degrade", "p.png", "--task", "sr4", "--seed", "-1"], "--seed is -1"),
        (["degrade", "p.png", "--task", "sr4", "--width", "9"], "takes no --width"),
        (["degrade", "p.png", "--task", "sr4", "--scale", "2"], "--scale 4, not 2"),
        (["degrade", "p.png", "--task", "deblur", "--width", "8"], "--width is 8"),
        (["degrade", "p.png", "--task", "inpaint", "--fraction", "1.5"], "--fraction is 1.5"),
        (["degrade", "p.png", "--task", "inpaint", "--fraction", "0.5", "--box", "1,1,2,2"], "exclude each other"),
        (["degrade", "p.png", "--task", "inpaint", "--box", "1,1,2"], "--box is '1,1,2'"),
        (["degrade", "p.png", "--task", "cs", "--ratio", "0"], "--ratio is 0"),
        (["degrade", "p.png", "--task", "sr4", "--overwrite", "--skip-existing"], "exclude each other"),
        (["restore", "p.png"], "name a --task"),
        (["restore", "p.png", "--task", "sr4", "--nfe", "0"], "--nfe is 0"),
        (["restore", "p.png", "--task", "sr4", "--nfe", "1001", "--sampler", "ddpm"], "1 to 1000"),
        (["restore", "p.png", "--task", "sr4", "--method", "dmp"], "did you mean 'dmps'"),
        (["restore", "p.png", "--task", "sr4", "--sampler", "flows"], "did you mean 'flow'"),
        (["restore", "p.png", "--task", "sr4", "--model", "naturel"], "did you mean 'natural'"),
        (["restore", "p.png", "--task", "sr4", "--device", "cudo"], "did you mean 'cud"),
        (["restore", "p.png", "--task", "sr4", "--dtype", "float8"], "did you mean 'float"),
        (["restore", "p.png", "--task", "sr4", "--score-at", "x1"], "--score-at is 'x1'"),
        (["restore", "p.png", "--task", "sr4", "--cap", "0"], "--cap is 0"),
        (["restore", "p.png", "--task", "sr4", "--lambda", "-1"], "--lambda is -1"),
        (["restore", "p.png", "--task", "sr4", "--samples", "0"], "--samples is 0"),
        (["restore", "p.png", "--task", "sr4", "--batch-size", "0"], "--batch-size is 0"),
        (["restore", "p.png", "q.png", "--task", "sr4", "-o", "out.png"], "names a file"),
        (["restore", "p.png", "--task", "denoise", "-o", "p.png"], "would replace the input"),
        (["restore", "p.png", "--task", "denoise", "-o", "x.gif"], "cannot write the format"),
        (["eval", "--dataset", ".", "--limit", "0"], "--limit is 0"),
        (["eval", "--dataset", ".", "--width", "9"], "none of the tasks"),
        (["time", "--image-size", "0x4"], "--image-size"),
        (["restore"], "INPUT"),
        (["restorr"], "restore"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(dmps: Dmps, tmp_path: Path, arguments: list[str], said: str) -> None:
    photo(tmp_path / "p.png")
    photo(tmp_path / "q.png")
    result = dmps(*arguments)
    assert result.code == 2, result.err
    assert said in result.err
    assert result.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.png", "q.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.png", None),
        ("empty.png", b""),
        ("text.png", b"no picture at all"),
        ("cut.png", "cut"),
        ("folder", "folder"),
    ],
)
def test_what_cannot_be_read_is_exit_code_1(dmps: Dmps, tmp_path: Path, name: str, content: bytes | str | None) -> None:
    target = tmp_path / name
    if content == "folder":
        target.mkdir()
    elif content == "cut":
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(target)
        target.write_bytes(target.read_bytes()[:4000])
    elif isinstance(content, bytes):
        target.write_bytes(content)
    for command in (["degrade", "--task", "sr4"], ["restore", "--task", "denoise"]):
        result = dmps(command[0], name, *command[1:])
        assert result.code == 1
        assert result.err.count("error:") == 1
        assert name in result.err
        assert "Traceback" not in result.err
    assert [path.name for path in tmp_path.iterdir()] == ([name] if content is not None else [])


# Degrading -----------------------------------------------------------------------------------------------------------


def test_degrade_writes_picture_floats_and_sidecar(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "photo.png")
    result = dmps("degrade", "photo.png", "--task", "sr4", "--sigma", "0.1", "--seed", "3", "-o", "y.png")
    assert (result.code, result.out) == (0, "y.png\n")
    y, sidecar = np.load("y.npy"), json.loads(Path("y.json").read_text())
    x = load_rgb(Path("photo.png")).pixels[None]
    op = build("sr4", resolve("sr4", OperatorOptions()), (3, 24, 32), dtype=torch.float32)
    expected = degrade(x, op, 0.1, seed=3, keys=[picture_key(x)])[0].numpy()
    np.testing.assert_array_equal(y, expected)
    shown = pixels("y.png").astype(float).transpose(2, 0, 1)
    assert np.abs(shown - np.clip((y + 1) * 127.5, 0, 255)).max() <= 0.5 + 1e-4
    assert (sidecar["task"], sidecar["sigma_y"], sidecar["seed"]) == ("sr4", 0.1, 3)
    assert sidecar["sigma_y_255"] == pytest.approx(12.75)
    assert sidecar["source"]["file"] == "photo.png"
    assert sidecar["image_shape"] == [3, 24, 32]
    assert sidecar["versions"]["dmps"] == __version__


def test_noise_has_the_stated_standard_deviation(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "photo.png", (128, 128))
    dmps("degrade", "photo.png", "--task", "denoise", "--sigma", "0.2", "-o", "y.png")
    noise = np.load("y.npy") - load_rgb(Path("photo.png")).pixels.numpy()
    assert noise.std() == pytest.approx(0.2, rel=0.02)


def test_degrade_takes_many_and_each_is_as_alone(dmps: Dmps, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(3):
        photo(folder / f"{k}.png", seed=k)
    result = dmps("degrade", "in", "--task", "deblur", "-o", "out")
    assert result.out.split() == [f"out/{k}_deblur.png" for k in range(3)]
    dmps("degrade", "in/1.png", "--task", "deblur", "-o", "alone.png")
    assert Path("alone.npy").read_bytes() == Path("out/1_deblur.npy").read_bytes()


def test_sizes_that_do_not_divide_are_cropped_and_said(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "photo.png", (55, 46))
    result = dmps("degrade", "photo.png", "--task", "sr4", "-o", "y.png")
    assert "52 x 44 of 55 x 46 px" in result.err
    assert json.loads(Path("y.json").read_text())["source"]["crop"] == [1, 1, 52, 44]
    assert dmps("restore", "y.png", "--reference", "photo.png", *FAST).code == 0


# Restoring -----------------------------------------------------------------------------------------------------------


def in_one_process(task: str, options: OperatorOptions, size: tuple[int, int, int], nfe: int = 2) -> np.ndarray:
    """What restore gives for photo.png degraded by default, without any file between."""
    x = load_rgb(Path("photo.png")).pixels[None]
    op = build(task, resolve(task, options), size, dtype=torch.float32)
    y = degrade(x, op, 0.05, seed=0, keys=[picture_key(x)])
    prior = load_prior("natural", torch.device("cpu")).prior
    restored = restore(Measurement(y, op, 0.05), prior, resolve_sampling(task=task, nfe=nfe), seed=0, keys=[FILE_KEY])
    return ((restored[0].clamp(-1, 1) + 1) * 127.5 + 0.5).floor().permute(1, 2, 0).numpy().astype(np.uint8)


@pytest.mark.parametrize(
    ("task", "flags"),
    [
        ("sr4", {}),
        ("cs", {"operator_seed": 5}),
        ("inpaint", {"fraction": 0.3}),
        ("colorize", {"weights": "0.2,0.7,0.1"}),
        ("motion", {"length": 5.0, "angle": 20.0}),
    ],
)
def test_a_measurement_restores_as_in_one_process(dmps: Dmps, tmp_path: Path, task: str, flags: dict[str, Any]) -> None:
    """Bit for bit, later, elsewhere, with nothing but the measurement's own files."""
    photo(tmp_path / "photo.png")
    arguments = [text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    dmps("degrade", "photo.png", "--task", task, "--sigma", "0.05", *arguments, "-o", "y.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("y.png", "y.npy", "y.json"):
        (tmp_path / name).rename(elsewhere / name)
    result = dmps("restore", "elsewhere/y.png", "-o", "x.png", *FAST)
    assert (result.code, result.out) == (0, "x.png\n")
    np.testing.assert_array_equal(pixels("x.png"), in_one_process(task, OperatorOptions(**flags), (3, 24, 32)))


def test_a_mask_file_travels_in_the_sidecar(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "photo.png")
    mask = np.full((24, 32), 255, dtype=np.uint8)
    mask[5:9, 7:20] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    dmps("degrade", "photo.png", "--task", "inpaint", "--mask", "mask.png", "-o", "y.png")
    shown = pixels("y.png")
    assert (shown[5:9, 7:20] == 0).all()
    (tmp_path / "mask.png").unlink()
    assert dmps("restore", "y.png", "-o", "x.png", *FAST).code == 0
    photo(tmp_path / "small.png", (16, 16))
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = dmps("degrade", "small.png", "--task", "inpaint", "--mask", "mask.png", "-o", "z.png")
    assert result.code == 1
    assert "32 x 24" in result.err


def test_any_degraded_picture_restores_without_sidecar_or_truth(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "small.jpg", (10, 7))
    result = dmps("restore", "small.jpg", "--task", "sr4", *FAST)
    assert (result.code, result.out) == (0, "small_restored.png\n")
    assert pixels("small_restored.png").shape == (28, 40, 3)
    sidecar = json.loads(Path("small_restored.json").read_text())
    assert (sidecar["task"], sidecar["sampler"], sidecar["nfe"], sidecar["dtype"]) == ("sr4", "ddpm", 2, "float32")


def test_no_flags_say_the_preset(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (16, 16))
    said = dmps("restore", "p.png", "--task", "denoise", "--nfe", "1").err
    for word in (
        "dmps (x0)",
        "ddpm levels",
        "NFE 1",
        "variance_factor",
        "eta",
        "natural",
        "float32",
        "sigma_y estimated",
    ):
        assert word in said, word


@pytest.mark.parametrize(
    ("dtype", "is_fast", "is_said"), [("bfloat16", False, True), ("bfloat16", True, False), ("float32", False, False)]
)
def test_a_type_that_slows_the_machine_down_is_said(
    dmps: Dmps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, is_fast: bool, is_said: bool
) -> None:
    monkeypatch.setattr(device, "has_fast_bfloat16", lambda where: is_fast)
    result = dmps("restore", photo(tmp_path / "p.png"), "--task", "denoise", *FAST, "--device", "cpu", "--dtype", dtype)
    assert result.code == 0
    assert ("no instructions for bfloat16 on cpu" in result.err) == is_said


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_float32_is_float32_on_a_gpu_too(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    device.resolve_device(name)
    assert not torch.backends.cudnn.allow_tf32


def test_flags_win_over_the_sidecar_and_say_so(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    dmps("degrade", "p.png", "--task", "deblur", "-o", "y.png")
    result = dmps("restore", "y.png", "--width", "5", "--sigma", "0.1", "-o", "x.png", *FAST)
    assert "--width 5 overrides the sidecar's 9" in result.err
    assert "--sigma 0.1 on [-1, 1] = 12.75 of 255 overrides the sidecar's 0.05" in result.err
    sidecar = json.loads(Path("x.json").read_text())
    assert (sidecar["operator"]["width"], sidecar["sigma_y"]) == (5, 0.1)
    assert "overrides the sidecar's deblur" in dmps("restore", "y.png", "--task", "denoise", "-o", "z.png", *FAST).err


def test_an_edited_measurement_is_said(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    dmps("degrade", "p.png", "--task", "denoise", "-o", "y.png")
    np.save("y.npy", np.load("y.npy") + 0.5)
    assert "y.npy was changed" in dmps("restore", "y.png", "-o", "a.png", *FAST).err
    Image.new("RGB", (32, 24), "red").save("y.png")
    result = dmps("restore", "y.png", "-o", "b.png", "--sigma", "0.05", "--nfe", "10")
    assert "y.png was changed" in result.err
    red = pixels("b.png").astype(float).mean((0, 1))
    assert red[0] > red[1] + 50


def test_samples_differ_and_the_first_is_the_only_one(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (16, 16))
    result = dmps("restore", "p.png", "--task", "denoise", "--samples", "3", "-o", "x.png", *FAST)
    assert result.out.split() == ["x_1.png", "x_2.png", "x_3.png"]
    dmps("restore", "p.png", "--task", "denoise", "-o", "one.png", *FAST)
    pictures = [Path(name).read_bytes() for name in ("x_1.png", "x_2.png", "x_3.png")]
    assert len(set(pictures)) == 3
    assert Path("one.png").read_bytes() == pictures[0]


def test_the_same_bits_in_any_company(dmps: Dmps, tmp_path: Path) -> None:
    """Batch size, order and number of files change nothing."""
    for k in range(3):
        photo(tmp_path / f"{k}.png", (24, 16), seed=k)
    dmps("restore", "0.png", "1.png", "2.png", "--task", "denoise", "-o", "a", *FAST)
    dmps("restore", "2.png", "0.png", "1.png", "--task", "denoise", "-o", "b", "--batch-size", "3", *FAST)
    dmps("restore", "1.png", "--task", "denoise", "-o", "c/", *FAST)
    for k, folders in ((0, "ab"), (1, "abc"), (2, "ab")):
        assert len({Path(folder, f"{k}_restored.png").read_bytes() for folder in folders}) == 1


def test_a_metric_that_needs_a_larger_picture_is_left_out(dmps: Dmps, tmp_path: Path) -> None:
    """LPIPS needs 31 px; PSNR and SSIM of a smaller picture stand, and a note says what is missing."""
    photo(tmp_path / "p.png", (16, 16))
    result = dmps("restore", "p.png", "--task", "denoise", "--reference", "p.png", "--json", *FAST)
    assert result.code == 0
    assert "too small for lpips" in result.err
    row = json.loads(result.out)["results"][0]
    assert row.keys() & {"psnr", "ssim", "lpips"} == {"psnr", "ssim"}


def test_one_bad_file_does_not_stop_the_others(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "a.png", (16, 16))
    (tmp_path / "b.png").write_bytes(b"broken")
    photo(tmp_path / "c.png", (16, 16))
    result = dmps("restore", "a.png", "b.png", "nowhere.png", "c.png", "--task", "denoise", *FAST)
    assert result.code == 1
    assert result.out.split() == ["a_restored.png", "c_restored.png"]
    assert "2 of 4 failed: nowhere.png, b.png" in result.err


def test_globs_folders_and_names_on_stdin(dmps: Dmps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(2):
        photo(tmp_path / f"{k}.png", (16, 16), seed=k)
    assert dmps("degrade", "*.png", "--task", "denoise", "-o", "out").out.split() == [
        "out/0_denoise.png",
        "out/1_denoise.png",
    ]
    with (tmp_path / "names").open("w+") as names:
        names.write("1.png\n\n0.png\n")
        names.seek(0)
        monkeypatch.setattr(sys, "stdin", names)
        assert dmps("degrade", "-", "--task", "denoise", "-o", "in").out.split() == [
            "in/1_denoise.png",
            "in/0_denoise.png",
        ]


def test_nothing_is_overwritten_unasked(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (16, 16))
    (tmp_path / "p_restored.png").write_text("precious")
    refused = dmps("restore", "p.png", "--task", "denoise", *FAST)
    assert refused.code == 1
    assert "exists" in refused.err
    assert Path("p_restored.png").read_text() == "precious"
    (tmp_path / "p_restored.json").write_text("{}")
    skipped = dmps("restore", "p.png", "--task", "denoise", "--skip-existing", *FAST)
    assert (skipped.code, skipped.out) == (0, "")
    assert Path("p_restored.png").read_text() == "precious"
    assert dmps("restore", "p.png", "--task", "denoise", "--overwrite", *FAST).code == 0
    assert pixels("p_restored.png").shape == (16, 16, 3)


def test_a_measurements_sidecar_is_not_replaced_by_a_restorations(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (16, 16))
    dmps("degrade", "p.png", "--task", "denoise", "-o", "y.png")
    before = Path("y.json").read_bytes()
    result = dmps("restore", "y.png", "-o", "y.jpg", "--overwrite", *FAST)
    assert result.code == 2
    assert "y.json" in result.err
    assert Path("y.json").read_bytes() == before


def test_two_inputs_for_one_output_are_refused(dmps: Dmps, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        photo(tmp_path / name / "p.png", (16, 16))
    result = dmps("degrade", "a/p.png", "b/p.png", "--task", "denoise", "-o", "out")
    assert result.code == 1
    assert "would both be written" in result.err


def test_names_that_differ_in_their_suffix_keep_it(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (16, 16))
    photo(tmp_path / "p.jpg", (16, 16))
    result = dmps("degrade", "p.png", "p.jpg", "--task", "denoise", "-o", "out")
    assert result.out.split() == ["out/p_png_denoise.png", "out/p_jpg_denoise.png"]


def test_json_is_one_object_on_stdout(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (40, 40))
    result = dmps("restore", "p.png", "gone.png", "--task", "denoise", "--json", "--reference", "p.png", *FAST)
    content = json.loads(result.out)
    assert (result.code, content["version"], content["seed"]) == (1, __version__, 0)
    (done,) = content["results"]
    assert (done["output"], done["method"]) == ("p_restored.png", "dmps (x0)")
    assert done["psnr"] > 5
    assert len(done["model_sha256"]) == 64
    assert content["failures"][0]["input"] == "gone.png"


def test_quiet_leaves_results_and_errors(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (16, 16))
    result = dmps("restore", "p.png", "gone.png", "--task", "denoise", "--quiet", *FAST)
    assert result.out == "p_restored.png\n"
    assert all("error" in line for line in result.err.splitlines())


def test_out_of_memory_is_said(dmps: Dmps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "p.png", (16, 16))

    def greedy(*arguments: Any, **options: Any) -> torch.Tensor:
        return torch.empty(2**62, dtype=torch.uint8)

    monkeypatch.setattr("dmps_cli.pipeline.sample", greedy)
    result = dmps("restore", "p.png", "--task", "denoise", *FAST)
    assert result.code == 1
    assert "out of memory" in result.err


def test_progress_goes_to_the_terminal_and_results_to_the_pipe(tmp_path: Path) -> None:
    """stderr is a terminal, stdout a pipe: the bar on the one, the path on the other."""
    photo(tmp_path / "p.png", (16, 16))
    terminal, inside = os.openpty()
    command = [sys.executable, "-m", "dmps_cli", "restore", "p.png", "--task", "denoise", "--nfe", "3"]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=inside, check=True)
    os.close(inside)
    shown = os.read(terminal, 65536).decode()
    assert done.stdout == b"p_restored.png\n"
    for word in ("p.png", "image 1 of 1", "3/3", "steps"):
        assert word in shown, word


def test_a_full_disk_leaves_nothing_half_written(dmps: Dmps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "p.png", (16, 16))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    result = dmps("restore", "p.png", "--task", "denoise", *FAST)
    assert result.code == 1
    assert "no room on the disk" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_ctrl_c_is_130_and_keeps_what_is_done(dmps: Dmps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        photo(tmp_path / name, (16, 16))
    calls = []

    def interrupted(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return restore(*arguments, **options)

    monkeypatch.setattr("dmps_cli.pipeline.restore", interrupted)
    result = dmps("restore", "a.png", "b.png", "--task", "denoise", *FAST)
    assert result.code == 130
    assert result.out == "a_restored.png\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a_restored.json", "a_restored.png", "b.png"]


def test_ctrl_c_that_an_import_turned_into_another_error(
    dmps: Dmps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that is interrupted half imported may fail in any way later."""
    photo(tmp_path / "a.png", (16, 16))

    def swallowed(*_: Any, **__: Any) -> torch.Tensor:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RecursionError("maximum recursion depth exceeded") from None
        raise AssertionError

    monkeypatch.setattr("dmps_cli.pipeline.restore", swallowed)
    result = dmps("restore", "a.png", "--task", "denoise", *FAST)
    assert (result.code, result.err.splitlines()[-1]) == (130, "dmps: error: interrupted; finished files are kept")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_in_the_import_of_lpips_is_no_missing_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    break_import(monkeypatch, "lpips", ImportError("partially initialized module"))
    assert list(Scorer().missing) == ["lpips"]
    monkeypatch.setattr("dmps_cli.metrics.lpips.interrupts", [signal.SIGINT])
    with pytest.raises(KeyboardInterrupt):
        _ = Scorer().missing


def test_what_goes_wrong_after_ctrl_c_is_said(dmps: Dmps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "a.png", (16, 16))

    def full(*_: Any, **__: Any) -> torch.Tensor:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise OutputError("no room on the disk")

    monkeypatch.setattr("dmps_cli.cli.restore.run", full)
    result = dmps("restore", "a.png", "--task", "denoise", *FAST)
    assert (result.code, result.err.splitlines()[-1]) == (1, "dmps: error: no room on the disk")


def test_a_damaged_sidecar_is_said(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "a.png", (16, 16))
    Path("a.json").write_text("{")
    result = dmps("restore", "a.png")
    assert result.code == 2
    assert "a.json is damaged, for it is not JSON; ignored" in result.err
    assert "a.png: nothing says how it was degraded" in result.err


def test_one_reference_of_several_inputs_is_said(dmps: Dmps, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        photo(tmp_path / name, (16, 16))
    result = dmps("restore", "a.png", "b.png", "--task", "denoise", "--reference", "a.png", *FAST)
    assert "a.png is the reference of all 2 inputs" in result.err


def test_an_output_folder_that_is_a_file(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (16, 16))
    (tmp_path / "out").write_text("")
    result = dmps("degrade", "p.png", "--task", "denoise", "-o", "out/y.png")
    assert result.code == 1
    assert "is not a folder" in result.err


def test_grey_and_colour_inputs(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "colour.png", (16, 16))
    Image.fromarray(pixels("colour.png")[:, :, 0]).save(tmp_path / "grey.png")
    assert dmps("restore", "grey.png", "--task", "denoise", *FAST).code == 0
    assert pixels("grey_restored.png").ndim == 2  # one channel in, one out
    assert "is in colour" in dmps("restore", "colour.png", "--task", "colorize", *FAST).err


def test_a_picture_of_compressed_sensing_is_refused(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (16, 16))
    result = dmps("restore", "p.png", "--task", "cs", *FAST)
    assert result.code == 1
    assert ".npy" in result.err


# Evaluation and timing -----------------------------------------------------------------------------------------------


def test_eval_prints_means_of_the_rows_it_writes(dmps: Dmps, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(2):
        photo(folder / f"{k}.png", (48, 40), seed=k)
    arguments = ["eval", "--dataset", "set", "--tasks", "sr4,deblur", "--samplers", "ddpm,flow", "--out", "run", *FAST]
    result = dmps(*arguments)
    assert result.code == 0, result.err
    for word in ("sr4", "deblur", "ddpm", "flow", "PSNR", "SSIM", "LPIPS v0.1 (alex)", "6.375 of 255", "2 images"):
        assert word in result.out, word
    content = json.loads(Path("run/results.json").read_text())
    assert len(content["rows"]) == 8
    for mean in content["means"]:
        rows = [row for row in content["rows"] if (row["task"], row["sampler"]) == (mean["task"], mean["sampler"])]
        assert mean["psnr"] == pytest.approx(np.mean([row["psnr"] for row in rows]))
    assert len(Path("run/rows.csv").read_text().splitlines()) == 9
    again = dmps(*arguments)  # nothing is left to be done
    assert (again.code, again.out) == (0, result.out)
    Path("run/config.json").unlink()  # then the tables are somebody's
    assert "run is no evaluation's" in dmps(*arguments).err


def test_a_bad_photograph_does_not_stop_an_evaluation(dmps: Dmps, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"broken")
    photo(folder / "b.png", (40, 40))
    result = dmps("eval", "--dataset", "set", "--tasks", "denoise", *FAST)
    assert result.code == 1
    assert "1 of 2 failed: a.png" in result.err
    assert "1 image, list" in result.out


def test_an_image_is_evaluated_alike_in_any_list(dmps: Dmps, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(2):
        photo(folder / f"{k}.png", (40, 40), seed=k)
    both = json.loads(dmps("eval", "--dataset", "set", "--tasks", "denoise", "--json", *FAST).out)
    (folder / "0.png").unlink()
    alone = json.loads(dmps("eval", "--dataset", "set", "--tasks", "denoise", "--json", *FAST).out)
    assert both["rows"][1]["psnr"] == alone["rows"][0]["psnr"]
    assert both["rows"][1]["lpips"] == alone["rows"][0]["lpips"]


def test_lpips_that_cannot_be_had_is_left_out(dmps: Dmps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: Any, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    folder = tmp_path / "set"
    folder.mkdir()
    photo(folder / "0.png", (40, 40))
    result = dmps("eval", "--dataset", "set", "--tasks", "denoise", "--lpips-net", "vgg", *FAST)
    assert result.code == 0
    assert "vgg16-397923af.pth" in result.err
    assert "LPIPS" not in result.out


def test_time_has_the_prior_alone_first_and_parts_that_add_up(dmps: Dmps) -> None:
    fast = ["--task", "sr4", "--nfe", "3", "--image-size", "32", "--repeats", "2", "--no-memory"]
    content = json.loads(dmps("time", "--methods", "dmps,dps,ddrm", *fast, "--compare", "paper", "--json").out)
    rows = {row["method"]: row for row in content["rows"]}
    assert list(rows) == ["unconditional", "dmps (x0)", "dps (line search)", "ddrm"]
    for row in rows.values():
        assert row["calls"] == 3
        assert 0 < row["network"] < row["seconds"]
        assert sum(row[part] for part in ("network", "backward", "likelihood", "rest")) == pytest.approx(row["seconds"])
        assert row["seconds"] == min(row["runs"]) and row["spread"] == max(row["runs"]) - min(row["runs"])
        assert row["ratio"] == row["seconds"] / rows["dmps (x0)"]["seconds"]
    assert rows["dps (line search)"]["backward"] > 0.2 * rows["dps (line search)"]["network"]
    assert [rows[name]["backward"] for name in ("unconditional", "dmps (x0)", "ddrm")] == [0, 0, 0]
    assert rows["unconditional"]["likelihood"] < 0.1 * rows["unconditional"]["seconds"]
    assert [row["seconds"] for row in content["paper"]] == [67.02, 194.42, 182.35]
    assert content["notes"] == ["the paper's seconds are those of its Figure 3, of sr4 on one V100"]
    assert content["torch"] == version("torch")  # as in every other file: without the wheel's +cpu
    other = ["time", "--task", "inpaint", "--nfe", "1", "--image-size", "16", "--repeats", "1", "--no-memory"]
    assert "ours are of inpaint" in dmps(*other, "--compare", "paper").out
    table = dmps("time", "--nfe", "1", "--image-size", "16x24", "--repeats", "1", "--csv", "--no-memory").out
    assert "16x24" in table


def test_time_measures_memory_in_a_process_of_its_own(dmps: Dmps) -> None:
    size = ["--image-size", "128", "--nfe", "2", "--repeats", "1"]
    out = dmps("time", "--methods", "dps", *size, "--json").out
    alone, dps = (row["peak_mib"] for row in json.loads(out)["rows"])
    assert [row["spread"] for row in json.loads(out)["rows"]] == [None] * 2  # of one run there is none
    if sys.platform == "linux":
        assert 1 < alone < 1000
        assert dps > 1.5 * alone  # it keeps the network's activations


def test_time_refuses_random_weights_of_a_network_that_only_its_file_describes(dmps: Dmps) -> None:
    result = dmps("time", "--random-weights")
    assert result.code == 2
    assert "--random-weights: only its file gives the sizes of the network of 'natural'" in result.err
    assert dmps("time", "--compare", "papers").code == 2


def test_module_entry_point() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dmps_cli", "--version"], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.stdout == f"dmps {__version__}\n"
