"""A proxy before PostgreSQL that can be shut or go silent.

Shut, it cuts its connections and refuses new ones. Silent, it keeps them and forwards nothing: to PostgreSQL the
host behind it is lost, because no FIN ever arrives. As a pooler, it answers with a process id of its own. With
`options`, its sessions start with settings of their own, so that one server stands for two whose roles differ.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs, urlsplit

DEFAULT_PORT = 5432
# BackendKeyData: its type, its length, then the server's process id.
KEY_DATA = re.compile(rb"(?<=K\x00\x00\x00\x0c)....", re.DOTALL)
POOLERS_ID = (1).to_bytes(4, "big")


class DatabaseProxy:
    """`url` names the database behind `upstream` by way of this proxy."""

    def __init__(self, upstream: str, *, as_pooler: bool = False, options: str = "") -> None:
        self._target = urlsplit(upstream)
        self._as_pooler = as_pooler
        self._options = options
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._cut_after: bytes | None = None
        self._was_cut = asyncio.Event()
        self._forwarding = asyncio.Event()
        self._forwarding.set()

    @property
    def url(self) -> str:
        assert self._server is not None
        user = self._target.username or parse_qs(self._target.query).get("user", ["postgres"])[0]
        password = f":{self._target.password}" if self._target.password else ""
        return f"postgresql://{user}{password}@{self.address}{self._target.path}?sslmode=disable"

    @property
    def address(self) -> str:
        """Host and port, as a URL names them."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def go_silent(self) -> None:
        """Forward nothing from now on, in either direction; every connection stays open."""
        self._forwarding.clear()

    def speak_again(self) -> None:
        """Forward what has been held back, and everything after it."""
        self._forwarding.set()

    async def shut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cut_after(self, statement: bytes) -> None:
        """Cut the next connection that sends this text, once it is forwarded and before it is answered."""
        self._cut_after, self._was_cut = statement, asyncio.Event()
        await self._was_cut.wait()

    def _cut(self, data: bytes, client: asyncio.StreamWriter) -> None:
        if self._cut_after is not None and self._cut_after in data:
            self._cut_after = None
            self._was_cut.set()
            client.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        directory = parse_qs(self._target.query).get("host", [""])[0]
        if directory.startswith("/"):
            port = parse_qs(self._target.query).get("port", [str(DEFAULT_PORT)])[0]
            behind = await asyncio.open_unix_connection(f"{directory}/.s.PGSQL.{port}")
        else:
            host = self._target.hostname or "127.0.0.1"
            behind = await asyncio.open_connection(host, self._target.port or DEFAULT_PORT)
        self._writers += [writer, behind[1]]
        if self._options:
            behind[1].write(await _started_with(reader, self._options))
        pumps = (
            _pump(reader, behind[1], self._forwarding, cut=lambda data: self._cut(data, writer)),
            _pump(behind[0], writer, self._forwarding, as_pooler=self._as_pooler),
        )
        for pump in pumps:
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _started_with(reader: asyncio.StreamReader, options: str) -> bytes:
    """The startup message of a client, with one more parameter: length, version, then names and values."""
    length = int.from_bytes(await reader.readexactly(4), "big")
    message = await reader.readexactly(length - 4)
    longer = message[:-1] + b"options\0" + options.encode() + b"\0\0"
    return (len(longer) + 4).to_bytes(4, "big") + longer


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    forwarding: asyncio.Event,
    *,
    as_pooler: bool = False,
    cut: Callable[[bytes], None] = lambda _: None,
) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            await forwarding.wait()
            writer.write(KEY_DATA.sub(POOLERS_ID, data) if as_pooler else data)
            await writer.drain()
            cut(data)
    await forwarding.wait()
    writer.close()


@contextlib.asynccontextmanager
async def proxied(
    upstream: str, *, as_pooler: bool = False, options: str = ""
) -> AsyncIterator[DatabaseProxy]:
    proxy = DatabaseProxy(upstream, as_pooler=as_pooler, options=options)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.shut()
