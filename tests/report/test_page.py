"""The page, parsed as a browser would; plots, whose dots are looked for; contact sheets made of files."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmps_cli.errors import InputError
from dmps_cli.metrics.protocol import Protocol
from dmps_cli.report.drawing import svg
from dmps_cli.report.page import Section, html_page
from dmps_cli.report.plots import Chart, Series, charts, quality_chart, sweep_chart
from dmps_cli.report.sheets import Case, Shot, task_sheet
from dmps_cli.report.tables import TableRow

VOID = {"meta", "img", "input", "br", "link"}
EVIL = '<script src="https://evil.example/x.js">&amp;"\'.png'
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """Tags in order, whether they nest, the visible text of each cell, attributes of each tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data))

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def pictures(self) -> list[np.ndarray]:
        prefix = "data:image/jpeg;base64,"
        sources = [source for image in self.having("img") if (source := str(image["src"])).startswith(prefix)]
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(s.removeprefix(prefix))))) for s in sources]


def flat(colour: tuple[int, int, int], side: int = 48) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def case(tmp_path: Path, image: str = "a.png", task: str = "sr4") -> Case:
    folder = tmp_path / "restored"
    folder.mkdir(exist_ok=True)
    flat((0, 0, 250)).save(folder / "dmps.png")
    return Case(
        task=task,
        image=image,
        truth=Shot(picture=flat((250, 0, 0))),
        measurement=Shot(picture=flat((0, 250, 0), side=12)),
        restored={
            "dmps": Shot(picture=folder / "dmps.png", row={"psnr": 27.314, "lpips": 0.2}),
            "dps": Shot(picture=folder / "missing.png", row={"psnr": 1.0}),
        },
    )


ROWS: list[TableRow] = [
    {"task": "sr4", "method": "dmps", "sampler": "ddpm", "nfe": 20, "n": 4, "psnr": 24.0, "psnr_ci95": 0.5},
    {"task": "sr4", "method": "dps", "sampler": "ddpm", "nfe": 20, "n": 4, "psnr": 22.0, "psnr_ci95": 0.25},
    {"task": "sr4", "method": "dmps", "sampler": "ddpm", "nfe": 2000, "n": 4, "psnr": 26.0, "psnr_ci95": None},
    {"source": "paper, Table 1", "task": "sr4", "method": "dmps", "sampler": "ddpm", "nfe": 1000, "psnr": 99.0},
]


def test_page_nests_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    protocol = Protocol(metrics=("psnr",), lpips_net="alex", sigma_y=(0.05,), images=("a.png",))
    text = html_page(
        EVIL,
        [Section(title=EVIL, rows=[{**ROWS[0], "method": EVIL}, *ROWS[1:]])],
        notes=[protocol.line(), EVIL],
        cases=[case(tmp_path, image=EVIL, task=EVIL)],
        charts=[quality_chart([{**ROWS[0], "method": EVIL}], "psnr", "nfe", title=EVIL)],
        facts={"dataset": EVIL, "nan": math.nan},
    )
    parsed = Page(text)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "use", "image"}
    for _, attributes in parsed.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("srcset", "action", "background", "xlink:href", "href")
            assert name != "src" or str(value).startswith("data:")
    style = next(data for tag, data in parsed.texts if tag == "style")
    assert "url(" not in style and "@import" not in style
    shown = [data for _, data in parsed.texts]
    assert sum(EVIL in data for data in shown) >= 7  # title twice, headings, cell, note, image, legend, ...: as typed
    assert [image["alt"] for image in parsed.having("img") if "svg+xml" in str(image["src"])] == [EVIL]
    assert any(protocol.line() in data for data in shown)
    configuration = next(data for tag, data in parsed.texts if tag == "pre")
    assert json.loads(configuration) == {"dataset": EVIL, "nan": "nan"}


def test_page_shows_every_picture_and_its_scores(tmp_path: Path) -> None:
    parsed = Page(html_page("t", [], cases=[case(tmp_path)]))
    truth, measurement, restored = parsed.pictures()
    assert [p.shape[0] for p in (truth, measurement, restored)] == [48, 12, 48]
    for picture, colour in ((truth, (250, 0, 0)), (measurement, (0, 250, 0)), (restored, (0, 0, 250))):
        assert np.abs(picture.astype(int) - colour).max() <= 6  # JPEG
    cells = [data for tag, data in parsed.texts if tag == "td"]
    assert cells == ["PSNR 27.31 dB", "LPIPS 0.2000", "no picture"]
    assert [data for tag, data in parsed.texts if tag == "th"] == ["truth", "measurement", "dmps", "dps", "a.png"]
    assert all(box["type"] == "checkbox" for box in parsed.having("input"))  # the zoom works without a script


def test_page_marks_the_best_and_never_the_papers(tmp_path: Path) -> None:
    rows: list[TableRow] = [*ROWS[:3], {"task": "sr4", "method": "pgdm", "n": 4, "psnr": 1.0}, ROWS[3]]
    parsed = Page(html_page("t", [Section(title="Scores", rows=rows)]))
    assert [data for tag, data in parsed.texts if tag == "strong"] == ["26.00"]
    assert [data for tag, data in parsed.texts if tag == "span"] == ["24.00\xa0±\xa00.50"]
    assert [row.get("class") for row in parsed.having("tr")] == [None, None, None, None, None, "theirs"]


