"""Migrations, run from this process."""

from __future__ import annotations

from pathlib import Path

from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def upgrade(settings: Settings) -> str:
    """To the newest revision, whose name is returned. Raises what the database raises: nothing is half done."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(str(ROOT / "alembic.ini"))
    config.set_main_option("sqlalchemy.url", settings.dsn.replace("%", "%%"))
    config.attributes["keep_logging"] = True
    command.upgrade(config, "head")
    return ScriptDirectory.from_config(config).get_current_head() or "nothing"
