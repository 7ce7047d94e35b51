"""Configuration of Sphinx: ``sphinx-build -W docs build/docs``."""

import re
import sys
from pathlib import Path

from sphinx.errors import ExtensionError

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from docs.benchmark_tables import differing
from docs.reference_pages import write_reference_pages
from qmmlmm import __version__

REPOSITORY = "https://github.com/qmmlmm/qmmlmm/blob/main/"

project = "qmmlmm"
author = "The qmmlmm authors"
copyright = "the qmmlmm authors, MIT licence"  # Sphinx has this name
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
# Pages include these.
INCLUDED = ("input_files", "command_line", "notebook")
exclude_patterns = [f"reference/generated/{name}.md" for name in INCLUDED]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Docstrings name types, shapes and units in words.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# A name between single backticks in a docstring.
default_role = "code"
# Words of a type in a docstring are no names to link to.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"qmmlmm {release}"


def setup(app):
    """Connect what happens before Sphinx reads pages and docstrings."""
    write_reference_pages(DOCS / "reference" / "generated")
    if wrong := differing():
        raise ExtensionError(f"{wrong[0]} has other numbers than its record: run python docs/benchmark_tables.py")
    app.connect("source-read", link_to_repository)
    app.connect("autodoc-process-docstring", escape_bars)
    return {"parallel_read_safe": True}


def link_to_repository(app, docname, source):
    """Let links to files outside of this folder, such as examples, lead to the repository; images are copied."""
    up = "../" * (docname.count("/") + 1)
    source[0] = re.sub(rf"(?<!!)(\[[^\]\[]*\])\({re.escape(up)}(?!\.\./)", rf"\1({REPOSITORY}", source[0])


def escape_bars(app, what, name, obj, options, lines):
    """Let |x| in a docstring be an absolute value and not a substitution of docutils; code blocks are kept."""
    indent = None
    for number, line in enumerate(lines):
        own = len(line) - len(line.lstrip())
        if indent is not None and line.strip() and own <= indent:
            indent = None
        if indent is None:
            if "``" not in line:
                lines[number] = line.replace("|", r"\|")
            if line.rstrip().endswith("::"):
                indent = own
