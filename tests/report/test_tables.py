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
from scipy import stats

from dmps_cli.cli.columns import console_table
from dmps_cli.cli.tables import console_report, console_text, fitted_table
from dmps_cli.metrics.protocol import Protocol
from dmps_cli.report.latex import latex
from dmps_cli.report.paper import beside_paper, paper_notes, paper_rows, paper_seconds, paper_seconds_notes
from dmps_cli.report.settings import compact
from dmps_cli.report.sheets import SheetCell, SheetRow, contact_sheet, score_caption
from dmps_cli.report.statistics import student_t, summaries
from dmps_cli.report.tables import (
    CI,
    STD,
    TableRow,
    best,
    cell_notes,
    column_names,
    csv_text,
    json_text,
    markdown,
    means,
    ranks,
)
from dmps_cli.report.writers import table_files

ROWS: list[TableRow] = [
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
    rows: list[TableRow] = [
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
    rows: list[TableRow] = [
        {"task": "sr4", "psnr": 27.0, "ssim": 0.80, "lpips": 0.3},
        {"task": "sr4", "psnr": 26.0, "ssim": 0.81, "lpips": 0.2},
        {"task": "deblur", "psnr": 10.0, "ssim": 0.1, "lpips": 0.9},  # no rival
    ]
    assert best(rows, ["task"]) == {(0, "psnr"), (1, "ssim"), (1, "lpips")}
    assert best(rows, []) == {(0, "psnr"), (1, "ssim"), (1, "lpips")}


def test_what_looks_equal_is_equally_good() -> None:
    rows: list[TableRow] = [{"psnr": 27.312}, {"psnr": 27.3149}, {"psnr": 27.30}]
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
    rows: list[TableRow] = [{"image": 'a,"b"\n.png', "psnr": 1.5}, {"image": "c.png", "note": "new"}]
    back = list(csv.reader(io.StringIO(csv_text(rows), newline="")))
    assert back == [["image", "psnr", "note"], ['a,"b"\n.png', "1.5", ""], ["c.png", "", "new"]]


def test_json_is_strict_and_in_full() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    rows: list[TableRow] = [*ROWS, {"task": "é", "psnr": math.inf, "ssim": -math.inf, "lpips": math.nan}]
    back = json.loads(json_text({"rows": rows, "nested": {"pair": (1, 0.1)}}), parse_constant=refuse)
    assert back["rows"][:3] == ROWS
    assert back["rows"][3] == {"task": "é", "psnr": "inf", "ssim": "-inf", "lpips": "nan"}
    assert float(back["rows"][3]["psnr"]) == math.inf
    assert back["nested"] == {"pair": [1, 0.1]}


def test_json_of_a_name_that_is_no_utf8_is_json() -> None:
    name = b"\xff.png".decode(errors="surrogateescape")
    assert json.loads(json_text({"image": name}).encode())["image"] == name
    assert json_text({"image": "é.png"}).encode() == b'{\n "image": "\xc3\xa9.png"\n}'


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


def test_a_pipe_gets_100_columns_and_every_number_whatever_columns_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    rows: list[TableRow] = [{"image": "x" * 300 + f"{k}.png", "psnr": 20 + k / 7, "seed": 10**12 + k} for k in range(3)]
    text = console_text(console_table(rows, title="One"), Stream(is_terminal=False))
    assert text.splitlines()[0] == "One"
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("x") == 3 * 300
    for k in range(3):
        assert f"{20 + k / 7:.2f}" in text.split() and f"{10**12 + k}" in text.split() and f"{k}.png" in text


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


def swept(count: int) -> list[TableRow]:
    """A posterior sweep with intervals, seven columns of them."""
    names = ("psnr", "ssim", "lpips", "psnr_of_mean", "std", "coverage", "seconds")
    numbers = {name: k + 1.5 for k, name in enumerate(names)}
    spreads = {name + end: value / part for name, value in numbers.items() for end, part in ((STD, 3), (CI, 7))}
    about: TableRow = {"task": "inpaint", "method": "dmps-tweedie", "nfe": 20, "n": 4}
    return [{**about, "lambda": k + 0.5, **numbers, **spreads} for k in range(count)]


@pytest.mark.parametrize("width", [80, 100, 130, 300])
def test_a_wide_table_fits_a_terminal_and_loses_nothing(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    text = re.sub(r"\x1b\[[0-9;]*m", "", fitted_table(swept(3), Stream(is_terminal=True), best_within=["task"]))
    assert max(map(len, text.splitlines())) <= width
    whole = fitted_table(swept(3), Stream(is_terminal=False), best_within=["task"])

    def numbers(shown: str) -> list[str]:
        body = shown.split("─\n")[1].partition("all rows")[0]
        return sorted(re.findall(r"\d+\.\d+", body))

    assert numbers(text) == numbers(whole) and len(numbers(whole)) >= 3 * 21
    assert ("all rows: task inpaint, method dmps-tweedie, nfe 20, n 4" in text) == (width < 300)
    assert "dmps-tweedie" in text


def test_a_pipe_is_laid_out_as_a_terminal_of_100_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", fitted_table(swept(3), Stream(is_terminal=True)))
    monkeypatch.setenv("COLUMNS", "40")
    piped = fitted_table(swept(3), Stream(is_terminal=False))
    assert [line.rstrip() for line in shown.splitlines()] == piped.splitlines()


def test_numbers_stand_below_each_other() -> None:
    text = console_text(console_table(ROWS, best_within=["task"]), Stream(is_terminal=False))
    points = {line.index(".") for line in text.splitlines()[-3:]}  # the first number with a point is the PSNR
    assert len(points) == 1
    assert "deblur [bold]|9" in text  # not taken for markup


def test_caption() -> None:
    row: TableRow = {"psnr": 27.314, "ssim": 0.9, "lpips": 0.12346, "seconds": 3.0}
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
            label="sr4", note="a.png", pictures=[SheetCell(image=truth), SheetCell(image=small, caption="PSNR 19 dB")]
        ),
        SheetRow(label="colorize", note="b.png", pictures=[SheetCell(image=wide), SheetCell(image=grey, caption="x")]),
        SheetRow(label="denoise", pictures=[None, SheetCell(image=truth)]),
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
    rows = [SheetRow(label="sr4", note="a.png", pictures=[SheetCell(image=picture, caption="PSNR 19 dB")])]
    sheet = contact_sheet(["truth"], rows, footnote="note")
    ((left, top),) = find(sheet, np.asarray(picture))
    ink = (np.asarray(sheet) != 255).any(-1)
    assert ink[: top - 1, left : left + 128].any()  # column label above
    assert ink[top : top + 128, : left - 1].any()  # row label to the left
    assert ink[top + 129 : top + 150, left : left + 128].any()  # caption below
    assert ink[top + 150 :].any()  # footnote at the foot


def test_without_texts_there_is_nothing_but_the_picture_and_its_hairline() -> None:
    picture = noise_picture(128, 128, 0)
    sheet = contact_sheet([""], [SheetRow(label="", pictures=[SheetCell(image=picture)])])
    ((left, top),) = find(sheet, np.asarray(picture))
    ink = (np.asarray(sheet) != 255).any(-1)
    ink[top - 1 : top + 129, left - 1 : left + 129] = False
    assert not ink.any()


def test_cell_scales_the_sheet_down() -> None:
    picture = Image.new("RGB", (512, 256), (10, 20, 30))
    sheet = np.asarray(contact_sheet(["a"], [SheetRow(label="", pictures=[SheetCell(image=picture)])], cell=128))
    assert (sheet == (10, 20, 30)).all(-1).sum() == 128 * 64


def test_a_long_name_is_broken_not_cut() -> None:
    short, long = (
        contact_sheet(
            ["a"], [SheetRow(label="sr4", note="n" * count, pictures=[SheetCell(image=noise_picture(128, 128, 0))])]
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


def test_many_columns_go_on_below_in_places_of_equal_distance() -> None:
    pictures = [noise_picture(128, 128, seed) for seed in range(14)]
    shown = [SheetCell(image=p, caption="PSNR 27.31 dB  LPIPS 0.1234" * (k % 2)) for k, p in enumerate(pictures)]
    sheet = contact_sheet([f"dmps, NFE {k}, lambda 1.75" for k in range(14)], [SheetRow(label="sr4", pictures=shown)])
    places = [place for picture in pictures for place in find(sheet, np.asarray(picture))]
    assert len(places) == 14
    lefts, tops = ([place[axis] for place in places] for axis in (0, 1))
    assert lefts[:7] == lefts[7:] and len(set(np.diff(lefts[:7]))) == 1
    assert lefts[1] - lefts[0] < 140  # what stands above and below is broken, not the columns pushed apart
    assert len(set(tops[:7])) == len(set(tops[7:])) == 1 and tops[7] > tops[0] + 128


# --- Statistics


def test_student_t_is_that_of_the_printed_tables() -> None:
    """Abramowitz & Stegun, Table 26.10, A(t | nu) = 0.9, 0.95 and 0.99."""
    printed = {
        1: (6.314, 12.706, 63.657),
        2: (2.920, 4.303, 9.925),
        5: (2.015, 2.571, 4.032),
        30: (1.697, 2.042, 2.750),
    }
    for degrees, row in printed.items():
        found = [student_t(degrees, confidence) for confidence in (0.90, 0.95, 0.99)]
        assert found == pytest.approx(row, abs=6e-4)
    assert student_t(1, 0.5) == pytest.approx(1.0, rel=1e-14)  # of the Cauchy distribution: tan(pi / 4)
    assert student_t(10**6) == pytest.approx(1.959964, abs=1e-5)  # the normal distribution's


def test_student_t_refuses_what_has_no_quantile() -> None:
    for degrees, confidence in ((0, 0.95), (3, 1.0), (3, 0.0)):
        with pytest.raises(ValueError, match=f"degrees is {degrees}"):
            student_t(degrees, confidence)


def test_summaries_are_numpys_and_scipys() -> None:
    values = np.random.default_rng(0).normal(27.0, 2.0, 13)
    rows: list[TableRow] = [{"task": "sr4", "image": f"{k}.png", "psnr": float(v)} for k, v in enumerate(values)]
    (summary,) = summaries(rows, ["task"], ["psnr"])
    low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    assert summary["n"] == 13
    assert summary["psnr"] == pytest.approx(values.mean(), rel=1e-14)
    assert summary["psnr_std"] == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert summary["psnr_ci95"] == pytest.approx((high - low) / 2, rel=1e-10)


def test_samples_of_one_image_count_once() -> None:
    rows: list[TableRow] = [
        {"image": name, "seed": seed, "psnr": value + seed}
        for name, value in (("a.png", 20.0), ("b.png", 24.0))
        for seed in (-1, 0, 1)
    ]
    (summary,) = summaries(rows, [], ["psnr"])
    assert (summary["n"], summary["psnr"]) == (2, 22.0)
    assert summary["psnr_std"] == pytest.approx(math.sqrt(8))


def test_an_interval_needs_three_images() -> None:
    """t is 12.7 at one degree of freedom, 4.3027 at two."""
    rows: list[TableRow] = [{"image": f"{k}.png", "psnr": 20.0 + k} for k in range(3)]
    (two,), (three,) = (summaries(rows[:count], [], ["psnr"]) for count in (2, 3))
    assert two == {"n": 2, "psnr": 20.5, "psnr_std": pytest.approx(math.sqrt(0.5)), "psnr_ci95": None}
    assert three["psnr_ci95"] == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert "±" not in markdown([two]) and "±" in markdown([three])
    assert cell_notes([two]) == ["mean (standard deviation); two images say nothing of an interval"]
    assert cell_notes([three]) == ["mean ± half the 95 % interval of the mean (standard deviation)"]
    assert cell_notes([{"n": 1, "psnr": 20.5, "psnr_std": None}]) == []


def test_one_image_has_no_spread_and_a_missing_value_no_mean() -> None:
    assert summaries([{"image": "a", "psnr": 20.0}], [], ["psnr", "lpips"]) == [
        {
            "n": 1,
            "psnr": 20.0,
            "psnr_std": None,
            "psnr_ci95": None,
            "lpips": None,
            "lpips_std": None,
            "lpips_ci95": None,
        }
    ]


# --- Ranks

RANKED: list[TableRow] = [
    {"task": "sr4", "method": "a_b", "n": 4, "psnr": 27.0, "lpips": 0.30, "psnr_std": 1.05, "psnr_ci95": 0.5},
    {"task": "sr4", "method": "c&d", "n": 4, "psnr": 28.0, "lpips": 0.20, "psnr_std": 1.0, "psnr_ci95": 10.5},
    {"task": "sr4", "method": "e", "n": 4, "psnr": 26.0, "lpips": 0.25, "psnr_std": None, "psnr_ci95": None},
    {"task": "sr4", "method": "f", "n": 3, "psnr": 40.0, "lpips": 0.01},  # over other images
    {"source": "paper, Table 1", "task": "sr4", "method": "dmps", "n": 4, "psnr": 50.0, "lpips": 0.001},
    {"task": "cs", "method": "a_b", "n": 4, "psnr": 20.0, "lpips": 0.5},  # no rival
    {"task": "denoise", "method": "a_b", "n": 4, "psnr": 20.0, "lpips": 0.5},
    {"task": "denoise", "method": "e", "n": 4, "psnr": 21.0, "lpips": None},  # two: no second best
]


def test_first_and_second_among_rivals_only() -> None:
    assert ranks(RANKED) == {
        (0, "psnr"): 2,
        (1, "psnr"): 1,
        (1, "lpips"): 1,
        (2, "lpips"): 2,
        (7, "psnr"): 1,
    }


def test_no_second_behind_two_that_are_best() -> None:
    rows: list[TableRow] = [{"psnr": 27.312}, {"psnr": 27.3149}, {"psnr": 27.30}, {"psnr": 27.29}]
    assert ranks(rows) == {(0, "psnr"): 1, (1, "psnr"): 1}
    assert ranks(rows[1:]) == {(0, "psnr"): 1, (1, "psnr"): 2}


def test_markdown_marks_first_and_second_with_their_intervals() -> None:
    lines = markdown(RANKED, best_within=["task", "n"]).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == ["task", "method", "n", "PSNR dB ↑", "LPIPS ↓", "source"]
    assert [row[3] for row in cells[2:]] == [
        "<u>27.00 ± 0.50 (1.05)</u>",
        "**28.00 ± 10.50 (1.00)**",
        "26.00",
        "40.00",
        "50.00",
        "20.00",
        "20.00",
        "**21.00**",
    ]
    assert cells[6][5] == "paper, Table 1"


def test_console_puts_means_intervals_and_deviations_below_their_like() -> None:
    text = console_text(console_table(RANKED, best_within=["task", "n"]), Stream(is_terminal=False))
    body = text.splitlines()[-8:]
    assert "*28.00 ± 10.50 (1.00)" in body[1] and "27.00 ±  0.50 (1.05)" in body[0]
    assert body[0].index("27.00") == body[1].index("28.00") == body[2].index("26.00")


# --- LaTeX


def latex_cells(text: str) -> list[list[str]]:
    """Cells of the tabular, markup kept. Checks that braces, maths and environments are balanced and all is escaped."""
    depth = 0
    for token in re.findall(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
    assert depth == 0
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text) == ["tabular"]
    body = text.split("\\toprule\n")[1].split("\\bottomrule", maxsplit=1)[0]
    shape = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert shape
    lines = [line for line in body.splitlines() if line != r"\midrule"]
    assert all(line.endswith(r" \\") for line in lines)
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))] for line in lines]
    assert {len(row) for row in cells} == {len(shape[1])}
    for cell in (cell for row in cells for cell in row):
        assert not re.search(r"(?<!\\)[%#_^~]", cell.replace("\\textasciitilde", "").replace("\\textasciicircum", ""))
    return cells


