"""Tokens of invitations: what is guessed, replayed, foreign, superseded or changed by one character opens nothing."""

import base64
import secrets
import string

import httpx

from app.sharing.invitation_tokens import InvitationTokens, TokenName
from testkit.company import Company, Service, new_email
from testkit.problems import indistinguishable, problem
from testkit.service import INVITATION_SECRET, as_service, as_user

ALPHABET = string.ascii_letters + string.digits + "-_"
GUESSES = 200


async def accepted(service: Service, token: str, who: dict[str, str] | None = None) -> httpx.Response:
    stranger = who or as_user(f"guesser-{secrets.token_hex(6)}")
    return await service.send("POST", "/v1/invitations/accept", stranger, {"token": token})


def guesses(token: str) -> list[str]:
    """Tokens like the right one: each is wrong in one way, most of them in its code."""
    invitation_id, generation, code = token.split(".")
    made = [f"{invitation_id}.{generation}.{secrets.token_urlsafe(32)}" for _ in range(GUESSES - 70)]
    for place in range(43):
        other = ALPHABET[(ALPHABET.index(code[place]) + 1) % len(ALPHABET)]
        made.append(f"{invitation_id}.{generation}.{code[:place]}{other}{code[place + 1 :]}")
    plain = InvitationTokens(["0" * 32])
    made += [
        f"{invitation_id}.{generation}.{code}=",
        f"{invitation_id}.{generation}.{code}\n",
        f" {token}",
        f"{invitation_id}.0{generation}.{code}",
        f"{invitation_id}.{int(generation) + 1}.{code}",
        f"{invitation_id}.0.{code}",
        f"{invitation_id}.-1.{code}",
        f"{invitation_id}.１.{code}",
        f"{invitation_id.upper()}.{generation}.{code}",
        f"inv_{secrets.token_hex(12)}.{generation}.{code}",
        f"{invitation_id}.{generation}",
        f"{invitation_id}.{generation}.",
        f"{invitation_id}..{code}",
        invitation_id,
        code,
        "A" * 43,
        f"{invitation_id}.{generation}.{'A' * 43}",
        f"{invitation_id}.{generation}.{base64.b64encode(secrets.token_bytes(32)).decode()[:43]}",
        plain.make(TokenName(invitation_id, int(generation))),
        InvitationTokens([INVITATION_SECRET.upper()]).make(TokenName(invitation_id, int(generation))),
        InvitationTokens([INVITATION_SECRET]).make(TokenName(invitation_id, int(generation) + 1)),
        "' or true --",
        "\x00",
        "😀" * 40,
        "null",
        token[::-1],
        token.swapcase(),
    ]
    return [guess for guess in made if guess != token]


async def test_no_guess_is_accepted(service: Service) -> None:
    company = await service.company(seats=5)
    token = await company.token()
    made = guesses(token)
    assert len(made) >= GUESSES
    before = await company.members(), len(await service.stripe.requests(method="POST"))
    for guess in made:
        for what in ("accept", "lookup", "decline"):
            who = as_user("guesser") if what == "accept" else None
            response = await service.send("POST", f"/v1/invitations/{what}", who, {"token": guess})
            problem(response, 404, "not_found")
    assert (await company.members(), len(await service.stripe.requests(method="POST"))) == before
    assert (await company.seats())["reserved"] == 1
    assert (await accepted(service, token)).status_code == 200


async def test_a_wrong_token_and_one_of_nobody_cannot_be_told_apart(service: Service) -> None:
    company = await service.company(seats=5)
    token = await company.token()
    wrong = f"{token.rpartition('.')[0]}.{'A' * 43}"
    absent = InvitationTokens([INVITATION_SECRET]).make(TokenName(f"inv_{'0' * 24}", 1))
    await service.send(
        "POST", f"{company.path}/invitations/{token.partition('.')[0]}/resend", company.owner.headers
    )
    who = as_user("comparer")
    answers = [await accepted(service, one, who) for one in (wrong, absent, token)]
    assert indistinguishable(answers[0], answers[1]) and indistinguishable(answers[0], answers[2])


async def test_a_replayed_or_stolen_token_seats_nobody_again(service: Service) -> None:
    company = await service.company(seats=8)
    token, email = await company.token(), new_email()
    first = as_user("the-first", email=email, email_verified=True)
    done = await accepted(service, token, first)
    assert done.status_code == 200, done.text
    members = await company.members()
    for number in range(20):
        problem(await accepted(service, token, as_user(f"thief-{number}")), 409, "invitation_ended")
        assert (await accepted(service, token, first)).json() == done.json()
    await company.change(company.owner.headers, remove=[done.json()["results"][0]["customer_id"]])
    again = await accepted(service, token, first)
    assert again.json()["operation_id"] == done.json()["operation_id"], (
        "the answer of then, and nothing is done"
    )
    assert await company.members() == {
        name: role for name, role in members.items() if name != done.json()["results"][0]["customer_id"]
    }


async def test_an_invitation_is_out_of_reach_for_other_subscriptions(service: Service) -> None:
    company, other = await service.company(seats=5), await service.company(seats=5)
    made = (await company.invite(as_service("write"))).json()
    path = f"{other.path}/invitations/{made['invitation']['id']}"
    for method, tail in (("POST", "/resend"), ("DELETE", "")):
        foreign = await service.send(method, f"{path}{tail}", other.owner.headers)
        absent = await service.send(
            method, f"{other.path}/invitations/inv_{'0' * 24}{tail}", other.owner.headers
        )
        problem(foreign, 404, "not_found")
        assert indistinguishable(foreign, absent)
        stranger = await service.send(
            method, f"{company.path}/invitations/{made['invitation']['id']}{tail}", other.owner.headers
        )
        problem(stranger, 404, "not_found")
    assert await _open(company) == 1


async def _open(company: Company) -> int:
    response = await company.service.get(f"{company.path}/invitations", company.owner.headers, state="open")
    return len(response.json()["data"])
