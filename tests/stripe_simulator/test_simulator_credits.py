"""What credit lines name: the debits that they give back, on invoices, as pending items, and in previews."""

from typing import Any

import pytest

from tests.stripe_simulator.simulator_support import (
    DAY,
    START,
    Account,
    Catalogue,
    advance,
    items_of,
    subscribe,
)

MONTH = 31 * DAY  # 15 January to 15 February 2027


def change_seats(
    account: Account, sub: Any, quantity: int, proration: str = "always_invoice", **given: Any
) -> Any:
    entry = {"id": items_of(sub)[0]["id"], "quantity": quantity, **given.pop("item", {})}
    params: Any = {"items": [entry], "proration_behavior": proration, **given}
    return account.client.v1.subscriptions.update(sub.id, params)


def lines_of(account: Account, invoice: Any) -> list[dict[str, Any]]:
    return [line.to_dict() for line in account.client.v1.invoices.line_items.list(str(invoice)).data]


def pending_items(account: Account, catalogue: Catalogue) -> list[dict[str, Any]]:
    """Oldest first."""
    listed = account.client.v1.invoice_items.list({"customer": catalogue.customer, "pending": True}).data
    return [item.to_dict() for item in reversed(listed)]


def own_credit(line: dict[str, Any]) -> Any:
    assert line["parent"]["type"] == "subscription_item_details"
    return line["parent"]["subscription_item_details"]["proration_details"]["credited_items"]


def test_credit_lines_name_the_invoiced_debit_when_a_change_is_invoiced(
    frozen: Account, catalogue: Catalogue
) -> None:
    """S12: each credit names the invoice and the line of the charge that it gives back."""
    sub = subscribe(frozen, catalogue)
    (first,) = lines_of(frozen, sub.latest_invoice)
    assert own_credit(first) is None
    advance(frozen, DAY)
    raised = change_seats(frozen, sub, 4)
    credit, charge = lines_of(frozen, raised.latest_invoice)
    assert own_credit(credit) == {"invoice": sub.latest_invoice, "invoice_line_items": [first["id"]]}
    assert own_credit(charge) is None
    advance(frozen, DAY)
    lowered = change_seats(frozen, sub, 1)
    credit, _ = lines_of(frozen, lowered.latest_invoice)
    assert own_credit(credit) == {"invoice": raised.latest_invoice, "invoice_line_items": [charge["id"]]}


def test_credit_lines_name_stored_lines_when_a_change_is_previewed(
    frozen: Account, catalogue: Catalogue
) -> None:
    """S12: the preview's own lines have passing ids, the lines that it credits are stored ones."""
    sub = subscribe(frozen, catalogue)
    (first,) = lines_of(frozen, sub.latest_invoice)
    advance(frozen, DAY)
    for proration in ("always_invoice", "create_prorations"):
        preview = frozen.client.v1.invoices.create_preview(
            {
                "subscription": sub.id,
                "subscription_details": {
                    "items": [{"id": items_of(sub)[0]["id"], "quantity": 1}],
                    "proration_behavior": proration,
                },
            }
        ).to_dict()
        credit = preview["lines"]["data"][0]
        assert credit["id"].startswith("il_tmp_") and credit["amount"] < 0
        assert own_credit(credit) == {"invoice": sub.latest_invoice, "invoice_line_items": [first["id"]]}


def test_a_pending_credit_names_an_invoice_item_when_its_debit_is_pending(
    frozen: Account, catalogue: Catalogue
) -> None:
    """S12: an invoice item credits invoice lines, or the invoice item that its debit waits as."""
    sub = subscribe(frozen, catalogue)
    (first,) = lines_of(frozen, sub.latest_invoice)
    advance(frozen, DAY)
    change_seats(frozen, sub, 4, "create_prorations")
    advance(frozen, DAY)
    change_seats(frozen, sub, 3, "create_prorations")
    items = pending_items(frozen, catalogue)
    assert [item["proration_details"]["credited_items"] for item in items] == [
        {
            "invoice_item": None,
            "invoice_line_item_details": {
                "invoice": sub.latest_invoice,
                "invoice_line_items": [first["id"]],
            },
            "type": "invoice_line_items",
        },
        None,
        {"invoice_item": items[1]["id"], "invoice_line_item_details": None, "type": "invoice_item"},
        None,
    ]