def test_latex_is_balanced_escaped_and_marked() -> None:
    text = latex(RANKED, best_within=["task", "n"], notes=["100 % of_a {b} \\ ~ ^ # $ < >"])
    cells = latex_cells(text)
    assert cells[0] == ["task", "method", "n", r"PSNR dB $\uparrow$", r"LPIPS $\downarrow$", "source"]
    assert cells[1] == ["sr4", r"a\_b", "4", r"\underline{27.00 $\pm$ 0.50 (1.05)}", "0.3000", ""]
    assert cells[2][1:5] == [r"c\&d", "4", r"\textbf{28.00 $\pm$ 10.50 (1.00)}", r"\textbf{0.2000}"]
    assert cells[5][3] == "50.00"
    assert text.count(r"\midrule") == 3  # under the heading, between three tasks
    note = r"100 \% of\_a \{b\} \textbackslash{} \textasciitilde{} \textasciicircum{} \# \$ $<$ $>$"
    assert note in text


# --- The paper's figures, typed from SPEC section 7

FFHQ = """
dmps 27.63 .8450 .2071  27.26 .7644 .2222  21.09 .9592 .2738  27.81 .8777 .2435
dps  26.78 .8391 .2329  26.50 .8151 .2248  11.53 .7923 .5755  27.22 .8969 .2428
pgdm 27.60 .8345 .2077  26.65 .7458 .2196  12.15 .8920 .3969  27.60 .8682 .2425
"""
CELEBA = """
dmps   28.29 .8011 .2329  26.21 .7235 .2637  23.31 .8861 .2901  29.04 .8166 .2821
dps    28.05 .7754 .2266  22.64 .5787 .3403  20.92 .8061 .3335  27.93 .7465 .2882
ot-ode 27.71 .7657 .2302  25.84 .7084 .2573  21.67 .8696 .3094  22.76 .3820 .4778
"""


