"""An evaluation that is killed, shared out, merged and swept: the table is that of one that was not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dmps_cli import pipeline
from dmps_cli.cli.main import app
from dmps_cli.evaluation.outcomes import heat_map, of_samples
from dmps_cli.evaluation.pictures import Framing
from dmps_cli.evaluation.results import HEAT_NOTE
from dmps_cli.evaluation.rows import RowLog
from dmps_cli.files.atomic import name_key
from dmps_cli.metrics.scorer import Scorer
from dmps_cli.report import run
from dmps_cli.report.sheets import Case
from tests.shell import Dmps, photo, pixels

NAMES = ("a.png", "b.png", "deep/c.png", "d.png")
PROBLEMS = ["--dataset", "set", "--tasks", "denoise,sr2", "--nfe", "1"]
SETTINGS = 2  # rows of each image

Row = dict[str, Any]

KILLED = """
import os, signal, sys
from dmps_cli.evaluation.rows import RowLog
from dmps_cli.cli.main import main

whole = RowLog.append
appended = []

def append(log, rows):
    appended.append(rows)
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if len(appended) < 3 or restarted or os.environ.get("RANK", "1") == "0":
        return whole(log, rows)
    log._file.write(b'{"image": "a.p')  # a line cut short
    log._file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

RowLog.append = append
main()
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of four, and what is not to be taken for a photograph."""
    folder = tmp_path / "set"
    (folder / "deep").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        photo(folder / name, (32, 32), seed=seed)
    return folder


@pytest.fixture
def whole(dmps: Dmps, photos: Path) -> list[Row]:
    """The rows of an evaluation that nothing happened to."""
    result = dmps("eval", *PROBLEMS, "--json")
    assert result.code == 0, result.err
    return quality(json.loads(result.out)["rows"])


def quality(rows: list[Row]) -> list[Row]:
    """The rows without their seconds."""
    assert all(row["seconds"] > 0 for row in rows)
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def results(folder: str | Path) -> list[Row]:
    return quality(json.loads(Path(folder, "results.json").read_text())["rows"])


def lines(path: str | Path) -> list[Row]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def count_restorations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    done: list[Any] = []
    restore = pipeline.restore

    def counted(*arguments: Any, **options: Any) -> Any:
        done.append(options["keys"])
        return restore(*arguments, **options)

    monkeypatch.setattr("dmps_cli.evaluation.outcomes.restore", counted)
    return done


# Interruptions -------------------------------------------------------------------------------------------------------


@pytest.mark.posix
def test_a_killed_evaluation_goes_on(
    dmps: Dmps, tmp_path: Path, whole: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, "eval", *PROBLEMS, "--out", "run"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as this process has it: bits are promised for equal numbers
        check=False,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    log = Path("run/rows.jsonl")
    assert log.read_bytes().count(b"\n") == 2
    assert not log.read_bytes().endswith(b"\n")
    before = log.read_bytes().rpartition(b"\n")[0]
    first = Path("run/restored").rglob("a.png")
    times = {path: path.stat().st_mtime_ns for path in first}
    assert len(times) == SETTINGS
    restored = count_restorations(monkeypatch)
    result = dmps("eval", *PROBLEMS, "--out", "run")
    assert result.code == 0, result.err
    assert "cut short" in result.err
    assert "6 restorations to come, 2 are there" in result.err
    assert len(restored) == len(whole) - 2
    assert log.read_bytes().startswith(before + b"\n")
    assert quality(lines(log)) == whole
    assert results("run") == whole
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len([*Path("run/measurements").rglob("*.png")]) == len([*Path("run/restored").rglob("*.png")]) == len(whole)
    again = dmps("eval", *PROBLEMS, "--out", "run")
    assert (again.code, again.out, len(restored)) == (0, result.out, len(whole) - 2)


def test_killed_at_any_byte_it_ends_in_the_same_rows(dmps: Dmps, photos: Path) -> None:
    """The log is all that goes on growing: cut anywhere, its whole lines are kept and the rest is made anew."""
    command = ("eval", *PROBLEMS, "--no-images", "--out")
    assert dmps(*command, "run").code == 0
    whole, log = results("run"), Path("run/rows.jsonl").read_bytes()
    assert log.count(b"\n") == len(whole) == 8

    @settings(max_examples=5, deadline=None, derandomize=True)
    @given(end=st.integers(0, len(log)))
    def killed(end: int) -> None:
        shutil.rmtree("killed", ignore_errors=True)
        Path("killed").mkdir()
        shutil.copy("run/config.json", "killed")
        Path("killed/rows.jsonl").write_bytes(log[:end])
        result = dmps(*command, "killed")
        assert result.code == 0, result.err
        kept = log[:end].rpartition(b"\n")[0]
        assert Path("killed/rows.jsonl").read_bytes().startswith(kept)
        assert quality(lines("killed/rows.jsonl")) == results("killed") == whole

    killed()


def test_ctrl_c_keeps_rows(
    dmps: Dmps, photos: Path, whole: list[Row], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    append, appended = RowLog.append, []

    def interrupted(log: RowLog, rows: list[Row]) -> None:
        if len(appended) == 5:
            raise KeyboardInterrupt
        appended.extend(rows)
        append(log, rows)

    monkeypatch.setattr(RowLog, "append", interrupted)
    stopped = dmps("eval", *PROBLEMS, "--out", "run", "--no-images")
    assert stopped.code == 130
    assert "5" in stopped.out or "PSNR" in stopped.out
    assert results("run") == whole[:5]
    monkeypatch.setattr(RowLog, "append", append)
    assert dmps("eval", *PROBLEMS, "--out", "run", "--no-images").code == 0
    assert results("run") == whole
    assert {path.name for path in Path("run").iterdir()} == {
        "config.json", "rows.jsonl", "rows.csv", "means.csv", "protocol.json", "results.json",
        "table.md", "table.tex", "report.html",
    }  # fmt: skip


def test_another_configuration_is_refused(dmps: Dmps, photos: Path) -> None:
    run = ["eval", "--dataset", "set", "--tasks", "denoise", "--no-images", "--out", "run", "-q"]
    assert dmps(*run, "--nfe", "1", "--limit", "1").code == 0
    config = Path("run/config.json").read_text()
    row = Path("run/rows.jsonl").read_bytes()
    for other, said in (
        (["--nfe", "2", "--limit", "1"], "nfe is 1 there, 2 here"),
        (["--nfe", "1", "--limit", "2"], "num_images is 1 there, 2 here; not the same images; choose"),
        (["--nfe", "1", "--limit", "1", "--eta-y", "0.5"], "eta_y is 1 there, 0.5 here"),
        (["--nfe", "1", "--limit", "1", "--lambda", "2"], "method is dmps (x0) there, dmps (x_t) here"),
        (["--nfe", "1", "--limit", "1", "--seed", "7"], "seed is 0 there, 7 here"),
        (["--nfe", "1", "--limit", "1", "--sigma", "0.1,0.2"], "the number of problems is 1 there, 2 here"),
        (["--nfe", "1", "--limit", "1", "--image-size", "31", "--fit", "crop"], "image_size is none there, 31 here"),
    ):
        result = dmps(*run, *other)
        assert (result.code, result.out, result.err.count("\n")) == (1, "", 1), result.err
        assert said in result.err, result.err
        assert "--overwrite" in result.err
    assert (Path("run/config.json").read_text(), Path("run/rows.jsonl").read_bytes()) == (config, row)
    assert dmps(*run, "--nfe", "1", "--limit", "1", "--seed", "7", "--overwrite").code == 0
    assert [row["seed"] for row in lines("run/rows.jsonl")] == [7]
    Path("run/rows.jsonl").write_bytes(b'{"image": 1}\n{"ima\n')
    damaged = dmps(*run, "--nfe", "1", "--limit", "1", "--seed", "7")
    assert (damaged.code, "rows.jsonl is damaged at line 1 (image is 1; expected a text)" in damaged.err) == (
        1,
        True,
    ), damaged.err


def test_beside_the_paper_is_said_where_the_preset_differs(dmps: Dmps, photos: Path) -> None:
    run = ["eval", "--dataset", "set", "--tasks", "denoise", "--limit", "1", "--nfe", "2", "--out", "run", "-q"]
    assert dmps(*run).code == 0
    refused = dmps(*run, "--compare", "paper")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "dmps eval --merge run --compare paper adds" in refused.err
    beside = dmps("eval", "--merge", "run", "--compare", "paper").out
    assert "rows of the paper are not ranked" in " ".join(beside.split())


@pytest.mark.parametrize("name", ["plots", "restored", "truth"])
def test_files_of_others_are_left_alone(dmps: Dmps, photos: Path, name: str) -> None:
    """An evaluation empties its folders when it reports, so it takes none that hold what it did not write."""
    mine = Path("run", name, "mine.txt")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    run = ["eval", "--dataset", "set", "--tasks", "denoise", "--limit", "1", "--nfe", "1", "--out", "run"]
    for more in ([], ["--overwrite"]):
        refused = dmps(*run, *more)
        assert (refused.code, refused.err) == (
            1,
            f"dmps: error: {mine.parent} holds files, and run is no evaluation's; choose another --out\n",
        )
    assert mine.read_text() == "mine"
    mine.unlink()
    assert dmps(*run, "-q").code == 0


def test_reports_and_overwriting_leave_files_of_others(dmps: Dmps, photos: Path) -> None:
    """What an evaluation wrote is all that it ever removes."""
    run = ["eval", "--dataset", "set", "--tasks", "denoise", "--limit", "1", "--nfe", "1", "--out", "run", "-q"]
    assert dmps(*run).code == 0
    ours = {path for path in Path("run").rglob("*") if path.is_file()}
    mine = [Path("run", *parts) for parts in (["plots", "mine.svg"], ["sheets", "a", "b.png"], ["truth", "t.png"])]
    mine += [Path("run/rows_backup.jsonl"), Path("run/rows2023.jsonl")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert dmps(*run).code == 0
    assert dmps("eval", "--merge", "run", "--compare", "paper", "--out", "run").code == 0
    assert dmps(*run, "--seed", "1", "--overwrite").code == 0
    assert [path.read_text() for path in mine] == ["mine"] * len(mine)
    assert dmps(*run[:4], "sr4", *run[5:], "--no-images", "--overwrite").code == 0
    assert [path.read_text() for path in mine] == ["mine"] * len(mine)
    left = {path for path in ours if path.exists()}
    assert {path.parts[1] for path in left} <= {
        "config.json", "rows.jsonl", "rows.csv", "means.csv", "protocol.json", "results.json",
        "table.md", "table.tex", "report.html",
    }  # fmt: skip


def test_a_folder_within_an_evaluation_is_refused(dmps: Dmps, photos: Path) -> None:
    run = ["eval", "--tasks", "denoise", "--limit", "1", "--nfe", "1", "-q"]
    assert dmps(*run, "--dataset", "set", "--out", "run").code == 0
    within = dmps("eval", "--merge", "run", "--out", "run/truth/new")
    assert (within.code, "among the pictures of the evaluation" in within.err) == (1, True), within.err
    eaten = dmps(*run, "--dataset", "run/truth/denoise", "--out", "run", "--overwrite")
    assert (eaten.code, "which --overwrite would empty" in eaten.err) == (2, True), eaten.err
    assert [*Path("run/truth/denoise").iterdir()]


# Shares --------------------------------------------------------------------------------------------------------------


def test_shards_merged_are_the_whole(dmps: Dmps, photos: Path, whole: list[Row]) -> None:
    for k in (1, 2, 3):
        assert dmps("eval", *PROBLEMS, "--no-images", "--out", f"runs/{k}", "--shard", f"{k}/3", "-q").code == 0
    by_hash = sorted(NAMES, key=name_key)
    assert {row["image"] for row in results("runs/1")} == {by_hash[0], by_hash[3]}
    assert {row["image"] for row in results("runs/2")} == {by_hash[1]}
    merged = dmps("eval", "--merge", "runs/3", "runs/1", "runs/2", "runs/1", "--out", "all")
    assert merged.code == 0, merged.err
    assert results("all") == whole
    assert "4 images, list" in merged.out
    assert dmps("eval", *PROBLEMS, "--no-images", "--out", "all").out == merged.out  # a folder like any other
    part = dmps("eval", "--merge", "runs/3", "runs/1", "--json")
    assert "6 of 8 restorations are there" in part.err

    for option in (
        ("--nfe", "7"),
        ("--tasks", "deblur"),
        ("--limit", "1"),
        ("--list", "a"),
        ("--lambda", "2"),
        ("--samples", "1"),
    ):
        refused = dmps("eval", "--merge", "all", *option)
        assert (refused.code, refused.err.partition(" belongs")[0]) == (2, f"dmps: error: {option[0]}"), refused.err
    rows = Path("runs/2/rows.2of3.jsonl")
    changed = [{**row, "psnr": row["psnr"] + 1e-9} for row in lines(rows)]
    Path("runs/2/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    refused = dmps("eval", "--merge", "runs/1", "runs/2")
    assert (refused.code, "differ: psnr is" in refused.err) == (1, True)
    assert dmps("eval", *PROBLEMS, "--seed", "1", "--limit", "1", "--out", "other", "-q").code == 0
    refused = dmps("eval", "--merge", "runs/1", "other")
    assert refused.code == 1
    assert "seed is 0 in runs/1, 1 in other" in refused.err
    assert "holds no evaluation" in dmps("eval", "--merge", "set").err


def torchrun(tmp_path: Path, script: list[str], *arguments: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher += ["--monitor-interval", "0.1", "--max-restarts", str(restarts)]
    return subprocess.run(
        [*launcher, *script, "eval", *PROBLEMS, "--no-images", *arguments],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_two_ranks_give_the_table_of_one(tmp_path: Path, dmps: Dmps, whole: list[Row]) -> None:
    done = torchrun(tmp_path, ["-m", "dmps_cli"], "--json")
    assert done.returncode == 0, done.stderr
    assert quality(json.loads(done.stdout)["rows"]) == whole  # one object: one rank speaks
    assert done.stderr.count("restorations to come") == 1


@pytest.mark.posix
def test_a_rank_killed_and_started_again(tmp_path: Path, dmps: Dmps, whole: list[Row]) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    done = torchrun(tmp_path, ["killed.py"], "--out", "run", "--overwrite", restarts=1)
    assert done.returncode == 0, done.stderr
    assert results("run") == whole
    assert done.stdout.count("; RGB, clipped to") == 1
    computed = [row for path in Path("run").glob("rows*.jsonl") for row in lines_of(path)]
    assert len(computed) == len(whole)  # nothing twice


def lines_of(path: Path) -> list[Row]:
    """The whole lines of a file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


