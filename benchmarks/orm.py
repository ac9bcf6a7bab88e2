"""A neighbour for reads, as such services are ordinarily written: FastAPI, SQLAlchemy's ORM, `response_model`.

Its tables are its own (schema `orm`, items in a table with keys and indexes, filled from the cache's rows), loaded
through relationships with `joinedload`. It answers what `getSharedSubscription` answers to an owner, and asks nobody
who he is. `python -m benchmarks.orm URL PORT CONNECTIONS`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, ClassVar

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from sqlalchemy import ForeignKey, MetaData, column, func, select, table
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship

from app.commands.child_processes import watch_parent
from app.settings import parent_pipe
from app.subscriptions.schemas.subscriptions import SubscriptionAnswer

FILL = (
    "create schema if not exists orm",
    "create table orm.customers as select id, email, name, member_of from customers where existence = 'present'",
    "create table orm.products as select id, name, supports_sharing from products",
    """create table orm.prices as select id, currency, billing_scheme, recurring, unit_amount,
        unit_amount_decimal, tiers_mode, tiers, transform_quantity from prices""",
    """create table orm.subscriptions as select id, customer_id, status, currency, created, start_date, trial_start,
        trial_end, cancel_at, cancel_at_period_end, canceled_at, ended_at, billing_mode, latest_invoice_id,
        default_payment_method_id, collection_method, pause_collection, schedule_id,
        coalesce(discount_details, '[]') as discounts, synced_at, owner_id from subscriptions""",
    """create table orm.items as select i.id, s.id as subscription_id, i.price_id, i.product_id, i.quantity, i.position,
            i.current_period_start, i.current_period_end
        from subscriptions s, rows from (jsonb_to_recordset(s.items) as (id text, price_id text, product_id text,
            quantity bigint, current_period_start bigint, current_period_end bigint)) with ordinality
            as i(id, price_id, product_id, quantity, current_period_start, current_period_end, position)""",
    *(
        f"alter table orm.{name} add primary key (id)"
        for name in ("customers", "products", "prices", "subscriptions", "items")
    ),
    "create index on orm.items (subscription_id)",
    "create index on orm.customers (member_of)",
    "analyze",
)
"""Statements that make its tables from the cache's."""


class Base(DeclarativeBase):
    metadata = MetaData(schema="orm")
    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSONB, list[Any]: JSONB}


class Customer(Base):
    __tablename__ = "customers"

    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str | None]
    name: Mapped[str | None]
    member_of: Mapped[str | None]


class Product(Base):
    __tablename__ = "products"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    supports_sharing: Mapped[bool]


class Price(Base):
    __tablename__ = "prices"

    id: Mapped[str] = mapped_column(primary_key=True)
    currency: Mapped[str]
    billing_scheme: Mapped[str]
    recurring: Mapped[dict[str, Any] | None]
    unit_amount: Mapped[int | None]
    unit_amount_decimal: Mapped[str | None]
    tiers_mode: Mapped[str | None]
    tiers: Mapped[list[Any] | None]
    transform_quantity: Mapped[dict[str, Any] | None]


class Item(Base):
    __tablename__ = "items"

    id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("orm.subscriptions.id"))
    price_id: Mapped[str] = mapped_column(ForeignKey("orm.prices.id"))
    product_id: Mapped[str] = mapped_column(ForeignKey("orm.products.id"))
    quantity: Mapped[int | None]
    position: Mapped[int]
    current_period_start: Mapped[int | None]
    current_period_end: Mapped[int | None]
    price: Mapped[Price] = relationship()
    product: Mapped[Product] = relationship()


