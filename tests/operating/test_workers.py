"""Workers report that they run, so that an API process shows how many there are."""

import asyncio
import re
import signal

from testkit.company import Service, running_service
from testkit.service import as_service, service_environment, worker_process
from testkit.simulator import Simulator

LOOKS_A_SECOND, STATEMENTS_A_LOOK = 5, 12


async def shown(service: Service) -> tuple[int, float | None]:
    """Return the number of workers and the seconds since the last report, None if it is not shown."""
    text = (await service.get("/metrics")).text
    number = re.search(r"^coseat_workers (\S+)$", text, re.MULTILINE)
    last = re.search(r"^coseat_worker_last_report_seconds (\S+)$", text, re.MULTILINE)
    assert number is not None, text
    return int(float(number[1])), None if last is None else float(last[1])


async def until_shown(service: Service, number: int) -> None:
    for _ in range(150):
        if (await shown(service))[0] == number:
            return
        await asyncio.sleep(0.1)
    assert (await shown(service))[0] == number


async def test_workers_are_shown_while_they_run(stripe_account: Simulator, database_url: str) -> None:
    """O15: nothing showed whether a worker runs."""
    environment = service_environment(
        database_url=database_url, stripe_base=stripe_account.base_url, stripe_key=stripe_account.api_key
    )
    async with running_service(stripe_account, database_url) as service:
        assert await shown(service) == (0, None)
        with worker_process(environment) as ending, worker_process(environment) as killed:
            await until_shown(service, 2)
            ending.process.send_signal(signal.SIGTERM)
            await until_shown(service, 1)
            killed.process.kill()
            await asyncio.to_thread(killed.process.wait)
        number, last = await shown(service)
        assert number == 1 and last is not None and last < 30
        await service.fetch("update workers set reported_at = now() - interval '31 seconds' returning id")
        number, last = await shown(service)
        assert number == 0 and last is not None and 31 <= last < 60


async def test_worker_reports_although_stripe_does_not_answer(
    stripe_account: Simulator, database_url: str
) -> None:
    environment = service_environment(
        database_url=database_url, stripe_base="http://127.0.0.1:9", stripe_key=stripe_account.api_key
    )
    async with running_service(stripe_account, database_url) as service:
        with worker_process(environment):
            await until_shown(service, 1)


def without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


async def test_worker_warns_when_it_lacks_what_the_api_has(
    stripe_account: Simulator, database_url: str
) -> None:
    """It delivered nothing, and neither its log nor a figure said why."""
    async with running_service(stripe_account, database_url) as service:
        await service.fill()
        poor = without(service.environment(), "INVITATION_SECRETS", "WEBHOOK_ENCRYPTION_KEYS")
        with worker_process(poor) as process:
            process.wait_for_line(r"INVITATION_SECRETS.*invitations_unavailable")
            process.wait_for_line(r"WEBHOOK_ENCRYPTION_KEYS.*webhooks_unavailable")
        hook = {"url": "http://127.0.0.1:1/hook"}
        made = await service.send("POST", "/v1/webhook-endpoints", as_service("admin"), hook)
        assert made.status_code == 201, made.text
        await service.person("ann")
        await service.announce()
        with worker_process(poor) as process:
            found = process.wait_for_line(r".*deliveries_wait.*")
            assert "webhooks_unavailable" in found[0] and '"endpoints":1' in found[0]


async def test_worker_warns_of_nothing_when_it_has_all(stripe_account: Simulator, database_url: str) -> None:
    async with running_service(stripe_account, database_url) as service:
        with worker_process({**service.environment(), "LOG_LEVEL": "info"}) as process:
            process.wait_for_line("worker_started")
            assert not any("unavailable" in line for line in process.lines)


async def test_worker_looks_five_times_a_second_when_there_is_nothing_to_do(
    stripe_account: Simulator, database_url: str
) -> None:
    """Before, each look for seats to move ended the pause, and a worker without work sent 1,100 statements a second."""
    environment = service_environment(
        database_url=database_url, stripe_base=stripe_account.base_url, stripe_key=stripe_account.api_key
    )
    transactions = (
        "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"
    )
    async with running_service(stripe_account, database_url) as service:
        with worker_process(environment):
            await until_shown(service, 1)
            # Its periodic work, which begins with the process, is over.
            await asyncio.sleep(3)
            [[before]] = await service.fetch(transactions)
            await asyncio.sleep(6)
            [[after]] = await service.fetch(transactions)
    assert after - before < 6 * LOOKS_A_SECOND * STATEMENTS_A_LOOK
