"""Who may do what, cell by cell, as the published rules say it: by hand, without a line of the policy's code.

A cell holds the wanted answer. `ok`: the act's own success. `none`: 404, as for an absent id. `role`: 403
`role_required`. `scope`: 403 `scope_required`. `closed`: 409 `subscription_not_active`. `-`: nobody stands so. Anything
else is `status:code`.

Columns are people as they stand to the plan; `key` is a service key that acts for nobody and has the scope `write`.
What the columns do not name follows from them: see `on_plan` and `on_customer`.
"""

from collections.abc import Mapping

Table = Mapping[str, Mapping[str, str]]
Answer = tuple[int | None, str | None]
"""Status and code; None for an act's own success."""


def _table(text: str, over: Table | None = None) -> Table:
    """The rows of `text`, in place of or beside those of `over`; a row is a name and cells, two spaces apart."""
    first, *lines = [line for line in text.splitlines() if line.strip()]
    columns = first.split()
    rows: dict[str, Mapping[str, str]] = dict(over or {})
    for line in lines:
        name, *cells = [part.strip() for part in line.strip().split("  ") if part.strip()]
        assert len(cells) == len(columns), line
        rows[name] = dict(zip(columns, cells, strict=True))
    return rows


# A plan that somebody else pays for than the one who owns it; nine seats, two managers, two users.
ACTIVE = _table("""
                                owner  manager  user  payer  key
see the plan                    ok     ok       ok    ok     ok
see the shared plan             ok     ok       ok    ok     ok
see its people                  ok     ok       ok    role   ok
see its audit trail             ok     ok       role  ok     ok
see the offer of transfer       ok     ok       ok    ok     ok
see its invoice                 ok     ok       none  ok     ok
raise the quantity              role   role     role  role   ok
lower the quantity              role   role     role  ok     ok
lower it below what is used     role   role     role  409:seats_in_use  409:seats_in_use
lower it and change the price   role   role     role  role   ok
change the price                role   role     role  role   ok
add an item                     role   role     role  role   ok
let it end by an update         ok     role     role  ok     ok
take the end back by an update  ok     role     role  ok     ok
pay it by another's card        role   role     role  role   none
preview a quantity              role   role     role  role   ok
cancel at the period's end      ok     role     role  ok     ok
cancel now                      role   role     role  ok     ok
resume                          ok     role     role  ok     ok
set more seats                  role   role     role  role   ok
set fewer seats                 role   role     role  ok     ok
set fewer seats than are used   role   role     role  409:seats_in_use  409:seats_in_use
quote more seats                role   role     role  role   ok
quote fewer seats               role   role     role  ok     ok
allow purchases                 role   role     role  ok     ok
withdraw the right to buy       role   role     role  ok     ok
quote for a new user            role   role     role  role   ok
add a user                      ok     ok       role  role   ok
add a manager                   ok     role     role  role   ok
add oneself as manager          409:already_member  role  role  role  -
add an outsider by id           409:not_found  409:not_found  role  role  ok
add an absent id                409:not_found  409:not_found  role  role  409:not_found
add who is a user already       ok     ok       role  role   ok
add a user again as manager     409:already_member  role  role  role  409:already_member
add who is elsewhere            ok     ok       role  role   ok
add more than fit               409:seat_limit_reached  409:seat_limit_reached  role  role  409:seat_limit_reached
buy seats for more than fit     role   role     role  role   ok
remove a user                   ok     ok       role  role   ok
remove oneself                  409:owner_cannot_leave  role  role  role  -
remove a peer manager           ok     role     role  role   ok
remove the owner                409:owner_cannot_leave  409:owner_cannot_leave  role  role  409:owner_cannot_leave
remove an outsider              409:not_found  409:not_found  role  role  409:not_found
remove an absent id             409:not_found  409:not_found  role  role  409:not_found
make a user manager             ok     role     role  role   ok
make a peer manager user        ok     role     role  role   ok
make oneself manager            409:owner_cannot_leave  role  role  role  -
make the owner user             409:owner_cannot_leave  409:owner_cannot_leave  role  role  409:owner_cannot_leave
make an outsider user           409:not_found  409:not_found  role  role  409:not_found
make an absent id user          409:not_found  409:not_found  role  role  409:not_found
leave                           409:owner_cannot_leave  ok  ok  role  422:invalid_request
offer it to a user              ok     role     role  role   ok
offer it to oneself             409:already_member  role  role  role  -
offer it to an outsider         none   role     role  role   ok
offer it to an absent id        none   role     role  role   none
offer it to the payer           none   role     role  role   ok
offer it with purchases         403:field_not_allowed  role  role  role  ok
accept without an offer         none   none     none  none   none
decline without an offer        none   none     none  none   none
see its invitations             ok     ok       role  role   ok
see its open invitations        ok     ok       role  role   ok
invite a user                   ok     ok       role  role   ok
invite a manager                ok     role     role  role   ok
invite who is invited           409:already_invited  409:already_invited  role  role  409:already_invited
invite who is a member          409:already_member  409:already_member  role  role  409:already_member
resend a user's invitation      ok     ok       role  role   ok
resend a manager's invitation   ok     role     role  role   ok
revoke a user's invitation      ok     ok       role  role   ok
revoke a manager's invitation   ok     role     role  role   ok
revoke an absent invitation     none   none     role  role   none
""")

