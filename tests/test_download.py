"""The way to a file: which links are followed, with what, and what is made of the answers. The network is a function."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from connector.api._http import NoAnswerError
from connector.api.files import REDIRECTS_MAX, ExpiredError, Piece, fetch, reach
from connector.errors import ExportError

CONTENT = bytes(range(256)) * 40
LINK = "https://files.example.org/a/b?signature=secret"

NOTHING = Piece()

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names mean; every other one is unknown."""
    known = {
        "files.example.org": ["93.184.216.34"],
        "other.example.org": ["2606:2800:220:1::1"],
        "inside.example.org": ["93.184.216.34", "10.0.0.7"],
    }

    def getaddrinfo(host: str, port: int, *_args: Any, **_options: Any) -> list[Any]:
        if host not in known and not host.replace(".", "").isdigit() and ":" not in host:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (address, port)) for address in known.get(host, [host])]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def fetched(
    handler: Handler, path: Path, piece: Piece = NOTHING, url: str = LINK, local: bool = False
) -> tuple[Piece, bool]:
    async def run() -> tuple[Piece, bool]:
        async with reach(local=local, timeout=5, transport=httpx.MockTransport(handler)) as store:
            return await fetch(store, url, path, piece, len(CONTENT))

    return asyncio.run(run())


class Parts(httpx.AsyncByteStream):
    """What comes over a connection, which may end after it."""

    def __init__(self, content: bytes, *, broken: bool = False) -> None:
        self._content = content
        self._broken = broken

    async def __aiter__(self) -> Any:
        for start in range(0, len(self._content), 1000):
            yield self._content[start : start + 1000]
        if self._broken:
            raise httpx.ReadError("reset")


class Host:
    """Where files are: it knows ranges and an ETag, and remembers what it was asked."""

    def __init__(self, *answers: httpx.Response, etag: str = '"v1"') -> None:
        self.asked: list[httpx.Request] = []
        self._answers = list(answers)
        self.etag = etag

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self._answers:
            return self._answers.pop(0)
        start = request.headers.get("range")
        if start and request.headers.get("if-range") == self.etag:
            first = int(start.removeprefix("bytes=").removesuffix("-"))
            said = {"etag": self.etag, "content-range": f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"}
            return httpx.Response(206, headers=said, stream=Parts(CONTENT[first:]))
        return httpx.Response(200, headers={"etag": self.etag}, stream=Parts(CONTENT))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1"


def test_a_whole_file(path: Path) -> None:
    """The address that was judged is the one that is called, under the host's name, with no header of ours."""
    host = Host()
    assert fetched(host, path) == (Piece(len(CONTENT), '"v1"'), True)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    (request,) = host.asked
    assert (request.url.host, request.headers["host"], request.extensions["sni_hostname"]) == (
        "93.184.216.34",
        "files.example.org",
        "files.example.org",
    )
    assert request.url.query == b"signature=secret"
    assert set(request.headers) == {"host", "accept", "accept-encoding", "connection", "user-agent"}
    assert request.headers["accept-encoding"] == "identity"


def test_what_is_missing_is_asked_for(path: Path) -> None:
    """After a broken connection the rest comes by range, as long as the file is the same."""
    host = Host(httpx.Response(200, headers={"etag": '"v1"'}, stream=Parts(CONTENT[:100], broken=True)))
    piece, whole = fetched(host, path)
    assert (piece, whole) == (Piece(100, '"v1"'), False)
    assert fetched(host, path, piece) == (Piece(len(CONTENT), '"v1"'), True)
    assert (host.asked[1].headers["range"], host.asked[1].headers["if-range"]) == ("bytes=100-", '"v1"')
    assert path.read_bytes() == CONTENT


def test_a_file_that_changed_comes_whole(path: Path) -> None:
    """With another ETag what is here is thrown away."""
    path.write_bytes(b"old" * 5000)
    assert fetched(Host(etag='"v2"'), path, Piece(15_000, '"v1"')) == (Piece(len(CONTENT), '"v2"'), True)
    assert path.read_bytes() == CONTENT


def test_without_an_etag_nothing_is_pieced_together(path: Path) -> None:
    """Halves that may be of two files never meet."""
    path.write_bytes(b"old")
    host = Host()
    assert fetched(host, path, Piece(3, None))[1]
    assert "range" not in host.asked[0].headers
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(416), httpx.Response(206, content=b"x"), httpx.Response(206, headers={"content-range": "bytes 7-9/10"}, content=b"xyz"),
        httpx.Response(206, headers={"content-range": "bytes 5-9/10", "etag": '"v2"'}, content=b"xyz"),
    ],
)  # fmt: skip
def test_ranges_that_do_not_fit(answer: httpx.Response, path: Path) -> None:
    """A range of another place or file: everything is asked for again."""
    path.write_bytes(CONTENT[:5])
    assert fetched(Host(answer), path, Piece(5, '"v1"')) == (Piece(), False)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_links_expire(status: int, path: Path) -> None:
    """What a store of files says of an old link."""
    with pytest.raises(ExpiredError):
        fetched(Host(httpx.Response(status)), path)


