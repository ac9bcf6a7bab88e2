"""What must hold of every life, judged by the stand-in's log and the answers that callers saw.

a  A change gives back no more than was paid for the time that is left; all that the service gave back to a customer
   stays within what they settled.
b  What a quote said is what is charged, to the cent; otherwise nothing is charged.
c  `next_total` of a quote is the upcoming invoice, read right after the change.
d  After a call that failed nobody has more seats, access or money than before.
e  Abandoning a purchase that waits for its payment, a cancel at the period's end, and a removal each succeed within one
   call, whatever the state. A payment that is processing is never voided.
f  While Stripe answers, no call is answered 5xx.
h  Nobody is named for a purchase before it is paid, and a change that is refused ends no purchase.
g  End users never have two promotion codes on one subscription.
s  The stand-in does what the life asks of it; this one is no promise of the service.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from verification.money.journal import Journal, Json
from verification.money.ledger import Ledger
from verification.money.life import ENDED, YEAR, Call, Record
from verification.money.world import memberships

PATIENCE = 610.0
"""Seconds: a quote of a crediting change is good for ten minutes, and its date may lie back as far."""


def verdicts(record: Record) -> list[str]:
    """What is wrong with a life, one line each; begins with the letter of the invariant."""
    found = [*_credits(record), *_quotes(record)]
    for call in record.calls:
        found += [*_failure(record.journal, call), *_way_out(record.journal, call), *_foreseen(call)]
        found += _codes(record.journal, call)
        found += [*_abandoned(record.journal, call), *_holds_nothing(record.journal, call)]
    if record.failure is not None:
        found.append(f"s: the stand-in failed: {record.failure}")
    return found


# --------------------------------------------------------------------------------------------------------- a


def _credits(record: Record) -> Iterator[str]:
    journal = record.journal
    ledger = Ledger(journal, patience=PATIENCE)
    given: dict[tuple[str, str], int] = defaultdict(int)
    tolerance: dict[tuple[str, str], int] = defaultdict(int)
    for change in ledger.changes:
        if not ledger.stands(change):
            continue
        first = change.items[0]
        currency = (journal.state("subscription", first.subscription) or {}).get("currency", "")
        given[first.customer, currency] += change.given
        for item in change.items:
            tolerance[item.customer, currency] += item.tolerance
            if item.amount > item.limit + item.tolerance:
                call = _call_of(record, change.group.first)
                yield (
                    f"a: {call}: {item.amount} given back for an item"
                    f"{' that was replaced' if item.replaced else ''}, of which {item.limit:.0f} was paid and left"
                )
    for (customer, currency), amount in given.items():
        settled = _settled(journal, customer, currency)
        if amount > settled + tolerance[customer, currency]:
            yield f"a: over the whole life {amount} {currency} given back, {settled} settled"


def _settled(journal: Journal, customer: str, currency: str) -> int:
    """Cash and balance that paid the customer's invoices, in minor units.

    What an operator or a bank gave back later is no credit of the service, so it is not taken off here; what was given
    back before a change is, line by line, in the ledger.
    """
    total = 0
    for invoice in journal.all("invoice"):
        if (invoice["customer"], invoice["currency"]) != (customer, currency) or invoice["status"] != "paid":
            continue
        total += invoice["amount_paid"]
        total += max(0, (invoice["ending_balance"] or 0) - invoice["starting_balance"])
    return total


def _call_of(record: Record, number: int) -> str:
    for position, call in enumerate(record.calls):
        if call.first < number <= call.last:
            return f"call {position} ({call.who}: {call.name})"
    return "outside of every call"


# ------------------------------------------------------------------------------------------------------- b, c


def _quotes(record: Record) -> Iterator[str]:
    for position, call in enumerate(record.calls):
        if call.quote is None:
            continue
        where = f"call {position} ({call.who}: {call.name})"
        made = _invoices_made(record.journal, call)
        if not call.ok or _failed_in_part(call):
            if made:
                yield f"b: {where} was answered {call.reply.status} {call.reply.code}, and an invoice was made"
            if call.undisturbed and call.at == call.quoted_at and "quote_expired" in _codes_told(call):
                yield f"b: {where} was refused its own quote in the same second"
            continue
        if made or not _fits_already(record.journal, call):
            yield from _charged(where, call, made)
            yield from _next(where, call)


def _failed_in_part(call: Call) -> bool:
    """Did a call about people and seats leave the seats as they were?"""
    return any(row["outcome"] in ("failed", "refused") for row in _results(call))


def _codes_told(call: Call) -> set[str]:
    return {call.reply.code, *(str(row.get("code")) for row in _results(call))}


def _results(call: Call) -> list[Json]:
    body = call.reply.body if isinstance(call.reply.body, dict) else {}
    return list(body.get("results") or ())


def _fits_already(journal: Journal, call: Call) -> bool:
    """Additions whose seats somebody has made meanwhile buy none, so their quote is not used."""
    if call.name != "add and buy" or call.subscription is None:
        return False
    before, after = (
        journal.state("subscription", call.subscription, moment) or {} for moment in (call.first, call.last)
    )
    return seats_of(before) == seats_of(after)


def _invoices_made(journal: Journal, call: Call) -> list[Json]:
    """The invoices that the service made during the call, as they were at its end; void ones count for nothing."""
    names = {
        version.id
        for version in journal.versions[call.first : call.last]
        if version.kind == "invoice"
        and version.actor == "api"
        and journal.state("invoice", version.id, call.first) is None
    }
    found = (journal.state("invoice", name, call.last) for name in sorted(names))
    # Where collection is paused, an operator lets what was invoiced go; the quote named its amount all the same.
    return [invoice for invoice in found if invoice is not None and (call.ok or invoice["status"] != "void")]


def _charged(where: str, call: Call, made: list[Json]) -> Iterator[str]:
    quote = call.quote or {}
    charged = sum(invoice["amount_due"] for invoice in made)
    credited = sum(max(0, -invoice["total"]) for invoice in made)
    if (charged, credited) != (quote["amount_due_now"], quote["credit"]):
        yield (
            f"b: {where} was quoted {quote['amount_due_now']} due and {quote['credit']} credit, "
            f"and made {charged} due and {credited} credit"
        )


def _next(where: str, call: Call) -> Iterator[str]:
    if call.upcoming is None or not call.undisturbed:
        return
    quoted = (call.quote or {})["next_total"]
    found = call.upcoming.body["invoice"]["total"] if call.upcoming.ok else None
    if quoted != found:
        yield f"c: {where} was told that {quoted} comes next, and the upcoming invoice says {found}"


# --------------------------------------------------------------------------------------------------------- d


def _failure(journal: Journal, call: Call) -> Iterator[str]:
    if call.reply.status < 400:
        return
    where = f"{call.who}: {call.name}, {call.reply.status} {call.reply.code}"
    changed = {(version.kind, version.id) for version in journal.versions[call.first : call.last]}
    for kind, name in sorted(changed):
        before = journal.state(kind, name, call.first) or {}
        after = journal.state(kind, name, call.last) or {}
        if kind == "subscription":
            yield from (f"d: {where}: {more}" for more in _more_of_subscription(before, after))
        elif kind == "customer":
            yield from (f"d: {where}: {more}" for more in _more_of_customer(before, after))
        elif kind == "invoiceitem" and after.get("amount", 0) < 0 and not before:
            yield f"d: {where}: a credit of {-after['amount']} waits for the next invoice"


def seats_of(subscription: Json) -> int:
    return sum(item.get("quantity") or 0 for item in (subscription.get("items") or {}).get("data", []))


def _more_of_subscription(before: Json, after: Json) -> Iterator[str]:
    if seats_of(after) > seats_of(before) and after.get("status") not in (*ENDED, "incomplete"):
        yield f"{seats_of(after)} of everything, and {seats_of(before)} before"
    if _has_access(after) and not _has_access(before):
        yield f"the subscription is {after['status']}, and was {before.get('status')}"
    if before and len(after.get("discounts") or ()) > len(before.get("discounts") or ()):
        yield "there is a discount more"
    if before.get("cancel_at") is not None and after.get("cancel_at") is None and _has_access(after):
        yield "the end was taken back"


def _has_access(subscription: Json) -> bool:
    return subscription.get("status") in ("active", "trialing", "past_due")


def _more_of_customer(before: Json, after: Json) -> Iterator[str]:
    if (after.get("balance") or 0) < (before.get("balance") or 0):
        yield f"the balance is {after['balance']}, and was {before.get('balance') or 0}"
    gained = memberships(after).keys() - memberships(before).keys()
    if gained:
        yield f"a seat on {len(gained)} subscription"


# ------------------------------------------------------------------------------------------------------- e, f


def _way_out(journal: Journal, call: Call) -> Iterator[str]:
    if not (call.ends or call.removes) or call.subscription is None:
        return
    before = journal.state("subscription", call.subscription, call.first) or {}
    if call.removes and before.get("status") in ENDED:
        return
    where = f"{call.name} by {call.who}, {before.get('status')}{_complications(before)}"
    if call.reply.status != 200:
        yield f"e: {where}: {call.reply.status} {call.reply.code} {_told(call)}"
        return
    after = journal.state("subscription", call.subscription, call.last) or {}
    if call.ends and not _ends_soon(after, call.at):
        yield f"e: {where}: 200, and it ends at {after.get('cancel_at')}"
    if call.removes:
        customer = journal.state("customer", call.removes, call.last) or {}
        if call.subscription in memberships(customer):
            yield f"e: {where}: 200, and the member is still there"


def _is_processing(journal: Journal, subscription: Json, moment: int) -> bool:
    """True if a payment of the subscription's newest invoice is on its way."""
    invoice = subscription.get("latest_invoice")
    intents = {
        str(payment["payment"].get("payment_intent"))
        for payment in journal.all("invoice_payment", moment)
        if payment["invoice"] == invoice
    }
    found = (journal.state("payment_intent", intent, moment) or {} for intent in intents)
    return any(intent.get("status") == "processing" for intent in found)


