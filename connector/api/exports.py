"""The export endpoints: what they are asked, and their answers as values."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from connector.api._http import Client, NoAnswerError
from connector.outcome import Answer

CREATE, VIEW, LIST, DOWNLOAD = "/profiles/export", "/exports/view", "/exports/list", "/exports/download"

PAGE = "100"
"""Exports of a page of the list: the most that Batch gives."""

ACCEPTED, OK, REDIRECT, NOT_FOUND = 202, 200, 307, 404


class ExportFile(NamedTuple):
    """A file of an export; `id` is Batch's word and no name to trust, `size` is in bytes."""

    id: str
    part: int
    size: int


class Export(NamedTuple):
    """What Batch says of an export: `status` is CREATED, PENDING, RUNNING, SUCCESS or ERROR."""

    id: str
    status: str
    request: Mapping[str, Any]
    requested_at: float | None
    """In seconds since 1970; None where it does not say."""
    files: tuple[ExportFile, ...]


async def create(client: Client, request: Mapping[str, Any]) -> Answer:
    """The answer to asking for an export; `created` reads it."""
    return await client.post(CREATE, json.dumps(request).encode())


async def view(client: Client, export_id: str) -> Answer:
    """The answer to asking how an export is; `viewed` reads it."""
    return await client.get(VIEW, id=export_id)


async def listing(client: Client, start: str | None) -> Answer:
    """The answer to asking for a page of all exports; `listed` reads it."""
    return await client.get(LIST, limit=PAGE, **({"from": start} if start else {}))


async def link(client: Client, file_id: str) -> Answer:
    """The answer to asking where a file is; its Location is a secret, good for 20 minutes."""
    return await client.get(DOWNLOAD, id=file_id)


def created(answer: Answer) -> str:
    """The new export's id.

    Raises:
        NoAnswerError: The answer does not say it; the export may have been made all the same.
    """
    return _export_id(_object(answer.body))


def viewed(answer: Answer) -> Export:
    """What Batch says of one export.

    Raises:
        NoAnswerError: The answer cannot be understood.
    """
    return _export(_object(answer.body))


def listed(answer: Answer) -> tuple[list[Export], str | None]:
    """The exports of a page, and where the next page starts; None behind the last one.

    Raises:
        NoAnswerError: The answer cannot be understood.
    """
    page = _object(answer.body)
    exports, following = page.get("exports"), page.get("next_from")
    if not isinstance(exports, list):
        raise NoAnswerError("a page of exports without a list of them")
    more = page.get("has_more") is True and isinstance(following, str) and following
    return list(_understood(exports)), following if more else None


def _understood(exports: list[object]) -> Iterator[Export]:
    """Those that make sense: an odd one of anybody's is not the one that is looked for."""
    for found in exports:
        with suppress(NoAnswerError):
            if isinstance(found, dict):
                yield _export(found)


def _export(found: dict[str, Any]) -> Export:
    files = found.get("files") or []
    request = found.get("request")
    if not isinstance(files, list):
        raise NoAnswerError("an export whose files are no list")
    return Export(
        id=_export_id(found),
        status=_text(found, "status"),
        request=request if isinstance(request, dict) else {},
        requested_at=_moment(found.get("request_date") or found.get("requested_at")),
        files=tuple(_file(file) for file in files),
    )


def _file(found: object) -> ExportFile:
    if not isinstance(found, dict):
        raise NoAnswerError("a file of an export that is no object")
    part, size = found.get("part"), found.get("size")
    if type(part) is not int or type(size) is not int or size < 0:
        raise NoAnswerError("a file of an export without a part and a size")
    return ExportFile(_text(found, "id"), part, size)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise NoAnswerError("an answer that is not JSON") from None
    if not isinstance(found, dict):
        raise NoAnswerError("an answer that is no JSON object")
    return found


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise NoAnswerError(f"an answer without '{name}'")
    return value


def _export_id(found: Mapping[str, Any]) -> str:
    """An export's id, which goes into tables and statements: documented are `export_` and 32 characters."""
    export_id = _text(found, "id")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", export_id):
        raise NoAnswerError("an export whose id has other characters than letters, digits, '_' and '-'")
    return export_id


def _moment(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
