"""A database for the tests of a module that share one."""

from collections.abc import Iterator

import pytest

from tests.support import databases


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A fresh, migrated database that the module's tests share."""
    url = databases.clone(postgres_url, template_database)
    yield url
    databases.drop(postgres_url, url)