@pytest.mark.parametrize(
    ("table", "sampler", "nfe", "blur"), [(FFHQ, "ddpm", 1000, "deblur"), (CELEBA, "flow", 50, "deblur-gauss")]
)
def test_the_papers_quality_is_the_papers(table: str, sampler: str, nfe: int, blur: str) -> None:
    tasks = ["sr4", blur, "colorize", "denoise"]
    rows = {(row["task"], row["method"]): row for row in paper_rows(tasks, [sampler], "vgg")}
    lines = [line.split() for line in table.split("\n") if line]
    assert len(rows) == 12
    for method, *numbers in lines:
        for k, task in enumerate(tasks):
            row = rows[task, {"dmps": "dmps (x_t)", "dps": "dps (authors)"}.get(method, method)]
            assert [row["psnr"], row["ssim"], row["lpips"]] == [*map(float, numbers[3 * k : 3 * k + 3])]
            assert (row["nfe"], row["sampler"], row["sigma_y"]) == (nfe, sampler, 0.5 if task == "denoise" else 0.05)


def test_the_papers_seconds_are_the_papers() -> None:
    rows = {(row["sampler"], row["method"]): row for row in paper_seconds(["ddpm", "flow"])}
    expected = {"dmps (x_t)": 67.02, "dps (authors)": 194.42, "pgdm": 182.35}
    assert {method: row["seconds"] for (sampler, method), row in rows.items() if sampler == "ddpm"} == expected
    expected = {"dmps (x_t)": 4.45, "dps (authors)": 8.04, "ot-ode": 6.44}
    assert {method: row["seconds"] for (sampler, method), row in rows.items() if sampler == "flow"} == expected
    assert rows["ddpm", "dps (authors)"]["ratio"] == pytest.approx(2.9, abs=0.01)  # SPEC: 2.9
    assert {row["source"] for row in rows.values()} == {"paper"}


