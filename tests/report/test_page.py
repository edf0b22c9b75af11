"""The page, parsed as a browser would; plots, whose dots are looked for; contact sheets made of files."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmps_cli.metrics.protocol import Protocol
from dmps_cli.report.page import Section, html_page
from dmps_cli.report.plots import Chart, Series, charts, quality_chart, scales, svg, sweep_chart
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
        sources = [str(image["src"]) for image in self.having("img")]
        prefix = "data:image/jpeg;base64,"
        assert all(source.startswith(prefix) for source in sources)
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
    assert sum(EVIL in data for data in shown) >= 8  # title twice, headings, cell, note, image, legend, ...: as typed
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


def dots(text: str) -> list[tuple[float, float, str]]:
    root = ET.fromstring(text)
    found = root.findall(f".//{SVG}circle[{SVG}title]")  # not those of the legend
    return [(float(c.get("cx", "")), float(c.get("cy", "")), c.get("fill", "")) for c in found]


def tick_places(text: str) -> dict[str, tuple[float, float]]:
    return {str(t.text): (float(t.get("x", "")), float(t.get("y", ""))) for t in ET.fromstring(text).iter(f"{SVG}text")}


def test_dots_stand_where_the_axes_say() -> None:
    chart = Chart(
        title="a < b",
        x_label="seconds",
        y_label="PSNR dB",
        series=[Series(label="one", points=[(1.0, 30.0), (10.0, 40.0), (100.0, 50.0)])],
        log_x=True,
    )
    text = svg(chart)
    (x1, y1, _), (x2, y2, _), (x3, y3, _) = dots(text)
    places = tick_places(text)
    assert (x1, x3) == pytest.approx((places["1"][0], places["100"][0]), abs=0.011)
    assert (y1, y2) == pytest.approx((places["30"][1] - 4, places["40"][1] - 4), abs=0.011)  # 4 px: half a letter
    # 420 x 280 px, 1/20 of room: decades are 420 / 2.2 apart, 10 dB are 280 / 2.2 apart, upwards
    assert (x1, x2 - x1, x3 - x2) == pytest.approx((64 + 420 / 22, 420 / 2.2, 420 / 2.2), abs=0.011)
    assert (y1, y2 - y1, y3 - y2) == pytest.approx((34 + 280 - 280 / 22, -280 / 2.2, -280 / 2.2), abs=0.011)
    line = ET.fromstring(text).find(f".//{SVG}polyline")
    assert line is not None
    assert line.get("points") == f"{x1:.2f},{y1:.2f} {x2:.2f},{y2:.2f} {x3:.2f},{y3:.2f}"
    assert "a < b" in places


def test_linear_axis_and_error_bars() -> None:
    series = Series(label="s", points=[(0.0, 1.0), (4.0, 3.0), (2.0, math.nan)], intervals=[None, 2.0])
    chart = Chart(title="", x_label="lambda", y_label="y", series=[series])
    x, y = scales(chart)
    assert (x.low, x.high, y.low, y.high) == pytest.approx((-0.2, 4.2, 0.8, 5.2))  # room for the bar too
    text = svg(chart)
    (first, second) = [(cx, cy) for cx, cy, _ in dots(text)]  # none for NaN
    assert first == pytest.approx((x.at(0), y.at(1)), abs=0.01)
    assert second == pytest.approx((x.at(4), y.at(3)), abs=0.01)
    strokes = [line for line in ET.fromstring(text).iter(f"{SVG}line") if line.get("stroke-width")]
    ((low, high),) = [
        (float(bar.get("y1", "")), float(bar.get("y2", ""))) for bar in strokes if bar.get("x1") == bar.get("x2")
    ]
    assert (low, high) == pytest.approx((y.at(1.0), y.at(5.0)), abs=0.01)


def test_a_chart_of_nothing_and_of_one_point() -> None:
    assert dots(svg(Chart(title="", x_label="", y_label="", series=[]))) == []
    ((x, y, _),) = dots(
        svg(Chart(title="", x_label="", y_label="", log_x=True, series=[Series(label="", points=[(3, 7)])]))
    )
    assert (x, y) == pytest.approx((64 + 210, 34 + 140), abs=0.01)  # the middle of the plane


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


@pytest.mark.parametrize("values", [(2.1, 2.9), (0.0393, 0.0437), (6.0, 9.0), (3.0, 3.0), (0.011, 40.0), (1.0, 1e5)])
@pytest.mark.parametrize("log_x", [True, False])
def test_every_axis_has_two_labels(values: tuple[float, float], log_x: bool) -> None:
    chart = Chart(title="", x_label="", y_label="", series=[Series(label="", points=[(v, v) for v in values])])
    texts = [*ET.fromstring(svg(replace(chart, log_x=log_x))).iter(f"{SVG}text")]
    for anchor in ("middle", "end"):
        labels = [t.text for t in texts if t.get("text-anchor") == anchor and t.text]
        assert len({float(str(label)) for label in labels}) >= 2


def test_equal_points_are_all_seen() -> None:
    """The later markers are drawn over the earlier ones: rings, each wider than those below."""
    series = [Series(label=name, points=[(1.0, 2.0)]) for name in "abcd"]
    root = ET.fromstring(svg(Chart(title="", x_label="", y_label="", series=series)))
    drawn = root.findall(f".//{SVG}circle[{SVG}title]")
    assert len({(c.get("cx"), c.get("cy")) for c in drawn}) == 1
    radii = [float(c.get("r", "")) for c in drawn]
    assert all(wider - radius >= 2 for radius, wider in itertools.pairwise(radii))
    assert [c.get("fill-opacity") for c in drawn] == ["1", "0", "0", "0"]


def test_quality_is_drawn_against_evaluations_and_against_seconds() -> None:
    assert [*charts([row for row in ROWS if row["nfe"] == 20], ["psnr"])] == ["sr4_psnr_nfe"]
    timed: list[TableRow] = [{**row, "seconds": 1.0} for row in ROWS]
    assert [*charts(timed, ["psnr"])] == ["sr4_psnr_nfe", "sr4_psnr_seconds"]


def test_page_explains_only_what_it_shows() -> None:
    bare: list[TableRow] = [
        {"task": "sr4", "method": m, "nfe": 2, "n": 1, "psnr": p} for m, p in (("a", 1.0), ("b", 2.0))
    ]

    def notes(rows: list[TableRow]) -> str:
        page = html_page("t", [Section(title="t", rows=rows)], charts=[quality_chart(rows, "psnr", "nfe")])
        return " ".join(data for tag, data in Page(page).texts if tag == "p")

    assert "Bars" not in notes(bare[:1]) and "bold" not in notes(bare[:1]) and "±" not in notes(bare)
    assert "bold: the best" in notes(bare) and "underlined" not in notes(bare)
    assert "Bars" in notes(ROWS) and "underlined: the second best" in notes(ROWS[:3])


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
