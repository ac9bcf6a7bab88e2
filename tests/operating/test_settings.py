"""The environment: what starts, what is refused and how it is said, and that no secret is ever said."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import ValidationError

from app.setting_needs import Process
from app.settings import Settings, SettingsError, load_settings

SECRET = "a shared secret that is long enough"
CANARY = "canaryB5xQ"
COMPLETE = {
    "DATABASE_URL": "postgresql://coseat:password@db.example/coseat",
    "STRIPE_API_KEY": "sk_test_123",
    "STRIPE_WEBHOOK_SECRETS": "whsec_one,whsec_two",
    "AUTH_JWT_SECRET": SECRET,
    "AUTH_ISSUER": "https://issuer.example/",
    "AUTH_AUDIENCE": "coseat-api",
}
SHA256 = "0" * 64


def public_pem(key: Any) -> str:
    text: str = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return text


EC_KEY = ec.generate_private_key(ec.SECP256R1())
EC_PEM = public_pem(EC_KEY)
PRIVATE_PEM = EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def loaded(process: Process = "test", /, **variables: str) -> Settings:
    return load_settings(variables, process=process)


def problems(process: Process = "test", /, **variables: str) -> dict[str, str]:
    with pytest.raises(SettingsError) as refused:
        load_settings(variables, process=process)
    return refused.value.problems


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OWNER_USE_SEAT", "OWNER_USES_SEAT"),
        ("DATABASE_POOLSIZE", "DATABASE_POOL_SIZE"),
        ("STRIPE_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRETS"),
        ("CORS_ORIGIN", "CORS_ORIGINS"),
        ("metrics_token", "METRICS_TOKEN"),
        ("OPERATON_LEASE", "OPERATION_LEASE"),
    ],
)
def test_variable_is_refused_when_it_is_misspelt(name: str, meant: str) -> None:
    """O6: it was ignored."""
    assert problems(**{name: CANARY}) == {name: f"is no setting. Did you mean {meant}?"}


@pytest.mark.parametrize(
    "name",
    [
        "STRIPE_PUBLISHABLE_KEY",
        "STRIPE_SECRET_KEY",
        "DATABASE_NAME",
        "HOSTNAME",
        "PORTS",
        "COSEAT_PORT",
        "AUTH_SECRET",
    ],
)
def test_variable_is_left_alone_when_it_is_another_programs(name: str) -> None:
    """O6: the environment holds variables of other programs."""
    assert loaded(**{name: "x"})


def test_misspelt_variable_is_left_alone_when_the_right_one_is_set() -> None:
    """O6: another program may read it."""
    assert loaded(STRIPE_WEBHOOK_SECRETS="whsec_one", STRIPE_WEBHOOK_SECRET="whsec_other")


def test_complete_environment() -> None:
    settings = load_settings(COMPLETE, process="serve")
    assert settings.dsn == COMPLETE["DATABASE_URL"]
    assert settings.stripe_key == "sk_test_123"
    assert settings.stripe_livemode is False
    assert settings.webhook_secrets == ("whsec_one", "whsec_two")
    assert settings.jwt is not None
    assert settings.jwt.secret is not None
    assert settings.jwt.secret.get_secret_value() == SECRET
    assert (settings.jwt.issuer, settings.jwt.audience) == ("https://issuer.example/", "coseat-api")
    assert settings.jwt.customer_claim == ("stripe_customer_id",)


def test_defaults() -> None:
    settings = loaded()
    assert (settings.host, settings.port, settings.log_level) == ("127.0.0.1", 8000, "info")
    assert (settings.catalogue, settings.proration_behavior) == ("listed", "always_invoice")
    assert (settings.sync_margin, settings.stripe_rate_limit) == (2, 20)
    assert (settings.read_rate_limit, settings.write_rate_limit) == (50, 5)
    assert (settings.service_read_rate_limit, settings.service_write_rate_limit) == (1000, 50)
    assert settings.anonymous_rate_limit == 50
    assert (settings.user_in_flight, settings.service_key_in_flight) == (4, 64)
    assert (settings.max_requests, settings.max_waiting_requests) == (200, 200)
    assert (settings.max_waiting_deliveries, settings.request_deadline) == (2000, 10.0)
    assert not settings.owner_uses_seat
    assert not settings.managers_manage_managers
    assert not settings.managers_buy_seats
    assert not settings.past_due_allows_new_seats
    assert (settings.service_keys, settings.cors_origins, settings.stripe_api_base) == ((), (), None)
    assert (settings.jwt, settings.stripe_livemode) == (None, False)


AUTH_KEY = "AUTH_JWT_SECRET or AUTH_JWT_PUBLIC_KEY or AUTH_JWKS_URL"
STRIPE_PROCESS = {"DATABASE_URL", "STRIPE_API_KEY"}
NEEDS: dict[Process, set[str]] = {
    "serve": STRIPE_PROCESS | {"STRIPE_WEBHOOK_SECRETS", AUTH_KEY, "AUTH_ISSUER", "AUTH_AUDIENCE"},
    "worker": STRIPE_PROCESS,
    "sync": STRIPE_PROCESS,
    "reconcile": STRIPE_PROCESS,
    "doctor": STRIPE_PROCESS,
    "replay": {"DATABASE_URL"},
    "unlink": STRIPE_PROCESS,
    "migrate": {"DATABASE_URL"},
    "token": {"AUTH_JWT_SECRET", "AUTH_ISSUER", "AUTH_AUDIENCE"},
    "token --check": {AUTH_KEY, "AUTH_ISSUER", "AUTH_AUDIENCE"},
}


@pytest.mark.parametrize(("process", "needs"), NEEDS.items())
def test_each_process_says_everything_that_it_lacks(process: Process, needs: set[str]) -> None:
    assert set(problems(process)) == needs
    enough = {name: text for name, text in COMPLETE.items() if any(name in need for need in needs)}
    assert load_settings(enough, process=process)
    for name in enough:
        lacking = {other: text for other, text in enough.items() if other != name}
        assert [name in said for said in problems(process, **lacking)] == [True]


@pytest.mark.parametrize("process", ["openapi", "dev", "test"])
def test_processes_that_need_nothing(process: Process) -> None:
    assert load_settings({}, process=process)


def test_default_process_is_the_strictest() -> None:
    with pytest.raises(SettingsError, match="`serve`"):
        load_settings({})


def test_variable_set_to_nothing_counts_as_not_set() -> None:
    assert "STRIPE_WEBHOOK_SECRETS" in problems("serve", **COMPLETE | {"STRIPE_WEBHOOK_SECRETS": "  "})
    assert loaded(PORT="", OWNER_USES_SEAT="", AUTH_JWT_SECRET=SECRET, AUTH_JWKS_URL="").port == 8000


def test_all_problems_are_said_at_once() -> None:
    said = problems(
        "serve",
        DATABASE_URL="mysql://h/d",
        STRIPE_API_KEY="sk_live_1",
        STRIPE_API_BASE="http://stripe.example",
        AUTH_JWT_SECRET="short",
        AUTH_JWKS_URL="ftp://x",
        PORT="http",
        OWNER_USES_SEAT="perhaps",
    )
    assert set(said) == {
        "DATABASE_URL",
        "STRIPE_API_BASE",
        "STRIPE_WEBHOOK_SECRETS",
        "AUTH_JWT_SECRET",
        "AUTH_JWKS_URL",
        "AUTH_ISSUER",
        "AUTH_AUDIENCE",
        "PORT",
        "OWNER_USES_SEAT",
    }
    assert "32 bytes" in said["AUTH_JWT_SECRET"]
    assert "only one of" in said["AUTH_JWT_SECRET"]
    assert "live" in said["STRIPE_API_BASE"]


def refusals() -> Iterator[tuple[str, str]]:
    table: dict[str, list[str]] = {
        "DATABASE_URL": [
            "localhost",
            "sqlite:///x",
            "mysql://u@h/d",
            "http://h/d",
            "postgresql://h",
            "postgresql://h/",
            "postgresql:///d",
            "postgresql://h:port/d",
            "postgresql://h:70000/d",
            "postgresql://h:0/d",
            "postgresql://one:5432,two:70000/d",
            "postgresql://h/d?port=70000",
            "postgresql://h/d?port=x",
            "postgresql:///d?host=one,two,three&port=1,2",
            "postgresql://h/a b",
        ],
        "STRIPE_API_KEY": [
            "123",
            "sk_test_",
            "sk_prod_1",
            "pk_test_1",
            "pk_live_1",
            "whsec_1",
            "sk_test_1 2",
            "sk_test_é",
        ],
        "STRIPE_API_BASE": [
            "api.stripe.com",
            "ftp://127.0.0.1",
            "http://stripe.example",
            "http://10.0.0.1:12111",
            "http://127.0.0.1.attacker.example",
            "http://localhost.attacker.example",
            "https://user:pass@stripe.example",
            "https://stripe.example/v1",
            "https://stripe.example?x=1",
            "https://stripe.example#x",
            "https://",
        ],
        "STRIPE_WEBHOOK_SECRETS": [
            ",",
            "whsec_a,",
            ",whsec_a",
            "whsec_a,,whsec_b",
            "whsec_a,whsec_a",
            "whsec a",
            "whsec_é",
            "whsec_",
            "whsec_a,whsec_",
            "we_1ABC",
            "secret",
        ],
        "AUTH_JWT_SECRET": ["x" * 31, "é" * 15, EC_PEM, '{"kty":"oct","k":"' + "x" * 43 + '"}'],
        "AUTH_JWT_PUBLIC_KEY": [
            "not a key",
            PRIVATE_PEM,
            EC_PEM[:-40],
            public_pem(rsa.generate_private_key(65537, 1024)),
            public_pem(ec.generate_private_key(ec.SECP256K1())),
            public_pem(dsa.generate_private_key(1024)),
        ],
        "AUTH_JWKS_URL": [
            "http://issuer.example/keys",
            "file:///etc/passwd",
            "issuer.example/keys",
            "https:///keys",
            "https://a:b@issuer.example/keys",
            "https://issuer.example/keys#x",
            "https://issuer.example:x/keys",
        ],
        "AUTH_ISSUER": ["a\nb", "x" * 1025],
        "AUTH_AUDIENCE": ["a\tb", "x" * 1025],
        "AUTH_CUSTOMER_CLAIM": [
            "user_metadata.stripe_customer_id",
            "user_metadata",
            "User_Metadata.id",
            "userMetadata.id",
            "unsafe_metadata.id",
            "unsafeMetadata.id",
            "raw_user_meta_data.id",
            "public_user_profile.id",
            "app.user_metadata.id",
            "https://acme.example/user_metadata/id",
            "email",
            "nickname",
            "a..b",
            ".a",
            "a.",
            "a b",
            "a.$where",
        ],
        "AUTH_AUDIENCE_CLAIM": [
            "user_metadata.client",
            "unsafeMetadata",
            "https://acme.example/user_metadata/client",
            "email",
            "name",
            "a..b",
            "a b",
            "a\x00b",
            "x" * 129,
            "['aud']",
        ],
        "AUTH_EMAIL_CLAIM": [
            "user_metadata.email",
            "userMetadata.email",
            "raw_user_meta_data.email",
            "profile.email",
            "traits.email",
            "nickname",
            "preferred_username",
            "https://acme.example/unsafe_metadata/email",
            ".email",
            "email,mail",
            "a\nb",
        ],
        "AUTH_EMAIL_VERIFIED": [
            "user_metadata.email_verified",
            "unsafe_metadata.email_verified",
            "https://acme.example/user_metadata#verified",
            "email",
            "true",
            "False",
            "1",
            "on",
            "never",
            "always,email_verified",
            "a b",
        ],
        "AUTH_AUD_IGNORED": ["true", "2", "always", "aud"],
        "SERVICE_KEYS": [
            "backend",
            "{}",
            "[1]",
            "[[]]",
            json.dumps([{"name": "a", "sha256": SHA256}]),
            json.dumps([{"name": "a", "sha256": SHA256, "scopes": []}]),
            json.dumps([{"name": "a", "sha256": SHA256, "scopes": ["root"]}]),
            json.dumps([{"name": "a", "sha256": SHA256, "scopes": "read"}]),
            json.dumps([{"name": "", "sha256": SHA256, "scopes": ["read"]}]),
            json.dumps([{"name": "a:b", "sha256": SHA256, "scopes": ["read"]}]),
            json.dumps([{"name": "x" * 65, "sha256": SHA256, "scopes": ["read"]}]),
            json.dumps([{"name": "a", "sha256": SHA256[:-1], "scopes": ["read"]}]),
            json.dumps([{"name": "a", "sha256": "g" * 64, "scopes": ["read"]}]),
            json.dumps([{"name": "a", "sha256": SHA256, "scopes": ["read"], "key": "csk_x"}]),
            json.dumps([{"name": "a", "sha256": digit * 64, "scopes": ["read"]} for digit in "12"]),
            json.dumps([{"name": name, "sha256": "a" * 64, "scopes": ["read"]} for name in "ab"]),
            json.dumps([{"name": n, "sha256": s * 64, "scopes": ["read"]} for n, s in ("aA", "ba")]),
            "[" * 100_000,
        ],
        "CORS_ORIGINS": [
            "*",
            "null",
            "https://*.example.com",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://app.example.com?x",
            "https://user@app.example.com",
            "https://APP.example.com",
            "HTTPS://app.example.com",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://app.example.com:0x50",
            "app.example.com",
            "//app.example.com",
            "ftp://app.example.com",
            "file://",
            "https://",
            "https://bücher.example",
            "https://a.example,,https://b.example",
            "https://a.example,*",
            "https://a.example https://b.example",
        ],
        "CATALOGUE": ["all", "Listed"],
        "PRORATION_BEHAVIOR": ["never", "always"],
        "OWNER_USES_SEAT": ["2", "maybe"],
        "MANAGERS_MANAGE_MANAGERS": ["ja"],
        "MANAGERS_BUY_SEATS": ["-1"],
        "PAST_DUE_ALLOWS_NEW_SEATS": ["nil"],
        "UNSECURED_RAISE_MAX": ["-1", "1001", "nan", "20 %"],
        "SYNC_MARGIN": ["0.5", "-1", "61", "nan", "inf", "2s"],
        "STRIPE_RATE_LIMIT": ["0", "-5", "1.5", "10001", "many"],
        "DATABASE_POOL_SIZE": ["0", "101"],
        "OPERATION_DEADLINE": ["0", "61", "nan"],
        "OPERATION_LEASE": ["0", "301", "nan"],
        "LATE_WINDOW": ["0", "3601", "inf"],
        "READ_RATE_LIMIT": ["0", "-1", "0.5", "1000001", "many"],
        "WRITE_RATE_LIMIT": ["0", "1.5"],
        "SERVICE_READ_RATE_LIMIT": ["0", "x"],
        "SERVICE_WRITE_RATE_LIMIT": ["0", "x"],
        "ANONYMOUS_RATE_LIMIT": ["0", "none"],
        "USER_IN_FLIGHT": ["0", "10001", "few"],
        "SERVICE_KEY_IN_FLIGHT": ["0", "10001", "1.5"],
        "MAX_REQUESTS": ["0", "10001"],
        "MAX_WAITING_REQUESTS": ["-1", "10001"],
        "MAX_WAITING_DELIVERIES": ["0", "100001"],
        "REQUEST_DEADLINE": ["0", "61", "nan", "inf"],
        "DOCS": ["2", "maybe"],
        "METRICS": ["open"],
        "METRICS_TOKEN": ["x" * 15, "spaces in between it", "é" * 20],
        "HOST": ["a b", "http://x", "-x", "::1]"],
        "PORT": ["-1", "65536", "x", "80.5"],
        "LOG_LEVEL": ["loud", "trace"],
    }
    for name, values in table.items():
        for value in values:
            yield name, value


REFUSALS = list(refusals())


@pytest.mark.parametrize(("name", "value"), REFUSALS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(REFUSALS)])
def test_invalid_value_is_refused_and_named(name: str, value: str) -> None:
    assert set(problems(**{name: value})) == {name}


ACCEPTED = [
    ("STRIPE_API_BASE", "http://127.0.0.1:12111/", "http://127.0.0.1:12111"),
    ("STRIPE_API_BASE", "http://localhost:12111", "http://localhost:12111"),
    ("STRIPE_API_BASE", "http://[::1]:12111", "http://[::1]:12111"),
    ("STRIPE_API_BASE", "https://stripe-proxy.example", "https://stripe-proxy.example"),
    (
        "CORS_ORIGINS",
        "https://a.example, http://localhost:3000",
        ("https://a.example", "http://localhost:3000"),
    ),
    ("CORS_ORIGINS", "http://[::1]:5173", ("http://[::1]:5173",)),
    ("AUTH_CUSTOMER_CLAIM", "app_metadata.stripe_customer_id", "app_metadata.stripe_customer_id"),
    ("AUTH_CUSTOMER_CLAIM", "custom:stripe_customer_id", "custom:stripe_customer_id"),
    ("AUTH_AUDIENCE_CLAIM", "azp", "azp"),
    ("AUTH_AUDIENCE_CLAIM", "client_id", "client_id"),
    ("AUTH_AUD_IGNORED", "false", False),
    ("AUTH_EMAIL_CLAIM", "https://acme.example/email", "https://acme.example/email"),
    ("AUTH_EMAIL_CLAIM", "contact.email", "contact.email"),
    ("AUTH_EMAIL_VERIFIED", "emailVerified", "emailVerified"),
    ("AUTH_EMAIL_VERIFIED", "always", "always"),
    ("AUTH_EMAIL_VERIFIED", "Always", "always"),
    ("AUTH_JWT_PUBLIC_KEY", EC_PEM, EC_PEM),
    ("AUTH_JWT_PUBLIC_KEY", EC_PEM.replace("\n", "\\n"), EC_PEM),
    ("AUTH_JWKS_URL", "https://issuer.example/keys?x=1", "https://issuer.example/keys?x=1"),
    ("LOG_LEVEL", "WARNING", "warning"),
    ("OWNER_USES_SEAT", "true", True),
    ("OWNER_USES_SEAT", "1", True),
    ("OWNER_USES_SEAT", "off", False),
    ("SYNC_MARGIN", "5", 5),
    ("PORT", "0", 0),
    ("HOST", "::", "::"),
    ("PRORATION_BEHAVIOR", "none", "none"),
    ("CATALOGUE", "open", "open"),
]


@pytest.mark.parametrize(
    ("name", "value", "expected"), ACCEPTED, ids=[f"{case[0]}-{i}" for i, case in enumerate(ACCEPTED)]
)
def test_valid_value(name: str, value: str, expected: object) -> None:
    assert getattr(loaded(**{name: value}), name.lower()) == expected


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()])
def test_public_keys_of_other_families(key: Any) -> None:
    assert loaded(AUTH_JWT_PUBLIC_KEY=public_pem(key)).auth_jwt_public_key == public_pem(key)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_database_url_in_one_form(scheme: str) -> None:
    assert loaded(DATABASE_URL=f"{scheme}://u:p@h:5432/d?ssl=on").dsn == "postgresql://u:p@h:5432/d?ssl=on"


def test_database_over_a_socket() -> None:
    assert loaded(DATABASE_URL="postgresql://u@/d?host=/run/postgresql").dsn


@pytest.mark.parametrize(
    ("key", "live"),
    [("sk_test_live_1", False), ("rk_test_1", False), ("sk_live_1", True), ("rk_live_1", True)],
)
def test_livemode_comes_from_the_key_and_forbids_another_base(key: str, live: bool) -> None:
    base = {"STRIPE_API_KEY": key, "STRIPE_API_BASE": "http://127.0.0.1:12111"}
    assert loaded(STRIPE_API_KEY=key).stripe_livemode is live
    if live:
        assert set(problems(**base)) == {"STRIPE_API_BASE"}
        with pytest.raises(ValidationError, match="live Stripe key"):
            Settings(stripe_api_key=key, stripe_api_base=base["STRIPE_API_BASE"])  # type: ignore[arg-type]
    else:
        assert loaded(**base).stripe_api_base == base["STRIPE_API_BASE"]


def test_aud_is_ignored_only_beside_another_audience_claim() -> None:
    """P2: without another claim, AUTH_AUD_IGNORED would accept tokens for any application."""
    assert set(problems(AUTH_AUD_IGNORED="true", AUTH_AUDIENCE_CLAIM="aud")) == {"AUTH_AUD_IGNORED"}
    assert set(problems(AUTH_AUD_IGNORED="true", AUTH_AUDIENCE_CLAIM="a b")) == {"AUTH_AUDIENCE_CLAIM"}
    assert loaded(AUTH_AUD_IGNORED="true", AUTH_AUDIENCE_CLAIM="azp").auth_aud_ignored is True


@pytest.mark.parametrize("missing", ["AUTH_JWT_SECRET", "AUTH_ISSUER", "AUTH_AUDIENCE"])
def test_no_token_is_verifiable_with_half_a_configuration(missing: str) -> None:
    half = {name: text for name, text in COMPLETE.items() if name != missing}
    assert load_settings(half, process="worker").jwt is None


def test_two_kinds_of_key_are_refused() -> None:
    said = problems(AUTH_JWT_SECRET=SECRET, AUTH_JWT_PUBLIC_KEY=EC_PEM)
    assert said == {
        "AUTH_JWT_SECRET": "only one of AUTH_JWT_SECRET, AUTH_JWT_PUBLIC_KEY, AUTH_JWKS_URL may be set"
    }


def test_accessor_of_an_unconfigured_value_says_its_name() -> None:
    settings = loaded()
    for name, accessor in {
        "DATABASE_URL": "dsn",
        "STRIPE_API_KEY": "stripe_key",
        "STRIPE_WEBHOOK_SECRETS": "webhook_secrets",
    }.items():
        with pytest.raises(SettingsError, match=name):
            getattr(settings, accessor)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        setattr(loaded(), "port", 1)  # noqa: B010 - the type checker knows already


@pytest.mark.parametrize(
    "environ",
    [
        {
            "DATABASE_URL": f"postgresql://u:{CANARY}@h/d",
            "STRIPE_API_KEY": f"sk_test_{CANARY}",
            "STRIPE_WEBHOOK_SECRETS": f"{CANARY}1,{CANARY}2",
            "AUTH_JWT_SECRET": CANARY * 4,
            "METRICS_TOKEN": CANARY * 2,
        },
        {
            "DATABASE_URL": f"mysql://u:{CANARY}@h/d",
            "STRIPE_API_KEY": CANARY,
            "STRIPE_API_BASE": f"https://{CANARY}@h",
            "STRIPE_WEBHOOK_SECRETS": f"{CANARY},{CANARY}",
            "AUTH_JWT_SECRET": CANARY,
            "AUTH_JWT_PUBLIC_KEY": CANARY,
            "AUTH_JWKS_URL": f"https://u:{CANARY}@h/",
            "AUTH_CUSTOMER_CLAIM": f"{CANARY}..",
            "SERVICE_KEYS": json.dumps([{"name": CANARY + " ", CANARY: CANARY, "sha256": CANARY}]),
            "CORS_ORIGINS": CANARY,
            "CATALOGUE": CANARY,
            "PORT": CANARY,
            "OWNER_USES_SEAT": CANARY,
            "METRICS_TOKEN": CANARY,
            "READ_RATE_LIMIT": CANARY,
        },
        {"SERVICE_KEYS": CANARY, "DATABASE_URL": f"postgresql://u:p@h:{CANARY}/d"},
    ],
)
def test_nothing_configured_shows_in_repr_or_traceback(environ: dict[str, str]) -> None:
    source = "from app.settings import load_settings; print(repr(load_settings(process='test')))"
    ran = subprocess.run(
        [sys.executable, "-c", source], env=os.environ | environ, capture_output=True, text=True, check=False
    )
    assert "Settings(" in ran.stdout or "SettingsError" in ran.stderr
    assert CANARY not in ran.stdout + ran.stderr


@pytest.mark.parametrize("verified", ["always", "email_verified"])
def test_serve_warns_at_start_when_every_address_counts_as_verified(verified: str) -> None:
    """P2: `always` is safe only beside an issuer that confirms addresses, so a log line warns the operator."""
    environ = {"PATH": os.environ["PATH"], "AUTH_EMAIL_VERIFIED": verified} | COMPLETE
    environ |= {"DATABASE_URL": "postgresql://coseat:x@127.0.0.1:9/coseat", "LOG_LEVEL": "warning"}
    command = [sys.executable, "-m", "app", "serve"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert ("AUTH_EMAIL_VERIFIED=always" in done.stderr) is (verified == "always")
