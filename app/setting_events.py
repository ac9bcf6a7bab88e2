"""The settings of events and of the endpoints to which they are sent; a part of `app.settings.Settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings

from app.setting_rules import check_encryption_keys, split_commas


class EventSettings(BaseSettings):
    """The variables of events, see docs/reference/settings.md."""

    event_retention_days: Annotated[float, Field(gt=0, le=36500, allow_inf_nan=False)] = 35.0
    """Days for which events are kept."""
    streams_per_caller: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Event streams of one caller that one process holds open at the same time."""
    webhook_encryption_keys: Annotated[
        tuple[SecretStr, ...], BeforeValidator(split_commas), AfterValidator(check_encryption_keys)
    ] = ()
    """The first one encrypts the signing secrets of webhook endpoints, all decrypt."""
    webhook_timeout: Annotated[float, Field(ge=0.1, le=60, allow_inf_nan=False)] = 15.0
    """Seconds for one try to deliver an event."""
    webhook_retry_max: Annotated[float, Field(ge=0.1, le=86_400, allow_inf_nan=False)] = 3600.0
    """The longest pause between two tries, in seconds."""
    webhook_disable_after: Annotated[float, Field(ge=1, le=2_592_000, allow_inf_nan=False)] = 432_000.0
    """Seconds for which the same event may fail before its endpoint is disabled."""

    @property
    def encryption_keys(self) -> tuple[str, ...]:
        """Return the keys for the secrets of endpoints. Without one, no endpoint can be made."""
        return tuple(key.get_secret_value() for key in self.webhook_encryption_keys)
