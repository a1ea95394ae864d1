"""The HTTP face: Batch's routes under a version, control routes under `/simulator`."""

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connector.errors import UsageError
from connector.simulator.answers import Answer, failure
from connector.simulator.export_app import export_routes
from connector.simulator.limits import Endpoint
from connector.simulator.project import Project
from connector.simulator.responses import hold_back, is_version, refusal, response

if TYPE_CHECKING:
    from connector.simulator.simulator import Simulator

PAGE = 1000
"""Profiles or events in a page of a control route where the caller names no limit."""


def build_app(simulator: "Simulator") -> Starlette:
    """The ASGI application, for a server or for callers in this process."""
    control = _Control(simulator)
    return Starlette(
        routes=[
            Route("/simulator/profiles", control.profiles, methods=["GET"]),
            Route("/simulator/profiles/{custom_id:path}", control.profile, methods=["GET"]),
            Route("/simulator/profiles/{custom_id:path}", control.alter, methods=["POST"]),
            Route("/simulator/profiles/{custom_id:path}", control.forget, methods=["DELETE"]),
            Route("/simulator/exports", control.exports, methods=["GET"]),
            Route("/simulator/events", control.events, methods=["GET"]),
            Route("/simulator/requests", control.requests, methods=["GET"]),
            Route("/simulator/faults", control.inject, methods=["POST"]),
            Route("/simulator/faults", control.clear_faults, methods=["DELETE"]),
            Route("/simulator/reset", control.reset, methods=["POST"]),
            *export_routes(simulator),
            Route("/{version}/profiles/{endpoint}", _update_route(simulator), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _on_http_exception, UsageError: _on_usage_error},
    )


def _update_route(simulator: "Simulator") -> Callable[[Request], object]:
    async def update(request: Request) -> Response:
        endpoint = request.path_params["endpoint"]
        if not is_version(request) or endpoint not in ("update", "mass-update"):
            return response(failure(404, "no such version or endpoint"))
        with _exchange(simulator, cast("Endpoint", endpoint), request, await request.body()) as answer:
            if answer.delay:
                await hold_back(simulator.sleep(answer.delay), request)
        return response(answer)

    return update


def _exchange(
    simulator: "Simulator", endpoint: Endpoint, request: Request, body: bytes
) -> AbstractContextManager[Answer]:
    key = request.headers.get("x-batch-project", "")
    refused = refusal(simulator, request, key, len(body))
    if refused is None:
        return simulator.project(key).exchange(endpoint, body)
    counted = simulator.accountable(key)
    if counted:
        counted.count(endpoint, refused.status)
    return nullcontext(refused)


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
        return response(failure(404, "no such profile")) if profile is None else JSONResponse(profile)

    async def alter(self, request: Request) -> Response:
        attributes = await _json(request, "send an object of attributes")
        if not isinstance(attributes, dict):
            raise UsageError("the body is not an object", remedy="send an object of attributes")
        self._project(request).alter(request.path_params["custom_id"], attributes)
        return await self.profile(request)

    async def forget(self, request: Request) -> Response:
        known = self._project(request).forget(request.path_params["custom_id"])
        return JSONResponse({"code": "SUCCESS"}) if known else response(failure(404, "no such profile"))

    async def exports(self, request: Request) -> Response:
        return JSONResponse({"exports": self._project(request).exports()})

    async def requests(self, request: Request) -> Response:
        project = self._project(request)
        stats = project.stats()
        if "log" in request.query_params:
            stats["log"] = [entry._asdict() for entry in project.requests]
        return JSONResponse(stats)

    async def inject(self, request: Request) -> Response:
        faults = await _json(request, "send one fault, or an array of them")
        project = self._project(request)
        project.inject(*(faults if isinstance(faults, list) else [faults]))
        return JSONResponse({"faults": project.stats()["faults"]})

    async def clear_faults(self, request: Request) -> Response:
        self._project(request).clear_faults()
        return JSONResponse({"faults": 0})

    async def reset(self, request: Request) -> Response:
        self._project(request).reset()
        return JSONResponse({"code": "SUCCESS"})


async def _json(request: Request, remedy: str) -> Any:  # noqa: ANN401 - parsed JSON
    try:
        return json.loads(await request.body())
    except ValueError:
        raise UsageError("the body is not JSON", remedy=remedy) from None


def _whole(request: Request, name: str, default: int, *, least: int) -> int:
    text = request.query_params.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) < least:
        raise UsageError(f"the query parameter '{name}' is not a whole number from {least} up", remedy="correct it")
    return int(text)


def _on_http_exception(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    status = error.status_code if isinstance(error, HTTPException) else 500
    return response(failure(status, "no such route or method"))


def _on_usage_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    return response(failure(400, str(error)))
