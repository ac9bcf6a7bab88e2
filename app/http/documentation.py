"""The page /docs: the OpenAPI document as static HTML.

It has no script and loads nothing from other hosts (docs/decisions/0036-serve-the-documentation-without-a-script.md).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response

Json = Mapping[str, Any]

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
code { font: 0.9em ui-monospace, monospace } h2 { margin-top: 2.5rem } h3 { margin-bottom: 0 }
summary { cursor: pointer; padding: 0.3rem 0 } summary b { display: inline-block; min-width: 4.5rem }
table { border-collapse: collapse; margin: 0.5rem 0 1rem } td, th { border: 1px solid #ccc; padding: 0.2rem 0.6rem;
text-align: left; vertical-align: top } details { margin-left: 0.5rem } summary + * { margin-top: 0.2rem }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #eee } a { color: #8ab4f8 } }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-cache",
}


def install(app: FastAPI) -> None:
    """Add the routes /docs and /openapi.json.

    Both bodies are made at the first request and kept in memory.
    """

    @cache
    def rendered() -> tuple[bytes, bytes]:
        document = app.openapi()
        return page(document).encode(), orjson.dumps(document)

    async def docs(_: Request) -> Response:
        return Response(rendered()[0], headers=HEADERS, media_type="text/html")

    async def document(_: Request) -> Response:
        return Response(rendered()[1], headers={"Cache-Control": "no-cache"}, media_type="application/json")

    app.add_route("/docs", docs, methods=["GET"], include_in_schema=False)
    app.add_route("/openapi.json", document, methods=["GET"], include_in_schema=False)


def page(document: Json) -> str:
    """Return the page of an OpenAPI document.

    All its text is escaped, so none of it can become markup.
    """
    info = document["info"]
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{_text(info['title'])}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{_text(info['title'])} {_text(info['version'])}</h1><p>{_text(info.get('description', ''))} ",
            'As data: <a href="/openapi.json">openapi.json</a>. Every request but those of the catalogue and of ',
            "machines carries <code>Authorization: Bearer</code> with an end user's token or a service key.</p>",
            *_operations(document),
            "<h2>Schemas</h2>",
            *_schemas(document["components"]["schemas"]),
            "</body></html>",
        ]
    )


def _operations(document: Json) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            by_tag.setdefault(tag, []).append("".join(_operation(method, path, operation)))
    for tag, operations in by_tag.items():
        yield f"<h2>{_text(tag.capitalize())}</h2>"
        yield from operations


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
    name = _text(operation["operationId"])
    yield f'<details id="{name}"><summary><b>{_text(method.upper())}</b> <code>{_text(path)}</code> {name}</summary>'
    yield f"<p>{_text(operation.get('description', ''))}</p>"
    if parameters := operation.get("parameters"):
        yield "<table><tr><th>parameter<th>in<th>type<th>"
        for parameter in parameters:
            yield f"<tr><td><code>{_text(parameter['name'])}</code>{_star(parameter.get('required'))}"
            yield f"<td>{_text(parameter['in'])}<td>{_type(parameter['schema'])}"
            yield f"<td>{_text(parameter.get('description', ''))}"
        yield "</table>"
    if body := operation.get("requestBody"):
        yield f"<p>Body: {_type(_schema_of(body))}</p>"
    yield "<table><tr><th>status<th>answer<th>"
    for status, response in operation["responses"].items():
        yield f"<tr><td>{_text(status)}<td>{_type(_schema_of(response))}<td>{_text(response['description'])}"
    yield "</table></details>"


def _schemas(schemas: Json) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        yield f'<h3 id="schema-{_text(name)}">{_text(name)}</h3><p>{_text(schema.get("description", ""))}</p>'
        properties: Json = schema.get("properties", {})
        if not properties:
            yield f"<p>{_type(schema)}</p>"
            continue
        required = schema.get("required", [])
        yield "<table><tr><th>member<th>type<th>"
        for member, stated in properties.items():
            note = "service keys with the scope admin only. " if stated.get("x-admin-only") else ""
            yield f"<tr><td><code>{_text(member)}</code>{_star(member in required)}<td>{_type(stated)}"
            yield f"<td>{_text(note + stated.get('description', ''))}"
        yield "</table>"


def _schema_of(part: Json) -> Json:
    return next((content.get("schema", {}) for content in part.get("content", {}).values()), {})


_BOUNDS = (
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
    "format",
    "default",
)


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = _text(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if several := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(_type(one) for one in several)
    if "enum" in schema:
        return " | ".join(f"<code>{_text(value)}</code>" for value in schema["enum"])
    if "const" in schema:
        return f"<code>{_text(schema['const'])}</code>"
    kind = str(schema.get("type", ""))
    found = f"list of {_type(schema['items'])}" if kind == "array" and "items" in schema else _text(kind)
    bounds = [
        f"{name} <code>{_text(schema[name])}</code>" for name in _BOUNDS if schema.get(name) is not None
    ]
    return f"{found} ({', '.join(bounds)})" if bounds else found


def _star(required: object) -> str:
    return " *" if required else ""


def _text(value: object) -> str:
    return escape(str(value))
