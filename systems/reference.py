"""Reference numbers of a built system: how they are measured, written and read."""

import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import unit

from systems.structure import Structure


def energies_by_force(structure: Structure, platform_name: str = "Reference") -> dict[str, float]:
    """Potential energy by Force class.

    Parameters
    ----------
    structure : Structure
        What to evaluate.
    platform_name : str
        OpenMM platform.

    Returns
    -------
    dict of str to float, kJ/mol
        Energy by class name; several Forces of one class are summed. Classes without energy are left out.
    """
    system = copy.deepcopy(structure.system)
    classes = sorted({type(force).__name__ for force in system.getForces()})
    for force in system.getForces():
        force.setForceGroup(classes.index(type(force).__name__))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform_name))
    context.setPositions(structure.positions)
    energies = {}
    for group, name in enumerate(classes):
        if name in ("CMMotionRemover", "MonteCarloBarostat"):
            continue
        energy = context.getState(energy=True, groups={group}).getPotentialEnergy()
        energies[name] = float(energy.value_in_unit(unit.kilojoule_per_mole))
    return energies


def measure(structure: Structure) -> dict[str, Any]:
    """Numbers that identify a built system.

    Parameters
    ----------
    structure : Structure
        What to describe.

    Returns
    -------
    dict
        Counts, net charge, box, energies on the Reference platform; the names carry the units.
    """
    topology, system = structure.topology, structure.system
    return {
        "n_atoms": topology.getNumAtoms(),
        "n_bonds": topology.getNumBonds(),
        "n_residues": topology.getNumResidues(),
        "n_constraints": system.getNumConstraints(),
        "residues": dict(sorted(Counter(residue.name for residue in topology.residues()).items())),
        "net_charge_e": round(float(structure.charges().sum()), 9),
        "box_vectors_nm": [
            [round(float(x), 9) for x in row.value_in_unit(unit.nanometer)]
            for row in system.getDefaultPeriodicBoxVectors()
        ]
        if system.usesPeriodicBoundaryConditions()
        else None,
        "potential_energy_kj_per_mol": energies_by_force(structure),
    }


def write_reference(path: Path, variants: dict[str, Structure], settings: dict[str, str]) -> None:
    """Write the reference numbers of a system's variants.

    Parameters
    ----------
    path : pathlib.Path
        JSON file.
    variants : dict of str to Structure
        Built systems by name.
    settings : dict of str to str
        How each variant was built.
    """
    document = {
        "provenance": {
            "openmm": openmm.version.version,
            "numpy": np.__version__,
            "platform": "Reference (double precision)",
            "command": f"python -m {'.'.join(path.resolve().parent.parts[-2:])} reference",
        },
        "variants": {name: {"settings": settings[name], **measure(structure)} for name, structure in variants.items()},
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_reference(folder: Path, variant: str) -> dict[str, Any]:
    """Reference numbers of one variant.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the system.
    variant : str
        Name inside ``reference.json``.

    Returns
    -------
    dict
        As :func:`measure` gives it.

    Raises
    ------
    KeyError
        There is no such variant.
    """
    document = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    variants: dict[str, dict[str, Any]] = document["variants"]
    if variant not in variants:
        known = ", ".join(variants)
        raise KeyError(f"{folder.name}/reference.json has the variants {known}, and not {variant!r}")
    return variants[variant]


def run_command(arguments: list[str], commands: dict[str, Callable[[], None]]) -> None:
    """Run the command that a builder module was started with.

    Parameters
    ----------
    arguments : list of str
        As in ``sys.argv``.
    commands : dict of str to callable
        Functions without arguments, by name.

    Raises
    ------
    SystemExit
        No known command was given.
    """
    if len(arguments) != 2 or arguments[1] not in commands:
        raise SystemExit(f"give one of these commands: {', '.join(commands)}")
    commands[arguments[1]]()
