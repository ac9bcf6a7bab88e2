"""The columns that tables are made of, and the metadata that holds the tables."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    MetaData,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

NOW = text("clock_timestamp()")


def instant(name: str, *, nullable: bool = True, default: bool = False) -> Column[object]:
    """Make a column of our own time; `default`: the database's clock when the row is written."""
    server_default = NOW if default else None
    return Column(
        name, DateTime(timezone=True), nullable=nullable and not default, server_default=server_default
    )


def text_column(name: str, *, required: bool = False) -> Column[object]:
    """Make a column of text."""
    return Column(name, Text, nullable=not required)


def seconds(name: str) -> Column[object]:
    """Make a column of Stripe's time: Unix seconds."""
    return Column(name, BigInteger)


def whole(name: str, *, required: bool = False) -> Column[object]:
    """Make a column of whole numbers."""
    return Column(name, BigInteger, nullable=not required)


def yes_no(name: str, *, required: bool = True) -> Column[object]:
    """Make a column of truth values."""
    return Column(name, Boolean, nullable=not required)


def json_column(name: str, *, required: bool = False) -> Column[object]:
    """Make a column of JSON."""
    kind: TypeEngine[object] = JSONB()
    return Column(name, kind, nullable=not required)
