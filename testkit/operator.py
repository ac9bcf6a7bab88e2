"""The operator's commands as processes of their own, with their exit codes and reports."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

from testkit.service import service_environment
from testkit.simulator import Simulator


class Operator:
    """Runs commands over one simulated account and one database."""

    def __init__(self, account: Simulator, database_url: str) -> None:
        settings = service_environment(
            database_url=database_url, stripe_base=account.base_url, stripe_key=account.api_key
        )
        self.environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **settings}

    async def run(self, *arguments: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app",
            *arguments,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, out.decode(), err.decode()

    async def report(self, *arguments: str) -> tuple[int | None, Any]:
        """With `--json`: standard output is one line of JSON and nothing else."""
        code, out, err = await self.run(*arguments, "--json")
        assert out.count("\n") == 1, (out, err)
        return code, json.loads(out)