def test_collected_items_are_lines_of_invoice_items_when_an_invoice_takes_them(
    frozen: Account, catalogue: Catalogue
) -> None:
    """S10 and S12: pending items keep their ids as the parents of lines, and their debits are found there later."""
    sub = subscribe(frozen, catalogue)
    (first,) = lines_of(frozen, sub.latest_invoice)
    advance(frozen, DAY)
    change_seats(frozen, sub, 4, "create_prorations")
    waiting = pending_items(frozen, catalogue)
    upcoming = frozen.client.v1.invoices.create_preview({"subscription": sub.id}).to_dict()["lines"]["data"]
    assert [line["parent"]["type"] for line in upcoming] == [
        "invoice_item_details",
        "invoice_item_details",
        "subscription_item_details",
    ]
    raised = change_seats(frozen, sub, 6)
    lines = lines_of(frozen, raised.latest_invoice)
    details = [line["parent"]["invoice_item_details"] for line in lines]
    assert [entry and entry["invoice_item"] for entry in details] == [
        waiting[0]["id"],
        waiting[1]["id"],
        None,
        None,
    ]
    assert details[0] == {
        "invoice_item": waiting[0]["id"],
        "proration": True,
        "proration_details": {
            "credited_items": {"invoice": sub.latest_invoice, "invoice_line_items": [first["id"]]}
        },
        "subscription": sub.id,
    }
    assert lines[0]["parent"]["subscription_item_details"] is None
    # The debit that was pending is collected by the same invoice, and is credited there.
    assert own_credit(lines[2]) == {"invoice": raised.latest_invoice, "invoice_line_items": [lines[1]["id"]]}


def test_a_debit_is_found_on_the_renewal_when_it_was_pending_before(
    frozen: Account, catalogue: Catalogue
) -> None:
    """S12: a yearly item's pending debit moves onto the monthly item's renewal, and is credited there."""
    sub = subscribe(
        frozen,
        catalogue,
        items=[{"price": catalogue.monthly, "quantity": 1}, {"price": catalogue.yearly, "quantity": 1}],
    )
    yearly = items_of(sub)[1]["id"]
    advance(frozen, DAY)
    client = frozen.client.v1.subscriptions
    client.update(sub.id, {"items": [{"id": yearly, "quantity": 3}]})
    advance(frozen, MONTH)
    renewal = frozen.client.v1.invoices.list({"subscription": sub.id}).data[0]
    assert renewal.billing_reason == "subscription_cycle"
    debit = next(line for line in lines_of(frozen, renewal.id) if line["amount"] > 20_000)
    assert debit["parent"]["type"] == "invoice_item_details"
    changed = client.update(
        sub.id, {"items": [{"id": yearly, "quantity": 1}], "proration_behavior": "always_invoice"}
    )
    credit = lines_of(frozen, changed.latest_invoice)[0]
    assert own_credit(credit) == {"invoice": renewal.id, "invoice_line_items": [debit["id"]]}


def test_a_change_credits_the_old_debit_when_one_between_prorated_nothing(
    frozen: Account, catalogue: Catalogue
) -> None:
    """S12: proration_behavior none credits nothing, so the debit before it stays outstanding."""
    sub = subscribe(frozen, catalogue)
    (first,) = lines_of(frozen, sub.latest_invoice)
    change_seats(frozen, sub, 9, "none")
    lowered = change_seats(frozen, sub, 1)
    credit, charge = lines_of(frozen, lowered.latest_invoice)
    assert (credit["amount"], charge["amount"]) == (-2000, 1000)
    assert own_credit(credit)["invoice_line_items"] == [first["id"]]


