"""The setting `SERVICE_KEYS`: the keys of back ends, by their hashes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.setting_rules import check_service_name, check_sha256

Scope = Literal["read", "write", "admin"]


class ServiceKeySettings(BaseModel):
    """One service key.

    It has a name, the SHA-256 of the key (never the key itself), and scopes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(check_service_name)]
    sha256: Annotated[str, AfterValidator(check_sha256), Field(repr=False)]
    scopes: Annotated[frozenset[Scope], Field(min_length=1, strict=False)]


def check_service_keys(keys: tuple[ServiceKeySettings, ...]) -> tuple[ServiceKeySettings, ...]:
    """Return the keys. Raises ValueError if two have one name or one hash."""
    if len({key.name for key in keys}) != len(keys):
        raise ValueError("must not give two keys one name")
    if len({key.sha256 for key in keys}) != len(keys):
        raise ValueError("must not hold one sha256 twice")
    return keys
