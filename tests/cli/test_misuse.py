"""The command in careless hands: runs repeated, interrupted, contradicted; files that are not what they say."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from tests.shell import FAST, Dmps, photo, pixels


def picture_of(values: np.ndarray, path: Path) -> None:
    """values: (H, W) of bool."""
    Image.fromarray(values).save(path)


# Flags against sidecars ----------------------------------------------------------------------------------------------


@pytest.fixture
def inpainting(dmps: Dmps, tmp_path: Path) -> np.ndarray:
    """y.png, measured through keep.png; the mask, True = kept."""
    photo(tmp_path / "p.png")
    keep = np.ones((24, 32), dtype=bool)
    keep[4:9, 6:20] = False
    picture_of(keep, tmp_path / "keep.png")
    arguments = ("--task", "inpaint", "--mask", "keep.png", "--sigma", "0", "-o", "y.png")
    assert dmps("degrade", "p.png", *arguments).code == 0
    return keep


def test_another_pattern_wins_over_the_recorded_one(dmps: Dmps, inpainting: np.ndarray) -> None:
    """--box on a masked measurement: the exact floats of the pixels that both keep, and a note."""
    result = dmps("restore", "y.png", "--box", "4,3,18,8", "-o", "x.png", *FAST)
    assert result.code == 0, result.err
    assert "--box 4,3,18,8 overrides the sidecar's" in result.err
    Path("z.png").write_bytes(Path("y.png").read_bytes())  # the same pixels without a sidecar: 8 bits of them
    alone = dmps("restore", "z.png", "--task", "inpaint", "--sigma", "0", "--box", "4,3,18,8", *FAST)
    assert alone.code == 0, alone.err
    assert np.abs(pixels("x.png").astype(int) - pixels("z_restored.png")).max() <= 2


def test_another_task_takes_the_exact_pixels(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    dmps("degrade", "p.png", "--task", "denoise", "--sigma", "0.1", "-o", "y.png")
    refused = dmps("restore", "y.png", "--task", "inpaint", "-o", "x.png", *FAST)
    assert (refused.code, "--mask or --box or --fraction" in refused.err) == (2, True)
    result = dmps("restore", "y.png", "--task", "inpaint", "--box", "3,3,9,9", "-o", "x.png", *FAST)
    assert result.code == 0, result.err
    assert "--task inpaint overrides the sidecar's denoise" in result.err
    np.save("z.npy", np.load("y.npy"))
    alone = dmps("restore", "z.npy", "--task", "inpaint", "--sigma", "0.1", "--box", "3,3,9,9", *FAST)
    assert alone.code == 0, alone.err
    np.testing.assert_array_equal(pixels("x.png"), pixels("z_restored.png"))


def test_a_mask_counts_by_its_pixels(dmps: Dmps, inpainting: np.ndarray) -> None:
    """A changed file of the recorded name changes nothing unless it is named; a copy of another name is the same."""
    assert dmps("restore", "y.png", "-o", "a.png", *FAST).code == 0
    picture_of(inpainting, Path("copy.png"))
    copied = dmps("restore", "y.png", "--mask", "copy.png", "-o", "b.png", *FAST)
    assert (copied.code, "overrides" in copied.err) == (0, False)
    picture_of(~inpainting, Path("keep.png"))
    assert dmps("restore", "y.png", "-o", "c.png", *FAST).code == 0
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    np.testing.assert_array_equal(pixels("a.png"), pixels("c.png"))
    changed = dmps("restore", "y.png", "--mask", "keep.png", "-o", "d.png", *FAST)
    assert (changed.code, "--mask keep.png overrides" in changed.err) == (0, True)


def test_a_compressed_measurement_is_no_other_tasks(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (16, 16))
    dmps("degrade", "p.png", "--task", "cs", "-o", "y.png")
    result = dmps("restore", "y.npy", "--task", "denoise", *FAST)
    assert (result.code, "no other operator can take it" in result.err) == (1, True)


def test_a_picture_is_not_inpainted_by_invention(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    result = dmps("restore", "p.png", "--task", "inpaint")
    assert (result.code, "--mask or --box or --fraction" in result.err) == (2, True)


def test_a_flag_that_repeats_the_sidecar_changes_nothing(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    dmps("degrade", "p.png", "--task", "inpaint", "--fraction", "0.2", "--operator-seed", "4", "-o", "y.png")
    dmps("restore", "y.png", "-o", "a.png", *FAST)
    for flag in (("--fraction", "0.2"), ("--operator-seed", "4"), ("--task", "inpaint"), ("--sigma", "0.05")):
        result = dmps("restore", "y.png", *flag, "-o", "b.png", "--overwrite", *FAST)
        assert (result.code, "overrides" in result.err) == (0, False)
        np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    other = dmps("restore", "y.png", "--fraction", "0.3", "-o", "c.png", *FAST)
    assert (other.code, "--fraction 0.3 overrides the sidecar's 0.2" in other.err) == (0, True)


def test_large_seeds_keep_every_bit(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (16, 16))
    seed = 2**53 + 1
    dmps("degrade", "p.png", "--task", "cs", "--operator-seed", str(seed), "-o", "y.png")
    assert json.loads(Path("y.json").read_text())["operator"]["operator_seed"] == seed
    assert dmps("restore", "y.npy", "-o", "x.png", *FAST).code == 0
    assert dmps("degrade", "p.png", "--task", "cs", "--operator-seed", "9" * 400, "-o", "z.png").code == 2


def test_a_pattern_that_numpy_draws_otherwise_is_refused(dmps: Dmps, tmp_path: Path) -> None:
    """Its hash is in the sidecar: the indices of the kept pixels as 64-bit numbers."""
    photo(tmp_path / "p.png", (16, 16))
    dmps("degrade", "p.png", "--task", "inpaint", "--fraction", "0.25", "-o", "y.png")
    sidecar = json.loads(Path("y.json").read_text())
    op = build("inpaint", resolve("inpaint", OperatorOptions(fraction=0.25)), (3, 16, 16), dtype=torch.float32)
    kept = torch.nonzero(op.At(torch.ones(1, *op.out_shape))[0, 0].flatten())[:, 0]
    assert sidecar["pattern_sha256"] == hashlib.sha256(struct.pack(f"<{len(kept)}q", *kept.tolist())).hexdigest()
    sidecar["pattern_sha256"] = "0" * 64
    Path("y.json").write_text(json.dumps(sidecar))
    result = dmps("restore", "y.png", *FAST)
    assert (result.code, "another NumPy draws another pattern" in result.err) == (1, True)


# Runs again ----------------------------------------------------------------------------------------------------------


def test_a_second_run_leaves_the_first_ones_results_out(dmps: Dmps, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        photo(folder / name)
    first = dmps("restore", "d", "--task", "denoise", *FAST)
    assert (first.code, len(first.out.split())) == (0, 2)
    second = dmps("restore", "d", "--task", "denoise", "--overwrite", *FAST)
    assert second.out == first.out
    assert "2 results, d/a_restored.png for one, of dmps" in second.err
    third = dmps("restore", "d/*", "--task", "denoise", "--overwrite", *FAST)
    assert third.out == first.out
    (tmp_path / "one").mkdir()
    for suffix in (".png", ".json"):
        (tmp_path / "one" / f"x{suffix}").write_bytes((folder / f"a_restored{suffix}").read_bytes())
    sidecar = json.loads((tmp_path / "one" / "x.json").read_text()) | {"picture": "x.png"}
    (tmp_path / "one" / "x.json").write_text(json.dumps(sidecar))
    assert "holds no inputs" in dmps("restore", "one", "--task", "denoise", *FAST).err
    both = dmps("degrade", "d/a_restored.png", "d/b_restored.png", "--task", "sr4", "-o", "chosen/")
    assert (both.code, len(both.out.split())) == (0, 2)
    evaluated = dmps("eval", "--dataset", "d", "--tasks", "denoise", "--json", *FAST)
    assert {row["image"] for row in json.loads(evaluated.out)["rows"]} == {"a.png", "b.png"}
    dmps("degrade", "d", "--task", "sr2")
    again = dmps("degrade", "d", "--task", "sr2", "--skip-existing")
    assert (again.code, again.out) == (0, "")
    alone = dmps("restore", "d/a_restored.png", "--task", "denoise", *FAST)  # named alone it is an input
    assert (alone.code, alone.out) == (0, "d/a_restored_restored.png\n")


@pytest.mark.posix
@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (["a.png", "a_restored.png"], None),  # the output of one is the other
        (["a.png"], "a.png"),
        (["./a.png"], "link/a.png"),  # by another name
    ],
)
def test_no_input_is_replaced(dmps: Dmps, tmp_path: Path, inputs: list[str], output: str | None) -> None:
    for name in ("a.png", "a_restored.png"):
        photo(tmp_path / name)
    (tmp_path / "link").symlink_to(".")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    where = ["-o", output] if output else []
    result = dmps("restore", *inputs, "--task", "denoise", "--overwrite", *where, *FAST)
    assert result.code != 0
    assert "would replace the input" in result.err
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content


def test_the_reference_is_not_replaced(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    truth = photo(tmp_path / "t.png").read_bytes()
    result = dmps("restore", "a.png", "--task", "denoise", "--reference", "t.png", "-o", "t.png", "--overwrite", *FAST)
    assert (result.code, Path("t.png").read_bytes()) == (2, truth)
    (tmp_path / "truth").mkdir()
    photo(tmp_path / "truth" / "a.png")
    flags = ("--reference", "truth", "-o", "truth/a.png", "--overwrite")
    assert dmps("restore", "a.png", "--task", "denoise", *flags, *FAST).code == 2
    assert Path("truth/a.png").read_bytes() == truth
    picture_of(np.ones((24, 32), dtype=bool), tmp_path / "m.png")
    mask = Path("m.png").read_bytes()
    flags = ("--mask", "m.png", "-o", "m.png", "--overwrite")
    assert dmps("restore", "a.png", "--task", "inpaint", *flags, *FAST).code == 2
    assert Path("m.png").read_bytes() == mask


def test_skip_existing_goes_on_with_the_samples_that_are_missing(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (16, 16))
    flags = ("restore", "p.png", "--task", "denoise", "--samples", "3", *FAST)
    assert dmps(*flags).code == 0
    whole = [Path(f"p_restored_{k}.png").read_bytes() for k in (1, 2, 3)]
    Path("p_restored_2.png").unlink()  # as an interruption between sidecar and picture leaves it
    Path("p_restored_3.png").unlink()
    Path("p_restored_3.json").unlink()
    result = dmps(*flags, "--skip-existing")
    assert (result.code, result.out) == (0, "p_restored_2.png\np_restored_3.png\n")
    assert [Path(f"p_restored_{k}.png").read_bytes() for k in (1, 2, 3)] == whole


def test_skip_existing_finishes_an_interrupted_measurement(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    flags = ("degrade", "p.png", "--task", "sr2", "--skip-existing")
    dmps(*flags)
    whole = Path("p_sr2.png").read_bytes()
    Path("p_sr2.png").unlink()
    Path("p_sr2.npy").unlink()
    assert dmps(*flags).out == "p_sr2.png\n"
    assert Path("p_sr2.png").read_bytes() == whole
    Path("p_sr2.png").unlink()
    photo(tmp_path / "q.png", seed=1)
    other = dmps("degrade", "q.png", "--task", "sr2", "--skip-existing", "-o", "p_sr2.png")  # of another photograph
    assert (other.code, "exists" in other.err) == (1, True)
    Path("p_sr2.json").write_text('{"mine": 1}')  # somebody else's
    assert "p_sr2.npy exists" in dmps(*flags).err or "p_sr2.json exists" in dmps(*flags).err
    assert Path("p_sr2.json").read_text() == '{"mine": 1}'


def test_a_full_disk_leaves_no_companion_alone(dmps: Dmps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture is the last of its files, and the largest: where it has no room the others go again."""
    photo(tmp_path / "p.png")
    fsync = os.fsync
    for which, arguments in enumerate(
        [("restore", "p.png", "-t", "denoise", *FAST), ("degrade", "p.png", "-t", "sr2")]
    ):
        left = [which + 1]  # files that find room: the sidecar; the sidecar and the floats

        def full(descriptor: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        result = dmps(*arguments, "-o", "x.png")
        assert (result.code, "no room" in result.err) == (1, True), result.err
        assert {path.name for path in tmp_path.iterdir()} == {"p.png"}
    monkeypatch.setattr(os, "fsync", fsync)
    assert dmps("restore", "p.png", "-t", "denoise", "-o", "x.png", *FAST).code == 0


def test_every_picture_has_its_own_noise(dmps: Dmps, tmp_path: Path) -> None:
    """By its pixels: another picture of one size gets another draw, the same picture of another name the same."""
    for name, seed in (("a", 0), ("b", 1), ("copy", 0)):
        photo(tmp_path / f"{name}.png", (48, 48), seed=seed)
    result = dmps("degrade", "a.png", "b.png", "copy.png", "--task", "denoise", "--sigma", "0.1", "-o", "m/")
    assert result.code == 0, result.err
    noise = {}
    for name in ("a", "b", "copy"):
        x = pixels(f"{name}.png").astype(np.float64).transpose(2, 0, 1) / 127.5 - 1.0
        noise[name] = (np.load(f"m/{name}_denoise.npy") - x).ravel()
    assert abs(np.corrcoef(noise["a"], noise["b"])[0, 1]) < 0.05
    np.testing.assert_array_equal(noise["a"], noise["copy"])


def test_what_is_guessed_is_said(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    said = dmps("restore", "p.png", "--task", "denoise", "--nfe", "2", "--cap", "none").err
    assert "--cap belongs to dmps (x_t), which is taken in place of dmps (x0)" in said
    assert re.search(r"its noise is estimated at 0\.\d+ on \[-1, 1\] = \d+\.\d+ of 255", said)
    assert "fewer than 15 evaluations on ddpm levels leave noise" in said
    assert "estimated" not in dmps("restore", "p.png", "--task", "denoise", "--overwrite", *FAST, "--sigma", "0.1").err


def test_three_files_renamed_together_stay_a_measurement(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    dmps("degrade", "p.png", "--task", "deblur", "-o", "y.png")
    assert dmps("restore", "y.png", "-o", "a.png", *FAST).code == 0
    for suffix in (".png", ".npy", ".json"):
        Path("y" + suffix).rename("z" + suffix)
    for name in ("z.png", "z.npy", "z.json"):
        result = dmps("restore", name, "-o", "b.png", "--overwrite", *FAST)
        assert (result.code, "missing" in result.err) == (0, False), result.err
        np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))


# Files that are not what they say ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        {"source": 3},
        {"source": {"file": 1}},
        {"sigma_y": -1},
        {"sigma_y": "0.05"},
        {"sigma_y": 1e300},
        {"seed": None},
        {"operator": []},
        {"operator": {"width": 8}},
        {"operator": {"colour": 1}},
        {"operator": {"width": [9]}},
        {"task": "sr5"},
        {"task": 4},
        {"image_shape": [3, 24]},
        {"image_shape": [3, 24, "32"]},
        {"image_shape": [3, 0, 32]},
        {"measurement": "../y.npy"},
        {"measurement": None},
        {"measurement": ""},
        {"measurement": "n" * 300},
        {"image_shape": [3, 10**200, 10**200]},
        {"mask": 3},
        {"format": 99},
    ],
    ids=repr,
)
def test_an_edited_sidecar_is_one_line(dmps: Dmps, tmp_path: Path, edit: dict[str, Any]) -> None:
    photo(tmp_path / "p.png")
    dmps("degrade", "p.png", "--task", "deblur", "-o", "y.png")
    content = json.loads(Path("y.json").read_text())
    Path("y.json").write_text(json.dumps(content | edit))
    result = dmps("restore", "y.png", *FAST)
    assert result.code == 1
    assert result.err.count("\n") == 1, result.err
    assert "damaged" in result.err or "format 99" in result.err


