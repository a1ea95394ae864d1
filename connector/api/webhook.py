"""Tells a webhook something, as JSON; its URL is a secret and shows nowhere."""

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from connector.errors import ApiError

DEADLINE = 10.0
"""Seconds of the whole exchange."""

_REMEDY = "check alerts.webhook and the service behind it"


def post(url: SecretStr, message: dict[str, Any], *, deadline: float = DEADLINE) -> None:
    """POST the message; follows no redirect and takes no proxy from the environment.

    Args:
        url: https, or http on this machine.
        message: JSON.
        deadline: Seconds of the whole exchange.

    Raises:
        ApiError: The URL is none, there was no answer, or its status is not 2xx.
    """
    try:
        status = asyncio.run(_post(url.get_secret_value(), message, deadline))
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, TimeoutError) as error:
        raise ApiError(f"the alert webhook did not answer: {type(error).__name__}", remedy=_REMEDY) from None
    if not httpx.codes.is_success(status):
        raise ApiError(f"the alert webhook answered {status}", remedy=_REMEDY)


async def _post(url: str, message: dict[str, Any], deadline: float) -> int:
    if not _is_safe(url):
        raise ApiError(
            "the alert webhook's URL must begin with https:// (http:// on this machine only)", remedy=_REMEDY
        )
    async with (
        asyncio.timeout(deadline),
        httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=deadline) as client,
        client.stream("POST", url, json=message) as response,
    ):
        return response.status_code


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and local))