def noise_case(image: str, task: str, methods: int, rng: np.random.Generator) -> Case:
    def shot() -> Shot:
        smooth = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).resize((256, 256))
        return Shot(picture=smooth, row={"psnr": 20.0})

    restored = {f"m{k}": shot() for k in range(methods)}
    return Case(task=task, image=image, truth=shot(), measurement=shot(), restored=restored)


def test_a_page_that_would_be_too_large_says_what_it_leaves_out() -> None:
    rng = np.random.default_rng(0)
    cases = [noise_case(f"{k}.png", task, 2, rng) for task in ("sr4", "cs") for k in range(3)]
    full = Page(html_page("t", [], cases=cases))
    assert len(full.pictures()) == 24 and all(p.shape == (256, 256, 3) for p in full.pictures())
    limit = 150_000
    text = html_page("t", [], cases=cases, max_bytes=limit)
    small = Page(text)
    assert sum(len(str(image["src"])) for image in small.having("img")) <= limit
    rows = [data for tag, data in small.texts if tag == "th" and data.endswith(".png")]
    assert rows == ["0.png", "1.png", "0.png"]  # the first of both tasks before the second of one
    assert all(max(p.shape) == 128 for p in small.pictures())
    notes = " ".join(data for tag, data in small.texts if tag == "p")
    left_out = [int(count) for count in re.findall(r"(\d+) of 3 images left out", notes)]
    assert sum(left_out) == 6 - len(rows)


# --- Plots


def places(text: str, line: int = 0) -> list[tuple[float, float]]:
    """Where the points of a line stand, in units of the SVG."""
    path = ET.fromstring(text).find(f".//{SVG}g[@id='line-{line}']/{SVG}path")
    assert path is not None
    numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", str(path.get("d")))]
    return [*zip(numbers[::2], numbers[1::2], strict=True)]


def letters(text: str) -> list[str]:
    return [str(part.text) for part in ET.fromstring(text).iter(f"{SVG}text")]


def test_points_stand_where_a_logarithmic_axis_says() -> None:
    series = [Series(label="_a < $b$", points=[(1.0, 30.0), (10.0, 40.0), (100.0, 60.0)])]
    chart = Chart(title="x & y", x_label="seconds", y_label="PSNR dB", series=series, log_x=True)
    text = svg(chart)
    (x1, y1), (x2, y2), (x3, y3) = places(text)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=1e-3) and x2 > x1  # a decade is a decade
    assert y2 - y3 == pytest.approx(2 * (y1 - y2), abs=1e-3) and y1 > y2  # 20 dB are twice 10, upwards
    assert {"x & y", " _a < $b$", "seconds", "PSNR dB", "1", "10", "100"} <= {*letters(text)}


def test_equal_numbers_give_equal_bytes_whatever_matplotlib_was_told() -> None:
    import matplotlib as mpl

    chart = quality_chart(ROWS, "psnr", "nfe", title=f"{EVIL}\x1b\udcff")
    with mpl.rc_context({"font.size": 30.0, "svg.hashsalt": None}):
        first = svg(chart)
    assert first == svg(chart) and "date>" not in first
    assert f"{EVIL}\ufffd\ufffd" in letters(first)
    named = [(name, value) for part in ET.fromstring(first).iter() for name, value in part.attrib.items()]
    assert all(value.startswith("#") for name, value in named if name.endswith(("href", "src")))  # nothing of elsewhere


def test_intervals_are_bands_and_what_is_not_finite_is_left_out() -> None:
    points = [(0.0, 1.0), (2.0, math.nan), (4.0, 3.0)]
    chart = Chart(
        title="", x_label="", y_label="", series=[Series(label="s", points=points, intervals=[0.5, 1.0, 0.5])]
    )
    text = svg(chart)
    (_, low), (_, high) = places(text)
    scale = (low - high) / 2.0  # units of the SVG per unit of y
    band = ET.fromstring(text).find(f".//{SVG}g[@id='band-0']//{SVG}path")
    shift = ET.fromstring(text).find(f".//{SVG}g[@id='band-0']//{SVG}use")
    assert band is not None and shift is not None
    edges = [
        float(shift.get("y", "0")) + float(number) for number in re.findall(r"-?\d+\.?\d*", str(band.get("d")))[1::2]
    ]
    assert min(edges) == pytest.approx(high - scale / 2, abs=1e-3)
    assert max(edges) == pytest.approx(low + scale / 2, abs=1e-3)


def test_single_points_make_no_plot() -> None:
    assert charts(ROWS[:2], ["psnr"]) == {}
    assert [*charts(ROWS, ["psnr"])] == ["sr4_psnr_nfe"]