def _abandoned(journal: Journal, call: Call) -> Iterator[str]:
    if call.abandons is None or call.subscription is None:
        return
    before = journal.state("subscription", call.subscription, call.first) or {}
    invoice = (journal.state("invoice", call.abandons, call.first) or {}).get("status")
    after = (journal.state("invoice", call.abandons, call.last) or {}).get("status")
    where = f"{call.name} by {call.who}, invoice {invoice}{_complications(before)}"
    if _is_processing(journal, before, call.first):
        if after != invoice:
            yield f"e: {where}: the payment was processing, and the invoice is {after}"
    elif invoice in ("open", "uncollectible"):
        left = journal.state("subscription", call.subscription, call.last) or {}
        if call.reply.status != 200:
            yield f"e: {where}: {call.reply.status} {call.reply.code} {_told(call)}"
        elif after != "void" or left.get("pending_update") is not None:
            yield f"e: {where}: 200, and the invoice is {after}"


_JUDGED_BEFORE = frozenset({"invoice_unpaid", "quote_expired", "seats_in_use", "role_required"})


def _holds_nothing(journal: Journal, call: Call) -> Iterator[str]:
    touched = {(v.kind, v.id) for v in journal.versions[call.first : call.last] if v.actor == "api"}
    if call.reply.code in _JUDGED_BEFORE:
        for kind, name in sorted(touched):
            if kind != "invoice":
                continue
            states = [(journal.state(kind, name, at) or {}).get("status") for at in (call.first, call.last)]
            if states == ["open", "void"]:
                yield f"h: {call.who}: {call.name} was refused as {call.reply.code}, and an invoice is void"
    waiting = {row.get("email") for row in _results(call) if row["outcome"] == "pending"} - {None}
    for kind, name in sorted(touched):
        state = (journal.state(kind, name, call.last) or {}) if kind == "customer" else {}
        if state.get("email") in waiting and memberships(state):
            yield f"h: {call.who}: {call.name}: somebody has a seat that is not paid"


