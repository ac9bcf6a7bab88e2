"""What the metadata keys confer, however they were typed: authority never comes from oddness, a seat may."""

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import metadata as keys
from app.domain.ids import NOBODY, SubscriptionId

NBSP, ZERO_WIDTH, BOM, IDEOGRAPHIC = "\u00a0", "\u200b", "\ufeff", "\u3000"
INVISIBLE = (
    NBSP,
    ZERO_WIDTH,
    BOM,
    IDEOGRAPHIC,
    "\u2003",
    "\u2028",
    "\u200d",
    "\u2060",
    "\u202e",
    "\u00ad",
    "\x00",
    "\x85",
    "\x1c",
    "\u180e",
)
ASCII_SPACE = ("", " ", "  ", "\t", "\n", "\r\n", "\v", "\f", " \t\r\n ")


def damaged(word: str) -> list[str]:
    """`word` with something in or around it that is not ASCII white space."""
    middle = len(word) // 2
    around = [
        text for odd in INVISIBLE for text in (odd + word, word + odd, word[:middle] + odd + word[middle:])
    ]
    return [
        *around,
        f'"{word}"',
        f"'{word}'",
        f"{word},",
        f"{word};",
        f"{word}.",
        f"{word} {word}",
    ]


def spaced(word: str) -> list[str]:
    return [before + word + after for before in ASCII_SPACE for after in ASCII_SPACE]


NOT_TRUE = [
    "truetrue",
    *damaged("true"),
    *(
        "",
        " ",
        "false",
        "1",
        "yes",
        "on",
        "y",
        "t",
        "True!",
        "tru",
        "truthy",
        "t rue",
        "\uff54\uff52\uff55\uff45",
        "trüe",
        "null",
        "0",
    ),
]
NOT_MANAGER = [
    "manage",
    "managermanager",
    *damaged("manager"),
    *(
        "",
        " ",
        "user",
        "owner",
        "admin",
        "Owner",
        "administrator",
        "managers",
        "man ager",
        "super-manager",
        "root",
    ),
    *(
        "MANAGEЯ",
        "mаnager",
        "ｍanager",
        "manager\u0301",
        "manager/user",
        "user,manager",
        "*",
        "true",
        "0",
        "{}",
    ),
]
NOT_A_SUBSCRIPTION = [
    *damaged("sub_1Abc"),
    *(
        "",
        " ",
        "sub_",
        "sub",
        "SUB_1Abc",
        "Sub_1Abc",
        "cus_1Abc",
        "sub-1Abc",
        "sub_1 Abc",
        "sub_1Abc/..",
        "sub_1é",
    ),
    *(
        "sub_%31",
        "sub_1?x=1",
        "sub_1#",
        "../sub_1",
        "sub_" + "a" * 201,
        "sub_1Abc sub_2Abc",
        "https://x/sub_1",
        "prod_1",
    ),
]
NOT_A_CUSTOMER = [
    *damaged("cus_1Abc"),
    *(
        "",
        "cus_",
        "CUS_1Abc",
        "sub_1Abc",
        "cus_1 Abc",
        "cus_1/..",
        "acct_1",
        "me",
        "cus_" + "a" * 201,
        "cus_1é",
    ),
]


def test_the_corpus_is_large_enough() -> None:
    assert len({*NOT_TRUE, *NOT_MANAGER, *NOT_A_SUBSCRIPTION, *NOT_A_CUSTOMER}) >= 200


@pytest.mark.parametrize("key", [keys.SUPPORTS_SHARING, keys.OWNER_USES_SEAT, keys.SELLABLE])
def test_no_odd_flag_is_set(key: str) -> None:
    assert [value for value in NOT_TRUE if keys.flag({key: value}, key)] == []
    assert [value for value in NOT_TRUE if keys.optional_flag({key: value}, key) is True] == []


