"""An export's file, read once: whole lines out of packed or plain bytes, and columns of text out of lines.

A file is believed only as a whole, so nothing of it may be used before its last line was read. DuckDB reads the JSON:
2.5 times faster than Polars, with bounded memory. Source of the limits: none is documented; they are several times
what the longest line of 50 attributes can be, and what invented profiles of the most repetitive kind pack to.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

from connector.errors import ExportError
from connector.export_tables import LINE, Extract
from connector.export_tables import Path as JsonPath

NUMBER = "#line"

BLOCK_BYTES = 2_000_000
"""Bytes of lines that are taken apart in one go."""

LINE_BYTES_MAX = 1_000_000
UNPACKED_BYTES_MAX = 4_000_000_000
UNPACK_RATIO_MAX = 200
"""Bytes out of a byte in: a bomb reaches 1,000, lines that differ in an id alone about 50."""

_GZIP = b"\x1f\x8b"
_SMALL = 1_000_000
"""Bytes out that no ratio is asked for."""

_AGAIN = "nothing was loaded; run again: a new export is asked for"


class Frame(NamedTuple):
    """Some lines in order.

    Attributes:
        rows: `#line` (Int64: its number, from 1 in the file), `raw` (String: the line), and one String column an
            extract, by its name.
        broken: Numbers of the lines that are no JSON object.
    """

    rows: pl.DataFrame
    broken: list[int]


@contextmanager
def json_reader() -> Iterator[duckdb.DuckDBPyConnection]:
    """What takes JSON apart, for all files of an export: it takes longer to make than a small file to read."""
    connection = duckdb.connect(config={"threads": 1})
    try:
        connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()


def read(reader: duckdb.DuckDBPyConnection, path: Path, size: int, extracts: Sequence[Extract]) -> Iterator[Frame]:
    """The file's lines as frames of one schema, empty lines left out.

    Args:
        reader: From `json_reader`.
        path: A file of Batch's: lines of JSON, packed by gzip or plain.
        size: What Batch says its size is, in bytes.
        extracts: What to take out of each line.

    Raises:
        ExportError: The file is not whole: cut, altered, followed by something else, or of a size that no export has.
    """
    number = 0
    for lines in _lines(_of_size(path, size)):
        yield _taken_apart(reader, lines, extracts, number)
        number += len(lines)


def _taken_apart(
    connection: duckdb.DuckDBPyConnection, lines: pa.StringArray, extracts: Sequence[Extract], before: int
) -> Frame:
    """The lines' frame; so many lines stand before them in the file."""
    numbers = np.arange(before + 1, before + 1 + len(lines))
    _, offsets, characters = lines.buffers()
    starts = np.frombuffer(offsets, np.int32, len(lines) + 1)
    written = np.diff(starts) > 0
    table = pa.table({LINE: lines, NUMBER: numbers})
    if not written.all():
        table = table.filter(pa.array(written))
    likely = bool((np.frombuffer(characters, np.uint8)[starts[:-1][written]] == ord("{")).all())
    try:
        rows = _extracted(connection, table, extracts, every=likely)
    except (duckdb.InvalidInputException, UnicodeDecodeError):  # one line is enough: the others are looked for
        valid = connection.from_arrow(table).project(f'json_valid("{LINE}")').to_arrow_table()
        table = table.filter(valid.column(0))
        rows = _extracted(connection, table, extracts, every=likely)
    broken = [] if rows.height == written.sum() else np.setdiff1d(numbers[written], rows[NUMBER].to_numpy()).tolist()
    return Frame(rows, broken)


