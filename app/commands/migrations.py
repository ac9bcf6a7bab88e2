"""Run the migrations of the database from this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings

FOLDER = Path(__file__).resolve().parents[2] / "migrations"
"""Beside the package `app`, in a checkout and where the wheel is installed."""


@dataclass(frozen=True, slots=True)
class Migrated:
    """The database's schema afterwards.

    With `is_newer` a newer release has made it, and nothing was changed.
    """

    revision: str
    is_newer: bool


def upgrade(settings: Settings) -> Migrated:
    """Migrate the database to this release's schema. A newer schema is not changed.

    Raises:
        SchemaRefused: No migration leads from the database's schema to this release's.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", settings.dsn.replace("%", "%%"))
    config.attributes["keep_logging"] = True
    command.upgrade(config, "head")
    head = ScriptDirectory.from_config(config).get_current_head() or "0000"
    found = f"{config.attributes['found']:04}"
    return Migrated(max(found, head, key=int), is_newer=int(found) > int(head))