# The owner pays himself: what costs is his to change.
OWNER_PAYS = _table(
    """
                                owner  manager  user  payer  key
raise the quantity              ok     role     role  -      ok
lower the quantity              ok     role     role  -      ok
lower it and change the price   ok     role     role  -      ok
lower it below what is used     409:seats_in_use  role  role  -  409:seats_in_use
change the price                ok     role     role  -      ok
add an item                     ok     role     role  -      ok
take the end back by an update  ok     role     role  -      ok
cancel now                      ok     role     role  -      ok
pay it by another's card        none   role     role  -      none
preview a quantity              ok     role     role  -      ok
resume                          ok     role     role  -      ok
set more seats                  ok     role     role  -      ok
set fewer seats                 ok     role     role  -      ok
set fewer seats than are used   409:seats_in_use  role  role  -  409:seats_in_use
quote more seats                ok     role     role  -      ok
quote fewer seats               ok     role     role  -      ok
allow purchases                 ok     role     role  -      ok
withdraw the right to buy       ok     role     role  -      ok
quote for a new user            ok     role     role  -      ok
buy seats for more than fit     ok     role     role  -      ok
offer it to the payer           409:already_member  role  role  -  409:already_member
offer it with purchases         ok     role     role  -      ok
""",
    {name: {**row, "payer": "-"} for name, row in ACTIVE.items()},
)

# Access, but no new seats; who is on it may still be taken off, and change role.
PAST_DUE = _table(
    """
                                owner  manager  user  payer  key
raise the quantity              role   role     role  role   closed
preview a quantity              role   role     role  role   closed
set more seats                  role   role     role  role   closed
quote more seats                role   role     role  role   closed
quote for a new user            role   role     role  role   -
lower the quantity              role   role     role  -      -
lower it and change the price   role   role     role  role   -
set fewer seats                 role   role     role  -      -
quote fewer seats               role   role     role  -      -
change the price                role   role     role  role   -
add an item                     role   role     role  role   closed
add a user                      closed  closed  role  role  closed
add a manager                   closed  role  role  role  closed
add an outsider by id           409:not_found  409:not_found  role  role  closed
add who is elsewhere            closed  closed  role  role  closed
add more than fit               closed  closed  role  role  closed
buy seats for more than fit     closed  closed  role  role  closed
invite a user                   closed  closed  role  role  closed
invite a manager                closed  role  role  role  closed
invite who is invited           closed  closed  role  role  closed
invite who is a member          closed  closed  role  role  closed
""",
    ACTIVE,
)

# No access, and nothing that costs; what reduces is never refused for a status.
UNPAID = _table(
    """
                                owner  manager  user  payer  key
change the price                role   role     role  role   closed
lower it and change the price   role   role     role  role   closed
make a user manager             closed  role  role  role  closed
""",
    PAST_DUE,
)