@pytest.mark.parametrize("status", [400, 429, 500, 503, 204])
def test_refusals_for_now(status: int, path: Path) -> None:
    """Everything else is asked for again by the caller."""
    with pytest.raises(NoAnswerError, match=str(status)):
        fetched(Host(httpx.Response(status)), path)


def test_more_than_it_may_be(path: Path) -> None:
    """A file does not fill the disk."""
    with pytest.raises(ExportError, match="is larger than the 10,240 bytes"):
        fetched(Host(httpx.Response(200, stream=Parts(CONTENT + b"x"))), path)
    assert path.stat().st_size <= len(CONTENT)


BAD = {
    "http://files.example.org/a": "does not begin with https://",
    "ftp://files.example.org/a": "does not begin with https://",
    "file:///etc/passwd": "names no host",
    "https:///a": "names no host",
    "": "names no host",
    "https://[::1": "is no URL",
    "https://files.example.org:port/a": "is no URL",
    "https://files.example.org:99999/a": "is no URL",
    "https://10.0.0.1/a": "no public address",
    "https://127.0.0.1/a": "no public address",
    "https://[::1]/a": "no public address",
    "https://[fe80::1%25eth0]/a": "no public address",
    "https://[::ffff:192.168.1.1]/a": "no public address",
    "https://169.254.169.254/latest": "no public address",
    "https://100.64.0.1/a": "no public address",
    "https://224.0.0.1/a": "no public address",
    "https://0.0.0.0/a": "no public address",
    "https://inside.example.org/a": "no public address",
    "https://user:pass@10.0.0.1:8443/a": "no public address",
}


@pytest.mark.parametrize(
    ("url", "redirected"),
    [(url, redirected) for url in BAD for redirected in ([False, True] if url not in ("", "https:///a") else [False])],
)  # without a host it is relative, to the same one
def test_links_that_are_not_followed(url: str, redirected: bool, path: Path) -> None:
    """Not by https, not to a public address, on the first step or a later one: no connection, and no link in the words."""
    host = Host(*([httpx.Response(302, headers={"location": url})] if redirected else []))
    with pytest.raises((ExportError, NoAnswerError)) as raised:
        fetched(host, path, url=LINK if redirected else url)
    assert len(host.asked) == redirected
    for secret in ("signature", "secret", "pass", "/a", "latest"):
        assert secret not in str(raised.value)
    if isinstance(raised.value, ExportError):
        assert BAD[url] in str(raised.value)


def test_a_redirect_to_a_name_that_cannot_be(path: Path) -> None:
    """The client trips over such a name when it only reads it: that is an error of the link, too."""
    with pytest.raises(ExportError, match="is no URL"):
        fetched(Host(httpx.Response(302, headers={"location": "https://xn--a.example.org/a?signature=x"})), path)


def test_redirects(path: Path) -> None:
    """Each step is judged by itself, named by its own host, and there are few."""
    onward = httpx.Response(307, headers={"location": "https://other.example.org:8443/x?token=1"})
    host = Host(onward, httpx.Response(301, headers={"location": "/y"}))
    assert fetched(host, path)[1]
    hosts = [(one.url.host, one.headers["host"], one.url.path) for one in host.asked]
    assert hosts[0] == ("93.184.216.34", "files.example.org", "/a/b")
    assert hosts[1:] == [("2606:2800:220:1::1", "other.example.org:8443", path) for path in ("/x", "/y")]
    host = Host(*[httpx.Response(302, headers={"location": LINK}) for _ in range(REDIRECTS_MAX + 1)])
    with pytest.raises(ExportError, match="more than 3 times"):
        fetched(host, path)
    assert len(host.asked) == REDIRECTS_MAX + 1


def test_this_machine_only_where_batch_is_here_too(path: Path) -> None:
    """Plain http to loopback is for the local API alone."""
    assert fetched(Host(), path, url="http://127.0.0.1:8765/f", local=True)[1]
    for url in ("http://10.0.0.1/f", "http://files.example.org/f"):
        with pytest.raises(ExportError):
            fetched(Host(), path, url=url, local=True)


def test_names_that_nobody_knows(path: Path) -> None:
    """A name that does not resolve today may tomorrow."""
    with pytest.raises(NoAnswerError, match="gaierror"):
        fetched(Host(), path, url="https://nowhere.example.org/a?signature=x")


def test_a_file_is_no_link_to_another(path: Path, tmp_path: Path) -> None:
    """A link in the folder of files is not followed."""
    (tmp_path / "precious").write_text("precious")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        fetched(Host(), path)
    assert (tmp_path / "precious").read_text() == "precious"
