"""Which addresses are equal, which claims reach a seat, and which addresses and names are taken at all."""

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from app.domain import emails
from testkit import databases
from testkit.company import Service, new_email, running_service
from testkit.problems import pointers, problem
from testkit.service import as_service, as_user
from testkit.simulator import Simulator, new_account_key

LOOKALIKES = {"k": "\u212a", "s": "\u017f", "i": "\u0130", "a": "\uff21", "e": "\uff45"}
"""Kelvin sign, long s, dotted capital I and two letters of full width, by the letter that each may turn into."""


def alike(email: str, letter: str) -> str:
    return email.replace(letter, LOOKALIKES[letter], 1)


def new_address() -> str:
    return new_email("kiesa")


def new_subject() -> str:
    return f"subject-{secrets.token_hex(6)}"


@pytest.fixture(scope="module")
def unicode_database_url(postgres_url: str) -> Iterator[str]:
    url = databases.create_with_unicode_rules(postgres_url)
    yield url
    databases.drop(postgres_url, url)


@pytest.fixture(scope="module")
async def elsewhere(
    stripe_simulator: str, unicode_database_url: str, plain_logs: None
) -> AsyncIterator[Service]:
    """The service on a database in which `lower()` follows Unicode."""
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, unicode_database_url) as running,
    ):
        yield running


@pytest.mark.parametrize("letter", LOOKALIKES)
async def test_a_claim_with_a_lookalike_reaches_no_seat(service: Service, letter: str) -> None:
    """P7: a verified e-mail with a Kelvin sign took over another person's seat."""
    company, email = await service.company(), new_address()
    added = await company.change(company.owner.headers, add=[email])
    seat = added.json()["results"][0]["customer_id"]
    who = as_user(new_subject(), email=alike(email, letter), email_verified=True)
    mine = await service.send("POST", "/v1/customers", who, {})
    assert mine.status_code == 201, mine.text
    assert mine.json()["customer"]["id"] != seat
    by_key = {"user_id": new_subject(), "email": alike(email, letter)}
    theirs = await service.send("POST", "/v1/customers", as_service("write"), by_key)
    assert theirs.status_code in (201, 422), theirs.text
    rightful = as_user(new_subject(), email=email.upper(), email_verified=True)
    reached = await service.send("POST", "/v1/customers", rightful, {})
    assert (reached.status_code, reached.json()["customer"]["id"]) == (200, seat)


@pytest.mark.parametrize("letter", LOOKALIKES)
async def test_a_seat_for_a_lookalike_is_reached_by_nobody(service: Service, letter: str) -> None:
    """P7: neither by the address that it looks like, nor by a claim that says the same."""
    company, email = await service.company(), new_address()
    added = await company.change(company.owner.headers, add=[email, alike(email, letter)])
    assert [result["outcome"] for result in added.json()["results"]] == ["applied"] * 2, added.text
    plain, odd = (result["customer_id"] for result in added.json()["results"])
    for claimed in (alike(email, letter), email):
        who = as_user(new_subject(), email=claimed, email_verified=True)
        answer = await service.send("POST", "/v1/customers", who, {})
        reached = answer.json()["customer"]["id"]
        assert reached != odd
        assert (reached == plain) is (claimed == email)


@pytest.mark.parametrize("letter", ["k", "a"])
async def test_the_database_lowers_ascii_letters_only(elsewhere: Service, letter: str) -> None:
    """P7: `lower()` of a database with Unicode's rules makes a `k` of the Kelvin sign."""
    lowered = await elsewhere.fetch("select lower($1) as text", alike("kiesa", letter))
    assert lowered[0]["text"] != alike("kiesa", letter)
    company, email = await elsewhere.company(), new_address()
    stranger = await elsewhere.person("stranger", linked=False)
    await elsewhere.stripe.post(f"/v1/customers/{stranger.customer_id}", email=alike(email, letter))
    await elsewhere.refresh("customer", stranger.customer_id)
    added = await company.change(company.owner.headers, add=[email])
    seat = added.json()["results"][0]["customer_id"]
    assert seat != stranger.customer_id
    # The seat's customer was given the other address in the Dashboard.
    await elsewhere.stripe.post(f"/v1/customers/{seat}", email=alike(email, letter))
    await elsewhere.refresh("customer", seat)
    who = as_user(new_subject(), email=email, email_verified=True)
    answer = await elsewhere.send("POST", "/v1/customers", who, {})
    assert answer.status_code == 201, answer.text
    assert answer.json()["customer"]["id"] != seat


