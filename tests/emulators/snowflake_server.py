"""A Snowflake for tests: fakesnow's server, with the gaps closed through which the real client would fall.

It runs in an environment of its own, on loopback, and checks no credentials: `python snowflake_server.py PORT`.
Beyond fakesnow 0.12.1, it

- answers a login so that the client's versions 5 accept it,
- keeps null timestamps null, and sends numbers as the real service does: scaled, in the narrowest type of each chunk,
- sends what exceeds CHUNK_ROWS as chunks to be downloaded, so that clients stream,
- answers its own failures at once, as statements that failed: the client would retry a 500 for a minute,
- knows SYSTEM$LAST_CHANGE_COMMIT_TIME: a number for each table that grows whenever its rows are written,
- describes where a file is to be put so that the client's versions 5 put it there,
- answers `CHANGES` of a table T from a table T_WRITTEN, which the test keeps: the same columns and WRITTEN_AT,
- keeps a diary of logins and statements, and fails on request: see `diary` and `fault`.
"""

import asyncio
import gzip
import itertools
import json
import re
import secrets
import sys
import uuid
from collections import defaultdict
from contextvars import ContextVar
from typing import Any

import fakesnow.arrow
import fakesnow.server
import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
import uvicorn
from sqlglot import exp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CHUNK_ROWS = 20_000
SECRETS = ("PASSWORD", "TOKEN")
WITHOUT = {
    "region": "us-central1",
    "endPoint": None,
    "storageAccount": None,
    "isClientSideEncrypted": False,
    "path": None,
}
"""What the description of a stage has, and fakesnow's lacks."""

CHANGES = re.compile(
    r"""([\w".]+)"[ ]CHANGES[ ][(]INFORMATION[ ]=>[ ](?:DEFAULT|APPEND_ONLY)[)]
    [ ]AT[ ][(]TIMESTAMP[ ]=>[ ]('[^']+'::TIMESTAMP_TZ)[)][ ]END[ ][(]TIMESTAMP[ ]=>[ ]('[^']+'::TIMESTAMP_TZ)[)]""",
    re.VERBOSE,
)
RECORDED = r"""(SELECT * FROM \1_WRITTEN" WHERE WRITTEN_AT > \2 AND WRITTEN_AT <= \3)"""

chunks: dict[str, bytes] = {}
databases: dict[str, str] = {}
"""Session token to the database that it was opened for: what tests on one server are told apart by."""
diaries: dict[str, list[dict[str, Any]]] = defaultdict(list)
faults: dict[str, str] = {}
written: dict[tuple[str, str], int] = {}
"""When a table's rows were last written, as a number of that write: by database and name."""
writes = itertools.count(1_661_920_053_987_000_000)
LAST_CHANGE = re.compile(r"""SELECT SYSTEM\$LAST_CHANGE_COMMIT_TIME\('.*"(.+)"'\)""")
WRITING = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.TruncateTable, exp.Copy, exp.Create)
"""Statements that write rows of a table, or make it; what alters its columns alone is none."""

one_at_a_time = asyncio.Lock()
rest_of_result: ContextVar[pa.Table | None] = ContextVar("rest", default=None)

struct_without_nulls = fakesnow.arrow.timestamp_to_sf_struct