class Subscription(Base):
    __tablename__ = "subscriptions"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str]
    status: Mapped[str]
    currency: Mapped[str]
    created: Mapped[int]
    start_date: Mapped[int | None]
    trial_start: Mapped[int | None]
    trial_end: Mapped[int | None]
    cancel_at: Mapped[int | None]
    cancel_at_period_end: Mapped[bool]
    canceled_at: Mapped[int | None]
    ended_at: Mapped[int | None]
    billing_mode: Mapped[str | None]
    latest_invoice_id: Mapped[str | None]
    default_payment_method_id: Mapped[str | None]
    collection_method: Mapped[str | None]
    pause_collection: Mapped[dict[str, Any] | None]
    schedule_id: Mapped[str | None]
    discounts: Mapped[list[Any]]
    synced_at: Mapped[datetime]
    owner_id: Mapped[str | None] = mapped_column(ForeignKey("orm.customers.id"))
    owner: Mapped[Customer | None] = relationship()
    items: Mapped[list[Item]] = relationship(order_by=Item.position)


RESERVATIONS = table("reservations", column("subscription_id"), column("released_at"))


async def session_of(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions() as session:
        yield session


PRICE = tuple(one.key for one in Price.__mapper__.column_attrs)
PLAIN = tuple(one.key for one in Subscription.__mapper__.column_attrs if one.key != "owner_id")


def _values(row: Base, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _item(item: Item) -> dict[str, Any]:
    price = _values(item.price, *PRICE)
    product = {
        **_values(item.product, "id", "name"),
        "supports_shared_subscriptions": item.product.supports_sharing,
    }
    names = ("id", "quantity", "current_period_start", "current_period_end")
    return {**_values(item, *names), "price": price, "product": product}


def _document(found: Subscription, used: int, reserved: int) -> dict[str, Any]:
    total = sum(item.quantity or 0 for item in found.items if item.product.supports_sharing)
    owner = found.owner
    return {
        **_values(found, *PLAIN),
        "role": "owner",
        "items": [_item(item) for item in found.items],
        "shared": {
            "owner": owner and {"customer_id": owner.id, "email": owner.email, "name": owner.name},
            "seats": {
                "total": total,
                "used": used,
                "reserved": reserved,
                "available": max(0, total - used - reserved),
                "over_allocated": max(0, used + reserved - total),
            },
            "owner_may_purchase": found.owner_id == found.customer_id,
        },
    }


async def shared_subscription(
    subscription_id: str, session: Annotated[AsyncSession, Depends(session_of)]
) -> dict[str, Any]:
    items = joinedload(Subscription.items)
    query = (
        select(Subscription)
        .where(Subscription.id == subscription_id)
        .options(joinedload(Subscription.owner), items.joinedload(Item.price), items.joinedload(Item.product))
    )
    found = (await session.execute(query)).unique().scalar_one_or_none()
    if found is None:
        raise HTTPException(404)
    members = select(func.count()).where(Customer.member_of == subscription_id).scalar_subquery()
    promised = (
        select(func.count())
        .select_from(RESERVATIONS)
        .where(RESERVATIONS.c.subscription_id == subscription_id, RESERVATIONS.c.released_at.is_(None))
        .scalar_subquery()
    )
    used, reserved = (await session.execute(select(members, promised))).one()
    return {"subscription": _document(found, used, reserved)}


async def healthz() -> dict[str, str]:
    return {"status": "ok"}


def create(database_url: str, pool_size: int) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = create_async_engine(
            database_url.replace("postgresql://", "postgresql+asyncpg://", 1),
            pool_size=pool_size,
            max_overflow=0,
            connect_args={"server_settings": {"jit": "off"}},
        )
        app.state.sessions = async_sessionmaker(engine)
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.get("/healthz")(healthz)
    path = "/v1/shared-subscriptions/{subscription_id}"
    app.get(path, response_model=SubscriptionAnswer)(shared_subscription)
    return app


if __name__ == "__main__":
    watch_parent(parent_pipe())
    url, port, connections = sys.argv[1:4]
    uvicorn.run(
        create(url, int(connections)),
        host="127.0.0.1",
        port=int(port),
        log_config=None,
        access_log=False,
        server_header=False,
    )
