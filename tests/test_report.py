"""Tables that are read back, and contact sheets whose pixels are looked for."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dmps_cli.report import (
    Picture,
    Row,
    SheetRow,
    best,
    column_names,
    console_table,
    console_text,
    contact_sheet,
    csv_text,
    json_text,
    markdown,
    means,
    score_caption,
)

ROWS: list[Row] = [
    {"task": "sr4", "method": "dmps", "psnr": 27.314999, "ssim": 0.1 + 0.2, "lpips": 0.2071, "seconds": 12345.678},
    {"task": "sr4", "method": "dps", "psnr": 26.78, "ssim": 0.8391, "lpips": 0.2071, "seconds": 0.012345},
    {"task": "deblur [bold]|9", "method": "dmps", "psnr": 1 / 3, "ssim": 1e-17, "lpips": None, "seconds": 7.0},
]


class Stream(io.StringIO):
    """Stands for stdout, a terminal or not."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


# --- Means and the best


def test_means_per_group_with_their_number() -> None:
    rows: list[Row] = [
        {"task": "sr4", "psnr": 20.0, "lpips": 0.1},
        {"task": "deblur", "psnr": 30.0, "lpips": None},
        {"task": "sr4", "psnr": 23.0, "lpips": 0.2},
        {"task": "deblur", "psnr": 31.0, "lpips": 0.5},
        {"task": "sr4", "psnr": 26.0, "lpips": 0.6},
    ]
    assert means(rows, ["task"], ["psnr", "lpips"]) == [
        {"task": "sr4", "n": 3, "psnr": 23.0, "lpips": pytest.approx(0.3, abs=1e-15)},
        {"task": "deblur", "n": 2, "psnr": 30.5, "lpips": None},  # not the mean of the one that has it
    ]
    assert means(rows, [], ["psnr"]) == [{"n": 5, "psnr": 26.0}]


def test_mean_does_not_depend_on_the_order_of_the_rows() -> None:
    values = [0.1 * k + 1e-9 * k**3 for k in range(500)]
    forward, backward = ([{"psnr": value} for value in order] for order in (values, values[::-1]))
    assert means(forward, [], ["psnr"]) == means(backward, [], ["psnr"])


def test_best_goes_by_each_metrics_direction_within_its_group() -> None:
    rows: list[Row] = [
        {"task": "sr4", "psnr": 27.0, "ssim": 0.80, "lpips": 0.3},
        {"task": "sr4", "psnr": 26.0, "ssim": 0.81, "lpips": 0.2},
        {"task": "deblur", "psnr": 10.0, "ssim": 0.1, "lpips": 0.9},  # no rival
    ]
    assert best(rows, ["task"]) == {(0, "psnr"), (1, "ssim"), (1, "lpips")}
    assert best(rows, []) == {(0, "psnr"), (1, "ssim"), (1, "lpips")}


def test_what_looks_equal_is_equally_good() -> None:
    rows: list[Row] = [{"psnr": 27.312}, {"psnr": 27.3149}, {"psnr": 27.30}]
    assert best(rows, []) == {(0, "psnr"), (1, "psnr")}


# --- Files


def test_csv_reads_back_to_the_same_numbers() -> None:
    back = list(csv.DictReader(io.StringIO(csv_text(ROWS), newline="")))
    assert list(back[0]) == column_names(ROWS)
    for row, read in zip(ROWS, back, strict=True):
        for name, value in row.items():
            text = read[name]
            assert text == "" if value is None else text == value or float(text) == value


def test_csv_keeps_awkward_names_and_rows_of_unequal_columns() -> None:
    rows: list[Row] = [{"image": 'a,"b"\n.png', "psnr": 1.5}, {"image": "c.png", "note": "new"}]
    back = list(csv.reader(io.StringIO(csv_text(rows), newline="")))
    assert back == [["image", "psnr", "note"], ['a,"b"\n.png', "1.5", ""], ["c.png", "", "new"]]