# Until the first invoice is paid, Stripe changes nothing but metadata: people may go, and the whole may end at once.
INCOMPLETE = _table(
    """
                                owner  manager  user  payer  key
lower the quantity              role   role     role  closed  closed
lower it below what is used     role   role     role  closed  closed
set fewer seats                 role   role     role  closed  closed
set fewer seats than are used   role   role     role  closed  closed
quote fewer seats               role   role     role  closed  closed
""",
    UNPAID,
)

# Nothing changes any more, but reads still answer, a member may leave, and to cancel again is no error.
CANCELED = _table(
    """
                                owner  manager  user  payer  key
lower the quantity              role   role     role  closed  closed
lower it below what is used     role   role     role  closed  closed
set fewer seats                 role   role     role  closed  closed
set fewer seats than are used   role   role     role  closed  closed
quote fewer seats               role   role     role  closed  closed
let it end by an update         closed  role  role  closed  closed
take the end back by an update  closed  role  role  closed  closed
pay it by another's card        role   role     role  role   -
resume                          closed  role  role  closed  closed
offer it to a user              closed  role  role  role  closed
offer it to oneself             closed  role  role  role  -
offer it to an outsider         closed  role  role  role  closed
offer it to an absent id        closed  role  role  role  closed
offer it to the payer           closed  role  role  role  closed
offer it with purchases         closed  role  role  role  closed
resend a user's invitation      409:invitation_ended  409:invitation_ended  role  role  409:invitation_ended
resend a manager's invitation   409:invitation_ended  role  role  role  409:invitation_ended
""",
    UNPAID,
)

# Its owner was deleted: nobody manages its people but a key, and the payer may name himself owner.
OWNERLESS = _table("""
                                owner  manager  user  payer  key
see the plan                    -      ok       ok    ok     ok
see the shared plan             -      ok       ok    ok     ok
see its people                  -      ok       ok    role   ok
see its audit trail             -      ok       role  ok     ok
see the offer of transfer       -      ok       ok    ok     ok
see its invoice                 -      ok       none  ok     ok
raise the quantity              -      role     role  role   ok
lower the quantity              -      role     role  ok     ok
change the price                -      role     role  role   ok
let it end by an update         -      role     role  ok     ok
preview a quantity              -      role     role  role   ok
cancel at the period's end      -      role     role  ok     ok
cancel now                      -      role     role  ok     ok
resume                          -      role     role  ok     ok
set fewer seats                 -      role     role  ok     ok
allow purchases                 -      role     role  409:not_shareable  409:not_shareable
withdraw the right to buy       -      role     role  ok     ok
set more seats                  -      role     role  role   ok
quote more seats                -      role     role  role   ok
quote for a new user            -      role     role  role   ok
add a user                      -      role     role  role   ok
add a manager                   -      role     role  role   ok
add oneself as manager          -      role     role  role   -
add an outsider by id           -      role     role  role   ok
add who is elsewhere            -      role     role  role   ok
buy seats for more than fit     -      role     role  role   ok
remove a user                   -      role     role  role   ok
remove oneself                  -      role     role  role   -
remove a peer manager           -      role     role  role   ok
make a user manager             -      role     role  role   ok
make oneself manager            -      role     role  role   -
leave                           -      ok       ok    role   422:invalid_request
offer it to a user              -      role     role  role   ok
offer it to oneself             -      role     role  ok     -
offer it to the payer           -      role     role  ok     ok
offer it with purchases         -      role     role  role   ok
accept without an offer         -      none     none  none   none
see its invitations             -      ok       role  role   ok
see its open invitations        -      ok       role  role   ok
invite a user                   -      role     role  role   409:not_shareable
invite a manager                -      role     role  role   409:not_shareable
invite who is invited           -      role     role  role   409:not_shareable
resend a user's invitation      -      role     role  role   ok
revoke a user's invitation      -      role     role  role   ok
revoke a manager's invitation   -      role     role  role   ok
revoke an absent invitation     -      role     role  role   none
""")