@pytest.mark.parametrize("value", [*spaced("true"), *spaced("True"), *spaced("TRUE"), "tRuE"])
def test_a_flag_may_be_typed_with_ascii_space_and_in_any_case(value: str) -> None:
    assert keys.flag({keys.SUPPORTS_SHARING: value}, keys.SUPPORTS_SHARING)
    assert keys.optional_flag({keys.OWNER_USES_SEAT: value}, keys.OWNER_USES_SEAT) is True


@pytest.mark.parametrize(
    ("value", "said"), [(" False ", False), ("FALSE", False), ("no", None), ("", None), ("0", None)]
)
def test_a_flag_with_a_default_is_silent_unless_it_says_true_or_false(value: str, said: bool | None) -> None:
    assert keys.optional_flag({keys.OWNER_USES_SEAT: value}, keys.OWNER_USES_SEAT) is said
    assert keys.optional_flag({}, keys.OWNER_USES_SEAT) is None


@pytest.mark.parametrize("value", NOT_MANAGER, ids=ascii)
def test_an_odd_role_counts_as_a_user_and_is_reported(value: str) -> None:
    metadata = {keys.MEMBER_OF: "sub_1Abc", keys.MEMBER_ROLE: value}
    assert keys.membership_of(metadata) == keys.Membership(SubscriptionId("sub_1Abc"), "user")
    silent = value.strip(keys.ASCII_WHITE_SPACE) in ("", "user")
    assert (keys.MEMBER_ROLE in keys.membership_problems(metadata)) is not silent


@pytest.mark.parametrize("role", [*spaced("manager"), "Manager", "MANAGER"], ids=ascii)
def test_a_manager_may_be_typed_with_ascii_space_and_in_any_case(role: str) -> None:
    for value in spaced("sub_1Abc"):
        found = keys.membership_of({keys.MEMBER_OF: value, keys.MEMBER_ROLE: role})
        assert found == keys.Membership(SubscriptionId("sub_1Abc"), "manager")
        assert keys.membership_problems({keys.MEMBER_OF: value, keys.MEMBER_ROLE: role}) == {}


@pytest.mark.parametrize("value", NOT_A_SUBSCRIPTION, ids=ascii)
def test_an_unreadable_subscription_is_no_membership_and_is_reported(value: str) -> None:
    metadata = {keys.MEMBER_OF: value, keys.MEMBER_ROLE: "manager"}
    assert keys.membership_of(metadata) is None
    assert keys.MEMBER_OF in keys.membership_problems(metadata)


@pytest.mark.parametrize("value", NOT_A_CUSTOMER, ids=ascii)
def test_an_owner_is_read_as_it_is_written_whatever_its_form(value: str) -> None:
    """P4: ids from before 2018 have no form, so only the customer's existence judges a value."""
    read = keys.owner_of({keys.OWNER: value})
    assert read == (value.strip(keys.ASCII_WHITE_SPACE) if read != NOBODY else NOBODY)
    assert keys.owner_problems({keys.OWNER: value}) == (
        {keys.OWNER: "names no customer id"} if read == NOBODY else {}
    )


@pytest.mark.parametrize("value", ["", " ", "\t\n", "cus_\x00", "a\x1fb", "a\x7fb", "a\x85b", "x" * 256])
def test_an_owner_that_no_customer_can_be_is_nobody(value: str) -> None:
    """P4: such a value is not the same as a missing key, which makes the payer the owner."""
    assert keys.owner_of({keys.OWNER: value}) == NOBODY
    assert keys.owner_of({}) is None


@pytest.mark.parametrize("value", spaced("cus_1Abc"), ids=ascii)
def test_an_owner_may_be_typed_with_ascii_space(value: str) -> None:
    assert keys.owner_of({keys.OWNER: value}) == "cus_1Abc"
    assert keys.owner_problems({keys.OWNER: value}) == {}


def test_only_ascii_letters_fold_to_the_words_that_matter() -> None:
    """`str.lower` makes ASCII of a few other letters (the Kelvin sign); none may spell a flag or a role."""
    strange = (chr(code) for code in range(0x80, sys.maxunicode + 1))
    assert [c for c in strange if c.lower() and set(c.lower()) <= set("truefalsmanage")] == []


