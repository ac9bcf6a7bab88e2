"""A year of one customer: what they, their colleagues, an operator and the clock do, all drawn from the seed."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from testkit.asgi import Reply
from testkit.simulator import SimulatorError
from verification.money.bench import Bench, known_randomness
from verification.money.journal import Journal, Json
from verification.money.world import (
    ADMIN,
    CARDS,
    DAY,
    Person,
    World,
    acting_for,
)

FEWEST_ACTIONS, MOST_ACTIONS = 8, 15
YEAR = 366 * DAY
ENDED = ("canceled", "incomplete_expired")
_IDS = re.compile(r"\b(sub|si|cus|price|qt|pm|in|ii|pi|op|promo|di|txr|seti|prod)_\w+")


@dataclass(slots=True)
class Call:
    """One request of the API. `first` and `last`: the journal's length before and after it.

    `quote`: the answer that it executes, of the time `quoted_at`; `undisturbed`: nothing else happened in between.
    `upcoming`: the next invoice's answer, read right after it. `ends`, `removes`: a cancel or a removal that has to
    succeed. `abandons`: the invoice of the purchase that it abandons.
    """

    name: str
    who: str
    method: str
    path: str
    body: Any
    reply: Reply
    at: float
    first: int
    last: int
    subscription: str | None = None
    quote: Json | None = None
    quoted_at: float = 0.0
    undisturbed: bool = False
    upcoming: Reply | None = None
    ends: bool = False
    removes: str | None = None
    abandons: str | None = None

    @property
    def ok(self) -> bool:
        return self.reply.ok


@dataclass(slots=True)
class Record:
    """What a life leaves to be judged. `log` tells it in words, with short names in place of ids.

    `failure`: what the stand-in could not do, which ended the life early; None if nothing was in the way.
    """

    seed: str
    journal: Journal
    log: list[str]
    calls: list[Call]
    failure: str | None = None

    def digest(self) -> str:
        """Equal for two lives in which the same happened."""
        names: dict[str, str] = {}
        told = hashlib.sha256("\n".join(self.log).encode())
        for version in self.journal.versions:
            name = names.setdefault(version.id, f"{version.kind}{len(names)}")
            state = version.state or {}
            facts = [state.get(key) for key in ("status", "amount", "amount_due", "total", "balance")]
            told.update(json.dumps([name, version.at, version.actor, facts]).encode())
        return told.hexdigest()[:16]


@dataclass(slots=True)
class Who:
    label: str
    headers: Any = field(repr=False)


class Life:
    def __init__(self, world: World, seed: str) -> None:
        self.world = world
        self.rng = world.rng
        self.seed = seed
        self.log: list[str] = []
        self.calls: list[Call] = []
        self.subscriptions: list[str] = []
        self._secrets: list[tuple[str, str]] = []
        self._people: dict[str, Person] = {}
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._began = 0.0
        self._quoted_at = 0.0

    # ------------------------------------------------------------------------------------------------ telling

    def tell(self, text: str) -> None:
        day = (self.world.now - self._began) / DAY
        self.log.append(f"day {day:7.3f}  {_IDS.sub(lambda found: self._name(found[0]), text)}")

    def _name(self, object_id: str) -> str:
        if object_id not in self._names:
            kind = object_id.partition("_")[0]
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._names[object_id] = f"{kind}#{self._counts[kind]}"
        return self._names[object_id]

    # ------------------------------------------------------------------------------------------------ the year

    async def live(self) -> Record:
        """Live it. What the stand-in cannot do ends it early, and is kept as its failure."""
        failure = None
        try:
            await self._year()
        except SimulatorError as error:
            failure = str(error)
            self.tell(f"the stand-in failed: {failure}")
        return Record(self.seed, self.world.journal, self.log, self.calls, failure)

    async def _year(self) -> None:
        world = self.world
        await world.start()
        self._began = world.now
        await world.stock()
        for name, price in world.shop.prices.items():
            self._names[price] = name
        await self._move_in()
        for _ in range(self.rng.randint(FEWEST_ACTIONS, MOST_ACTIONS)):
            await self._time_passes()
            await self._act()
        await self._time_passes()
        await self._last_wishes()

    async def _act(self) -> None:
        if self.rng.random() < PLOTTED:
            name = self.rng.choice(PLOTS)
            self.tell(f"-- it comes as follows: {name}")
            plot: Callable[[str], Awaitable[None]] = getattr(self, f"_plot_{name}")
            await plot(self._one())
            return
        if all(self.world.subscription(name)["status"] in ENDED for name in self.subscriptions):
            await self._buy()
        names = list(ACTIONS)
        [chosen] = self.rng.choices(names, [ACTIONS[name] for name in names])
        action: Callable[[], Awaitable[None]] = getattr(self, f"_{chosen}")
        await action()

    async def _time_passes(self) -> None:
        rng, left = self.rng, YEAR - (self.world.now - self._began)
        ends = [end for end in self._ends() if end > self.world.now]
        jumps: dict[str, float] = {
            "moments": rng.uniform(3, 600),
            "hours": rng.uniform(1, 30) * 3600,
            "days": rng.uniform(1, 13) * DAY,
            "weeks": rng.uniform(20, 70) * DAY,
        }
        weights = {"moments": 30.0, "hours": 20.0, "days": 25.0, "weeks": 4.0}
        if ends and min(ends) - self.world.now < 40 * DAY:
            # A renewal is a draft for an hour; most of what goes wrong with money goes wrong around it.
            jumps["draft"] = min(ends) - self.world.now + rng.uniform(60, 3000)
            jumps["renewed"] = min(ends) - self.world.now + rng.uniform(3700, 9000)
            jumps["eve"] = max(3.0, min(ends) - self.world.now - rng.uniform(60, 7200))
            weights |= {"draft": 10.0, "renewed": 10.0, "eve": 4.0}
        [chosen] = rng.choices(list(weights), list(weights.values()))
        seconds = float(int(min(jumps[chosen], max(3.0, left))))
        await self.world.advance(seconds)
        self.tell(f"-- {chosen}: {self._states()}")

    def _ends(self) -> list[float]:
        found = []
        for name in self.subscriptions:
            state = self.world.subscription(name)
            if state["status"] not in ENDED:
                found += [float(item["current_period_end"]) for item in state["items"]["data"]]
        return found

    def _states(self) -> str:
        told = []
        for name in self.subscriptions:
            state = self.world.subscription(name)
            items = ", ".join(
                f"{entry.get('quantity', '-')} x {entry['price']['id']}" for entry in state["items"]["data"]
            )
            unpaid = [f"{i['status']} {i['amount_due']}" for i in self.world.invoices(name, "open", "draft")]
            told.append(f"{name} {state['status']} [{items}] {' '.join(unpaid)}".strip())
        return "; ".join(told)

    # ------------------------------------------------------------------------------------------------ moving in

    async def _move_in(self) -> None:
        """The payer and their first subscription, bought at the service or made in the Dashboard."""
        world, rng = self.world, self.rng
        self.payer = await self._person("payer")
        card = rng.choices((*CARDS, None), (62, 8, 10, 7, 3, 10))[0]
        if card is not None:
            await world.card(self.payer.customer_id, "pays" if rng.random() < 0.7 else card)
        await world.listen()
        if rng.random() < 0.45:
            await self._buy(first=True)
        if not self.subscriptions:
            await self._made_in_the_dashboard()
        if card is not None and card != "pays":
            await world.card(self.payer.customer_id, card)
        subscription = self.subscriptions[0]
        seat = {"billing_shared_subscription_id": subscription}
        manager = {**seat, "billing_shared_subscription_role": "manager"}
        self.manager = await self._person("manager", **manager)
        for _ in range(rng.randint(1, 2)):
            await self._person("user", **seat, billing_shared_subscription_role="user")
        await world.listen()
        self.tell(f"moved in, the card {card or 'is missing'}: {self._states()}")

    async def _person(self, label: str, **metadata: str) -> Person:
        person = await self.world.person(label, **metadata)
        self._people[person.customer_id] = person
        self._names[person.customer_id] = person.label
        return person

    async def _made_in_the_dashboard(self) -> None:
        world, rng = self.world, self.rng
        prices = world.shop.prices
        items: list[Json] = [{"price": prices["team/month"], "quantity": rng.choice((3, 4, 6, 10, 100))}]
        classic = rng.random() < 0.2
        others = [
            name
            for name in prices
            if name.startswith("addon") and not (classic and not name.endswith(("month", "free")))
        ]
        number = min(len(others), rng.choices((0, 1, 2), (60, 30, 10))[0])
        items += [{"price": prices[n], "quantity": rng.choice((1, 1, 2))} for n in rng.sample(others, number)]
        fields: Json = {"customer": self.payer.customer_id, "items": items}
        if rng.random() < 0.92:
            fields["metadata"] = {"billing_shared_subscription_owner": self.payer.customer_id}
        fields["billing_mode"] = {"type": "classic" if classic else "flexible"}
        if rng.random() < 0.15:
            fields |= {"collection_method": "send_invoice", "days_until_due": rng.choice((7, 30))}
        if rng.random() < 0.15:
            fields["trial_period_days"] = rng.choice((7, 20))
            fields["trial_settings"] = {
                "end_behavior": {"missing_payment_method": rng.choice(("pause", "cancel", "create_invoice"))}
            }
        if world.shop.rates and rng.random() < 0.8:
            fields["default_tax_rates"] = [world.shop.rates[0]]
        if rng.random() < 0.25:
            fields["discounts"] = [{"coupon": rng.choice(world.shop.coupons)}]
        if rng.random() < 0.15:
            fields["currency"] = "eur"
        ok, made = await world.dashboard("POST", "/v1/subscriptions", **fields)
        if not ok:
            plain: Json = {"customer": self.payer.customer_id, "items": items[:1]}
            if await self._default_card() is None:
                plain |= {"collection_method": "send_invoice", "days_until_due": 30}
            _, made = await world.dashboard("POST", "/v1/subscriptions", **plain)
        await world.listen()
        self.subscriptions.append(made["id"])
        self.tell(f"dashboard: subscribe {_brief(fields)}")

    async def _default_card(self) -> str | None:
        customer = await self.world.stripe.get(f"/v1/customers/{self.payer.customer_id}")
        found = customer["invoice_settings"]["default_payment_method"]
        return None if found is None else str(found)

    # ------------------------------------------------------------------------------------------------ the API

    async def ask(self, name: str, who: Who, method: str, path: str, body: Any = None, **told: Any) -> Call:
        world = self.world
        await world.look()
        first = world.journal.last
        reply = await world.bench.call(method, path, who.headers, body)
        await world.look()
        call = Call(name, who.label, method, path, body, reply, world.now, first, world.journal.last, **told)
        self.calls.append(call)
        answer = reply.body if isinstance(reply.body, dict) else {}
        payment = answer.get("payment")
        if isinstance(payment, dict) and payment.get("client_secret"):
            self._secrets.append((payment["client_secret"], str(payment.get("kind"))))
        results = answer.get("results")
        extra = f" payment {payment.get('status')}" if isinstance(payment, dict) else ""
        if results:
            extra += " " + ", ".join(
                f"{row['action']} {row['outcome']} {row['code'] or ''}" for row in results
            )
        if reply.status >= 400:
            extra += " " + str(answer.get("detail", ""))[:90]
        self.tell(f"{who.label}: {name} {_brief(body)} -> {reply.status} {reply.code}{extra}".rstrip())
        if self.rng.random() < 0.9:
            await world.listen()
        return call

    def _somebody(self, subscription: str, *, entitled: float = 0.8) -> Who:
        """Somebody who may change the subscription, or else who may not."""
        admin = Who("admin key", ADMIN)
        owner = self._owner(subscription)
        if self.rng.random() < entitled:
            acting = Who(f"key for {owner.label}", acting_for(owner.customer_id))
            return self.rng.choices((Who(owner.label, owner.headers), admin, acting), (60, 25, 15))[0]
        member = self._people.get(self.rng.choice([*self.world.members(subscription), ""]))
        chosen = member or self.payer
        return Who(chosen.label, chosen.headers)

    def _owner(self, subscription: str) -> Person:
        state = self.world.subscription(subscription)
        named = state["metadata"].get("billing_shared_subscription_owner")
        return self._people.get(named or state["customer"], self.payer)

    def _entitled(self, subscription: str) -> Who:
        """Somebody whom the roles' table lets end the subscription and remove people."""
        owner, state = self._owner(subscription), self.world.subscription(subscription)
        named = state["metadata"].get("billing_shared_subscription_owner")
        if named != owner.customer_id or self.rng.random() < 0.3:
            return Who("admin key", ADMIN)
        return Who(owner.label, owner.headers)

    def _one(self) -> str:
        """One of the subscriptions, mostly a living one."""
        living = [n for n in self.subscriptions if self.world.subscription(n)["status"] not in ENDED]
        return self.rng.choice(living if living and self.rng.random() < 0.95 else self.subscriptions)

    def _seat_items(self, subscription: str) -> list[Json]:
        team = {price for name, price in self.world.shop.prices.items() if name.startswith("team")}
        state = self.world.subscription(subscription)
        return [item for item in state["items"]["data"] if item["price"]["id"] in team]

    # ------------------------------------------------------------------------------------------------ seats

    def _total(self, subscription: str) -> int:
        now = int(sum(item["quantity"] for item in self._seat_items(subscription)))
        used = max(1, len(self.world.members(subscription)))
        lower = [used, max(used, now // 2), max(used, now - 1), 1]
        return self.rng.choice([*lower, now + 1, now + 2, now + self.rng.choice((5, 20)), now * 2, now])

    async def _set_seats(self) -> None:
        name = self._one()
        body: Json = {"total": max(1, self._total(name))}
        items = self._seat_items(name)
        if len(items) > 1 and self.rng.random() < 0.8:
            body["subscription_item_id"] = self.rng.choice(items)["id"]
        base = f"/v1/shared-subscriptions/{name}"
        await self._change("PUT seats", name, "PUT", f"{base}/seats", f"{base}/quote", body)

    async def _change_items(self) -> None:
        name = self._one()
        entries = self._item_changes(name)
        if not entries:
            return
        base = f"/v1/subscriptions/{name}"
        await self._change("PATCH items", name, "PATCH", base, f"{base}/preview", {"items": entries})

    def _item_changes(self, name: str) -> list[Json]:
        rng, prices = self.rng, self.world.shop.prices
        items = self.world.subscription(name)["items"]["data"]
        item = rng.choice(items)
        unused = [price for price in prices.values() if price not in {i["price"]["id"] for i in items}]
        kind = rng.choices(("quantity", "price", "add", "delete", "both"), (35, 30, 15, 12, 8))[0]
        if kind == "quantity":
            return [
                {"id": item["id"], "quantity": rng.choice((1, 2, 3, 7, 12, max(1, item["quantity"] - 1)))}
            ]
        if kind in ("price", "both") and unused:
            same = self.world.shop.name_of(item["price"]["id"]).partition("/")[0]
            own = [price for price in unused if self.world.shop.name_of(price).startswith(same)]
            entry: Json = {"id": item["id"], "price_id": rng.choice(own or unused)}
            if rng.random() < 0.3:
                entry["quantity"] = rng.choice((1, 3, 10))
            if kind == "both" and len(items) > 1:
                other = next(i for i in items if i["id"] != item["id"])
                return [entry, {"id": other["id"], "quantity": rng.choice((1, 2, 4))}]
            return [entry]
        if kind == "add" and unused:
            return [{"price_id": rng.choice(unused), "quantity": rng.choice((1, 2))}]
        if len(items) > 1:
            return [{"id": item["id"], "deleted": True}]
        return [{"id": item["id"], "quantity": rng.choice((1, 4, 9))}]

    async def _change(
        self, label: str, name: str, method: str, path: str, quote_path: str, body: Json
    ) -> None:
        """With a quote or without, at once or late."""
        rng = self.rng
        who = self._somebody(name)
        if who.label == "admin key" and rng.random() < 0.3:
            body["proration_behavior"] = rng.choice(("none", "create_prorations", "always_invoice"))
        if rng.random() < 0.15:
            body["forgo_credit"] = True
        if rng.random() < 0.45:
            await self.ask(label, who, method, path, body, subscription=name)
            return
        quoted = await self.ask(f"quote {label}", who, "POST", quote_path, body, subscription=name)
        if not quoted.ok:
            return
        undisturbed = await self._quote_ages(name)
        body = {**body, "quote_id": quoted.reply.body["quote_id"]}
        if quoted.reply.body.get("credit_forgone") and rng.random() < 0.7:
            body["forgo_credit"] = True
        await self._execute(label, who, method, path, body, quoted.reply.body, name, undisturbed=undisturbed)

    async def _execute(
        self,
        label: str,
        who: Who,
        method: str,
        path: str,
        body: Json,
        quote: Json,
        name: str,
        *,
        undisturbed: bool,
    ) -> None:
        done = await self.ask(label, who, method, path, body, subscription=name, quote=quote)
        done.undisturbed, done.quoted_at = undisturbed, self._quoted_at
        if not done.ok or done.reply.status == 202 or (done.reply.body or {}).get("payment") is not None:
            return
        state = self.world.subscription(name)
        if state["pending_update"] is None and state["status"] not in ENDED:
            payer = state["customer"]
            path = f"/v1/customers/{payer}/upcoming-invoice?subscription_id={name}"
            done.upcoming = await self.world.bench.call("GET", path, ADMIN)

    async def _quote_ages(self, name: str) -> bool:
        """Nothing, some time, or an edit by hand comes between a quote and its use. True: nothing but time."""
        rng, world = self.rng, self.world
        self._quoted_at = world.now
        wait = rng.choices(
            (
                0.0,
                rng.uniform(1, 9) * 60,
                rng.uniform(10.5, 50) * 60,
                rng.uniform(2, 20) * 3600,
                23.5 * 3600,
                25 * 3600,
            ),
            (50, 15, 10, 8, 10, 3),
        )[0]
        if wait:
            before = world.journal.last
            await world.advance(float(int(wait)))
            self.tell(f"-- the quote ages by {wait / 3600:.2f} hours")
            if world.journal.last != before:
                return False
        if rng.random() < 0.25:
            await self._by_hand(name)
            return False
        return True

    # ------------------------------------------------------------------------------------------------ people

    async def _add_members(self) -> None:
        name, rng = self._one(), self.rng
        free = sum(item["quantity"] for item in self._seat_items(name)) - len(self.world.members(name))
        number = (
            max(1, free) + rng.choice((0, 1, 2)) if free < 8 and rng.random() < 0.6 else rng.choice((1, 2))
        )
        body: Json = {"add": [{"email": f"new{len(self.log)}x{n}@example.com"} for n in range(number)]}
        base = f"/v1/shared-subscriptions/{name}"
        who = self._somebody(name)
        if rng.random() < 0.6:
            items = self._seat_items(name)
            if len(items) > 1:
                body["subscription_item_id"] = rng.choice(items)["id"]
            if rng.random() < 0.4:
                quoted = await self.ask(
                    "quote additions", who, "POST", f"{base}/quote", body, subscription=name
                )
                if not quoted.ok:
                    return
                undisturbed = await self._quote_ages(name)
                body |= {"over_capacity": "add_seats", "quote_id": quoted.reply.body["quote_id"]}
                await self._execute(
                    "add and buy",
                    who,
                    "PATCH",
                    f"{base}/users",
                    body,
                    quoted.reply.body,
                    name,
                    undisturbed=undisturbed,
                )
                return
            body["over_capacity"] = "add_seats"
        await self.ask("add members", who, "PATCH", f"{base}/users", body, subscription=name)

    async def _remove_member(self) -> None:
        name, rng = self._one(), self.rng
        members = self.world.members(name)
        if not members:
            return
        chosen = rng.choice(members)
        body: Json = {"remove": [chosen]}
        releases = rng.random() < 0.35
        base = f"/v1/shared-subscriptions/{name}"
        who = self._entitled(name)
        if releases:
            body["release_seats"] = True
            items = self._seat_items(name)
            if len(items) > 1:
                body["subscription_item_id"] = rng.choice(items)["id"]
            if rng.random() < 0.5:
                quoted = await self.ask(
                    "quote release", who, "POST", f"{base}/quote", body, subscription=name
                )
                if not quoted.ok:
                    return
                undisturbed = await self._quote_ages(name)
                body["quote_id"] = quoted.reply.body["quote_id"]
                if quoted.reply.body.get("credit_forgone") and rng.random() < 0.7:
                    body["forgo_credit"] = True
                await self._execute(
                    "remove and release",
                    who,
                    "PATCH",
                    f"{base}/users",
                    body,
                    quoted.reply.body,
                    name,
                    undisturbed=undisturbed,
                )
                return
        await self.ask(
            "remove a member",
            who,
            "PATCH",
            f"{base}/users",
            body,
            subscription=name,
            removes=None if releases else chosen,
        )

    async def _change_role(self) -> None:
        name = self._one()
        members = self.world.members(name)
        if members:
            role = self.rng.choice(("user", "manager"))
            body = {"update": [{"customer_id": self.rng.choice(members), "role": role}]}
            path = f"/v1/shared-subscriptions/{name}/users"
            await self.ask("change a role", self._somebody(name), "PATCH", path, body, subscription=name)

    async def _transfer(self) -> None:
        name, rng = self._one(), self.rng
        owner = self._owner(name)
        known = [member for member in self.world.members(name) if member in self._people]
        if not known:
            return
        receiver = self._people[rng.choice(known)]
        path = f"/v1/shared-subscriptions/{name}/transfer"
        body: Json = {"to_customer_id": receiver.customer_id, "allow_purchases": rng.random() < 0.6}
        if rng.random() < 0.5:
            body["keep_me_as"] = rng.choice(("user", "manager"))
        offered = await self.ask(
            "offer", Who(owner.label, owner.headers), "POST", path, body, subscription=name
        )
        if offered.ok and rng.random() < 0.8:
            who = Who(receiver.label, receiver.headers)
            await self.ask("accept", who, "POST", f"{path}/accept", subscription=name)

    # ------------------------------------------------------------------------------------------------ terms and ends

    async def _promotion(self) -> None:
        name = self._one()
        body: Json = {"promotion_code": self.rng.choice(self.world.shop.codes)}
        if self.rng.random() < 0.3:
            body["items"] = self._item_changes(name)
        path = f"/v1/subscriptions/{name}"
        await self.ask("use a code", self._somebody(name), "PATCH", path, body, subscription=name)

    async def _admin_terms(self) -> None:
        name, rng, shop = self._one(), self.rng, self.world.shop
        chosen: list[Json] = [
            {"discounts": [{"coupon": rng.choice(shop.coupons)}]},
            {"discounts": []},
            {"trial_end": "now"},
            {"default_tax_rates": shop.rates[:1]},
        ]
        path = f"/v1/subscriptions/{name}"
        await self.ask(
            "set terms", Who("admin key", ADMIN), "PATCH", path, rng.choice(chosen), subscription=name
        )

    def _ending(self, name: str) -> Json:
        state = self.world.subscription(name)
        ends = {item["current_period_end"] for item in state["items"]["data"]}
        if len(ends) == 1 or state["status"] in ENDED:
            return {"when": "period_end"}
        return {"when": self.rng.choice(("earliest_period_end", "latest_period_end"))}

    async def _cancel(self) -> None:
        name, rng = self._one(), self.rng
        path = f"/v1/subscriptions/{name}/cancel"
        if rng.random() < 0.2:
            body: Json = {"when": "now"}
            who = self._somebody(name)
            if who.label == "admin key" and rng.random() < 0.6:
                body["prorate"] = True
            await self.ask("end now", who, "POST", path, body, subscription=name)
            return
        body = self._ending(name)
        await self.ask("end", self._entitled(name), "POST", path, body, subscription=name, ends=True)

    async def _cancel_by_patch(self) -> None:
        name = self._one()
        body = {"cancel_at_period_end": self.rng.random() < 0.6}
        path = f"/v1/subscriptions/{name}"
        await self.ask("set the end", self._somebody(name), "PATCH", path, body, subscription=name)

    async def _resume(self) -> None:
        name = self._one()
        path = f"/v1/subscriptions/{name}/resume"
        await self.ask("resume", self._somebody(name), "POST", path, subscription=name)

    # ------------------------------------------------------------------------------------------------ paying

    async def _buy(self, *, first: bool = False) -> None:
        """addSubscription, by the payer or by an operator's key."""
        rng, shop = self.rng, self.world.shop
        names = ["team/month"] if first else [rng.choice(list(shop.prices))]
        if rng.random() < 0.3:
            names.append(rng.choice([name for name in shop.prices if name not in names]))
        body: Json = {
            "items": [{"price_id": shop.prices[n], "quantity": rng.choice((1, 4, 10, 40))} for n in names]
        }
        default = await self._default_card()
        if default is not None and rng.random() < 0.85:
            body["payment_method_id"] = default
        if rng.random() < 0.2:
            body["promotion_code"] = rng.choice(shop.codes)
        if rng.random() < 0.15:
            body["currency"] = rng.choice(("usd", "eur"))
        who = Who(self.payer.label, self.payer.headers)
        if rng.random() < 0.35:
            who = Who("admin key", ADMIN)
            body |= self._operators_terms()
        path = f"/v1/customers/{self.payer.customer_id}/subscriptions"
        made = await self.ask("buy", who, "POST", path, body)
        if made.ok and (bought := _bought(made.reply.body)) is not None:
            self.subscriptions.append(bought)
            await self.world.listen()

    def _operators_terms(self) -> Json:
        rng, shop = self.rng, self.world.shop
        terms: Json = {}
        if rng.random() < 0.25:
            terms["trial_period_days"] = rng.choice((5, 14))
        if rng.random() < 0.3:
            terms["billing_mode"] = "classic"
        if shop.rates and rng.random() < 0.5:
            terms["default_tax_rates"] = shop.rates[:1]
        if rng.random() < 0.2:
            terms["discounts"] = [{"coupon": rng.choice(shop.coupons)}]
        return terms

    async def _pay(self) -> None:
        """An open invoice, on the page or by the operator; or the set-up that is left to do."""
        rng, world = self.rng, self.world
        unpaid = [i for n in self.subscriptions for i in world.invoices(n, "open")]
        if self._secrets and rng.random() < 0.6:
            secret, kind = self._secrets.pop()
            authenticate = rng.random() < 0.85
            try:
                await world.stripe.control("POST", "confirm", client_secret=secret, authenticate=authenticate)
                told = "confirmed"
            except AssertionError:
                told = "refused"
            self.tell(f"browser: confirm the {kind}: {told}")
        elif unpaid:
            invoice = rng.choice(unpaid)
            fields: Json = {"paid_out_of_band": True} if rng.random() < 0.4 else {}
            ok, _ = await world.dashboard("POST", f"/v1/invoices/{invoice['id']}/pay", **fields)
            self.tell(f"dashboard: pay {invoice['id']} {_brief(fields)}: {'paid' if ok else 'refused'}")
        await world.listen()

    async def _card(self) -> None:
        """Another default card, attached by the payer's page."""
        kind = self.rng.choices(list(CARDS), (50, 22, 13, 10, 5))[0]
        who = Who(self.payer.label, self.payer.headers)
        body = {"payment_method_id": CARDS[kind], "use_as_default": True}
        path = "/v1/customers/me/payment-methods"
        await self.ask(f"a card that {kind}", who, "POST", path, body)

    # ------------------------------------------------------------------------------------------------ by hand

    async def _dashboard(self) -> None:
        await self._by_hand(self._one())

    async def _by_hand(self, name: str) -> None:
        """An edit in the Dashboard, of which the service hears at once, by an event alone, or later."""
        world, rng = self.world, self.rng
        method, path, fields = self._edit(name)
        if not path:
            return
        ok, refusal = await world.dashboard(method, path, **fields)
        heard = rng.choices(("told", "hinted", "untold"), (70, 15, 15))[0]
        told = "" if ok else f": refused, {str(refusal)[:80]}"
        self.tell(f"dashboard ({heard}): {method} {path} {_brief(fields)}{told}")
        await world.look()
        if heard == "told":
            await world.listen()
        elif heard == "hinted":
            await world.hint(("customer.subscription.updated", "invoice.updated"))

    def _edit(self, name: str) -> tuple[str, str, Json]:
        rng, world = self.rng, self.world
        state = world.subscription(name)
        sub, customer = f"/v1/subscriptions/{name}", f"/v1/customers/{state['customer']}"
        item = rng.choice(state["items"]["data"])
        proration = rng.choice(("create_prorations", "create_prorations", "always_invoice", "none"))
        invoices = world.invoices(name)
        edits: list[tuple[int, str, str, Json]] = [
            (
                25,
                "POST",
                sub,
                {
                    "items": [{"id": item["id"], "quantity": rng.choice((1, 2, 6, 15))}],
                    "proration_behavior": proration,
                },
            ),
            (8, "POST", sub, {"discounts": [{"coupon": rng.choice(world.shop.coupons)}]}),
            (6, "POST", sub, {"discounts": ""}),
            (6, "POST", sub, {"cancel_at": int(world.now + rng.choice((20, 200, 400)) * DAY)}),
            (
                6,
                "POST",
                sub,
                {
                    "pause_collection": {
                        "behavior": rng.choice(("void", "keep_as_draft", "mark_uncollectible"))
                    }
                },
            ),
            (5, "POST", sub, {"pause_collection": ""}),
            (
                8,
                "POST",
                customer,
                {"balance": self._balance(state["customer"]) + rng.choice((-1500, -300, 700))},
            ),
            (4, "POST", sub, {"collection_method": "send_invoice", "days_until_due": 14}),
            (3, "POST", sub, {"collection_method": "charge_automatically"}),
            (3, "POST", sub, {"default_tax_rates": world.shop.rates[:1] or ""}),
            (2, "POST", f"{sub}/pause", {"type": "subscription"}),
        ]
        shop = world.shop.prices
        team = [price for label, price in shop.items() if label in ("team/dear", "team/month")]
        if item["price"]["id"] in team and state["billing_mode"]["type"] == "flexible":
            other = next(price for price in team if price != item["price"]["id"])
            entry = {"id": item["id"], "price": other, "quantity": item["quantity"]}
            edits.append((6, "POST", sub, {"items": [entry], "proration_behavior": proration}))
        for invoice in invoices:
            if invoice["status"] == "open":
                edits.append((8, "POST", f"/v1/invoices/{invoice['id']}/void", {}))
                edits.append((4, "POST", f"/v1/invoices/{invoice['id']}/mark_uncollectible", {}))
            if invoice["status"] == "paid" and invoice["amount_paid"] > 0:
                edits += self._money_back(invoice)
        chosen = rng.choices(edits, [edit[0] for edit in edits])[0]
        return chosen[1], chosen[2], chosen[3]

    def _balance(self, customer: str) -> int:
        return int((self.world.journal.state("customer", customer) or {}).get("balance") or 0)

    def _money_back(self, invoice: Json) -> list[tuple[int, str, str, Json]]:
        """A refund, a credit note or a dispute of a paid invoice."""
        journal, rng = self.world.journal, self.rng
        intents = [
            payment["payment"].get("payment_intent")
            for payment in journal.all("invoice_payment")
            if payment["invoice"] == invoice["id"] and payment["status"] == "paid"
        ]
        if not intents or intents[0] is None:
            return []
        amount = invoice["amount_paid"]
        refund: Json = {"payment_intent": intents[0]}
        part = max(1, amount // rng.choice((2, 3)))
        if rng.random() < 0.5:
            refund["amount"] = part
        note = {"invoice": invoice["id"], "amount": part, "refund_amount": part}
        note |= {} if rng.random() < 0.5 else {"refund_amount": None, "credit_amount": part}
        dispute = {
            "payment_intent": intents[0],
            "status": rng.choice(("needs_response", "needs_response", "lost", "won")),
        }
        return [
            (4, "POST", "/v1/refunds", refund),
            (2, "POST", "/v1/credit_notes", note),
            (2, "POST", DISPUTES, dispute),
        ]

    # ------------------------------------------------------------------------------------------------ plots

    async def _wait_for_renewal(self, name: str, *, then: float) -> bool:
        """Until so many seconds after the nearest end of a period. False if that is beyond the year."""
        state = self.world.subscription(name)
        if state["status"] in ENDED:
            return False
        end = min(item["current_period_end"] for item in state["items"]["data"])
        wait = end + then - self.world.now
        if not 0 < wait < YEAR - (self.world.now - self._began):
            return False
        await self.world.advance(float(int(wait)))
        self.tell(f"-- {then:.0f} seconds after the end of the period: {self._states()}")
        return True

    async def _default_becomes(self, name: str, kind: str) -> None:
        """The payer's default, and the subscription's own, which comes before it."""
        method = await self.world.card(self.payer.customer_id, kind)
        await self.world.dashboard("POST", f"/v1/subscriptions/{name}", default_payment_method=method)
        await self.world.listen()
        self.tell(f"dashboard: the default card is one that {kind}")

    async def _seats_become(self, name: str, change: Callable[[int], int]) -> None:
        items = self._seat_items(name)
        if not items:
            return
        total = sum(item["quantity"] for item in items)
        body: Json = {"total": max(1, change(total))}
        if len(items) > 1:
            body["subscription_item_id"] = items[0]["id"]
        who = self._somebody(name, entitled=1.0)
        path = f"/v1/shared-subscriptions/{name}/seats"
        await self.ask("PUT seats", who, "PUT", path, body, subscription=name)

    async def _give_back(self, name: str) -> None:
        """Fewer seats, a cheaper price, another interval or an item less."""
        if self.rng.random() < 0.6:
            used = max(1, len(self.world.members(name)))
            await self._seats_become(name, lambda _: used)
            return
        entries = self._item_changes(name)
        path = f"/v1/subscriptions/{name}"
        who = self._somebody(name, entitled=1.0)
        await self.ask("PATCH items", who, "PATCH", path, {"items": entries}, subscription=name)

    async def _plot_unpaid_renewal(self, name: str) -> None:
        """The renewal fails, or is a draft still, and what it was for is given back."""
        await self._default_becomes(name, "declines")
        if await self._wait_for_renewal(name, then=self.rng.choice((600.0, 3900.0, 4 * DAY))):
            await self._give_back(name)

    async def _plot_raise_within_the_draft(self, name: str) -> None:
        """Paid seats are added while the renewal is a draft; then the renewal fails."""
        await self._default_becomes(name, "pays")
        if await self._wait_for_renewal(name, then=900.0):
            await self._seats_become(name, lambda total: total + 1)
            await self._default_becomes(name, "declines")
            await self.world.advance(4000.0)
            await self._give_back(name)

    async def _plot_raise_unpaid(self, name: str) -> None:
        """Seats that are invoiced by mail or debited stand before they are paid."""
        ways = ("is debited", "fails to be debited")
        if self.rng.random() < 0.5:
            await self._default_becomes(name, self.rng.choice(ways))
        else:
            fields = {"collection_method": "send_invoice", "days_until_due": 30}
            await self.world.dashboard("POST", f"/v1/subscriptions/{name}", **fields)
            await self.world.listen()
            self.tell("dashboard: invoices are sent from now on")
        await self._seats_become(name, lambda total: total + self.rng.choice((1, 5, 20)))
        await self.world.advance(self.rng.choice((600.0, 2 * DAY, 8 * DAY)))
        await self._give_back(name)

    async def _plot_money_back(self, name: str) -> None:
        """An invoice is refunded or disputed, and then what it was for is given back."""
        paid = [i for i in self.world.invoices(name, "paid") if i["amount_paid"] > 0]
        edits = self._money_back(paid[-1]) if paid else []
        if edits:
            _, method, path, fields = self.rng.choice(edits)
            ok, _ = await self.world.dashboard(method, path, **fields)
            await self.world.listen()
            self.tell(f"dashboard: {path} {_brief(fields)}: {'done' if ok else 'refused'}")
            await self._give_back(name)

    async def _plot_two_codes(self, name: str) -> None:
        path = f"/v1/subscriptions/{name}"
        owner = self._owner(name)
        for code in self.rng.sample(self.world.shop.codes, 2):
            body = {"promotion_code": code}
            await self.ask(
                "use a code", Who(owner.label, owner.headers), "PATCH", path, body, subscription=name
            )

    async def _plot_stale_quote(self, name: str) -> None:
        """What a quote was computed from changes before it is used: balance, discounts, taxes, or the clock."""
        items = self._seat_items(name)
        if not items:
            return
        rng, world = self.rng, self.world
        who = self._somebody(name, entitled=1.0)
        base = f"/v1/shared-subscriptions/{name}"
        body: Json = {"total": max(1, sum(item["quantity"] for item in items) + rng.choice((-1, 1, 3)))}
        if len(items) > 1:
            body["subscription_item_id"] = items[0]["id"]
        quoted = await self.ask("quote PUT seats", who, "POST", f"{base}/quote", body, subscription=name)
        if not quoted.ok:
            return
        self._quoted_at = world.now
        state = world.subscription(name)
        customer, sub = f"/v1/customers/{state['customer']}", f"/v1/subscriptions/{name}"
        balance = {"balance": self._balance(state["customer"]) + rng.choice((-2000, -150, 900))}
        coupon = {"discounts": [{"coupon": rng.choice(world.shop.coupons)}]}
        edits: list[tuple[str, Json]] = [
            (customer, balance),
            (customer, balance),
            (sub, {"discounts": ""}),
            (sub, coupon),
        ]
        path, fields = rng.choice(edits)
        ok, _ = await world.dashboard("POST", path, **fields)
        await world.listen()
        self.tell(f"dashboard: {path} {_brief(fields)}: {'done' if ok else 'refused'}")
        body["quote_id"] = quoted.reply.body["quote_id"]
        quote = quoted.reply.body
        await self._execute("PUT seats", who, "PUT", f"{base}/seats", body, quote, name, undisturbed=False)

    async def _plot_code_and_quote(self, name: str) -> None:
        """A code is used, and a change is quoted before an invoice has used it up."""
        owner = self._owner(name)
        body = {"promotion_code": self.rng.choice(self.world.shop.codes)}
        who = Who(owner.label, owner.headers)
        await self.ask("use a code", who, "PATCH", f"/v1/subscriptions/{name}", body, subscription=name)
        await self._set_seats()

    async def _plot_pending_edit(self, name: str) -> None:
        """Prorations of an edit by hand wait while a change is quoted."""
        state = self.world.subscription(name)
        item = self.rng.choice(state["items"]["data"])
        fields: Json = {"items": [{"id": item["id"], "quantity": self.rng.choice((1, 7, 12))}]}
        await self.world.dashboard("POST", f"/v1/subscriptions/{name}", **fields)
        await self.world.listen()
        self.tell(f"dashboard: {_brief(fields)}, to be invoiced later")
        await self._set_seats()

    # ------------------------------------------------------------------------------------------------ waiting

    async def _abandon(self) -> None:
        """Abandon what waits for its payment, by somebody who may."""
        name = self.rng.choice(self.subscriptions)
        await self._abandon_on(name)

    async def _abandon_on(self, name: str) -> None:
        read = await self.world.bench.call("GET", f"/v1/subscriptions/{name}", ADMIN)
        pending = read.body["subscription"]["pending_change"] if read.ok else None
        if pending is None:
            return
        payer = Who(self.payer.label, self.payer.headers)
        who = self.rng.choice((payer, Who("admin key", ADMIN)))
        path = f"/v1/operations/{pending['operation_id']}/cancel"
        invoice = self.world.subscription(name)["latest_invoice"]
        await self.ask("abandon", who, "POST", path, subscription=name, abandons=invoice)

    async def _plot_waiting_purchase(self, name: str) -> None:
        """Seats for named people wait for their payment; one of them signs up, then the purchase comes to some end."""
        rng = self.rng
        await self._default_becomes(name, rng.choice(("declines", "wants 3-D Secure")))
        free = sum(item["quantity"] for item in self._seat_items(name)) - len(self.world.members(name))
        people = [
            f"waits{len(self.log)}x{n}@example.com" for n in range(max(0, min(free, 6)) + rng.choice((1, 3)))
        ]
        body: Json = {"add": [{"email": email} for email in people], "over_capacity": "add_seats"}
        items = self._seat_items(name)
        if len(items) > 1:
            body["subscription_item_id"] = items[0]["id"]
        who = self._somebody(name, entitled=1.0)
        path = f"/v1/shared-subscriptions/{name}/users"
        asked = await self.ask("add beyond the seats", who, "PATCH", path, body, subscription=name)
        if asked.reply.status != 202 or asked.reply.body["state"] != "awaiting_payment":
            return
        subject = f"newcomer-{self.seed}-{len(self.log)}"
        login = self.world.bench.login(subject, email=people[-1], email_verified=True)
        await self.ask("sign up", Who("newcomer", login), "POST", "/v1/customers", {})
        if rng.random() < 0.4:
            await self.world.advance(rng.uniform(60, 7200))
        await rng.choice((self._pay, self._set_seats, self._dashboard, self._card))()
        if rng.random() < 0.7:
            await self._abandon_on(name)

    # ------------------------------------------------------------------------------------------------ the end

    async def _last_wishes(self) -> None:
        """From whatever state the life has come to: an abandonment, a removal and a cancel, one call each."""
        for name in list(self.subscriptions):
            if self.rng.random() < 0.5:
                await self._abandon_on(name)
            state = self.world.subscription(name)
            members = self.world.members(name)
            if members and state["status"] not in ENDED:
                await self.ask(
                    "remove a member",
                    self._entitled(name),
                    "PATCH",
                    f"/v1/shared-subscriptions/{name}/users",
                    {"remove": [self.rng.choice(members)]},
                    subscription=name,
                    removes=members[0] if len(members) == 1 else None,
                )
                self.calls[-1].removes = self.calls[-1].body["remove"][0]
            path = f"/v1/subscriptions/{name}/cancel"
            body = self._ending(name)
            await self.ask("end", self._entitled(name), "POST", path, body, subscription=name, ends=True)


DISPUTES = "/_simulator/disputes"
PLOTTED = 0.22
"""The share of what happens that follows a plot: chance alone finds these chains too rarely."""
PLOTS = (
    "unpaid_renewal",
    "raise_within_the_draft",
    "raise_unpaid",
    "money_back",
    "two_codes",
    "pending_edit",
    "stale_quote",
    "code_and_quote",
    "waiting_purchase",
)
ACTIONS: dict[str, int] = {
    "set_seats": 24,
    "change_items": 18,
    "add_members": 8,
    "remove_member": 6,
    "change_role": 2,
    "transfer": 2,
    "promotion": 5,
    "admin_terms": 3,
    "cancel": 6,
    "cancel_by_patch": 2,
    "resume": 5,
    "buy": 4,
    "pay": 9,
    "card": 6,
    "dashboard": 16,
    "abandon": 5,
}
"""What happens in a life, by weight."""


def _bought(answer: Json) -> str | None:
    """Return the subscription that addSubscription made, None while its operation still has to make it."""
    if "subscription" in answer:
        return str(answer["subscription"]["id"])
    [result] = answer["results"]
    made: str | None = result["subscription_id"]
    return made


def _brief(body: Any) -> str:
    if not body:
        return ""
    return json.dumps(body, separators=(",", ":"), default=str).replace('"', "")


async def play(bench: Bench, seed: str) -> Record:
    """One life, from an empty account to its end."""
    rng = random.Random(seed)
    key = "sk_test_lives" + hashlib.sha256(seed.encode()).hexdigest()[:16]
    with known_randomness(seed):
        context, stripe = await bench.begin(key)
        world = World(bench, context, stripe, rng)
        try:
            return await Life(world, seed).live()
        finally:
            await bench.close_life(stripe)
