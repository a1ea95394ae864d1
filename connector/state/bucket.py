"""Object storage of a state's files: the bucket holds them for all hosts, the state's folder is this host's cache.

Where a file lies in the bucket is its path in the folder. A file is put before the database names it, and what is
fetched is believed by the checksum that the database has: an end at any moment leaves a file too many at worst.
"""

import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa

from connector._steps import step
from connector.errors import StateError

OWNER = "owner"
"""The object that tells whose files these are."""

CONNECT_SECONDS = 10
"""How long a connection is waited for, at each of three attempts."""

_PIECE = 8 << 20
"""Bytes of a read: each is a request."""

_ACCESS = "let the role read, write, list and delete below it (s3:GetObject, PutObject, DeleteObject, ListBucket)"
_KEYS = "correct the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the host's role"
_NETWORK = "see that it can be reached from this host, then run again: nothing is lost"
_REMEDIES = {
    "ACCESS_DENIED": _ACCESS,
    "INVALID_ACCESS_KEY_ID": _KEYS,
    "INVALID_CLIENT_TOKEN_ID": _KEYS,
    "SIGNATURE_DOES_NOT_MATCH": _KEYS,
    "NO_SUCH_BUCKET": "make the bucket, or correct its name in state.files",
    "PERMANENT_REDIRECT": "name its region in state.files: s3://BUCKET/PREFIX?region=REGION",
}
"""What to do, by the SDK's name of the error: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html."""

_AWS_ERROR = re.compile(r"AWS Error ([A-Z_]+) during (\w+) operation")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A prefix of a bucket, and the folder that mirrors it.

    Attributes:
        name: `s3://BUCKET/PREFIX`, for messages.
        root: `BUCKET/PREFIX`.
        folder: The cache.
        store: A `pyarrow.fs.FileSystem`.
    """

    name: str
    root: str
    folder: Path
    store: Any

    def put(self, path: Path) -> None:
        """Copy a file of the folder to its place: it is whole there, or it is not there.

        Raises:
            StateError: The bucket refuses it or is out of reach.
        """
        step("bucket.begun")
        with self._said(), path.open("rb") as file, self._written(self._at(path)) as sink:
            shutil.copyfileobj(file, sink, _PIECE)
        step("bucket.put")

    def fetch(self, path: Path, sha256: str) -> str | None:
        """Bring a file to its place in the folder if it has the checksum that it must have.

        Returns:
            The checksum that was found; another one than expected: nothing was brought; None: there is no such object.

        Raises:
            StateError: The bucket refuses it or is out of reach, or the disk is full.
        """
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        digest = hashlib.sha256()
        try:
            with self._said(), self._opened(self._at(path)) as source:
                if source is None:
                    return None
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
                    while piece := source.read(_PIECE):
                        digest.update(piece)
                        sink.write(piece)
                    sink.flush()
                    os.fsync(sink.fileno())
                if digest.hexdigest() == sha256:
                    part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return digest.hexdigest()

    def ages(self, folder: Path) -> dict[str, float]:
        """The objects that belong in a folder: seconds since each was put, by its name.

        Raises:
            StateError: The bucket refuses to list them or is out of reach.
        """
        with self._said():
            from pyarrow.fs import FileSelector, FileType  # noqa: PLC0415 - as in `bucket`

            found = self.store.get_file_info(FileSelector(self._at(folder), recursive=True, allow_not_found=True))
            start = len(self._at(folder)) + 1
            now = time.time()
            return {each.path[start:]: now - each.mtime_ns / 1e9 for each in found if each.type == FileType.File}

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove what stands for files of the folder, as far as it is there.

        Raises:
            StateError: The bucket refuses it or is out of reach.
        """
        for path in paths:
            with self._said():
                try:
                    self.store.delete_file(self._at(path))
                except FileNotFoundError:
                    continue

    def read(self, name: str) -> str | None:
        """A small object's text; None where there is none.

        Raises:
            StateError: The bucket refuses it or is out of reach.
        """
        with self._said(), self._opened(f"{self.root}/{name}") as source:
            return None if source is None else source.read().decode(errors="replace")

    def write(self, name: str, text: str) -> None:
        """Keep a small object.

        Raises:
            StateError: The bucket refuses it or is out of reach.
        """
        with self._said(), self._written(f"{self.root}/{name}") as sink:
            sink.write(text.encode())

    def at(self, path: Path) -> str:
        """Where a file of the folder lies, for messages."""
        return f"s3://{self._at(path)}"

    def _at(self, path: Path) -> str:
        return f"{self.root}/{path.relative_to(self.folder).as_posix()}"

    @contextmanager
    def _opened(self, at: str) -> Iterator[IO[bytes] | None]:
        try:
            source = self.store.open_input_stream(at)
        except FileNotFoundError:
            yield None
            return
        with source:
            yield source

    @contextmanager
    def _written(self, at: str) -> Iterator[IO[bytes]]:
        with self.store.open_output_stream(at) as sink:
            yield sink

    @contextmanager
    def _said(self) -> Iterator[None]:
        """The library's errors, in words; the service's own text is left out, as it may name a key."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise _refused(self.name, error) from None


def bucket(uri: str, folder: Path) -> Bucket:
    """The bucket of a URI; nothing is asked of it yet.

    Credentials are found as the AWS SDK finds them: environment, profile, role of the host.

    Args:
        uri: `s3://BUCKET/PREFIX?region=…&endpoint_override=HOST:PORT&scheme=http`, of which the query may be missing:
            the region is then AWS_REGION's, the endpoint AWS_ENDPOINT_URL_S3's or AWS_ENDPOINT_URL's.
        folder: The cache.

    Raises:
        StateError: The library does not take it.
    """
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem  # noqa: PLC0415 - 50 ms that a folder does not need

    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    if (
        "endpoint_override" not in options
    ):  # the library does not look there: https://github.com/apache/arrow/issues/49643
        told = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
        options |= {"endpoint_override": told.netloc, "scheme": told.scheme} if told.netloc else {}
    root = parts.netloc + parts.path.rstrip("/")
    try:
        store = S3FileSystem(
            **options,
            connect_timeout=CONNECT_SECONDS,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=3),
            allow_delayed_open=True,  # one request a file below 10 MB
        )
    except (OSError, pa.ArrowException) as error:
        raise _refused(f"s3://{root}", error) from None
    return Bucket(f"s3://{root}", root, folder, store)


def _refused(name: str, error: Exception) -> StateError:
    text = str(error)
    if told := _AWS_ERROR.search(text):
        code, operation = told.groups()
        return StateError(
            f"the bucket '{name}' cannot be used: {code} at {operation}", remedy=_REMEDIES.get(code, _NETWORK)
        )
    if isinstance(error, OSError) and error.errno:  # this disk's, not the service's
        return StateError(
            f"the cache of the bucket '{name}' cannot be used: {error.strerror}",
            remedy="free the disk or correct the permissions of state.cache, then run again: nothing is lost",
        )
    return StateError(f"the bucket '{name}' cannot be used: {type(error).__name__}", remedy=_NETWORK)


__all__ = ["OWNER", "Bucket", "bucket"]
