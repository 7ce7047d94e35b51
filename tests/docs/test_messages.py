"""The messages that the page on troubleshooting quotes are those of the package."""

from __future__ import annotations

import ast
import re

from tests.docs.pages import DOCS, ROOT

# Messages of other packages, and words that are no part of a message.
FOREIGN = {
    "libgomp.so.1",
    "Global alloc not supported yet",
    "stepTo",
    "computeCurrentPressure",
    "reweight",
    "qmmlmm info",
}


def texts_of_the_package() -> list[str]:
    """Return all texts in the source, with an ellipsis for each value in them."""
    found = []
    for path in sorted((ROOT / "qmmlmm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
                )
            elif isinstance(node, ast.ClassDef):
                found.append(node.name)
    return found


def quoted() -> list[str]:
    """Return the quotations in the first column of the tables."""
    rows = re.findall(
        r"^\| (.*?) \|", (DOCS / "howto" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return [quote for row in rows for quote in re.findall(r"`([^`]+)`", row) if quote not in FOREIGN]


def test_quoted_messages_are_in_the_source():
    texts = texts_of_the_package()
    quotes = quoted()
    assert len(quotes) > 20
    wrong = []
    for quote in quotes:
        pattern = ".*".join(re.escape(part.strip()) for part in quote.split("..."))
        if not any(re.search(pattern, text) for text in texts):
            wrong.append(quote)
    assert not wrong
