"""Check how the finished modules and pages are written: plain terms, people as they or by role, short sentences.

`python -m testkit.prose` prints each finding as `path:line: what to write instead`, and fails if there is one. A
module joins `FINISHED` when its prose was rewritten together with its code; pages of decisions are finished from birth.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testkit.databases import CHECKOUT

FINISHED = (
    "app/*.py",
    "app/commands/**/*.py",
    "app/operating/**/*.py",
    "app/catalogue/**/*.py",
    "app/customers/**/*.py",
    "app/http/**/*.py",
    "app/identity/**/*.py",
    "app/domain/**/*.py",
    "app/mirror/**/*.py",
    "app/postgres/**/*.py",
    "app/stripe/**/*.py",
    "app/subscriptions/**/*.py",
    "app/operations/**/*.py",
    "app/sharing/**/*.py",
    "benchmarks/against.py",
    "benchmarks/checkout.py",
    "tests/house/test_measurements.py",
    "tests/money/test_credit_rules.py",
    "testkit/pages.py",
    "tests/house/test_docs.py",
    "*.md",
    "docs/**/*.md",
    "stripe_simulator/README.md",
    "verification/README.md",
)

LONGEST_AVERAGE = 25
"""Words a sentence, over a whole module or page."""

INSTEAD = {
    r"he|him|himself|his": "they, their, or the person's role",
    r"she|her|hers": "they, their, or the person's role",
    r"whom|whoever|whosoever": "the person's role, or *who*",
    r"anew": "again",
    r"at hand": "available",
    r"by hand(?! in the dashboard)": "in the Dashboard",
    r"in vain": "without effect, or answered 5xx",
    r"all the same": "still, or even so",
    r"for good": "permanently",
    r"lately": "recently",
    r"meanwhile": "in between, or since",
    r"oddit(?:y|ies)": "metadata problem",
    r"(?:come|comes|came|coming) about": "take effect, or happen",
    r"(?:come|comes|came) of": "result, or outcome",
    r"hint|hints": "pending notification",
    r"sweeps?|stretch(?:es)?": "list scan, scanned interval",
    r"lands|landed": "apply, applied",
    r"in place of whom": "the person's role",
}

SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z*`\"(])|\n\s*\n|\n(?=\s*(?:[-*|#>]|\d+\.) ?)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`]*`|https?://\S+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A docstring, a comment, or a page; `line` is where it begins."""

    line: int
    text: str


def passages(path: Path) -> Iterator[Passage]:
    """Yield what people read of a file: a page whole, of a module its docstrings and comments."""
    text = path.read_text()
    if path.suffix == ".md":
        blanked = CODE_BLOCK.sub(lambda found: "\n" * found[0].count("\n"), text)
        yield Passage(1, blanked)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, str):
                yield Passage(node.lineno, value)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield Passage(token.start[0], token.string.lstrip("# "))


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the advice of each word and of a module whose sentences are too long."""
    lengths: list[int] = []
    for passage in passages(path):
        plain = CODE.sub("x", passage.text)
        for words, instead in INSTEAD.items():
            spaced = words.replace(" ", r"\s+")
            for found in re.finditer(rf"\b(?:{spaced})\b", plain, re.IGNORECASE):
                line = passage.line + plain.count("\n", 0, found.start())
                yield line, f"instead of *{found[0]}* write {instead}"
        sentences = (sentence.split() for sentence in SENTENCE_END.split(plain) if sentence.strip())
        lengths += [len(words_) for words_ in sentences if len(words_) > 2]
    if lengths and sum(lengths) / len(lengths) > LONGEST_AVERAGE:
        average = sum(lengths) / len(lengths)
        yield 1, f"sentences have {average:.1f} words on average, at most {LONGEST_AVERAGE} are read at once"


def finished() -> list[Path]:
    """Return the finished files. Raises LookupError for a pattern that matches none."""
    found: list[Path] = []
    for pattern in FINISHED:
        matched = sorted(CHECKOUT.glob(pattern))
        if not matched:
            raise LookupError(f"no file is called {pattern}")
        found += matched
    return found


def main() -> int:
    """Print the findings of all finished files; 1 if there is one."""
    count = 0
    for path in finished():
        for line, advice in findings(path):
            print(f"{path.relative_to(CHECKOUT)}:{line}: {advice}")
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
