"""Configuration of Sphinx: ``sphinx-build -W docs build/docs``."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from docs.reference_pages import write_reference_pages
from qmmlmm import __version__

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
exclude_patterns = ["reference/generated/input_files.md", "reference/generated/command_line.md"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
# Links from pages to files of the repository, such as examples, lead to the repository.
myst_url_schemes = ["http", "https", "mailto"]

# Docstrings name types, shapes and units in words.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# A name between single backticks in a docstring.
default_role = "code"

html_theme = "furo"
html_title = f"qmmlmm {release}"
nitpicky = False


def setup(app):
    """Write the pages that are made from the source code, before Sphinx reads the pages."""
    write_reference_pages(DOCS / "reference" / "generated")
    return {"parallel_read_safe": True}
