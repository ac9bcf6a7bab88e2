"""Transactions hold row locks, so nothing in one may wait for anything but PostgreSQL."""

import ast
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
WAITS = frozenset({"stripe", "billing", "sync", "sleep", "acquire", "send"})
"""Names by which services reach Stripe, or wait for a time."""


def waits_in_transactions() -> Iterator[str]:
    for path in sorted((CHECKOUT / "app").rglob("*.py")):
        for block in ast.walk(ast.parse(path.read_text())):
            if not isinstance(block, ast.AsyncWith):
                continue
            opened = [item.context_expr for item in block.items]
            if not any(isinstance(one, ast.Call) and _last(one.func) == "transaction" for one in opened):
                continue
            for found in (node for statement in block.body for node in ast.walk(statement)):
                if isinstance(found, ast.Await) and (names := WAITS & set(_names(found.value))):
                    yield f"{path.relative_to(CHECKOUT)}:{found.lineno} {sorted(names)}"


def _last(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else ""


def _names(call: ast.expr) -> Iterator[str]:
    """The dotted names of what is called, not of its arguments."""
    node = call.func if isinstance(call, ast.Call) else call
    while isinstance(node, ast.Attribute):
        yield node.attr
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def test_a_transaction_waits_for_nothing_but_postgres_when_it_holds_locks() -> None:
    """H1: what waited in a transaction would be ended by the limits that free the locks of lost hosts."""
    assert list(waits_in_transactions()) == []