def test_json_is_strict_and_in_full() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    rows: list[Row] = [*ROWS, {"task": "é", "psnr": math.inf, "ssim": -math.inf, "lpips": math.nan}]
    back = json.loads(json_text({"rows": rows, "nested": {"pair": (1, 0.1)}}), parse_constant=refuse)
    assert back["rows"][:3] == ROWS
    assert back["rows"][3] == {"task": "é", "psnr": "inf", "ssim": "-inf", "lpips": "nan"}
    assert float(back["rows"][3]["psnr"]) == math.inf
    assert back["nested"] == {"pair": [1, 0.1]}


def test_markdown_is_a_table_of_equal_columns() -> None:
    lines = markdown(ROWS, best_within=["task"]).splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert cells[0] == ["task", "method", "PSNR dB ↑", "SSIM ↑", "LPIPS ↓", "seconds"]
    assert [bool(re.fullmatch("-+:", rule)) for rule in cells[1]] == [False, False, True, True, True, True]
    assert cells[2:] == [
        ["sr4", "dmps", "**27.31**", "0.3000", "**0.2071**", "12346"],
        ["sr4", "dps", "26.78", "**0.8391**", "**0.2071**", "0.01235"],
        ["deblur [bold]\\|9", "dmps", "0.33", "0.0000", "", "7"],
    ]
    assert len({len(line) for line in lines}) == 1


# --- Console


def test_a_pipe_gets_every_number_whatever_columns_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    rows: list[Row] = [{"image": "x" * 300 + f"{k}.png", "psnr": 20 + k / 7, "seed": 10**12 + k} for k in range(3)]
    lines = console_text(console_table(rows, title="One"), Stream(is_terminal=False)).splitlines()
    assert lines[0] == "One"
    body = [line.split() for line in lines[-3:]]
    assert body == [["x" * 300 + f"{k}.png", f"{20 + k / 7:.2f}", f"{10**12 + k}"] for k in range(3)]


