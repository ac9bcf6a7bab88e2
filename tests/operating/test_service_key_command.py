"""`coseat service-key` and `coseat --version`: what an operator needs before anything is configured."""

import hashlib
import json
from pathlib import Path

from app import __version__
from app.postgres import schema
from testkit.company import running_service
from testkit.operator import Operator
from testkit.simulator import Simulator


async def test_key_is_taken_with_its_scopes_when_its_entry_is_set(
    stripe_account: Simulator, database_url: str
) -> None:
    """The key, its hash and the entry were made by three commands of a page."""
    operator = Operator(stripe_account, database_url)
    operator.environment = {"PATH": operator.environment["PATH"]}
    code, made = await operator.report("service-key", "shop", "--scope", "read")
    assert code == 0 and made["key"].startswith("csk_")
    digest = hashlib.sha256(made["key"].encode()).hexdigest()
    assert made["entry"] == {"name": "shop", "sha256": digest, "scopes": ["read"]}
    who = {"Authorization": f"Bearer {made['key']}"}
    async with running_service(
        stripe_account, database_url, SERVICE_KEYS=json.dumps([made["entry"]])
    ) as service:
        assert (await service.get("/v1/customers/cus_absent", who)).status_code == 404
        assert (await service.send("POST", "/v1/webhook-endpoints", who, {})).status_code == 403


async def test_key_is_printed_once_beside_the_entry_that_holds_its_hash(
    stripe_account: Simulator, database_url: str
) -> None:
    operator = Operator(stripe_account, database_url)
    code, out, _ = await operator.run("service-key", "shop", "--scope", "read", "--scope", "write")
    [key] = [word for word in out.split() if word.startswith("csk_")]
    entry = json.loads(out[out.index("{") :])
    assert code == 0 and key not in json.dumps(entry) and entry["scopes"] == ["read", "write"]


async def test_key_is_refused_when_its_name_or_a_scope_breaks_a_rule(
    stripe_account: Simulator, database_url: str
) -> None:
    operator = Operator(stripe_account, database_url)
    for arguments, word in ((("",), "name"), (("shop", "--scope", "all"), "scope")):
        code, out, err = await operator.run("service-key", *arguments)
        assert (code, out) == (2, "") and word in err and "Traceback" not in err


async def test_version_is_that_of_the_package_and_its_schema(
    stripe_account: Simulator, database_url: str
) -> None:
    operator = Operator(stripe_account, database_url)
    operator.environment = {"PATH": operator.environment["PATH"]}
    assert await operator.run("--version") == (0, f"coseat {__version__}, schema {schema.HEAD}\n", "")
    text = Path(__file__).parents[2].joinpath("pyproject.toml").read_text()
    assert f'version = "{__version__}"' in text
