"""Boxes of pure water, cubic or a truncated octahedron."""

from pathlib import Path

import numpy as np
from openmm import app, unit

from systems import equilibration, reference, solution
from systems.coordinates import Coordinates, load_coordinates, save_coordinates, wrap_molecules
from systems.options import SystemOptions, with_option_keywords
from systems.structure import Structure

FOLDER = Path(__file__).resolve().parent

N_WATER = 580
SHAPES = ("cube", "octahedron")
DEFAULT = SystemOptions(constraints=None)
"""Constraints on bonds to hydrogen would act on flexible water, too."""

# OpenMM's reduced vectors of a truncated octahedron with edge one between opposite hexagons.
# Source: openmm.app.Modeller.addSolvent, boxShape="octahedron".
_OCTAHEDRON = np.array([[1.0, 0.0, 0.0], [1 / 3, 2 * np.sqrt(2) / 3, 0.0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(6) / 3]])


@with_option_keywords
def build(*, model: str = "tip3p", shape: str = "cube", options: SystemOptions = DEFAULT) -> Structure:
    """Build 580 waters with equilibrated coordinates.

    Parameters
    ----------
    model : str
        "tip3p", or "tip4pew" with a virtual site in each water.
    shape : str
        "cube" or "octahedron" (a truncated octahedron, triclinic).
    options : SystemOptions
        Options of the force field. Each field can be given as a keyword. The cutoff is at most 1.1 nm.

    Returns
    -------
    Structure
        1,740 atoms, or 2,320 particles with TIP4P-Ew.

    Raises
    ------
    ValueError
        If the model or the shape is unknown.
    """
    solvent = solution.Solvent(N_WATER, water_model=model)
    return _assemble(load_coordinates(_coordinates_file(model, shape)), solvent, options)


def _coordinates_file(model: str, shape: str) -> Path:
    if shape not in SHAPES:
        raise ValueError(f"the shape of the box is one of {', '.join(SHAPES)}, and {shape!r} was given")
    return FOLDER / f"{model}_{shape}.npz"


def _assemble(coordinates: Coordinates, solvent: solution.Solvent, options: SystemOptions) -> Structure:
    """Topology and System around given coordinates."""
    topology = solution.join_topologies(app.Topology(), solvent, coordinates.box_quantity)
    system = app.ForceField(solution.WATER_XML[solvent.water_model]).createSystem(topology, **options.arguments())
    return Structure(topology, system, coordinates.positions_quantity)


def equilibrate() -> None:
    """Relax every box for 5 ps at 300 K and 1 bar, and write the coordinates; takes some minutes."""
    # A little more room than water needs at 1 bar.
    volume = N_WATER * 0.0315
    for model in solution.WATER_XML:
        for shape, vectors in zip(SHAPES, (np.eye(3), _OCTAHEDRON), strict=True):
            box = vectors * (volume / np.linalg.det(vectors)) ** (1 / 3)
            solvent = solution.Solvent(N_WATER, water_model=model)
            placed = solution.place_solvent(np.empty((0, 3)), box, solvent, np.random.default_rng(2024))
            structure = _assemble(placed, solvent, DEFAULT)
            final = equilibration.equilibrate(structure, duration=5 * unit.picosecond, time_step=2 * unit.femtosecond)
            molecules = solution.solvent_molecules(solvent, 0)
            save_coordinates(_coordinates_file(model, shape), wrap_molecules(final, molecules, 0))


def write_reference() -> None:
    """Measure the built systems and write ``reference.json``."""
    reference.write_reference(
        FOLDER / "reference.json",
        {
            "tip3p": build(),
            "tip3p_flexible": build(rigid_water=False),
            "tip3p_octahedron": build(shape="octahedron"),
            "tip4pew": build(model="tip4pew"),
            "tip4pew_octahedron": build(model="tip4pew", shape="octahedron"),
        },
        {
            "tip3p": "build()",
            "tip3p_flexible": "build(rigid_water=False)",
            "tip3p_octahedron": "build(shape='octahedron')",
            "tip4pew": "build(model='tip4pew')",
            "tip4pew_octahedron": "build(model='tip4pew', shape='octahedron')",
        },
    )