@given(st.text(), st.text())
def test_a_role_is_never_more_than_what_was_written(subscription: str, role: str) -> None:
    found = keys.membership_of({keys.MEMBER_OF: subscription, keys.MEMBER_ROLE: role})
    if found is not None:
        assert found.subscription_id == subscription.strip(keys.ASCII_WHITE_SPACE)
        assert found.role == (
            "manager" if role.strip(keys.ASCII_WHITE_SPACE).lower() == "manager" else "user"
        )


@given(st.from_regex(r"\Asub_[A-Za-z0-9_]{1,200}\Z"), st.text(), st.sampled_from(ASCII_SPACE))
def test_a_readable_subscription_always_counts(subscription: str, role: str, space: str) -> None:
    found = keys.membership_of({keys.MEMBER_OF: space + subscription + space, keys.MEMBER_ROLE: role})
    assert found is not None
    assert found.subscription_id == subscription


@given(st.text(max_size=8), st.sampled_from([keys.flag, keys.optional_flag]))
def test_a_flag_is_set_by_its_word_alone(
    value: str, read: Callable[[dict[str, str], str], bool | None]
) -> None:
    assert (read({"k": value}, "k") is True) == (value.strip(" \t\n\r\f\v").lower() == "true")


def test_what_is_written_is_read_back() -> None:
    written = keys.membership_values(SubscriptionId("sub_9"), "manager")
    assert keys.membership_of(written) == keys.Membership(SubscriptionId("sub_9"), "manager")
    assert set(keys.no_membership_values()) == set(written)
    assert keys.membership_of(keys.no_membership_values()) is None


def test_values_that_are_not_texts_confer_nothing() -> None:
    for value in (None, True, 1, ["true"], {"a": "true"}):
        metadata: dict[str, str] = {keys.SUPPORTS_SHARING: value, keys.MEMBER_OF: value}  # type: ignore[dict-item]
        assert not keys.flag(metadata, keys.SUPPORTS_SHARING)
        assert keys.membership_of(metadata) is None


@pytest.mark.parametrize("value", [*spaced("manager"), "Manager"], ids=ascii)
def test_a_further_membership_is_read_when_its_role_is_typed_by_hand(value: str) -> None:
    assert keys.further_memberships_of({"billing_sub_1Abc": value}) == {"sub_1Abc": "manager"}
    assert keys.membership_problems({"billing_sub_1Abc": value}) == {}


@pytest.mark.parametrize("value", [*NOT_MANAGER, "owner"], ids=ascii)
def test_a_further_membership_gives_no_seat_when_its_role_is_unknown(value: str) -> None:
    if value.strip(keys.ASCII_WHITE_SPACE).lower() != "user":
        assert keys.further_memberships_of({"billing_sub_1Abc": value}) == {}
        is_reported = "billing_sub_1Abc" in keys.membership_problems({"billing_sub_1Abc": value})
        assert is_reported is bool(value.strip(keys.ASCII_WHITE_SPACE))


@pytest.mark.parametrize(
    "key",
    [
        "billing_sub_",
        "billing_sub_sched_1Abc",
        f"billing_sub_{'1' * 29}",
        " billing_sub_1Abc",
        "billing_sub_1Abc ",
        "Billing_sub_1Abc",
        "billing_SUB_1Abc",
        "billing_sub_1\u00c4bc",
        "billing_sub_\u0661",
        "sub_1Abc",
    ],
    ids=ascii,
)
def test_a_further_membership_is_none_when_its_key_names_no_subscription(key: str) -> None:
    assert keys.further_memberships_of({key: "user"}) == {}
    assert (key in keys.membership_problems({key: "user"})) is key.startswith("billing_sub_")


def test_a_further_membership_is_reported_when_the_guides_role_differs() -> None:
    metadata = {**keys.membership_values(SubscriptionId("sub_1Abc"), "user"), "billing_sub_1Abc": "manager"}
    assert list(keys.membership_problems(metadata)) == ["billing_sub_1Abc"]
    assert keys.membership_problems({**metadata, "billing_sub_1Abc": "user"}) == {}
