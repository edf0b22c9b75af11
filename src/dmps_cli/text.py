"""Text that others wrote (names of files, metadata, a server's words), made safe for where it is shown.

A terminal obeys escape sequences, a browser and a spreadsheet have their own; a pipe takes every byte as it is.
"""

from __future__ import annotations

import re

# Of Unicode's controls: C0, DEL, C1, line and paragraph separators, and those that turn the direction of writing.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BREAK = re.compile("[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")  # as str.splitlines() has them
_UNDECODED = re.compile("[\udc80-\udcff]")  # bytes of a name that are no UTF-8, as Python holds them


# ECMA-48: control sequences, strings up to their end, other sequences of two or more characters
_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[PX\\]^_]|[\x90\x98\x9d-\x9f]).*?(?:\x07|\x1b\\\\|\x9c|$)"
    "|\x1b[ -/]*[0-~]",
    re.DOTALL,
)

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with what a spreadsheet takes a cell for a formula (OWASP)


def visible(text: str) -> str:
    r"""Returns the text with its control characters written out (\n, \x1b, \u202e): one harmless line."""
    return _CONTROL.sub(_written_out, text)


def visible_bytes(text: str) -> str:
    r"""Returns the text as `visible` does, with bytes that are no UTF-8 written out too (\xe9)."""
    return _UNDECODED.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", visible(text))


def in_one_line(text: str) -> str:
    r"""Returns the text with its line breaks alone written out (\n)."""
    return _BREAK.sub(_written_out, text)


def has_line_break(text: str) -> bool:
    """Returns whether a program that reads lines would take it for several."""
    return "\n" in text or "\r" in text


def stripped(text: str) -> str:
    """Returns the text without escape sequences and other control characters, but for tabs and line feeds."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in "\t\n" else "", _SEQUENCE.sub("", text))


def csv_cell(value: object) -> object:
    """Returns a cell that a spreadsheet takes for text, where it is text: =1+1 becomes '=1+1. Numbers as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def json_safe(text: str) -> str:
    r"""Returns JSON with the control characters that JSON lets pass (DEL, C1, those of direction) as \u....

    It says the same. Line feeds between its parts stay.
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def _written_out(found: re.Match[str]) -> str:
    character = found[0]
    return _SHORT.get(character) or (f"\\x{ord(character):02x}" if character < "\u0100" else f"\\u{ord(character):04x}")


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