@pytest.mark.parametrize("task", ["inpaint --mask keep.png", "blur --kernel keep.png"])
def test_a_sidecar_names_no_file_to_read(dmps: Dmps, tmp_path: Path, task: str) -> None:
    """It holds the pixels of a mask and the numbers of a kernel; what lies elsewhere is nobody's to name."""
    photo(tmp_path / "p.png")
    keep = np.full((24, 32), 255, np.uint8)
    keep[4:9, 5:9] = 0
    Image.fromarray(keep).save(tmp_path / "keep.png")
    assert dmps("degrade", "p.png", "--task", *task.split(), "-o", "y.png").code == 0
    (tmp_path / "keep.png").rename(tmp_path / "gone.png")
    assert dmps("restore", "y.png", *FAST).code == 0
    content = json.loads(Path("y.json").read_text())
    name = task.split()[1].removeprefix("--")
    operator = content["operator"] | {name: str(tmp_path / "gone.png")}
    Path("y.json").write_text(json.dumps(content | {"operator": operator, "mask": None}))
    result = dmps("restore", "y.png", "--overwrite", *FAST)
    assert (result.code, result.err.count("\n"), "damaged" in result.err) == (1, 1, True), result.err
    assert ("names a mask and does not hold it" if name == "mask" else "neither numbers nor one of") in result.err


