"""The HTTP face: Batch's routes under a version, control routes under `/simulator`."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from connector.errors import UsageError
from connector.simulator.answers import Answer, failure
from connector.simulator.limits import Endpoint
from connector.simulator.project import Project

if TYPE_CHECKING:
    from connector.simulator.simulator import Simulator

PAGE = 1000
"""Profiles or events in a page of a control route where the caller names no limit."""

_VERSION = re.compile(r"2\.[0-9]+")


class CutResponse(Response):
    """Declares its whole length and sends half of it.

    The server then ends the connection. In process there is none to end, so the caller gets the half.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the head and half of the body."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = self.body[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": False})


def build_app(simulator: "Simulator") -> Starlette:
    """The ASGI application, for a server or for callers in this process."""
    control = _Control(simulator)
    return Starlette(
        routes=[
            Route("/simulator/profiles", control.profiles, methods=["GET"]),
            Route("/simulator/profiles/{custom_id:path}", control.profile, methods=["GET"]),
            Route("/simulator/events", control.events, methods=["GET"]),
            Route("/simulator/requests", control.requests, methods=["GET"]),
            Route("/simulator/faults", control.inject, methods=["POST"]),
            Route("/simulator/faults", control.clear_faults, methods=["DELETE"]),
            Route("/simulator/reset", control.reset, methods=["POST"]),
            Route("/{version}/profiles/{endpoint}", _update_route(simulator), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _on_http_exception, UsageError: _on_usage_error},
    )


def _update_route(simulator: "Simulator") -> Callable[[Request], object]:
    async def update(request: Request) -> Response:
        endpoint = request.path_params["endpoint"]
        if not _VERSION.fullmatch(request.path_params["version"]) or endpoint not in (
            "update",
            "mass-update",
        ):
            return _response(failure(404, "no such version or endpoint"))
        with _exchange(simulator, cast("Endpoint", endpoint), request, await request.body()) as answer:
            if answer.delay:
                await _hold_back(simulator.sleep(answer.delay), request)
        return _response(answer)

    return update


def _exchange(
    simulator: "Simulator", endpoint: Endpoint, request: Request, body: bytes
) -> AbstractContextManager[Answer]:
    key = request.headers.get("x-batch-project", "")
    refusal = _refusal(simulator, request, key, len(body))
    if refusal is None:
        return simulator.project(key).exchange(endpoint, body)
    counted = simulator.accountable(key)
    if counted:
        counted.count(endpoint, refusal.status)
    return nullcontext(refusal)


async def _hold_back(sleep: Awaitable[None], request: Request) -> None:
    """Sleep; less where the caller hangs up, whose next call shall not count as made beside this one."""
    ends = [asyncio.ensure_future(sleep), asyncio.ensure_future(request.receive())]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()


def _refusal(simulator: "Simulator", request: Request, key: str, size: int) -> Answer | None:
    rest_key = simulator.credentials.get(key)
    if rest_key is None or request.headers.get("authorization") != f"Bearer {rest_key}":
        return failure(401, "the REST API key is not valid for this project")
    if request.headers.get("content-encoding", "identity") != "identity":
        return failure(415, "Content-Encoding is not identity")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return failure(400, "Content-Type is not application/json")
    most = simulator.project(key).settings.body_bytes
    if most is not None and size > most:
        return failure(413, f"the body has {size} bytes, at most {most} are allowed")
    return None


class _Control:
    """The routes under `/simulator`, for tests and people; the project by `?project=`."""

    def __init__(self, simulator: "Simulator") -> None:
        self._simulator = simulator

    def _project(self, request: Request) -> Project:
        return self._simulator.project(request.query_params.get("project"))

    async def profiles(self, request: Request) -> Response:
        limit = _whole(request, "limit", PAGE, least=1)
        page = self._project(request).profiles(request.query_params.get("after"), limit)
        following = page[-1]["custom_id"] if len(page) == limit else None
        return JSONResponse({"profiles": page, "next": following})

    async def events(self, request: Request) -> Response:
        limit = _whole(request, "limit", PAGE, least=1)
        after = _whole(request, "after", 0, least=0)
        page = self._project(request).events(request.query_params.get("custom_id"), after, limit)
        following = page[-1]["sequence"] if len(page) == limit else None
        return JSONResponse({"events": page, "next": following})

    async def profile(self, request: Request) -> Response:
        profile = self._project(request).profile(request.path_params["custom_id"])
        return _response(failure(404, "no such profile")) if profile is None else JSONResponse(profile)

    async def requests(self, request: Request) -> Response:
        project = self._project(request)
        stats = project.stats()
        if "log" in request.query_params:
            stats["log"] = [entry._asdict() for entry in project.requests]
        return JSONResponse(stats)

    async def inject(self, request: Request) -> Response:
        try:
            faults = json.loads(await request.body())
        except ValueError:
            raise UsageError("the body is not JSON", remedy="send one fault, or an array of them") from None
        project = self._project(request)
        project.inject(*(faults if isinstance(faults, list) else [faults]))
        return JSONResponse({"faults": project.stats()["faults"]})

    async def clear_faults(self, request: Request) -> Response:
        self._project(request).clear_faults()
        return JSONResponse({"faults": 0})

    async def reset(self, request: Request) -> Response:
        self._project(request).reset()
        return JSONResponse({"code": "SUCCESS"})


def _whole(request: Request, name: str, default: int, *, least: int) -> int:
    text = request.query_params.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) < least:
        raise UsageError(f"the query parameter '{name}' is not a whole number from {least} up", remedy="correct it")
    return int(text)


def _response(answer: Answer) -> Response:
    kind = CutResponse if answer.cut else Response
    return kind(answer.body, answer.status, answer.headers, media_type=answer.content_type)


def _on_http_exception(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _response(failure(status, "no such route or method"))


def _on_usage_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    return _response(failure(400, str(error)))
