"""Webhook endpoints in the day of the canaries, and everything that consumers of events are sent.

An endpoint's signing secrets, the query of its URL and what it answers may be printed nowhere. No event may hold
personal data, except for the address and the token of an invitation that is posted, and no event has a field that the
OpenAPI document does not list.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import httpx

from testkit.databases import CHECKOUT
from testkit.receiver import Received, Receiver
from verification.adversary.canary_caller import Caller, Diary
from verification.adversary.canary_list import Canary

POSTED = "posted"
_WITH_ADDRESS = f"{POSTED} invitation.created"
ENDPOINTS = "/v1/webhook-endpoints"
_FAILURES = (500, 302)
"""What the endpoint answers to the test and to the first event that it is posted."""
_WITHIN_SECONDS = 60.0
_STREAM_SECONDS = 1.5
_SIGNATURE = "webhook-signature"


class Hooks:
    """The endpoints of the day. `receiver` is where those lead that answer."""

    def __init__(self, caller: Caller, receiver: Receiver) -> None:
        self._caller = caller
        self._receiver = receiver

    async def begin(self) -> None:
        """Make endpoints that take events, are gone or do not answer, and ask for those that are refused."""
        await self._opened()
        planted = self._caller.diary.canaries
        self._answer_badly()
        query = f"?token={planted.endpoint_query.value}"
        taking = f"{self._receiver.url}{query}"
        body = {"url": taking, "description": planted.endpoint_description.value, "after": "pl_0"}
        urls = (taking, f"{taking}&gone=1", f"http://127.0.0.1:1/{query}")
        made = [await self._make({**body, "url": url}, f"hook-{n}") for n, url in enumerate(urls)]
        path = f"/{made[0]}"
        rotated = await self._admin("POST", f"{path}/rotate-secret", {}, Idempotency_Key="rotate")
        self._keep_secret(rotated)
        await self._admin("POST", f"{path}/test", {})
        await self._refused(path)

    async def _opened(self) -> None:
        """Wait for the first event: what happens before it is told to nobody."""
        give_up = time.monotonic() + _WITHIN_SECONDS
        while (
            await self._caller.ask("GET", "/v1/events/snapshot", who=self._caller.as_admin)
        ).is_server_error:
            assert time.monotonic() < give_up, "the log is not open"
            await asyncio.sleep(0.2)

    async def _make(self, body: Any, key: str) -> str:
        """Make an endpoint, ask for the same again, and return its id."""
        answers = [await self._admin("POST", "", body, Idempotency_Key=key) for _ in range(2)]
        for answer in answers:
            self._keep_secret(answer)
        return str(answers[0].json()["webhook_endpoint"]["id"])

    def _answer_badly(self) -> None:
        """Answer with headers and a body that repeat what was sent and more, and fail at first."""
        planted, receiver = self._caller.diary.canaries, self._receiver
        answer = planted.endpoint_answer.value
        receiver.headers = f"location: {receiver.url}?{answer}\r\nset-cookie: s={answer}\r\n"
        receiver.body = f"{answer} {planted.endpoint_query.value}".encode()
        failures = list(_FAILURES)

        def status(one: Received) -> int:
            if "gone" in one.path:
                return 410
            # The events of the plan are not held up.
            return failures.pop(0) if failures and one.event["subscription_id"] is None else 204

        receiver.status = status

    async def _refused(self, path: str) -> None:
        planted = self._caller.diary.canaries
        text, password = planted.bad_input.value, planted.endpoint_password.value
        for url in (
            f"http://user:{password}@127.0.0.1:1/",
            f"ftp://127.0.0.1/{text}",
            f"http://127.0.0.1/#{text}",
            f"http://[{text}",
            text,
        ):
            await self._admin("POST", "", {"url": url})
            await self._admin("PATCH", path, {"url": url})
        for body in ({"types": [text]}, {"after": text}, {"description": [text]}, {"status": text}):
            await self._admin("POST", "", {"url": self._receiver.url, **body})
            await self._admin("PATCH", path, body)
        await self._admin("POST", f"{path}/rotate-secret", {"overlap_seconds": text})
        await self._admin("GET", f"/{text}")
        await self._admin("POST", f"{path}/deliveries/{text}/redeliver", {})
        for query in (f"after={text}", f"types={text}", f"subscription_id={text}"):
            await self._caller.ask("GET", f"/v1/events?{query}", who=self._caller.as_admin)
        plan = f"/v1/shared-subscriptions/{self._caller.account.plan}/events"
        await self._caller.ask("GET", plan, Last_Event_ID=text)

    async def more(self) -> None:
        """Ask for one more endpoint and one more secret, whatever the outcome."""
        planted = self._caller.diary.canaries
        body = {"url": f"{self._receiver.url}?token={planted.endpoint_query.value}"}
        await self._admin("POST", "", {**body, "description": planted.endpoint_description.value})

    async def end(self) -> str:
        """Read everything that consumers are sent, and return the id of an event."""
        diary = self._caller.diary
        give_up = time.monotonic() + _WITHIN_SECONDS
        posted: list[dict[str, Any]] = []
        # An invitation that has ended by the time of its posting has no address any more.
        while not any(one["type"] == "invitation.created" and one["data"]["email"] for one in posted):
            assert time.monotonic() < give_up, f"{len(posted)} events were posted, no open invitation"
            await asyncio.sleep(0.2)
            posted = self._receiver.events
        diary.told += [(f"{POSTED} {one['type']}", json.dumps(one)) for one in posted]
        for number in (0, -1):
            signature = self._receiver.received[number].headers[_SIGNATURE]
            diary.made.append(Canary(f"signature {number}", signature, (signature.partition(",")[2],)))
        await self._pages("/v1/events", "after")
        await self._pages("/v1/events/snapshot", "cursor")
        await self._stream()
        for one in (await self._admin("GET", "")).json()["data"]:
            found = await self._admin("GET", f"/{one['id']}/deliveries")
            for delivery in found.json()["data"][:1]:
                await self._admin("POST", f"/{one['id']}/deliveries/{delivery['id']}/redeliver", {})
        return str(posted[-1]["id"])

    async def _pages(self, path: str, name: str) -> None:
        place: dict[str, str] = {}
        while True:
            query = "".join(f"&{key}={value}" for key, value in place.items())
            answer = await self._caller.ask("GET", f"{path}?limit=100{query}", who=self._caller.as_admin)
            page = answer.raise_for_status().json()
            self._caller.diary.told += [(f"read {one['type']}", json.dumps(one)) for one in page["data"]]
            if not page["has_more"]:
                return
            place = {name: page["next_cursor"]}

    async def _stream(self) -> None:
        """Read what the owner's page is shown, from the first event."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_STREAM_SECONDS), self._caller.streaming("pl_0") as answer:
                async for line in answer.raise_for_status().aiter_lines():
                    if line.startswith("data: "):
                        text = line.removeprefix("data: ")
                        self._caller.diary.told.append((f"shown {json.loads(text)['type']}", text))

    async def _admin(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return await self._caller.ask(
            method, f"{ENDPOINTS}{path}", body, who=self._caller.as_admin, **headers
        )

    def _keep_secret(self, made: httpx.Response) -> None:
        """A signing secret is kept encrypted, so it is found in no column. A repeated answer has none."""
        secret = made.raise_for_status().json()["secret"]
        if secret is not None:
            number = len(self._caller.diary.made)
            self._caller.keep(f"signing secret {number}", secret.removeprefix("whsec_"))


def told_too_much(diary: Diary, canaries: Sequence[Canary]) -> Iterator[str]:
    """Say which canaries are in what consumers were sent, and which fields of events are in no catalogue."""
    for what, text in diary.told:
        for canary in canaries:
            if not (what == _WITH_ADDRESS and canary.posted) and _holds(text, canary):
                yield f"{canary.name}: {what}"
        event = json.loads(text)
        for field in sorted(event["data"].keys() - catalogue()[event["type"]]):
            yield f"{what} has the field {field}, which is in no catalogue"


def was_posted(diary: Diary, canary: Canary) -> bool:
    """Return True if an endpoint was sent the canary with an invitation."""
    return any(what == _WITH_ADDRESS and _holds(text, canary) for what, text in diary.told)


def _holds(text: str, canary: Canary) -> bool:
    lowered = text.lower()
    return any(mark.lower() in lowered for mark in canary.marks)


@cache
def catalogue() -> dict[str, frozenset[str]]:
    """Return the fields of `data` by the type of event, as the OpenAPI document lists them."""
    document = json.loads((CHECKOUT / "openapi" / "openapi.json").read_text())
    schemas = document["components"]["schemas"]

    def named(schema: Any) -> Any:
        return schemas[schema["$ref"].rpartition("/")[2]]

    found = {}
    for kind, webhook in document["webhooks"].items():
        content = webhook["post"]["requestBody"]["content"]["application/json"]
        data = named(named(content["schema"])["properties"]["data"])
        found[kind] = frozenset(data["properties"])
    return found
