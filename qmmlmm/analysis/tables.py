"""Tables of finished and running simulations, read from files."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import unit

from qmmlmm.errors import TableError, listed, nearest
from qmmlmm.html_tables import html_table
from qmmlmm.setting_checks import check_path
from qmmlmm.units import IntArray, in_unit

FIRST_COLUMNS = ["Step", "Time (ps)"]
LAST_COLUMNS = ["Potential Energy (kJ/mol)", "Kinetic Energy (kJ/mol)", "Temperature (K)"]
VOLUME_COLUMN = "Box Volume (nm^3)"
TERM_UNIT = " (kJ/mol)"


@dataclass(frozen=True, eq=False)
class EnergyTable:
    """The energies of a run, one row per report.

    Parameters
    ----------
    steps : (n,) int array
    time : (n,) Quantity, ps
    terms : mapping of str to (n,) Quantity, kJ/mol
        Contribution of each term with its coefficient; ``"MM"`` and names such as ``"ligand/ML"``.
    potential_energy, kinetic_energy : (n,) Quantity, kJ/mol
    temperature : (n,) Quantity, K
    volume : (n,) Quantity or None, nm^3
        None without a box.
    """

    steps: IntArray
    time: unit.Quantity
    terms: Mapping[str, unit.Quantity]
    potential_energy: unit.Quantity
    kinetic_energy: unit.Quantity
    temperature: unit.Quantity
    volume: unit.Quantity | None

    def __len__(self) -> int:
        return len(self.steps)

    def _repr_html_(self) -> str:
        """Return a table of means, standard deviations and last values, which notebooks show."""
        energies = {**self.terms, "potential energy": self.potential_energy, "kinetic energy": self.kinetic_energy}
        columns = {f"{name} (kJ/mol)": in_unit(found, unit.kilojoule_per_mole) for name, found in energies.items()}
        columns["temperature (K)"] = in_unit(self.temperature, unit.kelvin)
        if self.volume is not None:
            columns["volume (nm^3)"] = in_unit(self.volume, unit.nanometer**3)
        first, last = in_unit(self.time[[0, -1]], unit.picosecond)
        rows = [
            (name, f"{found.mean():,.2f}", f"{found.std():,.2f}", f"{found[-1]:,.2f}")
            for name, found in columns.items()
        ]
        head = f"<p>{len(self):,} rows from {first:g} to {last:g} ps</p>"
        return head + html_table(("", "mean", "standard deviation", "last"), rows)

    def corrected_regions(self) -> list[str]:
        """Return the regions that have both a QM term and a subtracted ML term."""
        return [
            name.removesuffix("/QM")
            for name in self.terms
            if name.endswith("/QM") and f"{name.removesuffix('/QM')}/-ML" in self.terms
        ]

    def difference(self, region: str) -> unit.Quantity:
        """Return QM - ML of one region along the run.

        Parameters
        ----------
        region : str
            One of `corrected_regions`.

        Returns
        -------
        (n,) Quantity, kJ/mol

        Raises
        ------
        TableError
            If the region has no correction.
        """
        regions = self.corrected_regions()
        if not isinstance(region, str) or region not in regions:
            raise TableError(
                f"region {region!r} has no QM - ML correction in this table; regions with one: "
                f"{listed(regions) or 'none'}.{nearest(str(region), regions)}"
            )
        return self.terms[f"{region}/QM"] + self.terms[f"{region}/-ML"]


def read_energies(path: str | os.PathLike[str]) -> EnergyTable:
    """Read the energies that a `TermEnergyReporter` wrote, also while the simulation is running.

    Parameters
    ----------
    path : str or path
        Path of the file, or of the run directory with ``energies.csv``.

    Raises
    ------
    TableError
        If there is no file, it is no table of term energies, a row is damaged, or there is no row yet.
    SettingError
        If it is no path.
    """
    file = check_path("path", path)
    if file.is_dir():
        file = file / "energies.csv"
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{file} is no table of term energies that can be read: {error}") from error
    names = next(csv.reader([lines[0].rstrip("\n")[1:]])) if lines and lines[0].startswith("#") else []
    periodic = names[-1:] == [VOLUME_COLUMN]
    tail = [*LAST_COLUMNS, VOLUME_COLUMN] if periodic else LAST_COLUMNS
    term_columns = names[2 : len(names) - len(tail)]
    if (
        names[:2] != FIRST_COLUMNS
        or names[len(names) - len(tail) :] != tail
        or not all(name.endswith(TERM_UNIT) for name in term_columns)
    ):
        raise TableError(f"{file} is no table of term energies: its first line is {lines[0][:80] if lines else ''!r}")
    # The last line may be incomplete if the run is writing it, or was killed at that moment.
    if not lines[-1].endswith("\n"):
        lines.pop()
    rows = [_numbers(line, number, len(names), file) for number, line in enumerate(lines[1:], start=2)]
    if not rows:
        raise TableError(f"{file} has no rows yet; wait for the first report of the run")
    values = np.array(rows)
    energies = unit.kilojoule_per_mole
    rest = values[:, 2 + len(term_columns) :].T
    return EnergyTable(
        steps=values[:, 0].astype(np.int64),
        time=values[:, 1] * unit.picosecond,
        terms={
            name.removesuffix(TERM_UNIT): column * energies
            for name, column in zip(term_columns, values[:, 2:].T, strict=False)
        },
        potential_energy=rest[0] * energies,
        kinetic_energy=rest[1] * energies,
        temperature=rest[2] * unit.kelvin,
        volume=rest[3] * unit.nanometer**3 if periodic else None,
    )


def _numbers(line: str, number: int, width: int, file: Path) -> list[float]:
    try:
        values = [float(text) for text in line.split(",")]
    except ValueError:
        values = []
    if len(values) != width:
        raise TableError(f"line {number} of {file} is no row of {width} numbers: {line.rstrip()[:80]!r}")
    return values
