"""The check of prose finds what it is for, and the finished modules pass it."""

from pathlib import Path

import pytest

from testkit import prose


def test_finished_modules_are_written_plainly() -> None:
    found = [f"{path}:{line}: {advice}" for path in prose.finished() for line, advice in prose.findings(path)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('"""Is he whom this removes there?"""\n', [1, 1]),
        ("x = 1\n# It came about in vain.\n", [2, 2]),
        ('"""Says `his` in code, and at https://example.com/his."""\n', []),
        ('"""The member left.\n\nMade anew at\nhand.\n"""\n', [3, 3]),
        (f'"""{"word " * 60}."""\n', [1]),
        ("his = 'whom'\n", []),
    ],
)
def test_a_module_is_told_its_lines_when_it_uses_private_words(
    tmp_path: Path, text: str, lines: list[int]
) -> None:
    module = tmp_path / "module.py"
    module.write_text(text)
    assert sorted(line for line, _ in prose.findings(module)) == lines


def test_a_page_is_read_without_its_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```sh\necho his\n```\n\nSet it by hand in the Dashboard, or by hand.\n")
    assert [line for line, _ in prose.findings(page)] == [7]


def test_a_pattern_that_matches_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prose, "FINISHED", ("docs/no-such-page.md",))
    with pytest.raises(LookupError, match="no-such-page"):
        prose.finished()
