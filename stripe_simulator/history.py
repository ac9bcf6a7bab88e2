"""What happened: versions of objects and events, kept packed once they are only looked back at.

A long run makes hundreds of thousands of them; as plain dictionaries they would fill the memory.
"""

import zlib
from dataclasses import dataclass

import orjson

from .objects import Obj

_FAST = 1


def _pack(obj: Obj) -> bytes:
    return zlib.compress(orjson.dumps(obj), _FAST)


def _unpack(packed: bytes) -> Obj:
    obj: Obj = orjson.loads(zlib.decompress(packed))
    return obj


@dataclass(slots=True)
class Version:
    """One state of one object. ``number`` counts all changes of the account; ``state`` is None after a removal."""

    number: int
    kind: str
    id: str
    actor: Obj
    at: float
    wall: float
    _content: Obj | bytes | None

    @property
    def state(self) -> Obj | None:
        return _unpack(self._content) if isinstance(self._content, bytes) else self._content

    def supersede(self) -> None:
        """Another version of the object has come."""
        if isinstance(self._content, dict):
            self._content = _pack(self._content)


class EventRecord:
    """An event with the endpoints that have not confirmed it yet."""

    __slots__ = ("_content", "created", "failed", "id", "type", "waiting")

    def __init__(self, event: Obj, waiting: set[str]) -> None:
        self.id: str = event["id"]
        self.type: str = event["type"]
        self.created: int = event["created"]
        self.waiting = waiting
        self.failed = False
        self._content: Obj | bytes = event if waiting else _pack(event)

    @property
    def event(self) -> Obj:
        return _unpack(self._content) if isinstance(self._content, bytes) else self._content

    def settle(self, endpoint: str, *, failed: bool) -> None:
        """The endpoint has confirmed it, or will never do so."""
        self.waiting.discard(endpoint)
        self.failed = self.failed or failed
        if not self.waiting and isinstance(self._content, dict):
            self._content = _pack(self._content)
