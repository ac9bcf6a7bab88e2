"""What `coseat dev` prints once it is ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.commands.development_environment import STRIPE_KEY, DevelopmentSecrets
from app.operating.dev.people import PEOPLE, sign_in
from app.settings import Settings, SettingsError


def announcement(
    api: str, settings: Settings, own: DevelopmentSecrets, *, portal_is_built: bool, ignored: Sequence[str]
) -> Iterator[str]:
    """Yield the lines: addresses, tokens, first requests. `ignored` names variables that are not used."""
    not_built = "" if portal_is_built else " (not built: make portal)"
    yield from (
        "",
        f"  portal       {api}/{not_built}",
        f"  API          {api}/v1",
        f"  docs         {api}/docs",
        f"  panel        {api}/dev (people, mailbox, time, payments, last events and requests)",
        f"  Stripe       {settings.stripe_api_base} (stand-in, key {STRIPE_KEY})",
        "",
    )
    if ignored:
        yield f"Not used: {', '.join(ignored)}. `coseat dev` starts its own database and its own stand-in for Stripe."
        yield ""
    try:
        tokens = {person.variable: sign_in(settings, person.email).token for person in PEOPLE}
    except SettingsError:
        tokens = {}
        yield "Tokens: sign in at your identity provider, whose keys the environment names."
    else:
        yield "Tokens, good for 12 hours (for anybody else: coseat dev --token EMAIL):"
    yield from (f"  {name}={value}" for name, value in tokens.items())
    yield from (
        f"  SERVICE_KEY={own.service_key}",
        "",
        "A first request:",
        f"  curl -s {api}/v1/shared-subscriptions/sub_demoteam/users \\",
        f"    -H 'Authorization: Bearer {tokens.get('OWNER', own.service_key)}'",
        "",
        "Every change of seats and access is an event. The newest ones, or all as they come:",
        f"  curl -s '{api}/v1/events?limit=100' -H 'Authorization: Bearer {own.service_key}'",
        f"  curl -sN {api}/v1/shared-subscriptions/sub_demoteam/events -H 'Authorization: Bearer {own.service_key}'",
        "",
        "Ctrl-C stops everything.",
    )
