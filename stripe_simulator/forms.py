"""Nested form fields, Stripe's request encoding: ``items[0][price]=x`` and ``expand[]=y``."""

from typing import Any
from urllib.parse import parse_qsl

from .errors import invalid

_FREE_KEYED = frozenset({"metadata"})


def decode(encoded: str) -> dict[str, Any]:
    """Nested dictionaries and lists of strings. An empty value stays ``""``, which unsets a field."""
    root: dict[str, Any] = {}
    if not encoded:
        return root
    for name, value in parse_qsl(encoded, keep_blank_values=True, max_num_fields=2000):
        _insert(root, name, value)
    return {key: _settle(key, value) for key, value in root.items()}


def _insert(root: dict[str, Any], name: str, value: str) -> None:
    if "[" not in name:
        root[name] = value
        return
    head, _, rest = name.partition("[")
    if not rest.endswith("]"):
        raise invalid(f"Invalid request: malformed parameter name {name}", name)
    path = [head, *rest[:-1].split("][")]
    node = root
    for key in path[:-1]:
        child = node.get(key)
        if not isinstance(child, dict):
            child = {}
            node[key] = child
        node = child
    last = path[-1]
    if last == "":
        last = str(len(node))
    node[last] = value


def _settle(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if name not in _FREE_KEYED and value and all(key.isdigit() for key in value):
        return [_settle("", value[key]) for key in sorted(value, key=int)]
    return {key: _settle(key, child) for key, child in value.items()}
