"""Text that others wrote, where it is shown: what a terminal, a browser or a spreadsheet would obey is not there."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from dmps_cli.cli.console import Console
from dmps_cli.cli.tables import fitted_table
from dmps_cli.errors import OutputError
from dmps_cli.report.latex import latex
from dmps_cli.report.page import Section, html_page
from dmps_cli.report.tables import csv_text, json_text, markdown
from dmps_cli.text import csv_cell, in_one_line, json_safe, stripped, visible, visible_bytes
from tests.shell import FAST, Dmps, photo

EVIL = "a\x1b[31mb\x1b]0;title\x07c\x9b2Jd\ne\x7f\u202ef.png"
OBEYED = {
    *map(chr, (*range(32), *range(0x7F, 0xA0))),
    *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def as_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Both streams, as one terminal, from now on."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


# The forms


def test_no_form_lets_through_what_it_is_there_to_stop() -> None:
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x11000)]))
    draw = random.Random(0)
    for text in (every, *("".join(draw.choices([*OBEYED, *"[]PX;m2J(\\ a"], k=40)) for _ in range(500))):
        assert not OBEYED & {*visible(text)}
        assert not OBEYED & {*stripped(text)} - {"\n", "\t"}
        assert len(in_one_line(text).splitlines()) <= 1
        assert json.loads(json_safe(json.dumps(text, ensure_ascii=False))) == text
        assert not OBEYED & {*json_safe(json.dumps(text, ensure_ascii=False))}
    harmless = "".join(character for character in every if character not in OBEYED)
    for form in (visible, visible_bytes, stripped, in_one_line, json_safe):
        assert form(harmless) == harmless


def test_controls_are_written_out_and_sequences_go_whole() -> None:
    assert visible(EVIL) == r"a\x1b[31mb\x1b]0;title\x07c\x9b2Jd\ne\x7f\u202ef.png"
    assert stripped(EVIL) == "abcd\nef.png"
    assert (
        stripped("\x1bPdevice\x1b\\x\x1b(By\x1b]8;;http://evil") == "xy"
    )  # a string that does not end goes to the end
    assert visible_bytes(os.fsdecode(b"caf\xe9\x9b.png")) == r"caf\xe9\x9b.png"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_takes_texts_for_texts(text: str) -> None:
    (row,) = csv.DictReader(io.StringIO(csv_text([{"image": text, "psnr": -1.5, "lpips": float("-inf"), "n": -3}])))
    assert row == {"image": "'" + text, "psnr": "-1.5", "lpips": "-inf", "n": "-3"}
    assert csv_cell("a=1") == "a=1"


# Where they are shown


def test_a_terminal_obeys_nothing_that_others_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    console = Console()
    console.note(EVIL)
    console.error(EVIL)
    console.result(EVIL)
    console.path(Path(EVIL))
    console.rendered(lambda stream: fitted_table([{"image": EVIL, "psnr": 1.0}, {"image": "b", "psnr": 2.0}], stream))
    lines = terminal.getvalue().splitlines()
    assert lines[:4] == [f"dmps: {visible(EVIL)}", f"dmps: error: {visible(EVIL)}", visible(EVIL), visible(EVIL)]
    styles = {part.partition("m")[0] for part in terminal.getvalue().split("\x1b[")[1:]}
    assert all(style.replace(";", "").isdigit() or not style for style in styles)  # rich's own colours
    assert "31" not in styles


def test_a_pipe_gets_paths_raw_and_lines_whole(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(os.fsdecode(b"caf\xc3\xa9\x1b[31m.png"))
    Console().path(path)
    assert capsys.readouterr().out == f"{path}\n"
    with pytest.raises(OutputError, match="has a line break"):
        Console().path(Path("a\nb.png"))
    Console(as_json=True).path(Path("a\nb.png"))  # says it in its object
    Console().error(EVIL)
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_json_says_the_same_without_controls() -> None:
    text = json_text({"image": EVIL, "of": [1.5, "\x9b"]})
    assert json.loads(text) == {"image": EVIL, "of": [1.5, "\x9b"]}
    assert not OBEYED & {*text} - {"\n"}


def test_reports_have_nothing_to_obey() -> None:
    rows = [{"task": EVIL, "method": EVIL, "psnr": 1.0}]
    page = html_page(EVIL, [Section(title=EVIL, rows=rows)], notes=[EVIL], facts={"image": EVIL})
    for text in (page, markdown(rows), latex(rows, notes=[EVIL])):
        assert not OBEYED & {*text} - {"\n"}
    assert "<h1>abcd\nef.png</h1>" in page


def test_a_name_with_a_line_break_is_refused_before_anything_is_computed(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    (tmp_path / "p.png").rename(tmp_path / "a\nb.png")
    for command in ("degrade", "restore"):
        refused = dmps(command, "a\nb.png", "--task", "denoise", *(FAST if command == "restore" else ()))
        assert (refused.code, refused.out, refused.err.count("\n")) == (1, "", 1)
        assert r"a\nb_" in refused.err and "--json" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["a\nb.png"]
    done = dmps("degrade", "a\nb.png", "--task", "sr2", "--json")
    assert json.loads(done.out)["results"][0]["output"] == "a\nb_sr2.png"
    assert dmps("degrade", "a\nb.png", "--task", "sr2", "-o", "c.png").out == "c.png\n"


def test_metadata_of_a_checkpoint_is_shown_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dmps_cli.cli.main import app

    table = '[x]\nabout = "a"\narchitecture = "natural"\npath = "x.safetensors"\n'
    (tmp_path / "w.toml").write_text(table)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {"terms\x1b[2J": "free\x1b]0;t\x07\nsha256: forged"})
    monkeypatch.chdir(tmp_path)
    terminal = as_terminal(monkeypatch)
    with pytest.raises(SystemExit):
        app(["models", "show", "x", "--weights-file", "w.toml"])
    lines = [" ".join(line.split()) for line in terminal.getvalue().splitlines()]
    assert r"terms\x1b[2J (its file) free\x1b]0;t\x07\nsha256: forged" in lines


@pytest.mark.posix
@pytest.mark.parametrize(
    ("asked", "unbuffered"),
    [("--help", ""), ("--version", ""), ("--version", "1"), ("restore -h", "1"), ("tasks", ""), ("completion", "")],
)
def test_a_full_disk_is_one_line_and_exit_code_1(asked: str, unbuffered: str) -> None:
    completion = {"_DMPS_COMPLETE": "complete_bash", "COMP_WORDS": "dmps re", "COMP_CWORD": "1"}
    is_completion = asked == "completion"
    arguments = [] if is_completion else asked.split()
    program = "import sys; sys.argv[0] = 'dmps'; from dmps_cli.cli.main import main; main()"
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered} | (completion if is_completion else {}),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"dmps: error: cannot write to standard output (No space left on device)")
    assert done.stderr.count(b"\n") == 1


def test_a_complaint_of_the_command_line_obeys_nothing(dmps: Dmps) -> None:
    for arguments in (
        ["--no\x1b[2J"],
        ["restore", "--no\x1b[2J"],
        ["no\x1b[2J"],
        ["restore", "a", "--nfe", "1\x1b[2J"],
    ):
        result = dmps(*arguments)
        assert (result.code, "\x1b" in result.err) == (2, False)