# Sweeps and samples --------------------------------------------------------------------------------------------------


def test_a_sweep_is_every_combination(dmps: Dmps, photos: Path) -> None:
    sweep = ["--lambda", "1,1.5", "--sigma", "0.01,0.05", "--nfe", "1,2", "--methods", "dmps,ddrm"]
    result = dmps("eval", "--dataset", "set", "--tasks", "denoise", "--limit", "2", *sweep, "--json")
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert "24 restorations to come" in result.err  # 2 images x 2 sigma x 2 nfe x (2 lambda of dmps + 1 of ddrm)
    assert "to go, by the first restoration" in result.err
    found = [(row["sigma_y"], row["method"], row["nfe"], row["lambda"]) for row in content["means"]]
    assert found == [
        (sigma, method, nfe, weight)
        for sigma in (0.01, 0.05)
        for method, weights in (("dmps (x_t)", (1.0, 1.5)), ("ddrm", (None,)))
        for nfe in (1, 2)
        for weight in weights
    ]
    for mean in content["means"]:
        rows = [
            row["psnr"]
            for row in content["rows"]
            if all(row.get(name) == mean[name] for name in ("sigma_y", "method", "nfe", "lambda"))
        ]
        assert (mean["n"], mean["psnr"]) == (2, pytest.approx(sum(rows) / 2, abs=1e-12))
    one = ["--lambda", "1.5", "--sigma", "0.05", "--nfe", "2", "--method", "dmps"]
    alone = json.loads(dmps("eval", "--dataset", "set", "--tasks", "denoise", "--limit", "2", *one, "--json").out)
    assert all(row in quality(content["rows"]) for row in quality(alone["rows"]))
    assert (
        len(alone["rows"]),
        "--lambda is 'x'; expected a number" in dmps("eval", "--dataset", "set", "--lambda", "1,x").err,
    ) == (
        2,
        True,
    )


