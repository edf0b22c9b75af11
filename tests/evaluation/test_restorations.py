"""`restore --report`: what the page and the tables of a call say is what its sidecars and pictures hold."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image

from tests.shell import FAST, Dmps, photo, pixels


def rows(folder: str, name: str = "rows.csv") -> list[dict[str, str]]:
    with Path(folder, name).open(newline="") as file:
        return [*csv.DictReader(file)]


def places(sheet: np.ndarray, picture: np.ndarray) -> list[tuple[int, int]]:
    """Where in a sheet the pixels of a picture are, by its first row."""
    height, width = picture.shape[:2]
    found = []
    for top in range(sheet.shape[0] - height + 1):
        for left in np.flatnonzero((sheet[top, : sheet.shape[1] - width + 1] == picture[0, 0]).all(-1)):
            if np.array_equal(sheet[top : top + height, left : left + width], picture):
                found.append((top, int(left)))
    return found


def test_the_report_says_what_the_sidecars_say(dmps: Dmps, tmp_path: Path) -> None:
    Path("truth").mkdir()
    for k in range(2):
        photo(Path(f"truth/{k}.png"), (128, 96), k)
    assert dmps("degrade", "truth", "--task", "denoise", "-o", "y/").code == 0
    result = dmps("restore", "y", "--reference", "truth", "-o", "x/", "--samples", "2", "--report", "r", *FAST)
    assert result.code == 0 and "wrote tables and" in result.err
    said = {}
    for path in Path("x").glob("*.json"):
        facts = json.loads(path.read_text())
        said[Path(facts["input"]).name, facts["sample"] + 1] = facts
    assert len(said) == 4
    for row in rows("r"):
        facts = said[row["image"], int(row["sample"])]
        for name in ("psnr", "ssim", "sigma_y"):
            assert math.isclose(float(row[name]), facts[name], rel_tol=1e-12)
    (mean,) = rows("r", "means.csv")
    assert math.isclose(float(mean["psnr"]), fmean(facts["psnr"] for facts in said.values()), rel_tol=1e-12)
    assert mean["n"] == "2"  # images: samples of one are no further ones

    sheet = np.asarray(Image.open("r/sheets/denoise.png").convert("RGB"))
    written = [pixels(f"x/{k}_denoise_restored_{sample}.png") for k in range(2) for sample in (1, 2)]
    for picture in (pixels("truth/0.png"), pixels("y/0_denoise.png"), *written):
        assert len(places(sheet, picture)) == 1
    assert "dmps restore, prior natural" in Path("r/report.html").read_text()


def test_without_a_reference_there_is_no_truth_and_no_score(dmps: Dmps, tmp_path: Path) -> None:
    photo(Path("p.png"), (128, 128))
    assert dmps("restore", "p.png", "--task", "denoise", "--report", "r", *FAST).code == 0
    assert "not scored; sigma_y" in Path("r/table.md").read_text()
    sheet = np.asarray(Image.open("r/sheets/denoise.png").convert("RGB"))
    (here,), (there,) = places(sheet, pixels("p.png")), places(sheet, pixels("p_restored.png"))
    assert here[0] == there[0] and 128 <= there[1] - here[1] < 256  # side by side, with no column between


def test_a_report_takes_the_place_of_nothing_unasked(dmps: Dmps, tmp_path: Path) -> None:
    photo(Path("results.png"))
    call = ["restore", "results.png", "--task", "denoise", *FAST]
    result = dmps(*call, "-o", "r/results.png", "--report", "r")
    assert result.code == 2 and "would be a result's file and the report's" in result.err
    assert not Path("r").exists()
    assert dmps(*call, "--report", "r").code == 0
    result = dmps(*call, "-o", "other.png", "--report", "r")
    assert result.code == 1 and "rows.csv exists; --overwrite replaces it, or choose another --report" in result.err
    assert not Path("other.png").exists()
    assert dmps(*call, "-o", "other.png", "--report", "r", "--overwrite").code == 0
