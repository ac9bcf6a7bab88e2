"""The one type that Stripe's objects have here."""

from typing import Any

Obj = dict[str, Any]
"""An object as plain JSON data; keys that begin with an underscore are the simulator's own."""