def _extracted(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, extracts: Sequence[Extract], *, every: bool
) -> pl.DataFrame:
    """The rows of valid lines that are objects; with `every`, what is no JSON object is no JSON either.

    Raises:
        duckdb.InvalidInputException: A line is no JSON.
    """
    structure = json.dumps(_structure(extracts), ensure_ascii=False)
    values = [f"{_value(extract)} AS {_quoted(extract.column.name)}" for extract in extracts]
    kept = f"{_quoted(NUMBER)}, {_quoted(LINE)}"
    parsed = f"SELECT {kept}, json_transform({_quoted(LINE)}, {_literal(structure)}) AS parsed FROM lines"  # noqa: S608
    objects = "TRUE" if every else f"json_type({_quoted(LINE)}) = 'OBJECT'"
    connection.register("lines", table)
    found = connection.sql(f"SELECT {kept}, {', '.join(values)} FROM ({parsed}) WHERE {objects}")  # noqa: S608
    return pl.DataFrame(found.to_arrow_table())


def _structure(extracts: Sequence[Extract]) -> dict[str, dict[str, str]]:
    """DuckDB's description of the objects that hold the values: as text, or as JSON, where a text keeps its quotes."""
    found: dict[str, dict[str, str]] = {}
    for extract in extracts:
        for head, name in extract.paths:
            found.setdefault(head, {})[name] = "JSON" if extract.column.type == "json" else "VARCHAR"
    return found


def _value(extract: Extract) -> str:
    return f"CAST(coalesce({', '.join(map(_field, extract.paths))}, NULL) AS VARCHAR)"


def _field(path: JsonPath) -> str:
    return ".".join(["parsed", *map(_quoted, path)])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _lines(blocks: Iterator[bytes]) -> Iterator[pa.StringArray]:
    """Whole lines, without their ends."""
    rest = b""
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if end:
            yield _split(rest + block[:end])
            rest = block[end:]
        else:
            rest += block
        if len(rest) > LINE_BYTES_MAX:
            raise ExportError(f"a line of the export is longer than {LINE_BYTES_MAX:,} bytes", remedy=_AGAIN)
    if rest:
        yield _split(rest + b"\n")


def _split(block: bytes) -> pa.StringArray:
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = ends - np.arange(len(ends))  # the ends themselves are left out
    if np.diff(offsets).max(initial=0) > LINE_BYTES_MAX:
        raise ExportError(f"a line of the export is longer than {LINE_BYTES_MAX:,} bytes", remedy=_AGAIN)
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(block.replace(b"\n", b"")))


def _of_size(path: Path, size: int) -> Iterator[bytes]:
    """The unpacked bytes; at their end it is certain that the file has the size that Batch says.

    Whether Batch counts the packed or the unpacked bytes is not documented: either will do.
    """
    packed, unpacked = path.stat().st_size, 0
    with path.open("rb") as file:
        zipped = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        for block in _unzipped(file) if zipped else iter(lambda: file.read(BLOCK_BYTES), b""):
            unpacked += len(block)
            if unpacked > min(max(packed * UNPACK_RATIO_MAX, _SMALL), UNPACKED_BYTES_MAX):
                said = f"unpacks to more than {UNPACK_RATIO_MAX} times its size, or {UNPACKED_BYTES_MAX:,} bytes"
                raise ExportError(f"a file of the export {said}", remedy=_AGAIN)
            yield block
    if size not in (packed, unpacked):
        raise ExportError(f"a file of the export has {packed:,} bytes, Batch said {size:,}", remedy=_AGAIN)


def _unzipped(file: BinaryIO) -> Iterator[bytes]:
    """The bytes that one or several gzip members hold; their checksums are compared."""
    unpacker = zlib.decompressobj(wbits=31)
    left = b""
    try:
        while left or (left := file.read(BLOCK_BYTES // 8)):
            if unpacker.eof:
                unpacker = zlib.decompressobj(wbits=31)
            yield unpacker.decompress(left, BLOCK_BYTES)
            left = unpacker.unconsumed_tail or unpacker.unused_data
    except zlib.error:
        raise ExportError(
            "a file of the export is not whole: its checksum is wrong, or something else stands behind its end",
            remedy=_AGAIN,
        ) from None
    if not unpacker.eof:
        raise ExportError("a file of the export is cut: its end is missing", remedy=_AGAIN)