def _told(call: Call) -> str:
    body = call.reply.body if isinstance(call.reply.body, dict) else {}
    return str(body.get("detail", ""))


def _complications(subscription: Json) -> str:
    found = [
        name
        for name in ("pending_update", "pause_collection", "cancel_at", "schedule")
        if subscription.get(name) is not None
    ]
    return f" with {', '.join(found)}" if found else ""


def _ends_soon(subscription: Json, now: float) -> bool:
    """Ended, or ends with a period of its items; the periods of a paused one may lie in the past."""
    if subscription.get("status") in ENDED:
        return True
    latest = max(item["current_period_end"] for item in subscription["items"]["data"])
    longest = latest if latest > now else now + YEAR
    return subscription.get("cancel_at") is not None and subscription["cancel_at"] <= longest


def _foreseen(call: Call) -> Iterator[str]:
    if call.reply.status >= 500:
        yield f"f: {call.who}: {call.name}: {call.reply.status} {call.reply.code} {_told(call)}"


# --------------------------------------------------------------------------------------------------------- g


def _codes(journal: Journal, call: Call) -> Iterator[str]:
    if call.subscription is None or call.who == "admin key":
        return
    before, after = (
        _codes_of(journal, call.subscription, moment, call.at) for moment in (call.first, call.last)
    )
    if after > max(1, before):
        yield f"g: {call.who}: {call.name}, {call.reply.status}: {after} promotion codes apply, {before} before"


def _codes_of(journal: Journal, subscription_id: str, moment: int, now: float) -> int:
    """How many discounts that name a promotion code have not ended."""
    subscription = journal.state("subscription", subscription_id, moment) or {}
    discounts = (journal.state("discount", name, moment) for name in subscription.get("discounts") or ())
    return sum(
        found is not None
        and found["promotion_code"] is not None
        and (found["end"] is None or found["end"] > now)
        for found in discounts
    )
