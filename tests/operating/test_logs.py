"""Failures in logs: types, places and facts of their own, never the words of a library."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
import structlog

from app.commands.logs import described
from app.errors import Conflict, ServiceUnavailable
from testkit.logs import captured_logs

SECRET = "mara@example.com"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What a process at the level debug writes."""
    with captured_logs("debug") as stream:
        yield stream


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


async def test_a_refused_row_is_told_without_its_values(lines: io.StringIO, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("create table t (email text unique)")
        with pytest.raises(asyncpg.UniqueViolationError) as refused:
            await connection.execute(f"insert into t values ('{SECRET}'), ('{SECRET}')")
    finally:
        await connection.close()
    assert SECRET in str(refused.value)
    structlog.get_logger().error("job_failed", exc_info=refused.value)
    [event] = read(lines)
    [failure] = event["failure"]
    assert failure["type"] == "asyncpg.exceptions.UniqueViolationError"
    assert (failure["sqlstate"], failure["constraint_name"]) == ("23505", "t_email_key")
    assert any("test_a_refused_row_is_told" in place for place in failure["at"])
    assert SECRET not in lines.getvalue()


def test_causes_are_told_and_our_own_words_repeated() -> None:
    error = raised(ServiceUnavailable("The database does not answer."), raised(OSError(111, SECRET)))
    first, second = described(error)
    assert first["message"] == "The database does not answer."
    assert (second["type"], second["errno"]) == ("builtins.ConnectionRefusedError", 111)
    assert SECRET not in json.dumps([first, second])


def test_members_of_a_group_are_told() -> None:
    group = ExceptionGroup(SECRET, [ValueError(SECRET), Conflict("No seat.")])
    [found] = described(group)
    assert SECRET not in json.dumps(found)
    members = found["members"]
    assert isinstance(members, list)
    assert [member[0]["type"] for member in members] == ["builtins.ValueError", "app.errors.Conflict"]


def test_a_chain_of_causes_has_an_end() -> None:
    error: Exception | None = None
    for _ in range(50):
        error = raised(ValueError(SECRET), error)
    assert error is not None
    assert len(described(error)) < 20


def test_description_ends_when_a_member_has_its_group_as_cause(lines: io.StringIO) -> None:
    """C1: an error of a scan made such a cycle, on which the description of the error recursed without end."""
    member = ValueError(SECRET)
    group = ExceptionGroup(SECRET, [member, KeyError(SECRET)])
    error = raised(member, group)
    structlog.get_logger().error("upkeep_failed", exc_info=error)
    [event] = read(lines)
    first, second = event["failure"]
    assert (first["type"], second["type"]) == ("builtins.ValueError", "builtins.ExceptionGroup")
    assert [one[0]["type"] for one in second["members"] if one] == ["builtins.KeyError"]
    assert SECRET not in lines.getvalue()


def test_failure_is_described_in_short_when_the_stack_was_deep(lines: io.StringIO) -> None:
    """C1: a recursion without end logs the innermost places only."""

    def deep() -> None:
        deep()

    with pytest.raises(RecursionError) as found:
        deep()
    structlog.get_logger().error("job_failed", exc_info=found.value)
    assert len(lines.getvalue()) < 5_000


@pytest.mark.parametrize("value", ["\ud800", 2**80, {("a", 1): 2}, {1: "one"}], ids=repr)
def test_line_is_written_when_a_value_is_none_that_json_allows(lines: io.StringIO, value: object) -> None:
    """C1: a line that could not be written raised inside the handler of an error, and ended a loop."""
    structlog.get_logger().warning("refresh_failed", object_id=value)
    [event] = read(lines)
    assert (event["event"], event["level"]) == ("refresh_failed", "warning") and event["timestamp"]


@pytest.mark.parametrize("name", ["stripe", "httpx", "httpcore", "asyncpg", "asyncio", "uvicorn.error"])
def test_libraries_say_no_more_than_a_line(lines: io.StringIO, name: str) -> None:
    logger = logging.getLogger(name)
    logger.debug("body %s", SECRET)
    logger.info("GET https://example.com/search?query=%s", SECRET)
    logger.warning("refused %s\n%s", SECRET, SECRET)
    two_lines = f"first line\nsecond {SECRET}"
    logger.error(two_lines, exc_info=raised(ValueError(SECRET)))
    logger.error(raised(ValueError(SECRET)))
    events = read(lines)
    assert [event["event"] for event in events] == ["refused %s", "first line", "failed"]
    assert SECRET not in lines.getvalue()


def test_why_the_application_did_not_start_is_told(lines: io.StringIO) -> None:
    trace = "Traceback (most recent call last):\n  File x\napp.errors.ServiceUnavailable: The database does not answer."
    logging.getLogger("uvicorn.error").error(trace)
    trace = f"Traceback (most recent call last):\nValueError: {SECRET}"
    logging.getLogger("uvicorn.error").error(trace)
    ours, other = read(lines)
    assert (ours["type"], ours["message"]) == (
        "app.errors.ServiceUnavailable",
        "The database does not answer.",
    )
    assert other["type"] == "ValueError" and "message" not in other