# The payer holds a seat as user besides, and keeps both rights.
SEATED_PAYER = _table(
    """
                                owner  manager  user  payer  key
see its people                  ok     ok       ok    ok     ok
leave                           409:owner_cannot_leave  ok  ok  ok  422:invalid_request
offer it to the payer           ok     role     role  role   ok
""",
    ACTIVE,
)

# Nobody owns it, and the payer is a manager besides.
SEATED_OWNERLESS = _table(
    """
                                owner  manager  user  payer  key
see its people                  -      ok       ok    ok     ok
see its audit trail             -      ok       role  ok     ok
leave                           -      ok       ok    ok     422:invalid_request
see its invitations             -      ok       role  ok     ok
see its open invitations        -      ok       role  ok     ok
""",
    OWNERLESS,
)

# Nothing on it can be shared: it is its payer's own, who stands as its owner; the others are strangers to it.
PLAIN = _table("""
                                owner  manager  user  payer  key
see the plan                    ok     none     none  -      ok
see the shared plan             ok     none     none  -      ok
see its people                  ok     none     none  -      ok
see its audit trail             ok     none     none  -      ok
see its invoice                 ok     none     none  -      ok
raise the quantity              ok     none     none  -      ok
change the price                ok     none     none  -      ok
let it end by an update         ok     none     none  -      ok
preview a quantity              ok     none     none  -      ok
cancel at the period's end      ok     none     none  -      ok
cancel now                      ok     none     none  -      ok
resume                          ok     none     none  -      ok
allow purchases                 ok     none     none  -      ok
withdraw the right to buy       ok     none     none  -      ok
set more seats                  409:not_shareable  none  none  -  409:not_shareable
quote more seats                409:not_shareable  none  none  -  409:not_shareable
add a user                      409:not_shareable  none  none  -  409:not_shareable
add a manager                   409:not_shareable  none  none  -  409:not_shareable
buy seats for more than fit     409:not_shareable  none  none  -  409:not_shareable
leave                           409:owner_cannot_leave  none  none  -  422:invalid_request
see its invitations             ok     none     none  -      ok
invite a user                   409:not_shareable  none  none  -  409:not_shareable
invite a manager                409:not_shareable  none  none  -  409:not_shareable
revoke an absent invitation     none   none     none  -      none
""")

# Ownership has been offered to the one who is `user` here.
OFFERED = _table("""
                                owner  manager  user  payer  key
see the offer of transfer       ok     ok       ok    ok     ok
accept the offer                none   none     ok    none   ok
decline the offer               ok     none     ok    none   ok
see the owner's operation       ok     none     none  none   ok
""")

ABSENT = {name: dict.fromkeys(("owner", "manager", "user", "payer", "key"), "none") for name in ACTIVE}

PLANS: Mapping[str, Table] = {
    "active": ACTIVE,
    "owner pays": OWNER_PAYS,
    "trialing": ACTIVE,
    "past due": PAST_DUE,
    "unpaid": UNPAID,
    "incomplete": INCOMPLETE,
    "canceled": CANCELED,
    "ownerless": OWNERLESS,
    "seated payer": SEATED_PAYER,
    "seated ownerless": SEATED_OWNERLESS,
    "plain": PLAIN,
    "offered": OFFERED,
    "absent": ABSENT,
}

# What is a customer's own: nobody but himself, and keys. The columns are whom the path names; a stranger pays for a
# plan of his own, whose card is "another's".
CUSTOMERS = _table("""
                                payer  other  stranger
see the profile                 ok     ok     ok
change the name                 ok     ok     ok
see the subscriptions           ok     ok     ok
see the payment methods         ok     ok     ok
see the invoices                ok     ok     ok
see the next invoice            ok     none   ok
see the access                  ok     ok     ok
begin a set-up                  ok     ok     ok
attach a card                   ok     ok     ok
attach another's card           none   none   -
make the payer's card default   ok     none   none
detach the payer's card         409:payment_method_in_use  none  none
buy a plan                      ok     ok     ok
buy a plan by another's card    none   none   -
""")

