"""What a success and every failure must look like, and the comparison of two answers that must look alike."""

from typing import Any

import httpx

MEMBERS = {"type", "title", "status", "code", "detail", "request_id"}


def ok(response: httpx.Response, status: int = 200) -> Any:
    """The document of a success, None without a body."""
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The document, once status, code, media type and members are as they must be."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json", response.text
    document: dict[str, Any] = response.json()
    assert document.keys() >= MEMBERS, document
    assert (document["status"], document["code"]) == (status, code), document
    assert document["request_id"] == response.headers["x-request-id"]
    assert all(isinstance(document[name], str) and document[name] for name in MEMBERS - {"status"}), document
    assert document["type"].endswith(code.replace("_", "-"))
    return document


def pointers(document: dict[str, Any]) -> list[str]:
    return [error["pointer"] for error in document.get("errors", [])]


def indistinguishable(one: httpx.Response, other: httpx.Response) -> bool:
    """Same status, headers and bytes, but for the request's id and the date."""
    return _told(one) == _told(other)


def _told(response: httpx.Response) -> tuple[int, list[tuple[str, str]], str]:
    own = response.headers["x-request-id"]
    headers = [(k, v) for k, v in response.headers.items() if k not in ("x-request-id", "date")]
    return response.status_code, sorted(headers), response.text.replace(own, "…")
