"""The stand-in for Stripe as tests see it: one account, edited as in the Dashboard, and its controls."""

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx

from testkit.processes import running

Form = list[tuple[str, str | int | float | bool | None]]


@contextmanager
def running_simulator() -> Iterator[str]:
    """The base URL of a simulator process that keeps nothing on disk."""
    command = [sys.executable, "-m", "stripe_simulator", "--port", "0", "--memory"]
    with running("simulator", command, os.environ) as process:
        yield process.wait_for_line(r"listening on (http://\S+)")[1]


def new_account_key() -> str:
    """A secret key that nobody has used: the simulator keeps one isolated account for each."""
    return f"sk_test_{secrets.token_hex(12)}"


def encode_form(fields: Mapping[str, Any]) -> Form:
    """Stripe's nested form encoding: `{"items": [{"price": "p"}]}` is `items[0][price]=p`; no Nones."""
    return [pair for name, value in fields.items() for pair in _encode(name, value)]


def _encode(name: str, value: Any) -> Form:
    match value:
        case None:
            return []
        case bool():
            return [(name, "true" if value else "false")]
        case Mapping():
            return [pair for key, inner in value.items() for pair in _encode(f"{name}[{key}]", inner)]
        case list() | tuple():
            return [pair for index, inner in enumerate(value) for pair in _encode(f"{name}[{index}]", inner)]
        case _:
            return [(name, str(value))]


class SimulatorError(AssertionError):
    """The simulator refused a call; `status` and `body` are its answer."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.body = response.text
        super().__init__(f"{response.request.method} {response.request.url}: {self.status} {self.body}")


class Simulator:
    """One account of a running simulator. Use as an async context manager."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self.base_url = base_url
        self.api_key = api_key
        self._client = httpx.AsyncClient(
            base_url=base_url, headers={"Authorization": f"Bearer {api_key}"}, timeout=30.0
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def call(
        self,
        method: str,
        path: str,
        fields: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """A call of Stripe's API as the Dashboard makes it; of a whole path. Raises SimulatorError."""
        form = encode_form(fields or {})
        sent = {"X-Simulator-Actor": "dashboard", **(headers or {})}
        if method in {"GET", "DELETE"}:
            response = await self._client.request(method, path, params=httpx.QueryParams(form), headers=sent)
        else:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
            body = str(httpx.QueryParams(form)).encode()
            response = await self._client.request(method, path, content=body, headers=sent)
        return _answer(response)

    async def get(self, path: str, **fields: Any) -> Any:
        return await self.call("GET", path, fields)

    async def post(self, path: str, **fields: Any) -> Any:
        return await self.call("POST", path, fields)

    async def delete(self, path: str, **fields: Any) -> Any:
        return await self.call("DELETE", path, fields)

    async def control(self, method: str, path: str, /, **fields: Any) -> Any:
        """A call of the control API, `path` without `/_simulator/`. Raises SimulatorError."""
        url = f"/_simulator/{path}"
        if method == "POST":
            return _answer(await self._client.post(url, json=fields))
        return _answer(await self._client.request(method, url, params=fields))

    async def advance(self, seconds: float) -> float:
        """Move the account's clock and let what falls due happen; the new time."""
        return float((await self.control("POST", "clock", advance=seconds))["now"])

    async def add_fault(self, **fault: Any) -> Any:
        return await self.control("POST", "faults", **fault)

    async def show_odd(self, object_id: str, **fields: Any) -> None:
        """Show these fields of an object in every answer, as no call of the API could set them."""
        await self.control("POST", "odd", object=object_id, fields=fields)

    async def clear_faults(self) -> None:
        await self.control("DELETE", "faults")

    async def deliveries(self, **knobs: Any) -> Any:
        """Set delivery knobs (`delay_s`, `duplicate`, `reorder`, `drop`, `hold`), or read the summary."""
        return await self.control("POST" if knobs else "GET", "deliveries", **knobs)

    async def release_deliveries(self, **which: Any) -> int:
        return int((await self.control("POST", "deliveries/release", **which))["released"])

    async def settings(self, **changed: Any) -> Any:
        return await self.control("POST" if changed else "GET", "settings", **changed)

    async def requests(self, **filters: Any) -> list[Any]:
        """The log of requests, oldest first; `method`, `path` (a prefix) and `since` filter it."""
        return list((await self.control("GET", "requests", **filters))["data"])

    async def versions(self, **filters: Any) -> list[Any]:
        """Every state that objects have had; `object` (an id), `type` and `since` filter them."""
        return list((await self.control("GET", "versions", **filters))["data"])

    async def state(self, kind: str) -> list[Any]:
        """The present objects of a type, deleted stubs included: the truth that the cache must reach."""
        return list((await self.control("GET", "state", type=kind))["data"])

    async def add_webhook_endpoint(self, url: str, *, events: list[str] | None = None) -> str:
        """Register an endpoint; its signing secret."""
        endpoint = await self.post("/v1/webhook_endpoints", url=url, enabled_events=events or ["*"])
        return str(endpoint["secret"])


def _answer(response: httpx.Response) -> Any:
    if response.is_error:
        raise SimulatorError(response)
    return response.json()