def test_there_is_a_credit_line_for_each_debit_when_several_are_outstanding(
    frozen: Account, catalogue: Catalogue
) -> None:
    """S12: a change of interval that prorates nothing leaves the month's debit beside the year's."""
    sub = subscribe(frozen, catalogue)
    (month,) = lines_of(frozen, sub.latest_invoice)
    advance(frozen, DAY)
    switched = change_seats(frozen, sub, 2, "none", item={"price": catalogue.yearly})
    (year,) = lines_of(frozen, switched.latest_invoice)
    lowered = change_seats(frozen, sub, 1)
    lines = lines_of(frozen, lowered.latest_invoice)
    assert [line["amount"] for line in lines] == [-round(2000 * 30 / 31), -20_000, 10_000]
    assert [(own_credit(line) or {}).get("invoice_line_items") for line in lines] == [
        [month["id"]],
        [year["id"]],
        None,
    ]


def test_both_debits_are_credited_when_the_proration_date_lies_before_the_later_one(
    frozen: Account, catalogue: Catalogue
) -> None:
    """S12: the time before the last change was billed by an earlier debit, which a backdated change credits too."""
    sub = subscribe(frozen, catalogue, 31)
    advance(frozen, 10 * DAY)
    change_seats(frozen, sub, 62)
    advance(frozen, DAY)
    lowered = change_seats(frozen, sub, 31, proration_date=START + 5 * DAY)
    amounts = [line["amount"] for line in lines_of(frozen, lowered.latest_invoice)]
    # 5 days of 31 seats and 21 of 62 back, 26 days of 31 seats due.
    assert amounts == [-5000, -42_000, 26_000]


def test_credit_lines_name_nothing_when_the_billing_mode_is_classic(
    frozen: Account, catalogue: Catalogue
) -> None:
    """S12: classic mode credits today's terms, not a debit."""
    sub = subscribe(frozen, catalogue, billing_mode={"type": "classic"})
    advance(frozen, DAY)
    credit, _ = lines_of(frozen, change_seats(frozen, sub, 1).latest_invoice)
    assert credit["amount"] < 0 and own_credit(credit) is None


def test_nothing_is_credited_when_the_pending_debit_was_deleted(
    frozen: Account, catalogue: Catalogue
) -> None:
    """S12: a debit that an operator deletes before it is billed is never given back."""
    sub = subscribe(frozen, catalogue)
    advance(frozen, DAY)
    change_seats(frozen, sub, 4, "create_prorations")
    frozen.client.v1.invoice_items.delete(pending_items(frozen, catalogue)[1]["id"])
    lowered = change_seats(frozen, sub, 1)
    own = [
        line
        for line in lines_of(frozen, lowered.latest_invoice)
        if line["parent"]["invoice_item_details"] is None
    ]
    assert [line["amount"] > 0 for line in own] == [True]


@pytest.mark.parametrize("invoicing", ["invoice", "pending_invoice_item"])
def test_a_pause_credits_a_debit_only_once_when_it_is_followed_by_a_cancellation(
    frozen: Account, catalogue: Catalogue, invoicing: Any
) -> None:
    """S12: unused time that a pause gave back is not outstanding any more."""
    sub = subscribe(frozen, catalogue)
    advance(frozen, DAY)
    client = frozen.client.v1
    client.subscriptions.pause(
        sub.id,
        {
            "type": "subscription",
            "bill_for": {"unused_time_from": {"type": "now"}, "outstanding_usage_through": {"type": "none"}},
            "invoicing_behavior": invoicing,
        },
    )
    client.subscriptions.cancel(sub.id, {"prorate": True, "invoice_now": True})
    assert client.customers.retrieve(catalogue.customer).balance == -round(2000 * 30 / 31)