def struct_with_nulls(stamps: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A timestamp column as the wire has it; fakesnow's own turns null into 1970."""
    column = stamps.combine_chunks() if isinstance(stamps, pa.ChunkedArray) else stamps
    filled = struct_without_nulls(pc.fill_null(column, pa.scalar(0, pa.int64()).cast(column.type)))
    children = [filled.field(i) for i in range(filled.type.num_fields)]
    return pa.StructArray.from_arrays(children, fields=list(filled.type), mask=pc.is_null(column))


def first_part(table: pa.Table) -> bytes:
    """What of a result travels in the answer itself; the rest is put by."""
    rest_of_result.set(table.slice(CHUNK_ROWS) if table.num_rows > CHUNK_ROWS else None)
    return stream(table.slice(0, CHUNK_ROWS))


def stream(table: pa.Table) -> bytes:
    columns, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        narrow = narrowed(field, column)
        columns.append(narrow)
        fields.append(field.with_type(narrow.type))
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def narrowed(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A number as the whole number of its last decimals, in the smallest type that holds this chunk."""
    number = pa.types.is_decimal(field.type) or pa.types.is_integer(field.type)
    if not number or (field.metadata or {}).get(b"logicalType") != b"FIXED":
        return column
    plain = column
    if pa.types.is_decimal(field.type):
        plain = pa.chunked_array([unscaled(part) for part in column.chunks], pa.decimal128(38, 0))
    for type_ in (pa.int8(), pa.int16(), pa.int32(), pa.int64()):
        try:
            return plain.cast(type_)
        except pa.ArrowInvalid:
            continue
    return column.cast(pa.decimal128(38, field.type.scale))


def unscaled(column: pa.Array) -> pa.Array:
    return pa.Array.from_buffers(pa.decimal128(38, 0), len(column), column.buffers(), offset=column.offset)


async def body_of(request: Request) -> dict[str, Any]:
    body = await request.body()
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return json.loads(body)


async def login(request: Request) -> Response:
    data = (await body_of(request))["data"]
    database = request.query_params.get("databaseName", "").upper()
    if faults.get(database) == "login":
        return refused("390100", "08001", "Incorrect username or password was specified.")
    answer = json.loads(bytes((await fakesnow.server.login_request(request)).body))
    answer["data"].update(
        masterToken=secrets.token_urlsafe(8),
        sessionId=secrets.randbelow(2**40),
        validityInSeconds=3600,
        masterValidityInSeconds=14400,
    )
    databases[answer["data"]["token"]] = database
    asked = {name: value for name, value in data.items() if name not in SECRETS}
    diaries[database].append({"login": asked, "query": dict(request.query_params)})
    return JSONResponse(answer)


async def logout_or_heartbeat(request: Request) -> Response:
    if request.query_params.get("delete"):
        diaries[databases.get(token_of(request), "")].append({"logout": True})
    return await fakesnow.server.session(request)


async def query(request: Request) -> Response:
    database, asked = databases.get(token_of(request), ""), await body_of(request)
    diaries[database].append(
        {"sql": asked["sqlText"], "parameters": asked.get("parameters"), "describe": asked.get("describeOnly", False)}
    )
    tell_changes(request, asked)
    if own := own_answer(database, asked["sqlText"]):
        return own
    async with one_at_a_time:
        try:
            response = await fakesnow.server.query_request(request)
        except Exception as error:  # noqa: BLE001 - whatever fakesnow does not know
            return refused("000603", "XX000", f"{type(error).__name__}: {error}")
        rest = rest_of_result.get()
    answer = json.loads(bytes(response.body))
    if answer.get("success"):
        note_write(database, asked["sqlText"])
    if response.status_code >= 500:
        return refused("000603", "XX000", str(answer.get("message")))
    if "stageInfo" in (answer.get("data") or {}):
        answer["data"]["stageInfo"] = {**WITHOUT, **answer["data"]["stageInfo"]}
        answer["data"]["overwrite"] = True
    if answer.get("code") == "001003":
        answer["message"] = "SQL compilation error:\nsyntax error: " + answer["message"]
    if rest is not None and answer["data"].get("rowsetBase64"):
        answer["data"].update(to_be_downloaded(request, database, rest))
        answer["data"]["returned"] = answer["data"]["total"]
    rest_of_result.set(None)
    return JSONResponse(answer)


def tell_changes(request: Request, asked: dict[str, Any]) -> None:
    """Asks the table that records what was written, in place of Snowflake's own record."""
    body = json.dumps({**asked, "sqlText": CHANGES.sub(RECORDED, asked["sqlText"])}).encode()
    request._body = gzip.compress(body) if request.headers.get("Content-Encoding") == "gzip" else body


def own_answer(database: str, text: str) -> Response | None:
    """The answer to what fakesnow is not to see."""
    if faults.get(database) in ("session", text.partition(" ")[0]):
        return refused("390104", "08001", "the session is gone")
    if text.lower().startswith("alter session set"):
        return done()
    if not (found := LAST_CHANGE.fullmatch(text)):
        return None
    if faults.get(database) == "untold":
        return refused("002140", "42601", "SQL compilation error:\nUnknown function SYSTEM$LAST_CHANGE_COMMIT_TIME")
    return last_change(written.get((database, found[1].upper()), 0))


def to_be_downloaded(request: Request, database: str, rest: pa.Table) -> dict[str, Any]:
    listed = []
    for start in range(0, rest.num_rows, CHUNK_ROWS):
        part = rest.slice(start, CHUNK_ROWS)
        plain, key = stream(part), secrets.token_urlsafe(12)
        chunks[key] = gzip.compress(plain, 1)
        if faults.get(database) == "chunk":
            chunks[key] = gzip.compress(plain[: len(plain) // 2], 1)
        url = f"{request.url.scheme}://{request.url.netloc}/chunk/{key}"
        size = {"uncompressedSize": len(plain), "compressedSize": len(chunks[key])}
        listed.append({"url": url, "rowCount": part.num_rows, **size})
    if faults.get(database) == "short":
        listed.pop()
    return {"chunks": listed, "qrmk": "x", "chunkHeaders": {"x-chunk": "1"}}


def refused(code: str, state: str, message: str) -> Response:
    data = {"errorCode": code, "sqlState": state}
    return JSONResponse({"data": data, "code": code, "message": message, "success": False})


def note_write(database: str, text: str) -> None:
    for statement in sqlglot.parse(text, "snowflake"):
        if isinstance(statement, WRITING) and (table := (statement.this or statement).find(exp.Table)):
            written[database, table.name.upper()] = next(writes)


def last_change(value: int) -> Response:
    number = {"name": "SYSTEM$LAST_CHANGE_COMMIT_TIME", "type": "fixed", "precision": 38, "scale": 0}
    return one({**number, "nullable": True, "length": None, "byteLength": None}, str(value))


def done() -> Response:
    text = {"name": "status", "type": "text", "nullable": True, "length": 100, "byteLength": 100}
    return one({**text, "precision": None, "scale": None}, "Statement executed successfully.")


def one(column: dict[str, Any], value: str) -> Response:
    """A result of one column and one row."""
    nothing = dict.fromkeys(["finalDatabaseName", "finalSchemaName"])
    data = {
        "parameters": [],
        "rowtype": [{**column, **nothing, "database": "", "schema": "", "table": ""}],
        "rowset": [[value]],
        "total": 1,
        "returned": 1,
        "queryId": str(uuid.uuid4()),
        "queryResultFormat": "json",
        "statementTypeId": 16384,
    }
    return JSONResponse({"data": data, "success": True})


def token_of(request: Request) -> str:
    return request.headers.get("Authorization", "").partition('"')[2].removesuffix('"')


async def chunk(request: Request) -> Response:
    """A chunk, once: what is downloaded is forgotten, as tests read in streams larger than memory."""
    if (found := chunks.pop(request.path_params["key"], None)) is None:
        return Response(status_code=403)
    return Response(found, media_type="binary/octet-stream", headers={"Content-Encoding": "gzip"})


async def diary(request: Request) -> Response:
    """Logins, logouts and statements of the sessions opened for a database, oldest first."""
    return JSONResponse(diaries[request.path_params["database"]])


async def fault(request: Request) -> Response:
    """From now on, sessions opened for a database fail: `login`, `session` (it ended), `chunk` (cut short), `short` (lost).

    With `untold` no function knows when a table was changed; with a word such as `INSERT`, only statements that begin with it.
    """
    faults[request.path_params["database"]] = request.path_params["kind"]
    return JSONResponse({})


async def nothing(request: Request) -> Response:
    return JSONResponse({"success": True, "data": None, "code": None, "message": None})


OURS = [
    Route("/session/v1/login-request", login, methods=["POST"]),
    Route("/session", logout_or_heartbeat, methods=["POST"]),
    Route("/queries/v1/query-request", query, methods=["POST"]),
    Route("/telemetry/send", nothing, methods=["POST"]),
    Route("/chunk/{key}", chunk),
    Route("/diary/{database}", diary),
    Route("/fault/{database}/{kind}", fault, methods=["POST"]),
]

if __name__ == "__main__":
    fakesnow.arrow.timestamp_to_sf_struct = struct_with_nulls
    fakesnow.server.to_ipc = first_part
    paths = {route.path for route in OURS}
    app = Starlette(routes=OURS + [route for route in fakesnow.server.routes if route.path not in paths])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
