"""One acetone molecule (GAFF2, RESP charges) in a box of TIP3P water."""

import json
from pathlib import Path

import numpy as np
from openmm import app, unit

from systems import equilibration, reference, solution
from systems.coordinates import Coordinates, load_coordinates, save_coordinates, wrap_molecules
from systems.options import SystemOptions, with_option_keywords
from systems.structure import Structure

FOLDER = Path(__file__).resolve().parent
COORDINATES = FOLDER / "coordinates.npz"

# Indices of acetone: C1 (methyl), C2 (carbonyl), O, C3 (methyl), six hydrogens.
ACETONE = range(10)

SOLVENT = solution.Solvent(n_water=700)
DEFAULT = SystemOptions()


@with_option_keywords
def build(*, options: SystemOptions = DEFAULT) -> Structure:
    """Build acetone in water with equilibrated coordinates.

    Parameters
    ----------
    options : SystemOptions
        Options of the force field. Each field can be given as a keyword.

    Returns
    -------
    Structure
        2,110 atoms; acetone's residue is "ACN".
    """
    return _assemble(load_coordinates(COORDINATES), options)


def force_field() -> app.ForceField:
    """Acetone and TIP3P water as an OpenMM ForceField.

    Returns
    -------
    openmm.app.ForceField
        ``acetone.xml`` of this folder and OpenMM's ``amber14/tip3p.xml``.
    """
    return app.ForceField(str(FOLDER / "acetone.xml"), "amber14/tip3p.xml")


def acetone_topology() -> app.Topology:
    """Topology of one acetone with its bonds.

    Returns
    -------
    openmm.app.Topology
        One residue "ACN".
    """
    topology = app.Topology()
    residue = topology.addResidue("ACN", topology.addChain("A"))
    names = ("C1", "C2", "O", "C3", "H11", "H12", "H13", "H31", "H32", "H33")
    atoms = [topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in names]
    for a, b in ((0, 1), (1, 2), (1, 3), (0, 4), (0, 5), (0, 6), (3, 7), (3, 8), (3, 9)):
        topology.addBond(atoms[a], atoms[b], order=2 if b == 2 else 1)
    return topology


def _assemble(coordinates: Coordinates, options: SystemOptions) -> Structure:
    """Topology and System around given coordinates."""
    topology = solution.join_topologies(acetone_topology(), SOLVENT, coordinates.box_quantity)
    system = force_field().createSystem(topology, **options.arguments())
    return Structure(topology, system, coordinates.positions_quantity)


def equilibrate() -> None:
    """Solvate acetone, relax it for 10 ps at 300 K and 1 bar, and write ``coordinates.npz``."""
    document = json.loads((FOLDER / "charges.json").read_text(encoding="utf-8"))
    bohr = unit.bohr.conversion_factor_to(unit.nanometer)
    positions = np.array(list(document["positions_bohr"].values())) * bohr
    side = 2.82
    positions += side / 2 - positions.mean(axis=0)
    placed = solution.place_solvent(positions, np.eye(3) * side, SOLVENT, np.random.default_rng(2024))
    structure = _assemble(placed, DEFAULT)
    final = equilibration.equilibrate(structure, duration=10 * unit.picosecond, time_step=2 * unit.femtosecond)
    molecules = solution.solvent_molecules(SOLVENT, len(ACETONE))
    save_coordinates(COORDINATES, wrap_molecules(final, molecules, len(ACETONE)))


def write_reference() -> None:
    """Measure the built system and write ``reference.json``."""
    reference.write_reference(
        FOLDER / "reference.json",
        {"default": build(), "flexible": build(constraints=None, rigid_water=False)},
        {"default": "build()", "flexible": "build(constraints=None, rigid_water=False)"},
    )