@pytest.mark.parametrize("width", [20, 64, 200])
def test_a_terminal_of_any_width_loses_nothing(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    text = console_text(console_table(ROWS, best_within=["task"]), Stream(is_terminal=True))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "…" not in plain
    for number in ("*27.31", "26.78", "0.33", "*0.8391", "*0.2071", "12346", "0.01235"):
        assert number in plain.split()
    assert width == 20 or max(map(len, plain.splitlines())) <= width


def test_numbers_stand_below_each_other() -> None:
    text = console_text(console_table(ROWS, best_within=["task"]), Stream(is_terminal=False))
    points = {line.index(".") for line in text.splitlines()[-3:]}  # the first number with a point is the PSNR
    assert len(points) == 1
    assert "deblur [bold]|9" in text  # not taken for markup


def test_caption() -> None:
    row: Row = {"psnr": 27.314, "ssim": 0.9, "lpips": 0.12346, "seconds": 3.0}
    assert score_caption(row) == "PSNR 27.31 dB  LPIPS 0.1235"
    assert score_caption({"psnr": 19.0, "lpips": None}) == "PSNR 19.00 dB"
    assert score_caption(row, ["ssim"]) == "SSIM 0.9000"


# --- Contact sheet


def noise_picture(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def find(sheet: Image.Image, picture: NDArray[Any]) -> list[tuple[int, int]]:
    """(left, top) of every place where the (h, w, 3) picture stands in the sheet, pixel by pixel."""
    pixels = np.asarray(sheet)
    h, w = picture.shape[:2]
    starts = np.argwhere((pixels[: -h or None, : -w or None] == picture[0, 0]).all(-1))
    return [(int(x), int(y)) for y, x in starts if np.array_equal(pixels[y : y + h, x : x + w], picture)]


def example() -> tuple[Image.Image, list[SheetRow]]:
    truth, small = noise_picture(128, 128, 0), noise_picture(32, 32, 1)
    grey, wide = noise_picture(128, 128, 2, "L"), noise_picture(128, 64, 3)
    rows = [
        SheetRow(
            label="sr4", note="a.png", pictures=[Picture(image=truth), Picture(image=small, caption="PSNR 19 dB")]
        ),
        SheetRow(label="colorize", note="b.png", pictures=[Picture(image=wide), Picture(image=grey, caption="x")]),
        SheetRow(label="denoise", pictures=[None, Picture(image=truth)]),
    ]
    return contact_sheet(["truth", "measurement"], rows, footnote="sigma_y 0.05 " * 20), rows


def test_pictures_are_in_their_cells_pixel_by_pixel() -> None:
    sheet, rows = example()
    truth, small, wide, grey = (np.asarray(p.image) for row in rows[:2] for p in row.pictures if p)
    (first, last) = sorted(find(sheet, truth), key=lambda place: place[1])
    enlarged = np.kron(small, np.ones((4, 4, 1), dtype=np.uint8))  # 32 px by nearest neighbour to 128 px
    (measurement,) = find(sheet, enlarged)
    (landscape,) = find(sheet, wide)
    (greyscale,) = find(sheet, np.stack([grey] * 3, axis=-1))
    assert first[1] == measurement[1] < greyscale[1] < last[1]  # rows
    assert first[0] == landscape[0] < measurement[0] == greyscale[0] == last[0]  # columns
    assert measurement[0] >= first[0] + 128 and greyscale[1] >= first[1] + 128
    assert landscape[1] == greyscale[1] + 32  # 64 px in the middle of a row of 128 px


def test_margins_are_white_and_an_empty_cell_stays_empty() -> None:
    sheet, rows = example()
    pixels = np.asarray(sheet)
    for edge in (pixels[:8], pixels[-8:], pixels[:, :8], pixels[:, -8:]):
        assert (edge == 255).all()
    truth = rows[0].pictures[0]
    assert truth is not None
    right, top = max(find(sheet, np.asarray(truth.image)), key=lambda place: place[1])
    left = min(find(sheet, np.asarray(truth.image)))[0]
    assert right > left
    assert (pixels[top : top + 128, left : left + 128] == 255).all()


def test_labels_captions_and_footnote_stand_around_the_picture() -> None:
    picture = noise_picture(128, 128, 0)
    rows = [SheetRow(label="sr4", note="a.png", pictures=[Picture(image=picture, caption="PSNR 19 dB")])]
    sheet = contact_sheet(["truth"], rows, footnote="note")
    ((left, top),) = find(sheet, np.asarray(picture))
    ink = (np.asarray(sheet) != 255).any(-1)
    assert ink[: top - 1, left : left + 128].any()  # column label above
    assert ink[top : top + 128, : left - 1].any()  # row label to the left
    assert ink[top + 129 : top + 150, left : left + 128].any()  # caption below
    assert ink[top + 150 :].any()  # footnote at the foot


def test_without_texts_there_is_nothing_but_the_picture_and_its_hairline() -> None:
    picture = noise_picture(128, 128, 0)
    sheet = contact_sheet([""], [SheetRow(label="", pictures=[Picture(image=picture)])])
    ((left, top),) = find(sheet, np.asarray(picture))
    ink = (np.asarray(sheet) != 255).any(-1)
    ink[top - 1 : top + 129, left - 1 : left + 129] = False
    assert not ink.any()


def test_cell_scales_the_sheet_down() -> None:
    picture = Image.new("RGB", (512, 256), (10, 20, 30))
    sheet = np.asarray(contact_sheet(["a"], [SheetRow(label="", pictures=[Picture(image=picture)])], cell=128))
    assert (sheet == (10, 20, 30)).all(-1).sum() == 128 * 64


def test_a_long_name_is_broken_not_cut() -> None:
    short, long = (
        contact_sheet(
            ["a"], [SheetRow(label="sr4", note="n" * count, pictures=[Picture(image=noise_picture(128, 128, 0))])]
        )
        for count in (10, 300)
    )
    assert long.width < short.width + 2 * 128
    ink_short, ink_long = ((np.asarray(sheet) != 255).any(-1).sum() for sheet in (short, long))
    per_letter = (ink_long - ink_short) / 290
    assert per_letter > 10  # every letter is drawn


def test_rows_must_fill_the_columns() -> None:
    with pytest.raises(ValueError, match="row 'sr4' has 1 pictures for 2 columns"):
        contact_sheet(["a", "b"], [SheetRow(label="sr4", pictures=[None])])
