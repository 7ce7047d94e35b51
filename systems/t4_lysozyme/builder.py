"""T4 lysozyme L99A with p-xylene in a box of TIP3P water and 0.15 M sodium chloride."""

from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from systems import equilibration, package_data, reference, solution
from systems.coordinates import Coordinates, load_coordinates, save_coordinates, wrap_molecules
from systems.options import SystemOptions, with_option_keywords
from systems.package_data import PackageFile
from systems.structure import Structure

FOLDER = Path(__file__).resolve().parent
COORDINATES = FOLDER / "coordinates.npz"

N_PROTEIN = 2603
N_SOLUTE = 2621
# Indices of p-xylene: eight carbons, then ten hydrogens.
LIGAND = range(N_PROTEIN, N_SOLUTE)

_DATA = "openmmtools/data/T4-lysozyme-L99A-implicit"
PRMTOP = PackageFile(
    "openmmtools",
    "0.27.0",
    f"{_DATA}/complex.prmtop",
    "b63a05ad70c60fb94895532f28c7fd9579463230a1af3859b0c65e9e8085e758",
)
INPCRD = PackageFile(
    "openmmtools",
    "0.27.0",
    f"{_DATA}/complex.crd",
    "91dc19bad16bc1554436694a91ea5b183ea9a8ae0de012499d64d889a5f49819",
)

# The protein and the ligand carry +8 e; 19 ion pairs in 7,050 waters are 0.15 mol/l.
SOLVENT = solution.Solvent(n_water=7050, n_sodium=19, n_chloride=27)
PADDING_NM = 1.0
DEFAULT = SystemOptions()


@with_option_keywords
def build(*, options: SystemOptions = DEFAULT) -> Structure:
    """Build the solvated complex with equilibrated coordinates.

    Parameters
    ----------
    options : SystemOptions
        Options of the force field. Each field can be given as a keyword.

    Returns
    -------
    Structure
        23,817 atoms; the ligand's residue is "LIG".

    Raises
    ------
    systems.package_data.PackageDataError
        If the files of openmmtools are not here and cannot be fetched.
    """
    return _assemble(load_coordinates(COORDINATES), options)


def load_solute() -> tuple[app.AmberPrmtopFile, unit.Quantity]:
    """The complex in vacuum as openmmtools has it.

    Returns
    -------
    prmtop : openmm.app.AmberPrmtopFile
        Protein with Amber ff96, ligand (here named TMP) with GAFF.
    positions : (2621, 3) Quantity, nm
        Before any relaxation.
    """
    prmtop_path, inpcrd_path = package_data.find(PRMTOP, INPCRD)
    prmtop = app.AmberPrmtopFile(str(prmtop_path))
    positions = app.AmberInpcrdFile(str(inpcrd_path)).getPositions(asNumpy=True)
    return prmtop, positions


def _assemble(coordinates: Coordinates, options: SystemOptions) -> Structure:
    """Topology and System around given coordinates."""
    prmtop, _ = load_solute()
    solute: openmm.System = prmtop.createSystem(**options.part().arguments())
    box = coordinates.box_quantity
    system = solution.solution_system(solute, SOLVENT, box, options=options)
    topology = solution.join_topologies(
        prmtop.topology, SOLVENT, box, residue_names={"TMP": "LIG"}, chain_of_residue={"LIG": "L"}
    )
    return Structure(topology, system, coordinates.positions_quantity)


def equilibrate() -> None:
    """Solvate the complex, relax it for 25 ps at 300 K and 1 bar, and write ``coordinates.npz``.

    Takes about ten minutes on one core. Run it as ``python -m systems.t4_lysozyme equilibrate``.
    """
    _, solute = load_solute()
    positions = solute.value_in_unit(unit.nanometer)
    positions = positions - positions.mean(axis=0)
    # Along its principal axes the protein needs the smallest rectangular box.
    axes = np.linalg.eigh(positions.T @ positions)[1]
    axes[:, 0] *= np.sign(np.linalg.det(axes))  # a rotation, not a mirror
    positions = positions @ axes
    lengths = np.ptp(positions, axis=0) + 2 * PADDING_NM
    positions += lengths / 2 - (positions.max(axis=0) + positions.min(axis=0)) / 2
    placed = solution.place_solvent(positions, np.diag(lengths), SOLVENT, np.random.default_rng(2024))
    structure = _assemble(placed, SystemOptions(hydrogen_mass=3 * unit.dalton))
    final = equilibration.equilibrate(structure, duration=25 * unit.picosecond)
    molecules = solution.solvent_molecules(SOLVENT, N_SOLUTE)
    save_coordinates(COORDINATES, wrap_molecules(final, molecules, N_SOLUTE))


def write_reference() -> None:
    """Measure the built system and write ``reference.json``."""
    reference.write_reference(
        FOLDER / "reference.json",
        {"default": build(), "flexible": build(constraints=None, rigid_water=False)},
        {"default": "build()", "flexible": "build(constraints=None, rigid_water=False)"},
    )
