"""Route a request by the segments of its raw path, so that an encoded slash stays inside an id.

Customers from before 2018 have ids such as `a/b`, which a caller sends as `a%2Fb`. A server hands the decoded path on,
in which the slash would end the segment.
"""

from __future__ import annotations

from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send


class RawSegments:
    """ASGI layer that decodes the path segment by segment, and keeps `/` and `%` of a segment encoded."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the inner application with the path by which it finds the route."""
        raw = scope.get("raw_path")
        if raw is not None and b"%" in raw:
            scope["path"] = "/".join(
                _kept(unquote(part)) for part in raw.decode("ascii", "replace").split("/")
            )
        await self.app(scope, receive, send)


def _kept(segment: str) -> str:
    return segment.replace("%", "%25").replace("/", "%2F")


def segment_text(segment: str) -> str:
    """Return the text of one segment of a path that `RawSegments` has decoded."""
    return segment.replace("%2F", "/").replace("%25", "%")
