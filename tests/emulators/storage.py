"""A Storage Read API of a test's own: what it streams, in which messages, and where it breaks off."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types


class Storage:
    """Streams of messages by name. Each message named in `breaks` is preceded by one break."""

    def __init__(self, streams: Sequence[Sequence[pa.RecordBatch]], breaks: set[tuple[str, int]], denied: str) -> None:
        self.streams = {f"s{number}": list(messages) for number, messages in enumerate(streams)}
        self.breaks = breaks
        self.denied = denied
        self.asked: list[types.CreateReadSessionRequest] = []
        self.opened: list[str] = []
        self.address = ""
        self._schema = next(message for messages in streams for message in messages).schema

    def session(self, request: types.CreateReadSessionRequest, context: grpc.ServicerContext) -> types.ReadSession:
        self.asked.append(request)
        if self.denied:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, self.denied)
        return types.ReadSession(
            name="session",
            arrow_schema=types.ArrowSchema(serialized_schema=self._schema.serialize().to_pybytes()),
            streams=[types.ReadStream(name=name) for name in self.streams],
        )

    def rows(self, request: types.ReadRowsRequest, context: grpc.ServicerContext) -> Iterator[types.ReadRowsResponse]:
        self.opened.append(request.read_stream)
        before = 0
        for number, message in enumerate(self.streams[request.read_stream]):
            if before >= request.offset:
                if (request.read_stream, number) in self.breaks:
                    self.breaks.remove((request.read_stream, number))
                    context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")
                batch = types.ArrowRecordBatch(serialized_record_batch=message.serialize().to_pybytes())
                yield types.ReadRowsResponse(arrow_record_batch=batch, row_count=message.num_rows)
            before += message.num_rows


@contextmanager
def streaming(
    streams: Sequence[Sequence[pa.RecordBatch]], breaks: set[tuple[str, int]] | None = None, denied: str = ""
) -> Iterator[Storage]:
    """The service, on a free port; where it is denied, no session is given, for that reason."""
    storage = Storage(streams, breaks or set(), denied)
    handlers = {
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(
            storage.session, types.CreateReadSessionRequest.deserialize, types.ReadSession.serialize
        ),
        "ReadRows": grpc.unary_stream_rpc_method_handler(
            storage.rows, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
        ),
    }
    service = grpc.method_handlers_generic_handler("google.cloud.bigquery.storage.v1.BigQueryRead", handlers)
    server = grpc.server(ThreadPoolExecutor(8), handlers=[service])
    storage.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield storage
    finally:
        server.stop(0).wait()
