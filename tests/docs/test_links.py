"""Links from page to page lead somewhere, and every page is in a table of contents."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, ROOT, name_of

OTHER_PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md", "systems/README.md")]
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return _CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        lowered = unicodedata.normalize("NFC", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", lowered).replace(" ", "-"))
    return found


def broken(page: Path) -> list[str]:
    wrong = []
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        if not aim.exists() or (anchor and anchor not in anchors(aim)):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=name_of)
def test_links_lead_to_a_file_and_a_heading(page):
    assert not broken(page)


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# A heading: with words\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#a-heading-with-words) [b](other.md#no) [c](no.md) [d](https://x.org) `[e](no)`\n")
    assert broken(page) == ["other.md#no", "no.md"]


def test_every_folder_of_pages_lists_what_is_in_it():
    """New pages need no entry: each index has a pattern."""
    for folder in {page.parent for page in PAGES[1:]} - {DOCS / "reference"}:
        index = (folder / "index.md").read_text(encoding="utf-8")
        assert re.search(r"^```\{toctree\}\n(?:.+\n)*?:glob:\n(?:.*\n)*?\*\n```", index, re.MULTILINE), folder


@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_a_page_begins_with_its_title(page):
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", _CODE.sub("", text), re.MULTILINE)) == 1
