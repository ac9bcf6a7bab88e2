"""The threat model names tests: they are there."""

import re

from testkit.databases import CHECKOUT

NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_named_test_exists() -> None:
    named = NAMED.findall((CHECKOUT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    for path, function in named:
        source = (CHECKOUT / path).read_text(encoding="utf-8")
        assert not function or re.search(rf"^(?:async )?def {function}\(", source, re.MULTILINE), (
            path,
            function,
        )