def test_samples_are_those_of_their_number(dmps: Dmps, photos: Path) -> None:
    common = ["eval", "--dataset", "set", "--tasks", "inpaint", "--limit", "1", "--nfe", "2", "--out"]
    assert dmps(*common, "run", "--samples", "8").code == 0
    rows = results("run")
    assert [row["sample"] for row in rows] == [*range(1, 9)]
    assert len({row["psnr"] for row in rows}) == 8
    (mean,) = json.loads(Path("run/results.json").read_text())["means"]
    assert mean["psnr_of_mean"] > mean["psnr"]  # an average of samples loses their noise
    assert 0 < mean["std"] < 1
    assert 0 <= mean["coverage"] <= 1
    (heat,) = Path("run/spread").rglob("a.png")
    assert pixels(heat).shape == (32, 32, 3)
    assert "black 0 to white 0.25 on [-1, 1]" in Path("run/report.html").read_text()
    restored = sorted(Path("run/restored").rglob("*.png"))
    assert [path.name for path in restored] == [f"a_{k}.png" for k in range(1, 9)]
    assert dmps(*common, "one").code == 0
    assert results("one")[0]["psnr"] == rows[0]["psnr"]  # the first sample is what one alone would be


def test_a_map_is_white_where_its_note_says() -> None:
    stds = torch.tensor([0.0, 0.25 / 3, 0.5 / 3, 0.25, 1.0])
    offsets = (stds / 2**0.5).expand(3, 1, 5)  # two samples at -d and d have the standard deviation sqrt(2) d
    heat = (heat_map(torch.stack([-offsets, offsets])) + 1) / 2
    expected = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]])  # black, red, yellow, white
    assert torch.allclose(heat[:, 0].T, expected.float(), atol=1e-6)
    assert HEAT_NOTE == "black 0 to white 0.25 on [-1, 1]"


