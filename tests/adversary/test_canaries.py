"""Secrets and personal data stay in their columns; the long day is `python -m verification.adversary.canaries`."""

import asyncio
import os
from pathlib import Path

import asyncpg
import pytest

from verification.adversary.canary_day import Day


@pytest.fixture
def server_log(postgres_url: str) -> Path | None:
    """What the server at hand writes, where it is this user's to read."""
    log = Path(asyncio.run(_data_directory(postgres_url))) / "server.log"
    return log if os.access(log, os.R_OK) else None


async def _data_directory(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("show data_directory"))
    finally:
        await connection.close()


@pytest.mark.timeout(300)
def test_nothing_leaves_its_columns(
    stripe_simulator: str, postgres_url: str, server_log: Path | None
) -> None:
    found = Day(stripe_simulator, postgres_url, server_log, short=True).run()
    assert found.hits == []
    assert found.unseen == []
    assert len(found.canaries) >= 30
    assert found.error_answers > 100 and found.log_bytes > 5_000 and found.metrics_bytes > 5_000
    for way in ("posted", "read", "shown"):
        assert found.events[f"{way} invitation.created"] > 0, found.events
    assert sum(found.events.values()) > 50
