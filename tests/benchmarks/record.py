"""Records of measurements, from which the pages of results have their tables.

A benchmark calls `add_option` and `write_record`. A record is JSON with the command, the date, the machine, the
versions, and tables of raw numbers; `python docs/benchmark_tables.py` writes the tables into the pages. A cell is a
text, a number, nothing, two numbers: a value and its standard error, or three: lower quartile, median, upper quartile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from docs.benchmark_tables import table_lines
from qmmlmm.runs.provenance import package_versions

FORMAT = 1
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENMM_CPU_THREADS")
DATA = Path(__file__).resolve().parents[2] / "docs" / "results" / "data"

Cell = str | float | int | None | list[float]


@dataclass(frozen=True)
class Table:
    """A table of a record.

    Parameters
    ----------
    title : str
        Nothing is written above the table if it is empty.
    columns : tuple of str
        Names with units.
    rows : tuple of tuple of str, number, None, or list of two or three numbers

    Raises
    ------
    ValueError
        If a row has another number of cells than there are columns, or a cell has another number of numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"a row has {len(self.columns)} cells, got {wrong[0]}")
        odd = [cell for row in self.rows for cell in row if isinstance(cell, list) and len(cell) not in (2, 3)]
        if odd:
            raise ValueError(f"a cell has one, two or three numbers, got {odd[0]}")


def quartiles(values: Sequence[float]) -> list[float]:
    """Return lower quartile, median and upper quartile."""
    return [float(x) for x in np.percentile(values, [25, 50, 75])]


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables as the pages have them."""
    for table in tables:
        print("\n".join([*table_lines(asdict(table)), ""]), flush=True)


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--json`` to a benchmark."""
    parser.add_argument("--json", type=Path, help="file for the record, such as docs/results/data/NAME.json")


def write_record(path: Path | None, tables: Sequence[Table], notes: str = "") -> None:
    """Write a record, unless there is no path.

    Parameters
    ----------
    path : Path or None
        Value of the option.
    tables : sequence of Table
    notes : str
        What else a reader has to know, such as the kind of time.
    """
    if path is None:
        return
    root = Path(__file__).resolve().parents[2]
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(root).as_posix() if script.is_relative_to(root) else script.name
    arguments = _without_option(sys.argv[1:])
    content = {
        "format": FORMAT,
        "command": shlex.join([*(["python"] if script.suffix == ".py" else []), name, *arguments]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {key: version for key, version in package_versions().items() if version},
        "notes": notes,
        "tables": [asdict(table) for table in tables],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, str]:
    """Return what the times of this machine depend on."""
    found = {"processor": _processor(), "cores": str(os.cpu_count()), "system": platform.system()}
    found |= {name: os.environ[name] for name in THREADS if name in os.environ}
    found["torch threads"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name(0)
    return found


def _processor() -> str:
    """Return the name of the processor, or its architecture where Linux does not tell."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _without_option(arguments: Sequence[str]) -> list[str]:
    """Return arguments without ``--json`` and its value, and paths of a machine as their last names."""
    kept = []
    skip = False
    for argument in arguments:
        if not skip and argument != "--json" and not argument.startswith("--json="):
            kept.append(Path(argument).name if argument.startswith("/") else argument)
        skip = argument == "--json"
    return kept
