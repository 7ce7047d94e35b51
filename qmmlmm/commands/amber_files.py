"""Topology and System from Amber files, with advice where OpenMM refuses them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import openmm
from openmm import app, unit

from qmmlmm.errors import InputFileError

_ADVICE = {
    "CAP option": "it has a water cap (IFCAP), which OpenMM does not support; solvate in a box without solvateCap",
    "perturbation": "it has perturbed atoms (IFPERT), which OpenMM does not support; write it without perturbation",
    "10-12": "it has the 10-12 hydrogen bond terms of an old force field, which OpenMM does not support",
}
"""What to do, by a part of OpenMM's message."""


def read_amber(
    prmtop_path: Path, coordinates_path: Path, options: Mapping[str, object]
) -> tuple[app.Topology, openmm.System, unit.Quantity]:
    """Return topology, System and positions of Amber files. The box is that of the coordinates, if they have one.

    Parameters
    ----------
    prmtop_path, coordinates_path : Path
    options : mapping of str to object
        Keyword arguments of `openmm.app.AmberPrmtopFile.createSystem`.

    Raises
    ------
    InputFileError
        If a file is missing or OpenMM refuses it; says what to do.
    """
    for path in (prmtop_path, coordinates_path):
        if not path.is_file():
            raise InputFileError(f"there is no file {str(path)!r}")
    try:
        coordinates = app.AmberInpcrdFile(str(coordinates_path))
    except Exception as error:
        raise InputFileError(f"{coordinates_path} is no Amber coordinate file that OpenMM reads: {error}") from error
    try:
        prmtop = app.AmberPrmtopFile(str(prmtop_path), periodicBoxVectors=coordinates.boxVectors)
        periodic = prmtop.topology.getPeriodicBoxVectors() is not None
        if options.get("nonbondedMethod") is app.PME and not periodic:
            raise InputFileError(
                f"neither {coordinates_path} nor {prmtop_path} has a box, which PME needs; take coordinates with a "
                "box, such as the restart file of a run at constant pressure, or set no_box = true in [system]"
            )
        system = prmtop.createSystem(**options)
    except InputFileError:
        raise
    except Exception as error:
        advice = [text for part, text in _ADVICE.items() if part in str(error)]
        reason = advice[0] if advice else f"OpenMM refuses it: {type(error).__name__}: {error}"
        raise InputFileError(f"{prmtop_path}: {reason}") from error
    count = prmtop.topology.getNumAtoms()
    if len(coordinates.positions) != count:
        raise InputFileError(
            f"{coordinates_path} has {len(coordinates.positions)} atoms and {prmtop_path} has {count}; give the files "
            "of the same system"
        )
    return prmtop.topology, system, coordinates.positions