SELF_ONLY = _table("""
                                payer  other  stranger
change the e-mail               403:field_not_allowed  403:field_not_allowed  403:field_not_allowed
""")
"""Differs between people, also by a key that acts for them, and keys, which may."""

# What a person asks for himself, without an id. `person` has a customer, `newcomer` a login alone.
GENERAL = _table("""
                                person  newcomer  acting  key
see the products                ok      ok        ok      ok
see a promotion code            ok      ok        ok      ok
see an absent promotion code    none    none      none    none
sign up                         200:    201:      scope   422:invalid_request
sign up as somebody             403:field_not_allowed  403:field_not_allowed  scope  ok
sign up by an e-mail            403:field_not_allowed  403:field_not_allowed  scope  422:invalid_request
look an invitation up           ok      ok        ok      ok
decline an invitation           ok      ok        ok      ok
accept an invitation            ok      -         ok      422:invalid_request
look a guessed token up         none    none      none    none
decline a guessed token         none    none      none    none
accept a guessed token          none    none      none    none
""")
NEEDS_NO_LOGIN = (
    "see the products",
    "look an invitation up",
    "decline an invitation",
    "look a guessed token up",
    "decline a guessed token",
)
"""Asked by anybody, also by keys that may only read."""

CODES = {
    "none": (404, "not_found"),
    "role": (403, "role_required"),
    "scope": (403, "scope_required"),
    "closed": (409, "subscription_not_active"),
}

PEOPLE = ("owner", "manager", "user", "payer", "stranger", "newcomer")
KEYS = ("read key", "write key", "admin key")
ACTING = tuple(f"write key for the {who}" for who in PEOPLE if who != "newcomer")
READING = tuple(f"read key for the {who}" for who in PEOPLE if who != "newcomer")
REFUSED: Mapping[str, Answer] = {
    "nobody": (401, "unauthenticated"),
    "expired": (401, "unauthenticated"),
    "foreign audience": (401, "unauthenticated"),
    "foreign issuer": (401, "unauthenticated"),
    "unknown key": (401, "unauthenticated"),
    "login of another customer": (403, "identity_conflict"),
    "login that names for whom it acts": (422, "invalid_request"),
}
"""Principals that get one answer to everything that is asked with a credential."""
PRINCIPALS = (*PEOPLE, *KEYS, *ACTING, *READING, "write key for an absent customer", *REFUSED)


def answer(cell: str) -> Answer | None:
    if cell == "-":
        return None
    if cell == "ok":
        return None, None
    if cell in CODES:
        return CODES[cell]
    status, _, code = cell.partition(":")
    return int(status), code or None


def on_plan(kind: str, principal: str, act: str, *, writes: bool) -> Answer | None:
    """The wanted answer; None where the table has no such cell.

    A stranger, a login without a customer and a key that acts for a stranger see nothing. A key that acts for
    somebody has his rights, if its scope reaches that far. `admin` includes `write`, which includes `read`.
    """
    row = PLANS[kind].get(act)
    if row is None:
        return None
    if principal in REFUSED:
        return REFUSED[principal]
    if principal.startswith("read key") and writes:
        return answer("scope")
    if principal in KEYS:
        return answer(row["key"])
    role = principal.rpartition(" the ")[2]
    if role in ("stranger", "newcomer") or principal.endswith("absent customer"):
        return answer("none")
    if act.startswith("see the owner's operation") and principal != role:
        return answer("none")  # It was the owner's own login that began it, not a key of his.
    return answer(row[role])


TARGETS = ("me", "oneself", "owner", "manager", "user", "payer", "outsider", "absent")


def on_customer(principal: str, act: str, target: str, *, writes: bool) -> Answer | None:
    """The wanted answer where the path names `target`; None for a cell that says the same as another."""
    row = CUSTOMERS.get(act) or SELF_ONLY[act]
    if principal in REFUSED:
        return REFUSED[principal]
    if principal in KEYS and target == "oneself":
        return None
    if principal.startswith("read key") and writes:
        return answer("scope")
    if principal in KEYS:
        return _by_key(row, act, target)
    role = principal.rpartition(" the ")[2]
    if role == target or principal.endswith("absent customer"):
        return None
    if role == "newcomer":
        return 404, "customer_not_linked"
    if target not in ("me", "oneself"):
        return answer("none")
    return answer(row[role if role in row else "other"])


