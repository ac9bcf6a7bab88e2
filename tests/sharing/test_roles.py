"""The table of roles, written out a second time, under every setting."""

import itertools

import pytest

from app.domain.ids import CustomerId
from app.domain.roles import Permission, Relations, Role, RolePolicy, permissions, require, role_of
from app.errors import Forbidden

# One row a permission: owner, manager, user, payer who is not owner. `pays`: only where the owner may purchase;
# `managers`: only with the setting of that name; `seats`: with that setting, and where the owner may purchase.
TABLE = """
    see the subscription                  yes   yes       yes  yes
    see its amounts and invoices          yes   yes       no   yes
    see its members                       yes   yes       no   no
    see what was bought and ended         yes   yes       no   yes
    add or remove users                   yes   yes       no   no
    add, remove or change managers        yes   managers  no   no
    buy seats                             pays  seats     no   no
    lower its quantity                    pays  seats     no   yes
    change the subscription               pays  no        no   no
    cancel it at the period's end         yes   no        no   yes
    cancel it at once                     pays  no        no   yes
    take its end back                     yes   no        no   yes
    resume it while it is paused          pays  no        no   yes
    give or withdraw the right to buy     no    no        no   yes
    leave it                              no    yes       yes  no
    name its owner                        no    no        no   yes
"""
CELLS = {
    Permission(" ".join(words[:-4])): dict(
        zip((Role.OWNER, Role.MANAGER, Role.USER, Role.PAYER), words[-4:], strict=True)
    )
    for line in TABLE.strip().splitlines()
    if (words := line.split())
}
SETTINGS = list(itertools.product((False, True), repeat=3))

OWNER, PAYER, OTHER = CustomerId("cus_owner"), CustomerId("cus_payer"), CustomerId("cus_other")


def test_the_table_has_a_row_for_every_permission() -> None:
    assert set(CELLS) == set(Permission)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("managers", "seats", "pays"), SETTINGS)
def test_every_cell(role: Role, managers: bool, seats: bool, pays: bool) -> None:
    expected = {"yes": True, "no": False, "managers": managers, "seats": seats and pays, "pays": pays}
    granted = permissions(role, RolePolicy(managers, seats), owner_may_purchase=pays)
    wrong = {p.value for p, row in CELLS.items() if (p in granted) is not expected[row[role]]}
    assert wrong == set()


def test_the_settings_are_off_by_default() -> None:
    granted = permissions(Role.MANAGER, RolePolicy(), owner_may_purchase=True)
    assert Permission.CHANGE_MANAGERS not in granted and Permission.BUY_SEATS not in granted


# who asks, the owner, shareable, his own metadata here: his role
ROLES = [
    (OWNER, OWNER, True, None, Role.OWNER),
    (OWNER, OWNER, True, "manager", Role.OWNER),
    (OWNER, OWNER, True, "user", Role.OWNER),
    (OWNER, OWNER, False, None, Role.OWNER),
    (PAYER, PAYER, True, None, Role.OWNER),
    (PAYER, OWNER, True, None, Role.PAYER),
    (PAYER, OWNER, False, None, Role.PAYER),
    (PAYER, OWNER, True, "manager", Role.MANAGER),
    (PAYER, OWNER, True, "user", Role.PAYER),
    (PAYER, None, True, None, Role.PAYER),
    (PAYER, None, True, "user", Role.PAYER),
    (PAYER, None, False, None, Role.OWNER),
    (OTHER, OWNER, True, "manager", Role.MANAGER),
    (OTHER, OWNER, True, "user", Role.USER),
    (OTHER, OWNER, False, "user", Role.USER),
    (OTHER, None, True, "user", Role.USER),
    (OTHER, None, False, "manager", Role.MANAGER),
    (OTHER, OWNER, True, None, None),
    (OTHER, None, False, None, None),
    (OTHER, None, True, None, None),
]


@pytest.mark.parametrize(("asker", "owner", "shareable", "member_role", "expected"), ROLES)
def test_a_customers_role(
    asker: CustomerId,
    owner: CustomerId | None,
    shareable: bool,
    member_role: str | None,
    expected: Role | None,
) -> None:
    assert role_of(asker, Relations(PAYER, owner, shareable), member_role) is expected


def test_requiring_what_is_not_granted_names_it() -> None:
    granted = permissions(Role.USER, RolePolicy(), owner_may_purchase=True)
    require(granted, Permission.SEE_SUBSCRIPTION, Permission.LEAVE)
    with pytest.raises(Forbidden, match="add or remove users") as refused:
        require(granted, Permission.SEE_SUBSCRIPTION, Permission.CHANGE_USERS)
    assert refused.value.code == "role_required"
