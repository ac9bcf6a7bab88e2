"""The committed OpenAPI document, sorted and with recorded examples.

It is sorted so that its changes are easy to read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.main import create_app
from app.settings import Settings

EXAMPLES = Path(__file__).resolve().parents[2] / "openapi" / "examples"
"""Directory of recorded answers, `<operation>.<status>.json`. An installation without a checkout has none."""

COMMON_PROBLEM = "Problem"
"""The name instead of an operation, for the example of a status that all operations share."""

_FIRST_FAILURE = 400


def document(settings: Settings, examples: Path = EXAMPLES) -> str:
    """Return the OpenAPI document as sorted JSON.

    It has the recorded examples of the directory `examples`.
    """
    stated = create_app(settings).openapi()
    _merge(stated, {path.stem: json.loads(path.read_bytes()) for path in sorted(examples.glob("*.json"))})
    return json.dumps(stated, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _merge(stated: dict[str, Any], examples: dict[str, Any]) -> None:
    """Put each recorded answer beside its schema.

    The request of a success goes beside the schema of the body. Common problems are stated once and referenced.
    """
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
