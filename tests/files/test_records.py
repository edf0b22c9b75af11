"""Texts into records: what is wrong is one plain phrase, whatever the text holds."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from dmps_cli.files.records import (
    MAX_DEPTH,
    FileName,
    Label,
    RecordError,
    RelativePath,
    as_builtins,
    as_record,
    one_of,
    parse_json,
    parse_toml,
)


class Inner(Struct, frozen=True, kw_only=True):
    width: Annotated[int, Meta(ge=1, le=9)]
    crop: tuple[int, int]


class Outer(Struct, frozen=True, kw_only=True):
    name: FileName
    source: Inner
    share: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    kind: Annotated[str, one_of(["a", "b(c)"])] = "a"
    facts: dict[str, int] = {}
    note: str | None = None


GOOD: dict[str, Any] = {"name": "y.png", "source": {"width": 3, "crop": [1, 2]}}


@pytest.mark.parametrize(
    ("edit", "phrase"),
    [
        ({"name": None}, "name is None; expected a text"),
        ({"name": "../y.png"}, "name is '../y.png'; expected the name of a file, without a folder"),
        ({"share": 2}, "share is 2; expected a number, at most 1"),
        ({"share": float("nan")}, "share is nan; expected a number, at least 0"),
        ({"share": True}, "share is True; expected a number"),
        ({"kind": "c"}, "kind is 'c'; expected one of a, b(c"),
        ({"note": 1}, "note is 1; expected a text or nothing"),
        ({"facts": {"x": "y"}}, "a value of facts is wrong; expected a whole number"),
        ({"source": []}, "source is []; expected a table"),
        ({"source": {"crop": [1, 2]}}, "source.width is missing"),
        ({"source": {"width": 10, "crop": [1, 2]}}, "source.width is 10; expected a whole number, at most 9"),
        ({"source": {"width": 3, "crop": [1, "2"]}}, "source.crop[1] is '2'; expected a whole number"),
        ({"source": {"width": 3, "crop": [1]}}, "source.crop is [1]; expected a list of length 2"),
        ({"note": ["x" * 999]}, f"note is ['{'x' * 55}...; expected a text or nothing"),
    ],
    ids=repr,
)
def test_a_wrong_field_is_a_phrase(edit: dict[str, Any], phrase: str) -> None:
    with pytest.raises(RecordError) as error:
        as_record(GOOD | edit, Outer)
    assert str(error.value) == phrase


def test_what_is_no_table_at_all_is_a_phrase() -> None:
    with pytest.raises(RecordError, match="it is 3; expected a table"):
        as_record(3, Outer)


def test_a_record_there_and_back() -> None:
    record = as_record(GOOD | {"unknown": 1, "share": 1}, Outer)
    assert record == Outer(name="y.png", source=Inner(width=3, crop=(1, 2)), share=1.0)
    assert as_record(json.loads(json.dumps(as_builtins(record))), Outer) == record


ODD = ["", ".", "..", "/a", "a/", "a//b", "../b", "a/..", "a/../b", "./a", "a\0", "\ud800", "n" * 256]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_a_path_that_could_leave_its_folder_is_none(text: str) -> None:
    for kind in (FileName, RelativePath, Label):
        with pytest.raises(RecordError):
            as_record(text, kind)


@pytest.mark.parametrize("text", ["a", ".a", "..a", "a..", "a b\n", "a\\b", "\udcff", "-", "é" * 99], ids=ascii)
def test_whatever_a_file_system_calls_a_file_is_a_name(text: str) -> None:
    assert as_record(text, FileName) == text
    assert as_record(f"{text}/{text}", RelativePath) == f"{text}/{text}"
    with pytest.raises(RecordError):
        as_record(f"{text}/{text}", FileName)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested too deeply"),
        (b"1" * 5000, "a number in it is too long"),
        (b"1e999", "the number 1e999 is too large"),
        (b"[NaN]", "NaN is no number"),
        (b"\xff", "its byte 0 is not UTF-8"),
        (b"{", "not JSON"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_no_json(text: bytes, phrase: str) -> None:
    with pytest.raises(RecordError, match=phrase):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b".".join([b"a"] * 500) + b" = 1", "nested too deeply"),
        (b"a = " + b"1" * 5000, "a number in it is too long"),
        (b"\xff", "its byte 0 is not UTF-8"),
        (b"a", "not TOML"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_no_toml(text: bytes, phrase: str) -> None:
    with pytest.raises(RecordError, match=phrase):
        parse_toml(text)


def test_json_as_deep_as_ours_and_names_that_are_no_utf8() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert parse_json(deep) == json.loads(deep)
    assert parse_json(b'{"a": ["\\udcff", 1e300]}') == {"a": ["\udcff", 1e300]}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(name=st.sampled_from(["name", "source", "share", "kind", "facts", "note"]), value=values)
def test_whatever_a_field_holds_it_is_a_record_or_a_phrase(name: str, value: object) -> None:
    try:
        as_record(GOOD | {name: value}, Outer)
    except RecordError as exc:
        assert "\n" not in str(exc)