def test_a_sidecar_of_another_shape_is_one_line(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    dmps("degrade", "p.png", "--task", "colorize", "-o", "y.png")
    content = json.loads(Path("y.json").read_text())
    for shape in ([1, 24, 32], [4, 24, 32], [3, 24, 31]):
        Path("y.json").write_text(json.dumps(content | {"image_shape": shape}))
        result = dmps("restore", "y.png", *FAST)
        assert (result.code, "error" in result.err) == (1, True)


def test_a_strange_json_beside_a_picture_is_ignored(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    (tmp_path / "p.json").write_text("[" * 100_000)
    assert dmps("restore", "p.png", "--task", "denoise", *FAST).code == 0


def test_a_damaged_recorded_mask_is_one_line(dmps: Dmps, inpainting: np.ndarray) -> None:
    content = json.loads(Path("y.json").read_text())
    for mask in ("!", "AAAA"):
        Path("y.json").write_text(json.dumps(content | {"mask": mask}))
        result = dmps("restore", "y.png", *FAST)
        assert (result.code, "mask in the sidecar is damaged" in result.err) == (1, True)


def test_arrays_must_be_floats_on_the_scale(dmps: Dmps, tmp_path: Path) -> None:
    np.save(tmp_path / "bytes.npy", np.zeros((3, 8, 8), np.uint8))
    result = dmps("restore", "bytes.npy", "--task", "denoise", *FAST)
    assert (result.code, "uint8" in result.err) == (1, True)
    np.save(tmp_path / "wide.npy", np.full((3, 8, 8), 200.0, np.float32))
    (tmp_path / "wide.npy").rename(tmp_path / "LOUD.NPY")
    result = dmps("restore", "LOUD.NPY", "--task", "denoise", *FAST)
    assert (result.code, "--range 0,255 or --range -1,1" in result.err) == (1, True)
    assert dmps("restore", "LOUD.NPY", "--task", "denoise", "--range", "0,255", *FAST).code == 0


def test_a_reference_of_another_size_is_said_before_anything_is_computed(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    photo(tmp_path / "q.png", (8, 8))
    result = dmps("restore", "p.png", "--task", "denoise", "--reference", "q.png", "--nfe", "1000")
    assert result.code == 1
    assert "q.png is 8 x 8 px, the restoration would be 32 x 24" in result.err
    assert "failed" not in result.err
    assert not Path("p_restored.png").exists()


def test_a_reference_folder_gives_pictures(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (40, 36))
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "p.json").write_text("{}")
    photo(tmp_path / "truth" / "p.png", (40, 36))
    result = dmps("restore", "p.png", "--task", "denoise", "--reference", "truth", "--json", *FAST)
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["results"][0]["psnr"] > 0
    assert content["protocol"]["lpips_net"] == "alex"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lpips-net", "vgh"], "did you mean 'vgg'"),
        (["-o", "out.txt"], "out.txt/ if a folder is meant"),
        (["--device", "cpu:0"], "cuda:1"),
        (["--device", "cuda:abc"], "cuda:1"),
        (["--sigma", "1e200"], "from 1e-09 to 10 on [-1, 1]"),
        (["--sigma", "12.75"], "12.75 grey levels of 255 are --sigma 12.75/255 (0.1 on [-1, 1])"),
        (["--sigma", "5"], "--sigma 5/255 (0.03922 on [-1, 1]); 5 on [-1, 1], 637.5 grey levels, is --sigma 637.5/255"),
        (["--sigma", "15/0"], "grey levels as 15/255"),
        (["-o", "-"], "not written to standard output"),
        (["--seed", str(2**63)], "2^63"),
        (["--samples", "1000000000000"], "from 1 to 10000"),
        (["--sampler", "flow", "--nfe", "100000000000"], "from 1 to 100000"),
        (["-o", ""], "-o is empty"),
        (["--spacing", "cubic"], "uniform, quadratic"),
        (["--sampler", "flow", "--spacing", "quadratic"], "flow levels are uniform"),
    ],
)
def test_a_wrong_option_is_said_first(dmps: Dmps, tmp_path: Path, arguments: list[str], said: str) -> None:
    photo(tmp_path / "p.png")
    result = dmps("restore", "p.png", "--task", "denoise", *arguments)
    assert (result.code, said in result.err) == (2, True), result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["deblur-gauss", "--blur-std", "1e308"],
        ["deblur-gauss", "--blur-std", "1e-200"],
        ["deblur", "--width", "100000001"],
        ["motion", "--length", "1e9"],
        ["sr", "--scale", "1000000"],
        ["colorize", "--weights", "1e-300,0,0"],
    ],
)
def test_sizes_out_of_reason_are_refused(dmps: Dmps, tmp_path: Path, arguments: list[str]) -> None:
    photo(tmp_path / "p.png")
    result = dmps("degrade", "p.png", "--task", *arguments)
    assert (result.code, "; expected " in result.err) == (2, True)


