"""The columns of a table that a run writes, for its report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qmmlmm.runs.table_rows import read_names
from qmmlmm.units import FloatArray

ENERGY_UNIT = " (kJ/mol)"
TIME, POTENTIAL, KINETIC = "Time (ps)", "Potential Energy (kJ/mol)", "Kinetic Energy (kJ/mol)"
TEMPERATURE, VOLUME = "Temperature (K)", "Box Volume (nm^3)"


def read_columns(path: Path) -> dict[str, FloatArray]:
    """Return the columns of a table by their names; empty if there is no table or no whole row yet.

    Parameters
    ----------
    path : Path
        Table of a reporter of `qmmlmm.runs`, which may be written to at the moment.
    """
    names = read_names(path) if path.exists() else None
    if not names:
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
    whole = [line for line in lines if line.endswith("\n")]
    if not whole:
        return {}
    values = np.loadtxt(whole, delimiter=",", ndmin=2)
    return dict(zip(names, values.T, strict=True))


def term_names(columns: dict[str, FloatArray]) -> list[str]:
    """Return the names of the terms, ``"MM"`` first, whose energies a table has."""
    others = {POTENTIAL, KINETIC}
    return [name.removesuffix(ENERGY_UNIT) for name in columns if name.endswith(ENERGY_UNIT) and name not in others]


def differences(columns: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Return QM - ML along the run, kJ/mol, by the name of each region that has both."""
    names = term_names(columns)
    regions = [name.removesuffix("/QM") for name in names if name.endswith("/QM")]
    return {
        region: columns[f"{region}/QM{ENERGY_UNIT}"] + columns[f"{region}/-ML{ENERGY_UNIT}"]
        for region in regions
        if f"{region}/-ML" in names
    }