def test_coverage_of_a_gaussian() -> None:
    """Samples and truth of one Gaussian: 90 % but for the uncertainty of mean and standard deviation."""
    from scipy.stats import t

    g = torch.Generator().manual_seed(0)
    for num_samples in (8, 64):
        draws = 0.3 * torch.randn(num_samples + 1, 3, 128, 128, generator=g)
        found = of_samples(draws[1:], draws[:1], Scorer(("psnr",)))
        expected = 1 - 2 * t.sf(1.6448536 / (1 + 1 / num_samples) ** 0.5, num_samples - 1)
        assert found["coverage"] == pytest.approx(expected, abs=0.005)
        assert found["std"] == pytest.approx(0.3, rel=0.01)
    assert "coverage" not in of_samples(draws[1:8], draws[:1], Scorer(("psnr",)))


# Pictures ------------------------------------------------------------------------------------------------------------


def test_the_reports_say_what_the_rows_say(dmps: Dmps, photos: Path) -> None:
    """Means by hand; the truth's pixels on the sheet; the paper's rows beside, and its settings with them."""
    problems = ["--dataset", "set", "--tasks", "sr4", "--methods", "dmps,ddrm", "--nfe", "2,3", "--compare", "paper"]
    result = dmps("eval", *problems, "--out", "run")
    assert result.code == 0, result.err
    rows = lines("run/rows.jsonl")
    assert {(row["spacing"], row.get("cap", "absent")) for row in rows} == {("uniform", None), ("uniform", "absent")}
    table = [
        [cell.strip(" *").removeprefix("<u>").removesuffix("</u>") for cell in line.split("|")[1:-1]]
        for line in Path("run/table.md").read_text().splitlines()
        if line.startswith("|")
    ]
    head = {name: place for place, name in enumerate(table[0])}
    ours = [cells for cells in table[2:] if not cells[head["source"]]]
    assert len(ours) == 4 and len(table) - 2 - len(ours) == 3  # of Table 1: dmps, dps, pgdm
    for cells in ours:
        same = [r["psnr"] for r in rows if (r["method"], str(r["nfe"])) == (cells[head["method"]], cells[head["nfe"]])]
        expected = f"{np.mean(same):.2f} ± {3.1824 * np.std(same, ddof=1) / 2:.2f} ({np.std(same, ddof=1):.2f})"
        assert cells[head["PSNR dB ↑"]] == expected and cells[head["n"]] == "4"  # t of 3 degrees at 97.5 %: 3.1824
    text = Path("run/table.md").read_text()
    assert "cap none" in text and "lambda 1.75" in text and "27.63" in text
    sheet = np.asarray(Image.open("run/sheets/sr4.png"))
    truth = np.asarray(Image.open(photos / "a.png")).repeat(4, 0).repeat(4, 1)
    found = [
        (top, left)
        for top, left in np.argwhere((sheet[:-127, :-127] == truth[0, 0]).all(-1))
        if (sheet[top : top + 128, left : left + 128] == truth).all()
    ]
    assert len(found) == 1  # 32 px enlarged to the least cell of 128
    page = Path("run/report.html").read_text()
    assert (
        page.count("data:image/svg+xml") == 4
        and page.count('<img src="data:image/jpeg') == 4 * 6
        and "http" not in page.split("</head>")[1]
    )


