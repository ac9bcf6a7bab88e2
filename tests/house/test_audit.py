"""`make audit`: what is known to be vulnerable fails, and an advisory service that is away does not."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from testkit.databases import CHECKOUT
from testkit.ports import free_port

ADVISORY = "GHSA-0000-0000-0000"


@contextmanager
def advisories(*, vulnerable: str = "", status: int = 200) -> Iterator[str]:
    """An advisory service after OSV's interface that knows one vulnerable package, or fails; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = {"vulns": [{"id": ADVISORY, "modified": "2026-01-01T00:00:00Z"}]}
            self._answer(
                {
                    "results": [
                        found if one["package"]["name"] == vulnerable else {} for one in asked["queries"]
                    ]
                }
            )

        def do_GET(self) -> None:
            self._answer(
                {"id": ADVISORY, "modified": "2026-01-01T00:00:00Z", "summary": "bad", "affected": []}
            )

        def _answer(self, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def audit(address: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The target as it is, without setting the environment up anew."""
    return subprocess.run(
        ["make", "-o", ".venv/.ready", "audit", f"ADVISORIES={address}", *options],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_nothing_known() -> None:
    with advisories() as address:
        ran = audit(address)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "no known vulnerabilities" in ran.stdout


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "pytest"])
def test_a_vulnerable_version_fails(package: str) -> None:
    with advisories(vulnerable=package) as address:
        ran = audit(address)
    assert ran.returncode != 0
    assert package in ran.stdout and ADVISORY in ran.stdout


def test_without_an_answer_it_says_so_and_goes_on() -> None:
    ran = audit(f"http://127.0.0.1:{free_port()}/")
    assert ran.returncode == 0 and "Not audited" in ran.stdout
    with advisories(status=503) as address:
        ran = audit(address)
    assert ran.returncode == 0 and "Not audited" in ran.stdout


def test_an_answer_can_be_required() -> None:
    ran = audit(f"http://127.0.0.1:{free_port()}/", "AUDIT=required")
    assert ran.returncode != 0 and "Not audited" not in ran.stdout


def test_another_fault_is_not_taken_for_silence() -> None:
    ran = audit("nonsense")
    assert ran.returncode != 0, ran.stdout
