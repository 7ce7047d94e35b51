"""Ketosteroid isomerase (PDB 1OH0) with equilenin in water, as QMzyme ships it."""

from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from systems import package_data, reference
from systems.coordinates import Coordinates, load_coordinates, save_coordinates
from systems.options import SystemOptions, with_option_keywords
from systems.package_data import PackageFile
from systems.structure import Structure

FOLDER = Path(__file__).resolve().parent
RELAXED = FOLDER / "relaxed.npz"

# Residue indices (from zero) of Tyr16, Asp103 and equilenin in the two monomers.
SITE_A = (15, 102, 262)
SITE_B = (146, 233, 263)

PRMTOP = PackageFile(
    "qmzyme",
    "0.1.2",
    "QMzyme/data/1oh0_equ.prmtop",
    "c672557b7ce6763bcd931d2ad90b9c95c92bca369ef42c4814974b262cae70f2",
)
RST7 = PackageFile(
    "qmzyme",
    "0.1.2",
    "QMzyme/data/1oh0_equ.rst7",
    "327d95a110b597819515445b9d89cac0c675675d8fc9049628831d70f84f7a49",
)

DEFAULT = SystemOptions()


@with_option_keywords
def build(*, relaxed: bool = False, options: SystemOptions = DEFAULT) -> Structure:
    """Build the enzyme with the coordinates of QMzyme's restart file, or with relaxed ones.

    Parameters
    ----------
    relaxed : bool
        True: the coordinates of ``relaxed.npz``, from which dynamics runs. False: those of the restart file, which
        has to be minimised first.
    options : SystemOptions
        Options of the force field. Each field can be given as a keyword. Flexible water has the three harmonic bonds
        of the prmtop, one between its hydrogens among them.

    Returns
    -------
    Structure
        58,553 atoms; the ligands' residues are "EQU".

    Raises
    ------
    systems.package_data.PackageDataError
        If the files of QMzyme are not here and cannot be fetched.
    """
    prmtop_path, rst7_path = package_data.find(PRMTOP, RST7)
    restart = app.AmberInpcrdFile(str(rst7_path))
    # The restart file has the box of the coordinates; the prmtop has that of the setup.
    box = restart.getBoxVectors().value_in_unit(unit.nanometer)
    positions = restart.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    coordinates = load_coordinates(RELAXED) if relaxed else Coordinates(np.array(positions), np.array(box))
    prmtop = app.AmberPrmtopFile(str(prmtop_path), periodicBoxVectors=coordinates.box_quantity)
    system: openmm.System = prmtop.createSystem(**options.arguments())
    return Structure(prmtop.topology, system, coordinates.positions_quantity)


def relax() -> None:
    """Minimise the restart file's structure, start dynamics at 300 K, and write ``relaxed.npz``.

    Takes three minutes on one core. Run it as ``python -m systems.ketosteroid_isomerase relax``.
    """
    structure = build()
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 1 * unit.femtosecond)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("CPU")
    simulation = app.Simulation(structure.topology, structure.system, integrator, platform)
    simulation.context.setPositions(structure.positions)
    simulation.minimizeEnergy(maxIterations=100)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    simulation.step(50)
    state = simulation.context.getState(positions=True)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    save_coordinates(RELAXED, Coordinates(np.array(positions), np.array(box)))


def write_reference() -> None:
    """Measure the built system and write ``reference.json``."""
    reference.write_reference(FOLDER / "reference.json", {"default": build()}, {"default": "build()"})