def test_beside_the_paper_only_where_it_has_the_task_and_the_levels() -> None:
    ours: list[TableRow] = [
        {"task": "sr4", "method": "dmps", "sampler": "ddpm", "nfe": 20, "psnr": 24.0, "lpips": 0.3, "seconds": 1.0},
        {"task": "inpaint", "method": "dmps", "sampler": "ddpm", "nfe": 20, "psnr": 20.0, "lpips": 0.4, "seconds": 1.0},
        {"task": "deblur", "method": "dmps", "sampler": "flow", "nfe": 20, "psnr": 23.0, "lpips": 0.5, "seconds": 1.0},
        {"task": "sr4", "method": "dps", "sampler": "ddpm", "nfe": 20, "psnr": 23.0, "lpips": 0.4, "seconds": 2.0},
    ]
    rows = beside_paper(ours, "alex")
    assert [(row["task"], row["method"], bool(row["source"])) for row in rows] == [
        ("sr4", "dmps", False),
        ("sr4", "dps", False),
        ("sr4", "dmps (x_t)", True),
        ("sr4", "dps (authors)", True),
        ("sr4", "pgdm", True),
        ("inpaint", "dmps", False),
        ("deblur", "dmps", False),  # on flow levels the paper's blur is another
    ]
    assert [row["psnr"] for row in rows] == [24.0, 23.0, 27.63, 26.78, 27.60, 20.0, 23.0]
    assert [row["lpips"] for row in rows[2:5]] == [None, None, None]
    assert set(ranks(rows)) == {(0, "psnr"), (0, "lpips")}
    vgg = beside_paper(ours, "vgg")
    assert [row["lpips"] for row in vgg[2:5]] == [0.2071, 0.2329, 0.2077]
    assert "VGG" in " ".join(paper_notes(rows, "alex")) and "VGG" not in " ".join(paper_notes(vgg, "vgg"))
    assert not any("not the one that the paper states" in note for note in paper_notes(rows, "alex"))
    blurred = beside_paper([{"task": "deblur", "sampler": "ddpm", "psnr": 1.0}], "vgg")
    assert any("not the one that the paper states" in note for note in paper_notes(blurred, "vgg"))
    assert paper_notes(ours, "alex") == []


