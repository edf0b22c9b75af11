"""Folders of evaluations that somebody else made: nothing outside of them is read, changed or removed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dmps_cli.errors import InputError
from dmps_cli.evaluation.configuration import config_hash
from dmps_cli.evaluation.folder import open_run
from dmps_cli.evaluation.merging import read_runs
from tests.shell import Dmps, photo

Content = dict[str, Any]

ROW: Content = {
    "image": "a.png",
    "task": "denoise",
    "method": "dmps",
    "sampler": "ddpm",
    "nfe": 1,
    "spacing": "quadratic",
    "lambda": 1.75,
    "score_at": "x_t",
    "cap": 1.0,
    "sigma_y": 0.5,
    "seed": 0,
    "model_sha256": "0" * 64,
    "psnr": 20.0,
    "seconds": 1.0,
}
SAMPLING = {name: ROW[name] for name in ("method", "sampler", "nfe", "spacing", "lambda", "score_at", "cap")}
CONFIG: Content = {
    "version": "0.1.0",
    "num_images": 1,
    "images_sha256": "0" * 64,
    "image_size": None,
    "fit": None,
    "prepared": "",
    "model_sha256": "0" * 64,
    "channels": 3,
    "dtype": "float32",
    "tile": None,
    "device": "cpu",
    "seed": 0,
    "samples": 1,
    "metrics": ["psnr"],
    "lpips_net": "alex",
    "problems": [{"task": "denoise", "operator": {}, "sigma_y": 0.5, "samplings": [SAMPLING]}],
}
RESTORED = Path("restored/denoise_sigma0.5/dmps_ddpm_quadratic_nfe1_lambda1.75_score_atx_t_cap1.0/a.png")


def run_folder(folder: Path, *, row: Content | None = None, config: Content | None = None) -> Path:
    """The folder of an evaluation of one image, as `dmps eval --out` makes it, with these fields changed."""
    (folder / RESTORED).parent.mkdir(parents=True)
    photo(folder / RESTORED)
    config = CONFIG | (config or {})
    head = {"kind": "dmps evaluation", "format": 1, "config_sha256": config_hash(config)}
    content = {**head, "config": config, "facts": {"dataset": "set", "model": "natural"}, "versions": {}}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "rows.jsonl").write_text(json.dumps(ROW | (row or {})) + "\n")
    return folder


def merge(dmps: Dmps) -> Any:
    return dmps("eval", "--merge", "run", "--out", "all")


def test_the_folder_as_it_should_be(dmps: Dmps, tmp_path: Path) -> None:
    run_folder(tmp_path / "run")
    result = merge(dmps)
    assert (result.code, "20.00" in result.out) == (0, True), result.err
    assert Path("all", RESTORED).read_bytes() == Path("run", RESTORED).read_bytes()


OUTSIDE = [
    "../../../../mine.png",
    "{here}/mine.png",
    "../../../../../{here}/mine.png",
    "a/../../../../../mine.png",
    "..",
]


@pytest.mark.parametrize("image", OUTSIDE)
def test_a_picture_outside_survives_and_is_not_copied(dmps: Dmps, tmp_path: Path, image: str) -> None:
    mine = photo(tmp_path / "mine.png")
    content = mine.read_bytes()
    run_folder(tmp_path / "run", row={"image": image.format(here=tmp_path)})
    merged = merge(dmps)
    assert (merged.code, merged.err.count("\n")) == (1, 1), merged.err
    assert "rows.jsonl is damaged at line 1 (image is" in merged.err
    assert not Path("all").exists()
    open_run(Path("run"), CONFIG, {}, overwrite=True)  # what eval --out run --overwrite does first
    assert mine.read_bytes() == content


@pytest.mark.posix
@pytest.mark.parametrize("link", [RESTORED.parents[2], RESTORED.parent, RESTORED])
def test_a_link_out_of_the_folder_is_not_followed(dmps: Dmps, tmp_path: Path, link: Path) -> None:
    run_folder(tmp_path / "run")
    path = tmp_path / "run" / link
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    files = [elsewhere, *elsewhere.rglob("*")]
    merged = merge(dmps)
    assert (merged.code, "leads out of run" in merged.err) == (1, True), merged.err
    open_run(Path("run"), CONFIG, {}, overwrite=True)
    assert [elsewhere, *elsewhere.rglob("*")] == files


@pytest.mark.posix
def test_a_log_that_is_a_link_is_not_written_to(dmps: Dmps, tmp_path: Path) -> None:
    run_folder(tmp_path / "run")
    (tmp_path / "all").mkdir()
    notes = tmp_path / "notes"
    notes.write_text("no line break at the end")
    (tmp_path / "all" / "config.json").write_bytes((tmp_path / "run" / "config.json").read_bytes())
    (tmp_path / "all" / "rows.jsonl").symlink_to(notes)
    result = merge(dmps)
    assert (result.code, result.err.count("\n")) == (1, 1), result.err
    assert notes.read_text() == "no line break at the end"


def test_only_what_the_evaluation_wrote_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "run")
    mine = [
        Path("run/restored/mine.png"),
        Path("run", RESTORED).with_name("b.png"),
        Path("run/sheets/denoise_notes.png"),
        Path("run/plots/denoise.svg"),
        Path("run/truth/empty"),
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if path.name == "empty" else path.write_bytes(b"mine")
    sheet, plot = Path("run/sheets/denoise_0.05.png"), Path("run/plots/denoise_psnr_nfe.svg")
    for path in (sheet, plot):
        path.write_bytes(b"of the evaluation")
    open_run(Path("run"), CONFIG, {}, overwrite=True)
    assert all(path.exists() for path in mine)
    assert not any(path.exists() for path in (Path("run", RESTORED), sheet, plot))


ABSURD: list[Any] = [None, True, -1, 1e300, 10**30, "", "../x", [[]], {"x": []}]


def changed(content: Content, name: str) -> list[Content]:
    """The content without a field, and with values that it never has."""
    return [{key: value for key, value in content.items() if key != name}, *({**content, name: odd} for odd in ABSURD)]


def refused() -> bool:
    """Whether the folder `run` is refused, and in one line."""
    try:
        read_runs([Path("run")])
    except InputError as exc:
        assert "\n" not in str(exc)
        return True
    return False


def test_whatever_a_row_says_it_is_merged_or_refused(dmps: Dmps, tmp_path: Path) -> None:
    run_folder(tmp_path / "run")
    texts = [json.dumps(row) for name in ROW for row in changed(ROW, name)]
    taken = []
    for text in [*texts, "3", "[]", "{}", "null", "[" * 9999, "1" * 5000, '{"image": "\\ud800"}', "NaN", "\\"]:
        Path("run/rows.jsonl").write_text(text + "\n")
        taken += [] if refused() else [text]
    assert len(taken) < 40 < len(texts)
    for text in taken:
        Path("run/rows.jsonl").write_text(text + "\n")
        result = dmps("eval", "--merge", "run")
        assert result.code == 0, text


def test_whatever_a_configuration_says_it_is_merged_or_refused(dmps: Dmps, tmp_path: Path) -> None:
    """Also where its hash is right."""
    run_folder(tmp_path / "run")
    whole = json.loads(Path("run/config.json").read_text())
    problem = CONFIG["problems"][0]
    contents = [content for name in whole for content in changed(whole, name)]
    configs = [
        *(config for name in CONFIG for config in changed(CONFIG, name)),
        *(CONFIG | {"problems": [odd]} for name in problem for odd in changed(problem, name)),
        *(CONFIG | {"problems": [problem | {"samplings": [odd]}]} for n in SAMPLING for odd in changed(SAMPLING, n)),
    ]
    contents += [whole | {"config": config, "config_sha256": config_hash(config)} for config in configs]
    taken = []
    for content in contents:
        Path("run/config.json").write_text(json.dumps(content))
        taken += [] if refused() else [content]
    kinds = {
        str(
            sorted((name, str(value)) for name, value in content["config"].items() if value != CONFIG.get(name))
        ): content
        for content in taken
    }
    for content in [*kinds.values()][::4]:
        Path("run/config.json").write_text(json.dumps(content))
        result = dmps("eval", "--merge", "run")
        assert result.code == 0, content


@pytest.mark.parametrize("text", ["{", "3", "[]", '{"failures": 3}', '{"failures": [3]}', '{"failures": [{}]}'])
def test_failures_of_another_type_are_said(dmps: Dmps, tmp_path: Path, text: str) -> None:
    run_folder(tmp_path / "run")
    Path("run/results.json").write_text(text)
    result = dmps("eval", "--merge", "run")
    assert (result.code, "results.json cannot be read" in result.err) == (0, True), result.err


@pytest.mark.posix
@pytest.mark.parametrize("name", ["config.json", "rows.jsonl", str(RESTORED)])
def test_a_pipe_in_the_folder_is_not_waited_for(dmps: Dmps, tmp_path: Path, name: str) -> None:
    run_folder(tmp_path / "run")
    path = Path("run", name)
    path.unlink()
    os.mkfifo(path)
    result = merge(dmps)
    assert (result.code, result.err.count("\n")) == (1, 1), result.err
