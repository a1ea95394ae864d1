"""Lines of exports: whole files or none of them, and columns of text out of anything that is JSON."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector import export_lines
from connector.errors import ExportError
from connector.export_lines import LINE_BYTES_MAX, read
from connector.export_tables import Extract, TargetColumn, extracts, typed
from connector.exporting import File
from connector.landing import Terms, parse
from connector.task import silent

WANTED = extracts("attributes", ["custom_id", "installation_ids"], {"plan": "string", "born": "date", "tags": "array"})
GOOD = b'{"identifiers":{"custom_id":"c1"},"attributes":{"plan":"x"}}\n'


def taken(
    path: Path, content: bytes, size: int | None = None, wanted: list[Extract] = WANTED
) -> tuple[list[Any], list[int]]:
    """Rows as they were taken out of a file of this content, and the numbers of broken lines."""
    path.write_bytes(content)
    with export_lines.json_reader() as reader:
        frames = list(read(reader, path, len(content) if size is None else size, wanted))
    return [row for frame in frames for row in frame.rows.rows(named=True)], [
        n for frame in frames for n in frame.broken
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_lines_become_columns_of_text(path: Path, packed: bool, end: bytes) -> None:
    """Text is bare, arrays and objects are JSON, what is missing is null; the line and its number stay beside."""
    lines = [
        b'{"identifiers":{"custom_id":"a","installation_ids":["i"]},"attributes":{"plan":"\\u00e9 \\"x\\"","date(born)":1,"tags":["a"]}}',
        b"",
        b'{"other":{"custom_id":"b"},"attributes":{"plan":{"a":[1]},"born":"2026","tags":"red"},"identifiers":{"custom_id":7}}',
    ]
    content = b"\n".join(lines) + end
    rows, broken = taken(path, gzip.compress(content, mtime=0) if packed else content)
    assert broken == []
    assert rows == [
        {"#line": 1, "raw": lines[0].decode(), "custom_id": "a", "installation_ids": '["i"]', "plan": 'é "x"', "born": "1", "tags": '["a"]'},
        {"#line": 3, "raw": lines[2].decode(), "custom_id": "7", "installation_ids": None, "plan": '{"a":[1]}', "born": "2026", "tags": '"red"'},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"5", b"null", b'"x"', b"\xff\xfe", b'{"a":"\xff"}', b'{"a":"\x00"}', b'{"a":"\\ud800"}', b"{}{}", b"\xef\xbb\xbf{}", b"{" * 100_000],
)  # fmt: skip
def test_broken_lines_are_told_by_their_number(path: Path, line: bytes) -> None:
    """No JSON, no object, no UTF-8: left out, whatever stands beside them."""
    rows, broken = taken(path, GOOD + line + b"\n" + GOOD + line)
    assert ([row["#line"] for row in rows], broken) == ([1, 3], [2, 4])


@pytest.mark.parametrize(
    "line",
    [b'{"identifiers":5,"attributes":[1]}', b"{}", b'{"identifiers":null}', b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"],
)
def test_objects_of_another_shape_are_rows(path: Path, line: bytes) -> None:
    """What is not where it should be is null."""
    rows, broken = taken(path, line + b"\n")
    assert (len(rows), rows[0]["custom_id"], rows[0]["plan"], broken) == (1, None, None, [])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["plan", "custom_id", "a.b", '"']), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"identifiers": json_values, "attributes": json_values}) | json_values, max_size=6),
    st.booleans(),
    st.booleans(),
)
def test_any_json_is_read_or_told(
    tmp_path_factory: pytest.TempPathFactory, lines: list[Any], escaped: bool, packed: bool
) -> None:
    """Law: every line is a row with that line, or broken; texts come out as they went in."""
    content = "".join(json.dumps(line, ensure_ascii=escaped) + "\n" for line in lines).encode()
    path = tmp_path_factory.mktemp("lines") / "1"
    rows, broken = taken(path, gzip.compress(content, mtime=0) if packed else content)
    objects = [n for n, line in enumerate(lines, 1) if isinstance(line, dict)]
    assert [row["#line"] for row in rows] == objects
    assert broken == [n for n in range(1, len(lines) + 1) if n not in objects]
    for row in rows:
        line = lines[row["#line"] - 1]
        assert json.loads(row["raw"]) == line
        held = line.get("attributes")
        plan = held.get("plan") if isinstance(held, dict) else None
        if isinstance(plan, str):
            assert row["plan"] == plan


def test_lines_across_blocks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line may begin in one block and end in another."""
    monkeypatch.setattr(export_lines, "BLOCK_BYTES", 64)
    lines = [
        json.dumps({"identifiers": {"custom_id": f"c{n}"}, "attributes": {"plan": "é" * n}}, ensure_ascii=False)
        for n in range(40)
    ]
    for content in (found := "\n".join(lines).encode()), gzip.compress(found, mtime=0):
        rows, broken = taken(path, content)
        assert [row["custom_id"] for row in rows] == [f"c{n}" for n in range(40)]
        assert [row["#line"] for row in rows] == list(range(1, 41))
        assert broken == []