def paper_setting(task: str, sampler: str, **others: Any) -> TableRow:
    """Our row at the paper's own setting (SPEC section 7), but for the others."""
    weight, nfe = (1.75, 1000) if sampler == "ddpm" else (2.0, 50)
    setting = {"spacing": "uniform", "lambda": weight, "score_at": "x_t", "cap": "none"}
    return {"task": task, "method": "dmps (x_t)", "sampler": sampler, "nfe": nfe, "sigma_y": 0.05, **setting, **others}


def notes_on(*rows: TableRow, operators: dict[str, Any] | None = None, side: int | None = None) -> list[str]:
    return paper_notes(beside_paper(rows, "vgg"), "vgg", operators=operators, side=side)


def test_what_the_paper_has_not_is_said() -> None:
    rows = [paper_setting("inpaint", "ddpm"), paper_setting("deblur", "flow"), paper_setting("inpaint", "flow")]
    assert notes_on(*rows) == ["the paper has no rows for inpaint, deblur on flow levels"]
    assert notes_on(rows[0], paper_setting("sr4", "ddpm"))[0] == "the paper has no rows for inpaint"
    assert "source" not in compact(beside_paper(rows, "vgg"))[0]


def test_other_conditions_than_the_papers_are_said() -> None:
    (source,) = notes_on(paper_setting("sr4", "ddpm"), operators={"sr4": {"scale": 4, "svd_cutoff": 0.0}}, side=256)
    assert source.startswith("paper, Table 1")
    for row, side in ((paper_setting("sr4", "flow"), None), (paper_setting("denoise", "flow", sigma_y=0.5), 256)):
        assert len(notes_on(row, side=side)) == 1
    both = [paper_setting(task, "ddpm", sigma_y=0.1, nfe=15) for task in ("sr4", "colorize")]
    assert notes_on(*both, side=64)[1:] == [
        "the paper's sr4, colorize rows on ddpm levels are at sigma_y 0.05, NFE 1000, 256 x 256; "
        "ours at sigma_y 0.1, NFE 15, 64 x 64"
    ]
    sweep = [paper_setting("sr4", "flow", nfe=nfe) for nfe in (20, 50)]
    assert notes_on(*sweep)[1:] == ["the paper's sr4 rows on flow levels are at NFE 50; ours at NFE 20 and 50"]
    wide = notes_on(paper_setting("deblur", "ddpm"), operators={"deblur": {"width": 5, "boundary": "zero"}})
    assert "the paper's deblur rows on ddpm levels are at width 9; ours at width 5" in wide


