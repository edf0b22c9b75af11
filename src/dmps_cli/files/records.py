"""Files with a schema: JSON and TOML into typed records, and what is wrong with one as a plain phrase.

A record is a frozen, keyword-only msgspec.Struct: a field is one line, its bounds are in its type, fields that it does
not know are ignored. Texts go through Python's own parsers, not msgspec's: names of files that are no UTF-8 stand in
them as lone surrogates, which msgspec refuses.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from dmps_cli.errors import InputError

MAX_DEPTH = 32
"""Lists and tables inside one another; ours have five at most."""

_SHOWN = 60  # characters of a value in a message
_HALF_CHARACTER = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # of the surrogates; the others stand for bytes
_NAME = rf"(?!\.{{1,2}}(?:/|\Z))[^/\0{_HALF_CHARACTER.pattern[1:-1]}]{{1,255}}"


def form(words: str, pattern: str) -> Meta:
    """Returns a bound of texts.

    All of it is of the pattern, which the words (without brackets) describe in messages.
    """
    return Meta(pattern=rf"(?#{words})\A(?:{pattern})\Z")


def one_of(names: Iterable[str]) -> Meta:
    """Returns a bound of texts: one of the names."""
    names = list(names)
    return form(f"one of {', '.join(names).replace(')', '')}", "|".join(map(re.escape, names)))


FileName = Annotated[str, form("the name of a file, without a folder", _NAME)]
RelativePath = Annotated[str, form("the path of a file below its folder", f"{_NAME}(?:/{_NAME})*")]
Label = Annotated[str, form("a short name of letters and digits", "[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")]
"""A name that becomes part of file names."""

Sha256 = Annotated[str, form("a sha256 of 64 hexadecimal digits", "[0-9a-f]{64}")]
PathText = Annotated[str, form("a path", r"[^\0]+")]

T = TypeVar("T")


class RecordError(InputError):
    """A file's content is not what its schema says; the text is a phrase for brackets or after a colon."""


# --- Texts
def parse_json(data: bytes) -> Any:
    """Returns what a JSON text holds. Raises RecordError: not JSON, or nested, long or large beyond all reason."""
    try:
        content = json.loads(data.decode(), parse_float=_finite, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise RecordError(f"not JSON: {_reason(exc)}") from exc
    return _shallow(content)


def parse_toml(data: bytes) -> dict[str, Any]:
    """Returns what a TOML text holds. Raises RecordError: not TOML, or nested, long or large beyond all reason."""
    try:
        content = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as exc:
        raise RecordError(f"not TOML: {_reason(exc)}") from exc
    _shallow(content)
    return content


def _reason(exc: Exception) -> str:
    """Says why a text could not be parsed, in a few words."""
    if isinstance(exc, RecursionError):
        return "nested too deeply"
    if isinstance(exc, UnicodeDecodeError):
        return f"its byte {exc.start} is not UTF-8"
    if "integer string conversion" in str(exc):  # Python's guard against numbers of thousands of digits
        return "a number in it is too long"
    return str(exc)


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"the number {_shortened(text)} is too large")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _shallow(content: Any) -> Any:
    """Returns the content as it is.

    Raises RecordError if it is nested too deeply to be worked on, or its texts are none.
    """
    layer = [content]
    for _ in range(MAX_DEPTH):
        layer = [inner for value in layer for inner in _inner(value)]
        if not layer:
            return content
    raise RecordError("nested too deeply")


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, str) and _HALF_CHARACTER.search(value):
        raise RecordError(f"half a character stands in the text {_shortened(ascii(value))}")
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else ()


# --- Records
def as_record(content: Any, kind: type[T], *, strict: bool = True) -> T:
    """Returns the content as a record, or any other type that msgspec knows.

    Raises RecordError, naming field and value.

    strict: whether a number must be one; otherwise a text of one will do.
    """
    try:
        return msgspec.convert(content, kind, strict=strict)
    except msgspec.ValidationError as exc:
        raise RecordError(_phrase(str(exc), content, kind)) from exc
    except UnicodeEncodeError as exc:  # a lone surrogate where msgspec compares
        raise RecordError(f"{_shortened(ascii(exc.object))} is no text") from exc


def expanded(text: str) -> Path:
    """Returns a path, ~ and ~user for their home folders. Raises RecordError where there is no such folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as exc:
        raise RecordError(f"{text}: there is no such home folder") from exc


def is_relative(text: str) -> bool:
    """Returns whether a text is the path of a file below its folder."""
    try:
        as_record(text, RelativePath)
    except RecordError:
        return False
    return True


def as_builtins(record: msgspec.Struct) -> dict[str, Any]:
    """Returns the fields of a record, for JSON."""
    content: dict[str, Any] = msgspec.to_builtins(record)
    return content


_PLACE = re.compile(r"^(?P<text>.*?)(?: - at (?P<place>.*))?$", re.DOTALL)

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}

_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


def _phrase(message: str, content: Any, kind: Any) -> str:
    """Returns msgspec's message as ours: 'source.width is -3; expected a whole number, at least 1'."""
    match = _PLACE.match(message)
    assert match is not None  # it matches any text
    text, place = match["text"], (match["place"] or "").strip("`")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", text):
        return f"{'.'.join(filter(None, (_field(place), missing[1])))} is missing"
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text):
        known = f"; known are {', '.join(sorted(kind.__struct_fields__))}" if not place else ""
        return f"unknown key {unknown[1]}{known}"
    if not text.startswith(("Expected", "Invalid", "Number", "Integer")):  # of a record's own check
        return f"{_field(place)}: {text}" if place else text
    value = _at(place, content)
    if value is _UNKNOWN:  # inside of a table of any names
        within = _field(place.partition("[...]")[0])
        return f"a value{f' of {within}' if within else ''} is wrong; {_expected(text)}"
    return f"{_field(place) or 'it'} is {_shortened(repr(value))}; {_expected(text)}"


def _expected(text: str) -> str:
    """Returns 'expected a number, at most 4' of msgspec's 'Expected `float` <= 4.0'."""
    if described := re.search(r" matching regex '\(\?#(.*?)\)", text):
        return f"expected {described[1]}"
    text = re.sub(r", got .*$", "", text)
    text = re.sub(r"`([\w| ]+)`", lambda kinds: " or ".join(_WORDS.get(k, k) for k in kinds[1].split(" | ")), text)
    text = re.sub(r" (>=|<=|>|<) (\S+)$", lambda bound: f", {_BOUNDS[bound[1]]} {float(bound[2]):g}", text)
    return text[:1].lower() + text[1:]


def _field(place: str) -> str:
    """Returns 'source.width' of '$.source.width'."""
    return place.removeprefix("$").removeprefix(".")


_UNKNOWN = object()


def _at(place: str, content: Any) -> Any:
    """Returns the value at '$.crop[2]'; _UNKNOWN where the place names none, as inside of a table of any names."""
    for name, index in re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", place):
        try:
            content = content[name] if name else content[int(index)]
        except (ValueError, LookupError, TypeError):
            return _UNKNOWN
    return content


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