@pytest.mark.parametrize(
    ("email", "expected"),
    [
        ("kim@example.com", True),
        ("k\u00eem@example.com", True),
        ("kim@xn--bcher-kva.example", True),
        *((alike("kiesa@example.com", letter), False) for letter in LOOKALIKES),
        ("ki\u0302m@example.com", False),
        ("k\u00ceM@example.com", False),
        ("stra\u00dfe@example.com", False),
        ("k\u200dim@example.com", False),
        ("k\u00adim@example.com", False),
        ("kim@example\uff0ecom", False),
    ],
)
def test_only_an_address_that_normalisation_keeps_reaches_seats(email: str, expected: bool) -> None:
    assert emails.reaches_seats(emails.ascii_lowered(email)) is expected


def test_ascii_letters_alone_are_lowered() -> None:
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    changed = {one: two for one, two in zip(every, emails.ascii_lowered(every), strict=True) if one != two}
    assert changed == {chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)}


JOINED = (
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\u0dc1\u0dca\u200d\u0dbb\u0dd3",
    "Kim \U0001f469\u200d\U0001f4bb",
)
"""A Persian word, a Sinhala syllable, and an emoji of two characters, all with joiners."""


@pytest.mark.parametrize("name", JOINED)
async def test_a_name_with_a_joiner_is_taken(service: Service, name: str) -> None:
    """P10: U+200C and U+200D belong to how names are written."""
    who = as_user(new_subject(), email=new_address(), email_verified=True)
    made = await service.send("POST", "/v1/customers", who, {"name": name})
    assert (made.status_code, made.json().get("customer", {}).get("name")) == (201, name), made.text
    changed = await service.send("PATCH", "/v1/customers/me", who, {"name": f"{name} II"})
    assert (changed.status_code, changed.json().get("customer", {}).get("name")) == (200, f"{name} II")


@pytest.mark.parametrize(
    "name", ["\u200d", "a\u200b", "a\x00", "a\u202e", " a", "a \u200d", "\u200c a", "a\nb"]
)
async def test_a_name_that_breaks_is_refused(service: Service, name: str) -> None:
    who = as_user(new_subject())
    document = problem(
        await service.send("POST", "/v1/customers", who, {"name": name}), 422, "invalid_request"
    )
    assert pointers(document) == ["/name"]


async def test_a_user_id_with_a_joiner_is_refused_as_in_a_token(service: Service) -> None:
    body = {"user_id": "a\u200db"}
    answer = await service.send("POST", "/v1/customers", as_service("write"), body)
    assert pointers(problem(answer, 422, "invalid_request")) == ["/user_id"]


BROKEN = ("a b@x.example", "a\u00a0b@x.example", "a\u2028b@x.example", "a\x00@x.example", "a\x7f@x.example",
          "a\x85@x.example", "a\x9f@x.example", "a@b@x.example", "@x.example", "a@", "a\u202eb@x.example",
          "a@x.example\n")  # fmt: skip


@pytest.mark.parametrize("email", BROKEN)
async def test_an_address_that_breaks_is_refused_wherever_it_comes_from(service: Service, email: str) -> None:
    """P10: U+007F, U+009F and U+202E were taken in bodies."""
    company = await service.company()
    answer = await company.change(company.owner.headers, add=[email])
    assert pointers(problem(answer, 422, "invalid_request")) == ["/add/0/email"]
    body = {"user_id": new_subject(), "email": email}
    answer = await service.send("POST", "/v1/customers", as_service("write"), body)
    assert pointers(problem(answer, 422, "invalid_request")) == ["/email"]
    who = as_user(new_subject(), email=email, email_verified=True)
    answer = await service.send("POST", "/v1/customers", who, {})
    assert (answer.status_code, answer.json()["customer"]["email"]) == (201, None)


@pytest.mark.parametrize("local", ["\u200c\u0645", "\ue000", "\U0003fffd", "\u0e01"])
async def test_an_address_is_not_refused_for_how_it_prints(service: Service, local: str) -> None:
    """P10: joiners, characters of private use and unassigned ones break nothing."""
    email = f"{local}.{new_email()}"
    company = await service.company()
    added = await company.change(company.owner.headers, add=[email])
    assert [result["outcome"] for result in added.json()["results"]] == ["applied"], added.text
    assert emails.is_address(email)
