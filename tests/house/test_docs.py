"""What the documents say: what they name exists, and their commands print what the pages show."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.main import get_command

from app.commands.cli import cli
from app.operating import doctor
from app.operating.dev.routes import ROUTES
from app.settings import Settings
from app.stripe.client import API_VERSION
from examples.tour import Service, running_service
from testkit.databases import CHECKOUT
from testkit.pages import BLOCK, DECISIONS, PAGES, Reader, name_of, text_of, variables
from tests.contract.declared import document, resolved

DOCS = CHECKOUT / "docs"
GUIDE = DOCS / "how-to" / "move-from-billing-js.md"
REFERENCE = DOCS / "reference"

ROUTE = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) (/[^\s`?]*)")
NOT_IN_THE_DOCUMENT = {("POST", "/webhooks/stripe"), ("GET", "/metrics")}
DEVELOPMENT = "docs/reference/development.md"
FIELD = re.compile(r"`((?:[a-z_0-9]+(?:\[\])?\.)*[a-z_0-9]+)(?:: [^`]*)?`")
CODE_SPAN = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
TREES = "app|benchmarks|deploy|docs|examples|migrations|openapi|stripe_simulator|testkit|tests|verification"
FILE = re.compile(rf"(?<![\w/.-])((?:{TREES})/[\w/.-]*[\w/])(?![\w*])")
MODULE = re.compile(r"python -m ((?:benchmarks|tests|verification|stripe_simulator|app)[\w.]*)")
DECISION = re.compile(r"decisions?/?(?: |/)(\d{4})\b")
FIRST_CELL = re.compile(r"^\| (.*?) \|", re.MULTILINE)


def shape(path: str) -> str:
    """A path whatever its parameters are called."""
    return re.sub(
        r"\{[^}]*\}|/me(?=/|$)", lambda found: "/{}" if found[0] == "/me" else "{}", path.rstrip("/")
    )


def test_every_route_that_a_document_names_exists() -> None:
    known = {(method, shape(path)) for method, path in NOT_IN_THE_DOCUMENT} | {
        (method.upper(), shape(path)) for path, methods in document()["paths"].items() for method in methods
    }
    named = {
        (name_of(page), method, path)
        for page in PAGES
        if "stripe_simulator" not in name_of(page)
        for method, path in ROUTE.findall(text_of(page))
    }
    panel = {(method, path) for method, path, _ in ROUTES}
    unknown = {(name, method, path) for name, method, path in named if (method, shape(path)) not in known}
    assert {(method, path) for _, method, path in unknown} - panel == set()
    assert {name for name, _, _ in unknown} <= {DEVELOPMENT, "docs/how-to/test-against-the-stand-in.md"}
    assert {(method, path) for name, method, path in unknown if name == DEVELOPMENT} == panel
    routes = {(m, shape(p)) for name, m, p in named if name == "docs/reference/http.md"}
    assert known - routes == set()


def sections() -> dict[str, str]:
    """The guide's methods, each with its text."""
    parts = re.split(r"^### (\w+)\n", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: text.partition("\n## ")[0] for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def operation(name: str) -> dict[str, Any]:
    [found] = [
        {"path": path, "method": method.upper(), **stated}
        for path, methods in document()["paths"].items()
        for method, stated in methods.items()
        if stated["operationId"] == name
    ]
    return found


def test_every_method_stands_beside_its_own_route() -> None:
    assert len(sections()) == 13
    for name, text in sections().items():
        stated, first = operation(name), ROUTE.findall(text)[0]
        assert (first[0], shape(first[1])) == (stated["method"], shape(stated["path"])), name


def test_page_on_moving_names_what_the_wire_of_billing_js_has() -> None:
    """O18: two fields that are never sent, an answer without what its client reads, and a hash without its name."""
    text = GUIDE.read_text(encoding="utf-8")
    theirs = [row.split("|")[1] for row in text.splitlines() if row.startswith("|")]
    for absent in ("currentCustomer", "`action`"):
        assert [cell for cell in theirs if absent in cell] == []
    answers = [row for row in sections()["updateSubscription"].splitlines() if row.startswith("| out")]
    assert len(answers) == 1 and "`status`" in answers[0].split("|")[1]
    [uncalled] = [cell for cell in theirs if "getCustomerUpcomingInvoice" in cell]
    assert "called by none" in uncalled
    assert re.findall(r"HMAC(?!-SHA256)", text) == []


def _fields(schema: Any, found: set[str], seen: set[str]) -> set[str]:
    """Every member's name that can be reached from a schema of the document."""
    if isinstance(schema, list):
        for part in schema:
            _fields(part, found, seen)
    elif isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            _fields(resolved(schema), found, seen)
        found |= set(schema.get("properties", {}))
        for part in schema.values():
            _fields(part, found, seen)
    return found


def test_every_field_of_ours_in_the_tables_is_one_of_the_method() -> None:
    for name, text in sections().items():
        stated = operation(name)
        known = {resolved(parameter)["name"] for parameter in stated.get("parameters", [])}
        _fields([stated.get("requestBody", {}), list(stated["responses"].values())], known, set())
        ours = [row.split("|")[2] for row in text.splitlines() if row.startswith("|")][2:]
        # Codes follow their status and routes their method; what is left names fields.
        named = {
            part.rstrip("[]")
            for cell in ours
            if not re.match(r" (?:\d{3}|header) ", cell)
            for field in FIELD.findall(re.sub(r"header `[^`]*`|`admin`", "", cell))
            for part in field.split(".")
        }
        assert named - known == set(), name


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings get: lower case, without punctuation, dashes for spaces."""
    headings = HEADING.findall(BLOCK.sub("", text_of(page)))
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = CODE_SPAN.sub("", BLOCK.sub("", text_of(page)))
    for target in LINK.findall(text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(linked), f"{name_of(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    text = text_of(page)
    for path in FILE.findall(re.sub(r"https?://\S+", "", text)):
        at = CHECKOUT / path
        assert at.exists() or at.with_suffix(".py").exists(), f"{name_of(page)}: {path}"
    for module in MODULE.findall(text):
        at = CHECKOUT / module.replace(".", "/")
        assert at.with_suffix(".py").exists() or (at / "__main__.py").exists(), f"{name_of(page)}: {module}"


def sources() -> Iterator[Path]:
    for tree in TREES.split("|"):
        yield from sorted((CHECKOUT / tree).rglob("*.py"))


def test_pages_and_decisions_that_the_code_names_exist() -> None:
    numbers = {path.name[:4] for path in DECISIONS.glob("*.md")}
    for source in (*sources(), *PAGES):
        text = text_of(source)
        named = re.findall(r"(?<![\w/])docs/[\w/.-]+\.md", text)
        missing = [path for path in named if not (CHECKOUT / path).exists()]
        missing += [number for number in DECISION.findall(text) if number not in numbers]
        assert missing == [] or source.name == "test_prose.py", f"{name_of(source)}: {missing}"


def test_the_index_names_every_page() -> None:
    index = text_of(DOCS / "README.md")
    linked = {(DOCS / target).resolve() for target in LINK.findall(index)}
    pages = {page for page in DOCS.rglob("*.md") if page.parent != DECISIONS and page.name != "README.md"}
    assert pages - linked == set()
    assert DECISIONS in linked


def test_the_readme_is_short() -> None:
    assert len(text_of(CHECKOUT / "README.md").splitlines()) <= 200


def test_decisions_have_their_parts_and_a_number_of_their_own() -> None:
    pages = sorted(DECISIONS.glob("*.md"))
    assert len({page.name[:4] for page in pages}) == len(pages)
    for page in pages:
        assert re.fullmatch(r"\d{4}(-[a-z0-9]+)+\.md", page.name), page.name
        headings = re.findall(r"^(#+) (.*)$", text_of(page), re.MULTILINE)
        assert headings[0][0] == "#", page.name
        parts = [title for level, title in headings if level == "##"]
        assert parts[:4] == ["Context", "Decision", "Consequences", "Alternatives"], page.name


def first_cells(page: Path) -> list[str]:
    """Return the names in the first column of a page's tables."""
    return [name for cell in FIRST_CELL.findall(text_of(page)) for name in re.findall(r"`([^`]+)`", cell)]


def test_settings_are_all_in_the_reference_with_their_defaults() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", text_of(REFERENCE / "settings.md"), re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(name.upper() for name in Settings.model_fields)
    for name, shown in rows:
        default = Settings.model_fields[name.lower()].default
        if re.fullmatch(r"`[^`]*`", shown):
            plain = (
                str(default).lower()
                if isinstance(default, bool)
                else f"{default:g}"
                if isinstance(default, float)
                else str(default)
            )
            assert shown.strip("`") == plain, name
        else:
            assert default in (None, ()), name


def every_command(commands: dict[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each command with its full name. A group that does something itself is one."""
    for name, command in commands.items():
        inner = getattr(command, "commands", {})
        if not inner or command.invoke_without_command:
            yield f"{group}{name}", command
        yield from every_command(inner, f"{group}{name} ")


def test_commands_are_all_in_the_reference_with_their_options() -> None:
    text = text_of(REFERENCE / "commands.md")
    commands: dict[str, Any] = get_command(cli).commands  # type: ignore[attr-defined]
    for name, command in every_command(commands):
        row = next((line for line in text.splitlines() if line.startswith(f"| `coseat {name}")), "")
        options = {
            option for parameter in command.params for option in parameter.opts if option.startswith("--")
        }
        assert row, name
        assert {option for option in options if option not in row} == set(), name
    named = set(re.findall(r"`coseat ([a-z-]+)", text)) - {"NAME"}
    assert named - set(commands) == set()


def test_targets_of_make_are_all_in_the_reference() -> None:
    targets = set(re.findall(r"^([a-z-]+): .*## ", text_of(CHECKOUT / "Makefile"), re.MULTILINE))
    shown = {
        cell.removeprefix("make ")
        for cell in first_cells(REFERENCE / "commands.md")
        if cell.startswith("make ")
    }
    assert shown - {"help"} == targets - {"help"}


def test_metrics_are_all_in_the_reference() -> None:
    made: set[str] = set()
    for source in sorted((CHECKOUT / "app").rglob("*.py")):
        for kind, name in re.findall(
            r"\b(Counter|Gauge|Histogram)(?:MetricFamily)?\(\s*\"(coseat_\w+)\"", text_of(source)
        ):
            made.add(f"{name}_total" if kind == "Counter" else name)
    shown = {cell for cell in first_cells(REFERENCE / "metrics.md") if re.fullmatch(r"coseat_\w+", cell)}
    assert made and shown == made


def codes_of(source: Path) -> Iterator[str]:
    """Yield the codes that a module gives to its errors."""
    for node in ast.walk(ast.parse(text_of(source))):
        given: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            given = [word.value for word in node.keywords if word.arg == "code"]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "code" for target in targets):
                given = [node.value]
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value


NOT_FOR_CALLERS = {"already_running", "schema_refused", "start_refused", "wrong_account"}
"""Codes of commands, which print their text."""


def test_codes_are_all_in_the_reference() -> None:
    given = {code for source in sorted((CHECKOUT / "app").rglob("*.py")) for code in codes_of(source)}
    shown = set(re.findall(r"\| `([a-z_]+)` \|", text_of(REFERENCE / "errors.md")))
    assert given - shown - NOT_FOR_CALLERS == set()


def test_the_page_names_each_right_that_a_restricted_key_needs() -> None:
    """Refunds and disputes are looked up before a credit is given, and the page left both out."""
    calls = "\n".join(text_of(path) for path in (CHECKOUT / "app" / "stripe").rglob("*.py"))
    resources = set(re.findall(r'"/v1/([a-z_]+)', calls))
    page = text_of(DOCS / "how-to" / "connect-stripe.md")
    [rights] = re.findall(r"^A restricted key.*?\n\n", page, re.MULTILINE | re.DOTALL)
    named = {"invoiceitems": "invoice items", "account": "the account"}
    words = " ".join(rights.split())
    missing = {one for one in resources if named.get(one, one.replace("_", " ")) not in words}
    assert missing == set() and {"credit_notes", "disputes"} <= resources


def test_the_webhook_endpoint_of_the_page_is_what_the_code_reads() -> None:
    """Its API version, and every event without which the doctor complains."""
    page = text_of(DOCS / "how-to" / "connect-stripe.md")
    assert f"api_version={API_VERSION} " in page
    assert set(re.findall(r"[a-z_]+(?:\.[a-z_]+)+", page)) >= doctor.EVENTS


@pytest.fixture
def fresh() -> Iterator[Service]:
    """The service of `make run` in its first state."""
    with running_service() as service:
        yield service


@pytest.mark.parametrize(
    "pages",
    [
        ["README.md", "docs/how-to/react-to-changes.md", "docs/how-to/move-from-billing-js.md"],
        ["docs/tutorial/first-shared-seat.md", "docs/how-to/test-against-the-stand-in.md"],
        ["docs/how-to/invite-people.md", "docs/how-to/sell-and-change-seats.md"],
    ],
    ids=["readme", "tutorial", "sell"],
)
def test_commands_print_what_the_pages_show(fresh: Service, pages: list[str]) -> None:
    """On the service that `make run` starts, in their order; three groups of pages that do not disturb each other."""
    given = variables(f"{fresh.api}/v1", fresh.stripe, fresh.tokens)
    with httpx.Client(timeout=20, trust_env=False) as client:
        for page in pages:
            assert Reader(client, dict(given)).go_through(CHECKOUT / page) >= 3, page