def test_shards_keep_their_pictures_in_the_merged_reports(dmps: Dmps, photos: Path) -> None:
    for share in ("1/2", "2/2"):
        result = dmps("eval", "--dataset", "set", "--tasks", "sr2", "--nfe", "1", "--out", share[0], "--shard", share)
        assert result.code == 0, result.err
    refused = dmps("eval", "--merge", "1", "2", "--limit", "1")
    assert (refused.code, "--limit belongs to an evaluation" in refused.err) == (2, True)
    assert dmps("eval", "--merge", "1", "2", "--out", "all").code == 0
    assert Path("all/report.html").read_text().count('<img src="data:') == 4 * 3
    assert dmps("eval", "--dataset", "set", "--tasks", "sr2", "--nfe", "1", "--out", "all").code == 0
    assert Path("all/report.html").read_text().count('<img src="data:') == 4 * 3
    assert {path.name for path in Path("all/truth/sr2").rglob("*.png")} == {Path(name).name for name in NAMES}


def test_what_is_missing_is_said_in_every_report(dmps: Dmps, photos: Path) -> None:
    (photos / "e.png").write_bytes(b"no picture")
    result = dmps("eval", "--dataset", "set", "--tasks", "denoise", "--nfe", "1", "--out", "run", "--samples", "2")
    assert result.code == 1
    content = json.loads(Path("run/results.json").read_text(encoding="utf-8"))
    assert content["failures"][0]["input"] == "e.png"
    for name in ("table.md", "table.tex", "report.html"):
        text = Path("run", name).read_text(encoding="utf-8")
        assert "8 of 10 restorations are there" in text and "2 posterior samples of each" in text, name
        assert "coverage needs --samples 8 or more; of 2 the spread is too uncertain" in text, name
    assert "8 of 10 restorations" in result.out
    merged = dmps("eval", "--merge", "run", "--json")
    assert [failure["input"] for failure in json.loads(merged.out)["failures"]] == ["e.png"]


