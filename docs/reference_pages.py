"""The parts of the reference that are made from the source code: API, input files, command line."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import qmmlmm
from docs.input_tables import COMMANDS, heading, title
from docs.notebook_pages import notebook_page
from qmmlmm.commands.key_reference import key_table
from qmmlmm.commands.main import create_parser

ALSO_PUBLIC = (
    "qmmlmm.geometry.Geometry",
    "qmmlmm.analysis.interaction.residue_interactions",
    "qmmlmm.analysis.interaction.InteractionTable",
    "qmmlmm.analysis.interaction.save_interaction_figure",
    "qmmlmm.analysis.tables.read_energies",
    "qmmlmm.analysis.plots.plot_term_energies",
    "qmmlmm.analysis.plots.plot_difference",
    "qmmlmm.analysis.plots.save_run_figure",
    "qmmlmm.analysis.hopping_figure.save_hopping_figure",
    "qmmlmm.mm.model_exchange.exchange_model",
    "qmmlmm.qm.exchange_coupling.exchange_coupling",
    "qmmlmm.qm.spin_orbit.spin_orbit_coupling",
)
"""Names that the documentation uses and that no room exports."""
NOTEBOOK = Path(__file__).resolve().parent / "tutorials" / "notebook.ipynb"
WIDTH = "100"
"""Columns of the help of a command."""


def write_reference_pages(folder: Path) -> None:
    """Write all generated pages into a folder, those that changed."""
    pages = {
        "input_files.md": input_files(),
        "command_line.md": command_line(),
        "errors.md": errors(),
        "notebook.md": notebook_page(NOTEBOOK),
        **{f"api_{room or 'qmmlmm'}.md": api(room, names) for room, names in public_names().items()},
    }
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def public_names() -> dict[str, list[str]]:
    """Return the public names by room, each object once; "" is the package itself.

    An object that several rooms export belongs to the package, or else to the room in which it is defined. Exceptions
    are on the page of errors.
    """
    errors = {id(value) for value in vars(qmmlmm.errors).values()}
    homes: dict[int, str] = {}
    for package in ["", *_packages("qmmlmm", qmmlmm.__path__)]:
        module = importlib.import_module(f"qmmlmm.{package}" if package else "qmmlmm")
        for name in vars(module).get("__all__", []):
            # Names of the package itself are imported when they are first used.
            value = getattr(module, name)
            defined_here = value.__module__.startswith(f"qmmlmm.{package}.")
            if id(value) not in errors and (
                id(value) not in homes or (defined_here and homes[id(value)].count(".") > 1)
            ):
                homes[id(value)] = f"{module.__name__}.{name}"
    found: dict[str, list[str]] = {}
    for name in [*homes.values(), *ALSO_PUBLIC]:
        parts = name.split(".")
        found.setdefault(parts[1] if len(parts) > 2 else "", []).append(name)
    return found


def _packages(name: str, path: Sequence[str]) -> Iterator[str]:
    """Yield the rooms in a package and the rooms inside them, without the name of qmmlmm."""
    for module in pkgutil.iter_modules(path):
        if module.ispkg:
            inner = f"{name}.{module.name}"
            yield inner.removeprefix("qmmlmm.")
            yield from _packages(inner, [str(Path(path[0]) / module.name)])


def api(room: str, names: list[str]) -> str:
    """Return the page of the public names of a room."""
    package = importlib.import_module(".".join(filter(None, ("qmmlmm", room))))
    title = package.__name__
    lines = [f"# `{title}`", "", (package.__doc__ or "").strip(), "", "```{eval-rst}"]
    for name in names:
        module, _, short = name.rpartition(".")
        is_class = isinstance(getattr(importlib.import_module(module), short), type)
        lines += [f".. auto{'class' if is_class else 'function'}:: {name}", *(["   :members:"] if is_class else []), ""]
    return "\n".join([*lines, "```", ""])


def errors() -> str:
    """Return the page of exceptions."""
    lines = ["# `qmmlmm.errors`", "", (qmmlmm.errors.__doc__ or "").strip(), "", "```{eval-rst}"]
    for name, value in vars(qmmlmm.errors).items():
        if isinstance(value, type) and issubclass(value, qmmlmm.errors.QmmlmmError | qmmlmm.errors.QmmlmmWarning):
            lines += [f".. autoexception:: qmmlmm.errors.{name}", "   :show-inheritance:", ""]
    return "\n".join([*lines, "```", ""])


def input_files() -> str:
    """Return the tables of keys of all input files."""
    lines: list[str] = []
    for command, sections in COMMANDS.items():
        lines += [f"## {heading(command)}", ""]
        for section in sections:
            lines += [f"### {title(section)}", "", section.text, "", key_table(section.keys), ""]
    return "\n".join(lines)


def command_line() -> str:
    """Return the help of all commands."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        parser = create_parser()
        lines = []
        for name, command in subcommands(parser).items():
            lines += [f"## `qmmlmm {name}`", "", "```text", command.format_help().rstrip(), "```", ""]
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "\n".join(lines)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands by name."""
    (action,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)