def test_without_matplotlib_the_rest_is_there_and_the_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(html_page("t", [], charts=[quality_chart(ROWS, "psnr", "nfe")]))
    said = "plots are left out: they need matplotlib, pip install 'dmps-cli[plots]'"
    assert said in [data for _, data in page.texts] and not page.having("img")
    with pytest.raises(InputError, match="pip install"):
        svg(quality_chart(ROWS, "psnr", "nfe"))


def test_lines_per_method_without_the_paper() -> None:
    chart = quality_chart(ROWS, "psnr", "nfe")
    assert [(series.label, [*series.points]) for series in chart.series] == [
        ("dmps", [(20.0, 24.0), (2000.0, 26.0)]),
        ("dps", [(20.0, 22.0)]),
    ]
    assert chart.log_x and chart.y_label == "PSNR dB ↑"
    assert [series.intervals for series in chart.series] == [[0.5, None], [0.25]]


def test_settings_that_compete_at_equal_evaluations_get_lines_of_their_own() -> None:
    rows: list[TableRow] = [
        {
            "task": "sr4",
            "method": "dmps",
            "sampler": sampler,
            "nfe": nfe,
            "lambda": weight,
            "zeta": nfe / 7,
            "psnr": nfe,
        }
        for sampler, nfe in (("ddpm", 20), ("ddpm", 50), ("flow", 30))
        for weight in (1.0, 1.75)
    ]
    labels = [series.label for series in quality_chart(rows, "psnr", "nfe").series]
    assert labels == [
        "dmps, ddpm, lambda 1",
        "dmps, ddpm, lambda 1.75",
        "dmps, flow, lambda 1",
        "dmps, flow, lambda 1.75",
    ]


def test_seconds_run_in_the_order_of_evaluations() -> None:
    rows: list[TableRow] = [
        {"method": "dmps", "nfe": nfe, "seconds": s, "psnr": p} for nfe, s, p in ((50, 2.0, 3.0), (20, 4.0, 1.0))
    ]
    (series,) = quality_chart(rows, "psnr", "seconds").series
    assert series.points == [(4.0, 1.0), (2.0, 3.0)]


def test_sweep_has_a_line_per_noise_and_number_of_evaluations() -> None:
    rows: list[TableRow] = [
        {"task": "sr4", "method": "dmps", "nfe": nfe, "sigma_y": sigma, "lambda": weight, "psnr": 20 + weight - sigma}
        for weight in (2.0, 1.0)
        for sigma in (0.05, 0.5)
        for nfe in (20, 50)
    ]
    chart = sweep_chart(rows, "psnr")
    assert [series.label for series in chart.series] == [
        f"sigma_y {sigma}, NFE {nfe}" for sigma in (0.05, 0.5) for nfe in (20, 50)
    ]
    assert [*chart.series[0].points] == [(1.0, 20.95), (2.0, 21.95)]
    stems = [*charts(rows, ["psnr"])]
    assert stems == ["sr4_0.05_psnr_nfe", "sr4_0.5_psnr_nfe", "sr4_psnr_sigma_y", "sr4_psnr_lambda"]
    assert "sr4_psnr_lambda" not in charts([row for row in rows if row["lambda"] == 1.0], ["psnr"])


def test_quality_is_drawn_against_evaluations_and_against_seconds() -> None:
    timed: list[TableRow] = [{**row, "seconds": 1.0} for row in ROWS]
    assert [*charts(timed, ["psnr"])] == ["sr4_psnr_nfe", "sr4_psnr_seconds"]


def test_page_explains_only_what_it_shows() -> None:
    bare: list[TableRow] = [
        {"task": "sr4", "method": m, "nfe": 2, "n": 1, "psnr": p} for m, p in (("a", 1.0), ("b", 2.0))
    ]

    def notes(rows: list[TableRow]) -> str:
        page = html_page("t", [Section(title="t", rows=rows)], charts=[quality_chart(rows, "psnr", "nfe")])
        return " ".join(data for tag, data in Page(page).texts if tag == "p")

    assert "bands" not in notes(bare[:1]) and "bold" not in notes(bare[:1]) and "±" not in notes(bare)
    assert "bold: the best" in notes(bare) and "underlined" not in notes(bare)
    assert "bands" in notes(ROWS) and "underlined: the second best" in notes(ROWS[:3])


# --- Contact sheets of files


def test_task_sheet_takes_pictures_from_files_and_leaves_gaps(tmp_path: Path) -> None:
    sheet = np.asarray(task_sheet([case(tmp_path)], cell=48))

    def columns_of(colour: tuple[int, int, int]) -> Any:
        return np.flatnonzero((sheet == colour).all(-1).sum(0) >= 48)

    red, green, blue = (columns_of(colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250)))
    assert [len(found) for found in (red, green, blue)] == [48, 48, 48]  # the measurement is enlarged
    assert red[-1] < green[0] and green[-1] < blue[0]
    right = sheet[:, blue[-1] + 3 :]
    top = np.flatnonzero((sheet == (0, 0, 250)).all(-1).any(1))[0]
    assert (right[top : top + 48, :48] == 255).all()  # dps: no file, an empty cell
