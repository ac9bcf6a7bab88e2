"""The page /docs: interactive, and loaded from the service alone."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import Response

from app.http import documentation
from testkit.company import Service
from testkit.problems import problem
from testkit.service import api_process, in_process, service_environment
from tests.contract.declared import operations

BROWSER = shutil.which("chromium")


async def test_the_page_names_files_of_the_service_only(service: Service) -> None:
    answer = await service.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    files = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert files == ["data:,", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/start.js"]
    assert "<style" not in answer.text and not re.search(r"<script(?! src=)|\son\w+=", answer.text)
    for path in files[1:]:
        file = await service.get(path)
        assert file.status_code == 200 and len(file.content) > 100
        kind = "text/css" if path.endswith(".css") else "text/javascript"
        assert file.headers["content-type"].startswith(kind)


async def test_the_policy_allows_scripts_of_the_service_only(service: Service) -> None:
    policies = (await service.get("/docs")).headers.get_list("content-security-policy")
    rules = dict(rule.strip().split(" ", 1) for policy in policies for rule in policy.split(";"))
    assert (
        rules["default-src"]
        == rules["base-uri"]
        == rules["form-action"]
        == rules["frame-ancestors"]
        == "'none'"
    )
    assert rules["script-src"] == rules["connect-src"] == "'self'"


@pytest.mark.parametrize("name", ["redoc.standalone.js", "..%2Fcore.py", "__init__.py", "start.css"])
async def test_no_other_file_is_served(service: Service, name: str) -> None:
    problem(await service.get(f"/docs/{name}"), 404, "not_found")


async def test_the_document_is_the_committed_one(service: Service) -> None:
    stated = (await service.get("/openapi.json")).json()
    assert stated["paths"].keys() == {operation.path for operation in operations().values()}


class SlowToDescribe(FastAPI):
    """An application whose document is made once `answered` is set."""

    answered = threading.Event()
    made = 0

    def openapi(self) -> dict[str, Any]:
        self.made += 1
        return {"others": self.answered.wait(20)}


async def test_others_are_answered_when_the_document_is_being_made() -> None:
    """It held the event loop for 0.8 s at the first request."""
    app = SlowToDescribe(openapi_url=None)
    documentation.install(app)
    app.add_route("/other", lambda _: Response(b"answered"), methods=["GET"])
    async with in_process(app) as client:
        waiting = [asyncio.create_task(client.get("/openapi.json")) for _ in range(2)]
        assert (await client.get("/other")).text == "answered"
        app.answered.set()
        assert [(await one).json() for one in waiting] == [{"others": True}] * 2
    assert app.made == 1


async def test_document_is_made_when_the_first_request_comes(
    stripe_simulator: str, database_url: str
) -> None:
    """The first request made it, which took seconds on a busy machine: those beside it found no place, and were 503."""
    environment = service_environment(
        database_url=database_url,
        stripe_base=stripe_simulator,
        stripe_key="sk_test_document",
        MAX_REQUESTS="1",
        MAX_WAITING_REQUESTS="0",
        DOCS="true",
    )
    with api_process(environment) as (base_url, _):
        async with httpx.AsyncClient(base_url=base_url, timeout=60) as client:
            answers = await asyncio.gather(*(client.get("/openapi.json") for _ in range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20


def test_the_page_works_in_a_browser_without_another_host(
    stripe_simulator: str, database_url: str, tmp_path: Path
) -> None:
    """O16: every operation is shown, nothing breaks the policy, and no other host is asked for anything."""
    if BROWSER is None:
        assert os.environ.get("REQUIRE") != "all", "install chromium (on Debian: apt install chromium)"
        pytest.skip("NOT RUN: there is no chromium here")
    environment = service_environment(
        database_url=database_url, stripe_base=stripe_simulator, stripe_key="sk_test_docs", DOCS="true"
    )
    requests = tmp_path / "requests.json"
    with api_process(environment) as (base_url, _):
        page = subprocess.run(
            [
                BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--disable-background-networking", "--disable-component-update", "--no-first-run",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr",
                f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={requests}",
                "--virtual-time-budget=30000", "--dump-dom", f"{base_url}/docs",
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    for operation in operations().values():
        assert f">{operation.name}<" in page.stdout, operation.name
    assert "Authorize" in page.stdout
    assert "Content Security Policy" not in page.stderr and "CONSOLE" not in page.stderr, page.stderr
    asked = set(re.findall(r'"url":"((?:https?|wss?)://[^"]+)"', requests.read_text(encoding="utf-8")))
    of_the_page = {url for url in asked if urlsplit(url).netloc == urlsplit(base_url).netloc}
    assert {urlsplit(url).path for url in of_the_page} >= {"/docs", "/docs/start.js", "/openapi.json"}
    assert _initiated_by(requests, base_url) == set()


def _initiated_by(log: Path, base_url: str) -> set[str]:
    """The addresses on other hosts that the page asked for."""
    found = set()
    for event in json.loads(log.read_text(encoding="utf-8"))["events"]:
        parameters = event.get("params", {})
        url, initiator = str(parameters.get("url", "")), str(parameters.get("initiator", ""))
        if initiator.startswith(base_url) and not url.startswith((base_url, "data:")):
            found.add(url)
    return found
