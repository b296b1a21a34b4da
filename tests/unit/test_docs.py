"""The docs say what is true: generated pages are current and links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpumpi.cli.options import options_table

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("*/*/*.md")]
    if not page.relative_to(ROOT).parts[0].startswith(".venv")
)


def test_options_page_is_made_from_the_fields() -> None:
    assert (ROOT / "docs" / "options.md").read_text() == options_table()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), f"{target} in {page}"
        if heading:
            assert heading in _slugs(linked), f"{target} in {page}"


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^    make ([a-z-]+)", readme, re.M))
    assert named
    assert named <= targets


def _slugs(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