PACKED = gzip.compress(GOOD * 50, mtime=0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (PACKED[:-9], "cut"), (PACKED[:-1], "cut"), (PACKED[:3], "cut"), (PACKED + b"\x00garbage", "something else stands behind"),
        (PACKED + PACKED[:20], "cut"), (PACKED[:-8] + b"\x00\x00\x00\x00" + PACKED[-4:], "checksum"),
        (PACKED[:40] + bytes([PACKED[40] ^ 255]) + PACKED[41:], "not whole"), (gzip.compress(b" " * 3_000_000, mtime=0), "longer than|unpacks"),
        (gzip.compress(b" \n" * 1_000_000, mtime=0), "unpacks to more than"), (b"x" * (LINE_BYTES_MAX + 1), "longer than"),
        (GOOD + b"x" * (LINE_BYTES_MAX + 1) + b"\n" + GOOD, "longer than"),
    ],
)  # fmt: skip
def test_files_that_are_not_whole(path: Path, content: bytes, says: str) -> None:
    """Cut, altered, followed by something else, or of a size that no export has."""
    with pytest.raises(ExportError, match=says):
        taken(path, content)


@pytest.mark.parametrize("content", [GOOD * 3, gzip.compress(GOOD * 3, mtime=0)])
def test_the_size_is_compared(path: Path, content: bytes) -> None:
    """A file of another size than Batch says is refused at its end; packed or unpacked bytes may be meant."""
    for size in {len(content), len(GOOD * 3)}:
        assert len(taken(path, content, size)[0]) == 3
    for size in (len(content) + 1, len(content) - 1, 0, len(GOOD) * 2):
        with pytest.raises(ExportError, match=r"Batch said"):
            taken(path, content, size)


def test_several_members(path: Path) -> None:
    """Archives may be put one behind the other."""
    assert len(taken(path, PACKED + gzip.compress(b"", mtime=0) + PACKED)[0]) == 100


def test_any_cut_of_an_archive_is_seen(path: Path) -> None:
    """Wherever a packed file ends early, none of it counts."""
    for end in range(2, len(PACKED), 5):
        with pytest.raises(ExportError):
            taken(path, PACKED[:end])


def test_an_empty_file(path: Path) -> None:
    """Nobody, or nothing that happened."""
    assert taken(path, b"") == ([], [])
    assert taken(path, gzip.compress(b"", mtime=0)) == ([], [])


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        ("5", "integer", 5), ("5.0", "integer", 5), ("5.5", "integer", None), ("x", "integer", None), ("99999999999999999999", "integer", None),
        ("0.1", "float", 0.1), ("5", "float", 5.0), ("nan", "float", None), ("inf", "float", None), ("1e999", "float", None),
        ("true", "boolean", True), ("false", "boolean", False), ("1", "boolean", None), ("True", "boolean", None),
        ("2026-01-02T03:04:05Z", "timestamp", 1767323045000), ("2026-01-02T03:04:05.678z", "timestamp", 1767323045678),
        ("2026-01-02T05:04:05+02:00", "timestamp", 1767323045000), ("2026-01-02 03:04:05", "timestamp", 1767323045000),
        ("2026-01-02", "timestamp", 1767312000000), ("1767323045678", "timestamp", 1767323045678), ("0", "timestamp", 0),
        ("-86400000", "timestamp", -86400000), ("86400000", "timestamp", 86400000), ("-62135596800000", "timestamp", -62135596800000),
        ("253402300799999", "timestamp", 253402300799999), ("0001-01-01T00:00:00Z", "timestamp", -62135596800000),
        ("9999-12-31T23:59:59.999Z", "timestamp", 253402300799999), ("someday", "timestamp", None), ("2026-13-01", "timestamp", None),
        ("9" * 19, "timestamp", None), ("", "text", ""), ("x", "text", "x"), (None, "integer", None),
    ],
)  # fmt: skip
def test_values_from_their_text(text: str | None, type_: Any, value: object) -> None:
    """Each type from each of the forms that Batch may write, null from any other."""
    made = pl.DataFrame({"a": [text]}, schema={"a": pl.String}).select(typed(pl.col("a"), type_))["a"]
    if type_ == "timestamp":
        assert made.dtype == pl.Datetime("us", "UTC")
        made = made.dt.epoch("ms")
    assert made.to_list() == [value]


def test_positions_ascend_through_all_files(tmp_path: Path) -> None:
    """Of two lines with one key it can be told which came later, whatever file it is in, and broken ones leave no gap."""
    terms = Terms([Extract(TargetColumn("custom_id", "text"), (("identifiers", "custom_id"),))], "custom_id", True, ())
    files = []
    for number, content in enumerate([GOOD + b"x\n{}\n" + GOOD.replace(b"c1", b"c2"), b"", GOOD], 1):
        (tmp_path / str(number)).write_bytes(content)
        files.append(File(tmp_path / str(number), len(content)))
    parsed = parse(files, terms, silent)
    assert (parsed.rows, parsed.repeated, [file.name for file in parsed.files]) == (3, True, ["1.parquet", "3.parquet"])
    assert [(one.file, one.line, one.reason) for one in parsed.broken] == [
        (1, 2, "no JSON object"),
        (1, 3, "no event id"),
    ]
    assert pl.read_parquet(parsed.files)["_position"].to_list() == [0, 1, 2]


def test_the_bound_on_memory_is_no_bound_on_files(path: Path) -> None:
    """What is repetitive by nature is no bomb."""
    lines = b"".join(
        b'{"identifiers":{"custom_id":"customer-%d"},"attributes":{"plan":"gold"}}\n' % n for n in range(30_000)
    )
    packed = zlib.compress(lines, 9, wbits=31)
    assert len(taken(path, packed)[0]) == 30_000
