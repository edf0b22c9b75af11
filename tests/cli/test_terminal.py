"""What a person sees of a terminal: widths, help, suggestions."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import pytest

from dmps_cli.cli.main import COMMANDS
from dmps_cli.cli.meant import MEANT, suggestion
from dmps_cli.cli.streams import wrapped
from dmps_cli.methods.defaults import DEFAULTS
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.table import METHODS
from tests.shell import FAST, Dmps, photo

OPTIONS = [
    line.split() for line in (Path(__file__).parent / "help" / "options.txt").read_text(encoding="utf-8").splitlines()
]


def on_terminal(width: int, *arguments: str) -> list[str]:
    """The lines that a command shows on a terminal of that width, without colours and links."""
    pid, terminal = pty.fork()
    if pid == 0:  # with no COLUMNS of this process, which readline sets too
        variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        os.execve(sys.executable, [sys.executable, "-m", "dmps_cli", *arguments], variables | {"TERM": "xterm"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    shown = b""
    try:
        while block := os.read(terminal, 2**16):
            shown += block
    except OSError:  # Linux's way to say that the other side has gone
        pass
    os.waitpid(pid, 0)
    text = re.sub(r"\x1b\]8;[^\x1b]*\x1b\\", "", shown.decode())
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r\n", "\n").split("\n")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_fit_the_terminal_and_are_not_cut(width: int) -> None:
    lines = on_terminal(width, "methods")
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    flat = "".join("".join(lines).split())
    assert all("".join(word.split()) in flat for name in METHODS for word in (name.split(" ")[0],))
    if width == 200:
        assert any("--lambda 1.75 on ddpm levels, 2 on flow levels" in line for line in lines)


@pytest.mark.parametrize("command", [["methods"], ["tasks"], ["models", "list"], ["models", "show", "ffhq"]])
def test_tables_take_100_columns_in_a_pipe(dmps: Dmps, command: list[str]) -> None:
    assert 70 <= max(map(len, dmps(*command).out.splitlines())) <= 100


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_notes_break_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    path = "/a/long/path/that/stays/whole/because/people/copy/it/somewhere.png"
    text = f"dmps: a note about {path} and well-known --opt-ions"
    lines = wrapped(text, Terminal()).split("\n")
    assert " ".join(line.strip() for line in lines) == text
    assert [line for line in lines if len(line) > 60] == [f"  {path}"]
    assert wrapped(text, io.StringIO()) == text


def test_methods_are_listed_with_all_their_knobs(dmps: Dmps) -> None:
    listed = json.loads(dmps("methods", "--json").out)
    assert listed.keys() == METHODS.keys()
    for name, row in listed.items():
        assert {*row["knobs"], *(KNOBS[knob].option for knob in row["form"])} == {
            KNOBS[knob].option for knob in METHODS[name].knobs
        }
        assert all(values == DEFAULTS[name, sampler] for sampler, values in row["defaults"].items())


@pytest.mark.parametrize("words", [[], ["restore"], ["models", "list"], ["help"]])
def test_help_is_what_the_option_says(dmps: Dmps, words: list[str]) -> None:
    asked = dmps("help", *words)
    assert (asked.code, asked.out) == (0, dmps(*words, "--help").out)


def test_help_of_no_command(dmps: Dmps) -> None:
    result = dmps("help", "restor")
    assert (result.code, "Did you mean 'restore'" in result.err) == (2, True)


def of_command(name: str) -> set[str]:
    return {option for _, command, option in [line for line in OPTIONS if len(line) == 3] if command == name}


@pytest.mark.parametrize(
    ("command", "typed", "said"),
    [
        ("restore", "--radius", "for it there is --kernel defocus:R"),
        ("restore", "--noise", "for it there is --sigma STD"),
        ("restore", "--noise_std", "for it there is --sigma STD"),
        ("restore", "--steps", "for it there is --nfe N"),
        ("restore", "--strength", "for it there is --lambda X"),
        ("time", "--gpu", "for it there is --device cuda"),
        ("restore", "--out", "for it there is -o PATH"),
        ("eval", "--output", "for it there is --out FOLDER"),
        ("restore", "--batch_size", "for it there is --batch-size"),
        ("restore", "--limit", "it belongs to dmps eval"),
        ("restore", "--nosie", "for it there is --sigma STD"),
        ("restore", "--kernl", "Possible options"),
    ],
)
def test_an_unknown_option_leads_to_the_one_that_is_meant(dmps: Dmps, command: str, typed: str, said: str) -> None:
    result = dmps(command, typed, "3")
    assert (result.code, said in " ".join(re.sub("[│╭╮╰╯─]", " ", result.err).split())) == (2, True), result.err


def test_what_is_meant_exists_and_is_not_taken() -> None:
    options = {name: of_command(name) for name in COMMANDS}
    for word, texts in MEANT.items():
        assert all(any(text.split()[0] in names for names in options.values()) for text in texts), word
        for name, names in options.items():
            if f"--{word}" not in names:
                said = suggestion(f"--{word}", name, options)
                assert said is None or said.startswith(("for it there is -", "it belongs to dmps "))


def test_flags_show_no_type(dmps: Dmps) -> None:
    assert not [name for name in COMMANDS if "bool" in dmps(name, "--help").out]


def test_what_a_prior_does_badly_is_said_at_that_task_alone(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png")
    said = "dmps: colorize with natural: it knows little of colours; left grey, by --task denoise, a picture measures"
    assert dmps("degrade", "p.png", "--task", "colorize", "-o", "y.png").code == 0
    result = dmps("restore", "y.png", *FAST)
    assert (result.code, result.err.count(said)) == (0, 1), result.err
    assert said not in dmps("restore", "p.png", "--task", "denoise", "--sigma", "0.1", *FAST).err