def _by_key(row: Mapping[str, str], act: str, target: str) -> Answer | None:
    if target == "me":
        return 422, "invalid_request"
    if target == "absent":
        return answer("ok" if act == "see the access" else "none")
    return answer("ok" if act in SELF_ONLY else row["payer" if target == "payer" else "other"])


def _by_token(principal: str, act: str) -> Answer | None:
    """Return the answer to a login that claims another customer. Where no login is needed, the claim does not count."""
    is_login = principal == "login of another customer" and act in NEEDS_NO_LOGIN[1:]
    return answer(GENERAL[act]["person"]) if is_login else None


def in_general(principal: str, act: str, *, writes: bool) -> Answer | None:
    row = GENERAL[act]
    if principal == "nobody" and act in NEEDS_NO_LOGIN:
        return answer(row["person"])
    if principal in REFUSED:
        return _by_token(principal, act) or REFUSED[principal]
    if principal.startswith("read key") and writes and act not in NEEDS_NO_LOGIN:
        return answer("scope")
    if act == "accept an invitation" and principal.endswith("absent customer"):
        return answer("none")
    if principal in KEYS:
        return answer(row["key"])
    if " key for " in principal:
        return answer(row["acting"])
    return answer(row["newcomer" if principal == "newcomer" else "person"])


ADMIN_FIELDS: Mapping[str, Mapping[str, object]] = {
    "buy a plan": {
        "/items/0/discounts": [{"coupon": "half"}],
        "/items/0/tax_rates": ["txr_a"],
        "/discounts": [{"coupon": "half"}],
        "/default_tax_rates": ["txr_a"],
        "/trial_end": "2030-01-01T00:00:00Z",
        "/trial_period_days": 30,
        "/billing_mode": "classic",
    },
    "raise the quantity": {
        "/discounts": [{"coupon": "half"}],
        "/default_tax_rates": ["txr_a"],
        "/trial_end": "now",
        "/proration_behavior": "none",
        "/proration_date": "2026-01-01T00:00:00Z",
    },
    "preview a quantity": {
        "/discounts": [{"coupon": "half"}],
        "/default_tax_rates": ["txr_a"],
        "/trial_end": "now",
        "/proration_behavior": "none",
        "/proration_date": "2026-01-01T00:00:00Z",
    },
    "cancel now": {"/prorate": True},
    "set more seats": {"/proration_behavior": "none"},
    "quote more seats": {"/proration_behavior": "none"},
    "buy seats for more than fit": {"/proration_behavior": "none"},
}
"""Every field that is taken from a key with the scope `admin` alone, by the act whose body may name it."""


def on_admin_field(principal: str) -> Answer:
    """Refused before anything is looked up, to whomever: an absent plan and a foreign one answer no differently."""
    if principal in REFUSED:
        return REFUSED[principal]
    if principal.startswith("read key"):
        return CODES["scope"]
    return (None, None) if principal == "admin key" else (403, "field_not_allowed")


PRICES: Mapping[str, tuple[str, str]] = {
    "on offer": ("ok", "ok"),
    "not listed": ("422:price_not_available", "ok"),
    "inactive": ("422:price_not_available", "422:price_not_available"),
    "of an archived product": ("422:price_not_available", "422:price_not_available"),
    "for one payment": ("422:price_not_available", "422:price_not_available"),
    "of the other mode": ("422:price_not_available", "422:price_not_available"),
    "of another account": ("422:price_not_available", "422:price_not_available"),
    "absent": ("422:price_not_available", "422:price_not_available"),
}
"""What may be bought: by everybody, and by a key with the scope `admin`."""


def on_price(principal: str, which: str) -> Answer | None:
    if principal.startswith("read key"):
        return CODES["scope"]
    everybody, admin = PRICES[which]
    return answer(admin if principal == "admin key" else everybody)
