"""Request parameters checked against the SDK's own parameter types, which Stripe generates from its specification."""

from functools import cache
from importlib import import_module
from typing import Any

from .errors import ApiError, invalid, missing_parameter, unknown_parameter


@cache
def _adapter(name: str) -> Any:
    """The type adapter of ``stripe.params.<name>``, dots included, unknown keys forbidden at every depth.

    A fresh TypedDict is made from the SDK's annotations: it leaves out the SDK's request options and lets the
    configuration reach nested types without touching the SDK's classes.
    """
    from pydantic import ConfigDict, TypeAdapter
    from typing_extensions import TypedDict

    options = import_module("stripe._request_options").RequestOptions.__annotations__
    package, _, own_name = name.rpartition(".")
    source = getattr(import_module(f"stripe.params.{package}".rstrip(".")), own_name)
    fields = {key: value for key, value in source.__annotations__.items() if key not in options}
    # The checker of types knows no TypedDict that is made at run time.
    make: Any = TypedDict
    checked = make(name, fields)
    checked.__module__ = source.__module__
    checked.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return TypeAdapter(checked)


def _bracketed(location: tuple[Any, ...]) -> str:
    """``("items", 0, "price")`` as ``items[0][price]``; union branch labels of the checker are left out."""
    parts = [str(part) for part in location]
    plain = [part for part in parts if part.isidentifier() or part.isdigit()]
    plain = [part for part in plain if part not in {"str", "int", "float", "bool", "decimal", "literal"}]
    if not plain:
        return parts[0] if parts else ""
    return plain[0] + "".join(f"[{part}]" for part in plain[1:])


def check(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """``given`` with form strings turned into the declared types.

    Raises an error that no idempotency key remembers for an unknown, missing or mistyped parameter.
    """
    from pydantic import ValidationError

    try:
        checked: dict[str, Any] = _adapter(name).validate_python(given)
    except ValidationError as failure:
        raise _refusal(failure.errors(include_url=False)) from None
    return checked


def _refusal(problems: list[Any]) -> ApiError:
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    if unknown:
        return unknown_parameter(_bracketed(unknown[0]["loc"]))
    missing = [problem for problem in problems if problem["type"] == "missing"]
    if missing:
        return missing_parameter(_bracketed(missing[0]["loc"]))
    problem = problems[0]
    param = _bracketed(problem["loc"])
    if problem["type"].startswith("int"):
        return invalid(f"Invalid integer: {problem['input']}", param, "parameter_invalid_integer")
    return invalid(f"Invalid {param}: {problem['msg']}", param)


def whole(value: Any, param: str) -> int:
    """An integer out of a field whose declared type also admits words, so that the checker left it a string."""
    try:
        return int(value)
    except (TypeError, ValueError):
        raise invalid(f"Invalid integer: {value}", param, "parameter_invalid_integer") from None
