"""Turn the headers of a request into a principal.

Every caller is authenticated here.
"""

from __future__ import annotations

from app.domain.ids import CustomerId, is_free_id
from app.errors import FieldError, InvalidRequest, Unauthenticated
from app.identity.jwks import JwksKeys
from app.identity.keys import KeySource, static_key
from app.identity.principals import Anonymous, EndUser, Principal, ServiceKey
from app.identity.refusals import TokenRejected
from app.identity.service_keys import PREFIX, ServiceKeyRing
from app.identity.tokens import TokenVerifier
from app.settings import JwtSettings, Settings

ANONYMOUS = Anonymous()


class Authenticator:
    """Authenticates requests. A process builds one and closes it with `aclose`."""

    def __init__(self, settings: Settings) -> None:
        """Prepare the keys of the settings.

        Raises:
            UnusableKey: If the configured key must not verify tokens.
        """
        self._service_keys = ServiceKeyRing(settings.service_keys)
        self._keys: KeySource | None = None
        self._tokens: TokenVerifier | None = None
        if (jwt := settings.jwt) is not None:
            self._keys = key_source(jwt)
            self._tokens = verifier_of(self._keys, jwt)
        # A caller may learn why a credential is refused only while no real money moves. An operator reads the log.
        self._shows_reasons = settings.stripe_api_key is not None and not settings.stripe_livemode

    async def authenticate(self, authorization: str | None, acting_customer: str | None = None) -> Principal:
        """Return the principal of the `Authorization` and `X-Acting-Customer` headers.

        Raises:
            Unauthenticated: The credential is not valid. Its cause is a TokenRejected with the reason. Beside a test
                key the error has the reason too, as the member `reason`.
            InvalidRequest: `X-Acting-Customer` is malformed, or was sent with a token.
            ServiceUnavailable: `identity_provider_unavailable`: the provider's keys cannot be read.
        """
        if authorization is None:
            if acting_customer is not None:
                raise Unauthenticated(
                    "X-Acting-Customer needs a service key. Send one as the bearer credential."
                )
            return ANONYMOUS
        try:
            credential = _bearer(authorization)
            if credential.startswith(PREFIX):
                return self._service_key(credential, acting_customer)
            user = await self._end_user(credential)
        except TokenRejected as rejected:
            raise Unauthenticated(
                "The bearer credential is not valid here, or has expired. Send a new token or a service key.",
                members={"reason": rejected.reason} if self._shows_reasons else None,
            ) from rejected
        if acting_customer is not None:
            raise _misused("X-Acting-Customer is for service keys. Send the token without it.")
        return user

    async def aclose(self) -> None:
        """Close the connections of the key source."""
        if self._keys is not None:
            await self._keys.aclose()

    async def _end_user(self, token: str) -> EndUser:
        if self._tokens is None:
            raise TokenRejected("unknown_key")
        return await self._tokens.verify(token)

    def _service_key(self, credential: str, acting_customer: str | None) -> ServiceKey:
        key = self._service_keys.find(credential)
        if key is None:
            raise TokenRejected("unknown_service_key")
        if acting_customer is None:
            return ServiceKey(key.name, key.scopes)
        if not is_free_id(acting_customer):
            raise _misused(
                "X-Acting-Customer must be a customer id, 1 to 255 characters without control characters."
            )
        return ServiceKey(key.name, key.scopes, CustomerId(acting_customer))


def key_source(jwt: JwtSettings) -> KeySource:
    """Return the keys that the settings name.

    Raises:
        UnusableKey: If the configured key must not verify tokens.
    """
    return JwksKeys(jwt.jwks_url) if jwt.jwks_url is not None else static_key(jwt)


def verifier_of(keys: KeySource, jwt: JwtSettings) -> TokenVerifier:
    """Return the verifier of the settings, with the keys of `key_source`."""
    return TokenVerifier(
        keys,
        issuer=jwt.issuer,
        audience=jwt.audience,
        audience_claim=jwt.audience_claim,
        aud_ignored=jwt.aud_ignored,
        customer_claim=jwt.customer_claim,
        email_claim=jwt.email_claim,
        email_verified_claim=jwt.email_verified_claim,
    )


def _bearer(authorization: str) -> str:
    # The form is that of RFC 6750 section 2.1. The scheme is case-insensitive (RFC 9110 section 11.1).
    scheme, space, credential = authorization.partition(" ")
    if scheme.lower() != "bearer" or not space:
        raise TokenRejected("malformed")
    return credential.strip(" ")


def _misused(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, errors=[FieldError("header/X-Acting-Customer", "invalid", detail)])