def test_a_sheet_is_named_by_the_configuration_not_by_what_is_done(dmps: Dmps, photos: Path) -> None:
    arguments = ["--dataset", "set", "--tasks", "denoise", "--nfe", "1", "--sigma", "0.1,0.2", "--out", "run"]
    assert dmps("eval", *arguments).code == 0
    assert {path.name for path in Path("run/sheets").iterdir()} == {"denoise_0.1.png", "denoise_0.2.png"}


def test_a_sheets_footnote_is_of_that_sheet(dmps: Dmps, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: dict[str, str] = {}
    draw = run.task_sheet

    def noted(cases: list[Case], *, footnote: str) -> Image.Image:
        notes[cases[0].task] = footnote
        return draw(cases, footnote=footnote)

    monkeypatch.setattr(run, "task_sheet", noted)
    common = ["--dataset", "set", "--nfe", "1", "--limit", "1", "--image-size", "30", "--fit", "crop", "--out", "run"]
    assert dmps("eval", *common, "--tasks", "denoise,sr4", "--sigma", "0.1,0.2").code == 0
    assert {task: re.findall(r"0\.\d on|sr4: \d+", note) for task, note in notes.items()} == {
        "denoise, sigma_y 0.1": ["0.1 on"],
        "denoise, sigma_y 0.2": ["0.2 on"],
        "sr4, sigma_y 0.1": ["0.1 on", "sr4: 28"],
        "sr4, sigma_y 0.2": ["0.2 on", "sr4: 28"],
    }


def test_an_option_goes_to_the_methods_that_take_it(dmps: Dmps, photos: Path) -> None:
    arguments = ["--dataset", "set", "--limit", "1", "--tasks", "denoise", "--nfe", "1", "--json"]
    result = dmps("eval", *arguments, "--methods", "dmps,ddrm", "--eta", "0.5,1")
    assert [(row["method"], row.get("eta")) for row in json.loads(result.out)["rows"]] == [
        ("dmps (x0)", 0.5), ("dmps (x0)", 1.0), ("ddrm", 0.5), ("ddrm", 1.0),
    ]  # fmt: skip
    for others in (["--methods", "dmps,ddrm", "--cap", "none"], ["--methods", "dmps (x_t),ddrm"]):
        result = dmps("eval", *arguments, *others, "--eta", "0.5")
        assert [(row["method"], row.get("eta")) for row in json.loads(result.out)["rows"]] == [
            ("dmps (x_t)", None), ("ddrm", 0.5),
        ]  # fmt: skip
    alone = dmps("eval", *arguments, "--methods", "dmps,dps", "--eta", "0.5", "--lambda", "1")
    assert (alone.code, "dmps: no form of dmps takes --lambda and --eta" in alone.err) == (2, True)
    wrong = dmps("eval", *arguments, "--methods", "dps,diffpir", "--zeta", "2")
    assert (wrong.code, "diffpir: --zeta is 2" in wrong.err) == (2, True)


def test_which_pictures_are_taken(dmps: Dmps, photos: Path, tmp_path: Path) -> None:
    def images(*arguments: str) -> list[str]:
        flags = ["--tasks", "denoise", "--nfe", "1", "--json", "-q"]
        result = dmps("eval", *flags, *arguments)
        assert result.code == 0, result.err
        return [row["image"] for row in json.loads(result.out)["rows"]]

    (photos / ".hidden").mkdir()
    photo(photos / ".hidden" / "h.png")
    photo(photos / ".h.png")
    (tmp_path / "names").write_text("d.png\n\n./deep/c.png\nd.png\n")
    assert images("--dataset", "set", "--list", "names", "--out", "set/run") == ["d.png", "deep/c.png"]
    assert len([*(photos / "run").rglob("*.png")]) == 7  # truth, measurement, restored of two, and a sheet
    assert images("--dataset", "set", "--limit", "3") == ["a.png", "b.png", "d.png"]
    assert images("--dataset", "set", "--limit", "9") == sorted(NAMES)  # without those of set/run
    (tmp_path / "names").write_text("gone.png\n")
    assert "'gone.png' is no picture of set" in dmps("eval", "--dataset", "set", "--list", "names").err


def test_size_of_the_pictures(dmps: Dmps, photos: Path) -> None:
    """crop is what cutting the files by hand gives; resize keeps a plane; what is too small is said."""
    import numpy as np
    from PIL import Image

    Path("cut").mkdir()
    Image.fromarray(pixels("set/a.png")[4:28, 4:28]).save("cut/a.png")
    flags = ["--tasks", "denoise", "--nfe", "1", "--limit", "1", "--json"]
    cropped = json.loads(dmps("eval", "--dataset", "set", "--image-size", "24", *flags).out)  # --fit crop
    by_hand = json.loads(dmps("eval", "--dataset", "cut", *flags).out)
    assert quality(cropped["rows"]) == quality(by_hand["rows"])
    assert cropped["protocol"]["prepared"] == "their central 24 x 24 px"
    odd = ["--dataset", "set", "--image-size", "30", "--fit", "crop", "--nfe", "1", "--limit", "1", "--out", "run"]
    line = dmps("eval", *odd, "--tasks", "sr4,sr2,denoise").out
    assert "1 image, their central 30 x 30 px (sr4: 28 x 28), list" in line
    assert pixels("run/truth/sr4/a.png").shape == (28, 28, 3)
    small = dmps("eval", "--dataset", "cut", "--image-size", "32", "--fit", "crop", *flags)
    assert (small.code, "24 x 24 px, smaller than --image-size 32" in small.err) == (1, True)
    refused = dmps("eval", "--dataset", "cut", "--fit", "resize")
    assert (refused.code, "--fit resize says how pictures are brought to --image-size" in refused.err) == (2, True)
    plane = torch.from_numpy(np.linspace(-0.5, 0.5, 48, dtype=np.float32)).expand(1, 3, 40, 48)
    halved = Framing(size=20, how="resize").apply(plane)
    expected = plane[..., 4:44].unflatten(-1, (20, 2)).mean(-1)[..., :20, :]
    assert halved.shape == (1, 3, 20, 20)
    assert (halved - expected)[..., 2:-2].abs().max() < 1e-6


def test_a_metric_that_needs_larger_pictures_has_a_reason_and_no_column(dmps: Dmps, photos: Path) -> None:
    small = ["eval", "--dataset", "set", "--tasks", "denoise", "--nfe", "1", "--limit", "1", "--fit", "crop"]
    out = dmps(*small, "--image-size", "30", "--out", "run").out
    assert "LPIPS needs pictures of at least 31 px a side; 1 of 1 restorations have none" in out
    assert "LPIPS v0.1" not in out and out.count("LPIPS") == 1
    assert "LPIPS needs" in Path("run/report.html").read_text()
    assert "LPIPS v0.1" in dmps(*small, "--image-size", "31").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shard", "3/2"], "--shard is '3/2'"),
        (["--samples", "0"], "--samples is 0"),
        (["--fit", "stretch", "--image-size", "8"], "--fit is 'stretch'"),
        (["--fit", "crop"], "--fit crop says how pictures are brought to --image-size; name that too"),
        (["--nfe", "2,0"], "--nfe is 0"),
        (["--sigma", "0.1,-1"], "--sigma is -1"),
        (["run"], "folders are for --merge"),
    ],
)
def test_a_wrong_option_is_exit_code_2(dmps: Dmps, photos: Path, arguments: list[str], said: str) -> None:
    result = dmps("eval", "--dataset", "set", *arguments)
    assert (result.code, result.out, said in result.err) == (2, "", True), result.err


def test_without_a_data_set() -> None:
    with pytest.raises(SystemExit) as stopped:
        app(["eval"])
    assert stopped.value.code == 2
