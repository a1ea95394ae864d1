"""The routes of exports, and the host of their files."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connector.simulator.answers import Answer, failure
from connector.simulator.content import Content, Fetch
from connector.simulator.export_calls import Ask
from connector.simulator.limits import ExportEndpoint
from connector.simulator.responses import ContentResponse, hold_back, is_version, refusal, response

if TYPE_CHECKING:
    from connector.simulator.simulator import Simulator


def export_routes(simulator: "Simulator") -> list[Route]:
    """Batch's four routes, and that of the links which one of them gives."""
    return [
        Route("/{version}/profiles/export", _route(simulator, "export"), methods=["POST"]),
        Route("/{version}/exports/view", _route(simulator, "view"), methods=["GET"]),
        Route("/{version}/exports/list", _route(simulator, "list"), methods=["GET"]),
        Route("/{version}/exports/download", _route(simulator, "download"), methods=["GET"]),
        Route("/simulator/files/{token}/{name:path}", _file_route(simulator), methods=["GET"]),
    ]


def _route(simulator: "Simulator", endpoint: ExportEndpoint) -> Callable[[Request], object]:
    async def ask(request: Request) -> Response:
        if not is_version(request):
            return response(failure(404, "no such version"))
        answer = _answer(simulator, endpoint, request, await request.body())
        if answer.delay:
            await hold_back(simulator.sleep(answer.delay), request)
        return response(answer)

    return ask


def _answer(simulator: "Simulator", endpoint: ExportEndpoint, request: Request, body: bytes) -> Answer:
    key = request.headers.get("x-batch-project", "")
    refused = refusal(simulator, request, key, len(body))
    if refused is None:
        ask = Ask(_root(request), request.path_params["version"], dict(request.query_params), body)
        return simulator.project(key).ask(endpoint, ask)
    counted = simulator.accountable(key)
    if counted:
        counted.count(endpoint, refused.status)
    return refused


def _file_route(simulator: "Simulator") -> Callable[[Request], object]:
    async def fetch(request: Request) -> Response:
        await request.body()  # else it is what `hold_back` takes for the caller's end
        asked = _fetch(request)
        project = simulator.giver(asked.token)
        if project is None:
            return response(failure(404, "no such file"))
        found = project.fetch(asked)
        if found.delay:
            await hold_back(simulator.sleep(found.delay), request)
        return ContentResponse(found, project.count_sent) if isinstance(found, Content) else response(found)

    return fetch


def _fetch(request: Request) -> Fetch:
    return Fetch(
        request.path_params["token"],
        request.query_params.get("signature", ""),
        request.method,
        request.headers.get("range"),
        request.headers.get("if-range"),
        leaking="authorization" in request.headers or "x-batch-project" in request.headers,
    )


def _root(request: Request) -> str:
    return str(request.base_url).rstrip("/")
