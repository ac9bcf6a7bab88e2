"""A collector of traces: it takes OTLP over HTTP, and keeps the spans that processes send."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Seen:
    """One span. Ids are hexadecimal; `links` are pairs of trace and span."""

    name: str
    trace: str
    id: str
    parent: str
    links: tuple[tuple[str, str], ...]
    process: str
    attributes: dict[str, str]


@dataclass
class Collector:
    """The spans that have arrived. `url` is the endpoint."""

    url: str
    spans: list[Seen] = field(default_factory=list)

    def wait_for(self, name: str, *, within: float = 20.0) -> Seen:
        """Return the first span of this name. AssertionError with the others if none arrives."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            for span in list(self.spans):
                if span.name == name:
                    return span
            time.sleep(0.05)
        raise AssertionError(f"no span {name!r} within {within} s: {[span.name for span in self.spans]}")


def _taken(body: bytes) -> Iterator[Seen]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        about = {one.key: one.value.string_value for one in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    about.get("service.instance.role", ""),
                    {one.key: str(one.value.string_value or one.value.int_value) for one in span.attributes},
                )


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on a free port of 127.0.0.1."""
    collector = Collector("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.spans.extend(_taken(_inflated(body, self.headers.get("content-encoding"))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _inflated(body: bytes, encoding: str | None) -> bytes:
    if encoding != "gzip":
        return body
    import gzip

    return gzip.decompress(body)