def test_too_large_a_restoration_is_refused_before_memory_runs_out(
    dmps: Dmps,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dmps_cli import device

    photo(tmp_path / "p.png")
    monkeypatch.setattr(device, "free_bytes", lambda _: 2**20)
    result = dmps("restore", "p.png", "--task", "sr4")
    assert result.code == 1
    assert "128 x 96 px would take" in result.err
    monkeypatch.setattr(device, "free_bytes", lambda _: 2**33)
    assert dmps("restore", "p.png", "--task", "sr4", *FAST).code == 0


# The shell -----------------------------------------------------------------------------------------------------------


def shell(tmp_path: Path, *arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    program = [sys.executable, "-c", "from dmps_cli.cli.main import main; main()"]
    return subprocess.run([*program, *arguments], cwd=tmp_path, check=False, **options)


@pytest.mark.posix
def test_names_that_are_no_text(tmp_path: Path) -> None:
    name = b"caf\xe9.png"
    photo(tmp_path / "p.png")
    os.rename(tmp_path / "p.png", os.fsencode(tmp_path) + b"/" + name)  # noqa: PTH104 - bytes
    done = shell(
        tmp_path, "degrade", name, "--task", "sr2", capture_output=True, env=os.environ | {"LC_ALL": "C.UTF-8"}
    )
    assert (done.returncode, done.stdout) == (0, b"caf\xe9_sr2.png\n"), done.stderr


@pytest.mark.posix
def test_streams_that_are_full_closed_or_empty(tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    if os.path.exists("/dev/full"):  # noqa: PTH110
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            done = shell(tmp_path, "degrade", "p.png", "--task", "sr2", stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
        assert b"standard output" in done.stderr
    for command in (["tasks"], ["tasks", "--json"], ["degrade", "p.png", "--task", "sr2", "-o", "left.png"]):
        reader, writer = os.pipe()
        os.close(reader)  # as `head` leaves: no fault, and nothing to say
        done = shell(tmp_path, *command, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert done.returncode == 141, done.stderr
        assert b"error" not in done.stderr
        assert b"Broken" not in done.stderr
    assert (tmp_path / "left.png").is_file()
    for closed in (">&-", "2>&-", "2>/dev/full"):
        target = tmp_path / "closed.png"
        program = f"{sys.executable} -c 'from dmps_cli.cli.main import main; main()'"
        line = f"{program} degrade p.png --task sr2 -o closed.png {closed}"
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, check=False, capture_output=True)
        assert (done.returncode, target.exists(), b"Traceback" in done.stderr) == (0, True, False), (closed, done)
        assert b"dmps:" not in done.stdout
        for path in tmp_path.glob("closed.*"):
            path.unlink()
    empty = shell(tmp_path, "degrade", "-", "--task", "sr2", stdin=subprocess.DEVNULL, capture_output=True)
    assert (empty.returncode, b"standard input names no file" in empty.stderr) == (1, True)


def test_what_killed_runs_left_goes_with_the_next(dmps: Dmps, tmp_path: Path) -> None:
    """Of the files that this run writes, in the folder of an evaluation any; not what others named alike."""
    (tmp_path / "d").mkdir()
    photo(tmp_path / "d" / "p.png")
    assert dmps("eval", "--dataset", "d", "--tasks", "denoise", "--out", "run", *FAST).code == 0
    mine = ["p_sr2.png", "p_sr2.npy", "p_sr2.json", "run/config.json", "run/report.html", "run/truth/gone.png"]
    others = ["q_sr2.png", "run/of_others.png"]
    left = {
        name: (tmp_path / name).with_name(f".{Path(name).name}.{k:016x}.part") for k, name in enumerate(mine + others)
    }
    for path in left.values():
        path.write_bytes(b"half")
    assert dmps("degrade", "d/p.png", "--task", "sr2", "-o", "./").code == 0
    assert dmps("eval", "--dataset", "d", "--tasks", "denoise", "--out", "run", *FAST).code == 0
    assert [name for name, path in left.items() if path.exists()] == others


@pytest.mark.posix
def test_names_too_long_and_links_that_turn_in_circles(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    (tmp_path / "loop").symlink_to("loop")
    for output in ("loop/x.png", "n" * 300 + "/x.png", "n" * 300 + ".png"):
        result = dmps("degrade", "p.png", "--task", "sr2", "-o", output)
        assert (result.code, "error" in result.err) == (1, True), result.err
    longest = photo(tmp_path / ("n" * 251 + ".png")).name  # its results' names are too long
    result = dmps("restore", longest, "p.png", "--task", "denoise", *FAST)
    assert (result.code, result.out) == (1, "p_restored.png\n")
    assert "File name too long" in result.err


def test_eval_goes_on_after_a_problem_that_cannot_be(dmps: Dmps, tmp_path: Path) -> None:
    """A mask of another size fails inpainting alone, whatever the order of the tasks; a task named twice is one."""
    (tmp_path / "d").mkdir()
    photo(tmp_path / "d" / "p.png", (40, 36))
    picture_of(np.eye(8, dtype=bool), tmp_path / "mask.png")
    result = dmps("eval", "--dataset", "d", "--tasks", "inpaint,denoise,denoise", "--mask", "mask.png", "--json", *FAST)
    content = json.loads(result.out)
    assert (result.code, [row["task"] for row in content["rows"]], content["means"][0]["n"]) == (1, ["denoise"], 1)


@pytest.mark.parametrize("width", ["9" * 5000, "-1", "wide", ""])
def test_an_absurd_width_of_the_terminal_is_none(width: str) -> None:
    program = [sys.executable, "-c", "from dmps_cli.cli.main import main; main()", "tasks"]
    environment = {**os.environ, "COLUMNS": width}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "denoise" in done.stdout
