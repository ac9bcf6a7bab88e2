"""The OpenAPI document as it is committed: sorted, so that its changes read well."""

from __future__ import annotations

import json

from app.main import create_app
from app.settings import Settings


def document(settings: Settings) -> str:
    return json.dumps(create_app(settings).openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
