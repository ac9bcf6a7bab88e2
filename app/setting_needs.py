"""Which variables each process needs, and which exclude each other."""

from __future__ import annotations

from collections.abc import Iterable, Set
from difflib import get_close_matches
from typing import Literal

Process = Literal[
    "serve",
    "worker",
    "sync",
    "reconcile",
    "doctor",
    "replay",
    "health",
    "unlink",
    "operations release",
    "operations acknowledge",
    "events",
    "migrate",
    "token",
    "token --check",
    "openapi",
    "dev",
    "test",
]

_AUTH_KEYS = ("AUTH_JWT_SECRET", "AUTH_JWT_PUBLIC_KEY", "AUTH_JWKS_URL")
_ALIKE = 0.9
"""Names are alike from this ratio of `difflib` on: one letter in ten may differ."""
_DISTINCTIVE = 9
"""Letters of a name from which on another program has no such variable by chance."""
_DATABASE = ("DATABASE_URL",)
_STRIPE = ("DATABASE_URL", "STRIPE_API_KEY")
_REQUIRED: dict[Process, tuple[str, ...]] = {
    "serve": (*_STRIPE, "STRIPE_WEBHOOK_SECRETS", "AUTH_KEY", "AUTH_ISSUER", "AUTH_AUDIENCE"),
    "worker": _STRIPE,
    "sync": _STRIPE,
    "reconcile": _STRIPE,
    "doctor": _STRIPE,
    "replay": _DATABASE,
    "health": (),
    "unlink": _STRIPE,
    "operations release": _STRIPE,
    "operations acknowledge": _DATABASE,
    "events": _STRIPE,
    "migrate": _DATABASE,
    "token": ("AUTH_JWT_SECRET", "AUTH_ISSUER", "AUTH_AUDIENCE"),
    "token --check": ("AUTH_KEY", "AUTH_ISSUER", "AUTH_AUDIENCE"),
    "openapi": (),
    "dev": (),
    "test": (),
}


def conflicts(present: Set[str], *, livemode: bool) -> dict[str, str]:
    """Return the rule that each variable breaks beside the others that are set. `livemode`: the Stripe key is live."""
    problems: dict[str, str] = {}
    if len(keys := [name for name in _AUTH_KEYS if name in present]) > 1:
        problems[keys[0]] = "only one of " + ", ".join(_AUTH_KEYS) + " may be set"
    if livemode and "STRIPE_API_BASE" in present:
        problems["STRIPE_API_BASE"] = "must not be set with a live Stripe key"
    return problems


def misspelt(given: Iterable[str], known: Set[str]) -> dict[str, str]:
    """Return the variables that are no settings and are almost called like one that is not set.

    Variables of other programs are left alone, as is a misspelt one beside the right one.
    """
    names = list(given)
    unset = [name for name in known - set(names) if len(name) >= _DISTINCTIVE]
    problems: dict[str, str] = {}
    for name in names:
        if name not in known and (meant := get_close_matches(name.upper(), unset, n=1, cutoff=_ALIKE)):
            problems[name] = f"is no setting. Did you mean {meant[0]}?"
    return problems


def missing(process: Process, present: Set[str]) -> dict[str, str]:
    """Return the variables that the process lacks, each with the rule that it breaks."""
    problems: dict[str, str] = {}
    for name in _REQUIRED[process]:
        if name == "AUTH_KEY":
            if present.isdisjoint(_AUTH_KEYS):
                problems[" or ".join(_AUTH_KEYS)] = f"one of them is required by `{process}`"
        elif name not in present:
            problems[name] = f"is required by `{process}`"
    return problems