def test_another_preset_than_the_papers_is_said() -> None:
    row = paper_setting("sr4", "flow", cap=1.0)
    assert notes_on(row, {**row, "method": "ddrm"})[1:] == ["dmps (x_t) on flow levels has cap 1 (paper: none)"]
    at_x0 = {**row, "method": "dmps (x0)", "score_at": "x0", "lambda": None, "cap": None, "variance_factor": 3.0}
    assert notes_on(at_x0)[1:] == ["dmps (x0) on flow levels has score_at x0 (paper: x_t)"]


def test_the_papers_seconds_are_of_super_resolution() -> None:
    said = "the paper's seconds are those of its Figure 3, of sr4 on one V100"
    assert paper_seconds_notes("sr4") == [said]
    assert paper_seconds_notes("inpaint") == [f"{said}; ours are of inpaint"]


# --- The files of a run


def test_every_file_names_the_protocol() -> None:
    protocol = Protocol(metrics=("psnr",), lpips_net="alex", sigma_y=(0.05,), images=("a_1.png", "b.png"))
    rows: list[TableRow] = [
        {"task": "sr4", "method": "dmps", "image": name, "psnr": p} for name, p in (("a", 1.0), ("b", 2.0))
    ]
    summary = summaries(rows, ["task", "method"], ["psnr"])
    files = table_files(rows, summary, protocol, {"seed": 3}, notes=["one of_mine"])
    assert protocol.line() in files["table.md"] and "one of_mine." in files["table.md"]
    assert "one of\\_mine" in files["table.tex"] and "sigma\\_y 0.05" in files["table.tex"]
    latex_cells(files["table.tex"])
    for name in ("rows.csv", "means.csv"):
        back = list(csv.DictReader(files[name].splitlines()))
        assert [float(row["psnr"]) for row in back] == ([1.0, 2.0] if name == "rows.csv" else [1.5])
    beside = json.loads(files["protocol.json"])
    assert beside == {"line": protocol.line(), **json.loads(json.dumps(protocol.as_dict())), "notes": ["one of_mine"]}
    content = json.loads(files["results.json"])
    assert content["protocol"]["images_sha256"] == protocol.as_dict()["images_sha256"] and content["seed"] == 3
    assert (content["rows"], content["means"], content["paper"]) == (rows, summary, [])
    shown = console_report(summary, protocol, Stream(is_terminal=False))
    assert shown.splitlines()[-1] == protocol.line() and "1.50 (0.71)" in shown
