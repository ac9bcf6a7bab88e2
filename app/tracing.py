"""Trace a request, its calls to Stripe, and the part of its operation that a worker does.

It is off unless `configure` was called, and then costs one comparison a span. OpenTelemetry is imported only by
`configure`. Spans hold names of operations and statuses, never ids of customers or values of a request. See
docs/decisions/0049-link-a-workers-trace-to-the-request-that-began-it.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

Kind = Literal["server", "client", "internal"]

_tracing: Any = None
"""The open `_Tracing`, None while tracing is off."""


class TracingNotInstalled(Exception):
    """Raised if tracing is configured, and the packages of the extra `tracing` are not installed."""


class Span:
    """A running span, or nothing while tracing is off."""

    __slots__ = ("_span",)

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def name(self, name: str) -> None:
        """Rename the span: that of a request is known when it has ended."""
        if self._span is not None:
            self._span.update_name(name)

    def note(self, **attributes: str | int) -> None:
        """Set attributes. A double underscore in a name stands for a dot."""
        if self._span is not None:
            self._span.set_attributes({key.replace("__", "."): value for key, value in attributes.items()})


_NOTHING = Span()


def is_on() -> bool:
    """Return True if spans are recorded."""
    return _tracing is not None


def configure(endpoint: str, *, process: str) -> None:
    """Send spans to the OTLP endpoint (http/protobuf) from now on. `process` is `serve` or `worker`.

    Raises:
        TracingNotInstalled: The packages are missing.
    """
    global _tracing
    try:
        _tracing = _Tracing(endpoint, process)
    except ImportError as error:
        raise TracingNotInstalled() from error


def shut_down() -> None:
    """Send what is recorded, for at most 2 seconds, and turn tracing off."""
    global _tracing
    if _tracing is not None:
        tracing, _tracing = _tracing, None
        tracing.shut_down()


@contextmanager
def span(
    name: str, *, kind: Kind = "internal", parent: str | None = None, link: str | None = None
) -> Iterator[Span]:
    """Record a span for the block. Within it, `current` names it.

    `parent` and `link` are texts in the form of a `traceparent` header; one that is malformed is ignored. Without
    `parent` it is the running span of this task.
    """
    if _tracing is None:
        yield _NOTHING
        return
    with _tracing.span(name, kind, parent, link) as running:
        yield Span(running)


def current() -> str | None:
    """Return the running span in the form of a `traceparent` header, None if there is none."""
    return None if _tracing is None else _tracing.current()


class _Tracing:
    def __init__(self, endpoint: str, process: str) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        from app import __version__

        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        resource = Resource.create(
            {"service.name": "coseat", "service.version": __version__, "service.instance.role": process}
        )
        self._provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=2)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer("coseat")

    @contextmanager
    def span(self, name: str, kind: Kind, parent: str | None, link: str | None) -> Iterator[Any]:
        kinds = self._trace.SpanKind
        linked = self._context(link)
        links = (
            []
            if linked is None
            else [self._trace.Link(self._trace.get_current_span(linked).get_span_context())]
        )
        with self._tracer.start_as_current_span(
            name,
            context=self._context(parent),
            kind={"server": kinds.SERVER, "client": kinds.CLIENT, "internal": kinds.INTERNAL}[kind],
            links=links,
            # The text of an exception may hold values.
            record_exception=False,
            set_status_on_exception=False,
        ) as running:
            yield running

    def current(self) -> str | None:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent")

    def _context(self, traceparent: str | None) -> Any:
        return None if traceparent is None else self._propagator.extract({"traceparent": traceparent})

    def shut_down(self) -> None:
        self._provider.force_flush(2000)
        self._provider.shutdown()
