"""The OpenAPI document as it is committed: sorted, so that its changes read well, and with recorded examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.main import create_app
from app.settings import Settings

EXAMPLES = Path(__file__).resolve().parents[2] / "openapi" / "examples"
"""Recorded answers, `operation.status.json` each; an installation without the checkout has none, and needs none."""

COMMON_PROBLEM = "Problem"
"""Stands for the operation where an example is that of its status in every operation."""

_FIRST_FAILURE = 400


def document(settings: Settings, examples: Path = EXAMPLES) -> str:
    stated = create_app(settings).openapi()
    _merge(stated, {path.stem: json.loads(path.read_bytes()) for path in sorted(examples.glob("*.json"))})
    return json.dumps(stated, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _merge(stated: dict[str, Any], examples: dict[str, Any]) -> None:
    """Answers beside their schema, the request of a success beside its own; common problems are stated once."""
    common = {
        name: {"summary": example["answer"]["title"], "value": example["answer"]}
        for name, example in examples.items()
        if name.startswith(f"{COMMON_PROBLEM}.")
    }
    if common:
        stated["components"]["examples"] = common
    for methods in stated["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                for content in response.get("content", {}).values():
                    name = f"{operation['operationId']}.{status}"
                    if name in examples:
                        content["example"] = examples[name]["answer"]
                        _show_request(operation, int(status), examples[name]["request"])
                    elif f"{COMMON_PROBLEM}.{status}" in common:
                        reference = f"#/components/examples/{COMMON_PROBLEM}.{status}"
                        content["examples"] = {"common": {"$ref": reference}}


def _show_request(operation: dict[str, Any], status: int, request: dict[str, Any]) -> None:
    if status < _FIRST_FAILURE and request["body"] is not None and "requestBody" in operation:
        operation["requestBody"]["content"]["application/json"].setdefault("example", request["body"])
