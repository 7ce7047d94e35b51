"""Cucurbit[7]uril with its guest B2, bicyclo[2.2.2]octane-1,4-dimethanol, and the guest alone, in TIP3P water.

Parameters (GAFF with AM1-BCC charges) and the structure of the complex come from openmmtools.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from systems import package_data, solution
from systems.options import SystemOptions
from systems.package_data import PackageFile
from systems.structure import Structure

_DATA = "openmmtools/data/cb7-b2"
FILES = {
    "complex": (
        PackageFile(
            "openmmtools",
            "0.27.0",
            f"{_DATA}/complex-vacuum.prmtop",
            "cb22047c8439cf00c07e2ef407a6d123c976bd2c94b09b425022ab9b78239b88",
        ),
        PackageFile(
            "openmmtools",
            "0.27.0",
            f"{_DATA}/complex-vacuum.inpcrd",
            "e69dcbdcecbf49e4ef00a5359917498d67d86a5241bc31a06c323839a6494e82",
        ),
    ),
    "solvent": (
        PackageFile(
            "openmmtools",
            "0.27.0",
            f"{_DATA}/ligand.prmtop",
            "815f0c1d8b1b0ea0c2e8e2823b8325c4d6f22a52b89ef427a7e5be39059e61cd",
        ),
        PackageFile(
            "openmmtools",
            "0.27.0",
            f"{_DATA}/ligand.inpcrd",
            "ba841cd704d10de8c6c85da10320364f1805a6edc406ab5c9df98ba7718c0645",
        ),
    ),
}
GUEST = "B2"
"""Name of the guest's residue."""

# Edge of the cube in nm, and number of waters.
SIZES = {"complex": (2.9, 690), "solvent": (2.4, 400)}


def build(leg: str, *, relax_steps: int = 0, positions_file: Path | None = None, seed: int = 1) -> Structure:
    """Place the complex or the guest in the middle of a cube of water, and relax it with the force field.

    Parameters
    ----------
    leg : {"complex", "solvent"}
    relax_steps : int
        Number of steps of 1 fs at 300 K after a minimisation.
    positions_file : pathlib.Path, optional
        File of NumPy with relaxed positions, nm; it is read if it exists, else it is written.
    seed : int
        Seed of the choice of waters that are removed, and of the dynamics.

    Returns
    -------
    Structure
        Solute first; the guest's residue is "B2". Rigid water; bonds of the solute are flexible.

    Raises
    ------
    systems.package_data.PackageDataError
        If the files of openmmtools are not here and cannot be fetched.
    """
    prmtop_path, inpcrd_path = package_data.find(*FILES[leg])
    prmtop = app.AmberPrmtopFile(str(prmtop_path))
    edge, n_water = SIZES[leg]
    solvent = solution.Solvent(n_water=n_water)
    positions = app.AmberInpcrdFile(str(inpcrd_path)).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    centred = positions - positions.mean(axis=0) + 0.5 * edge
    placed = solution.place_solvent(centred, np.eye(3) * edge, solvent, np.random.default_rng(seed))
    cutoff = min(0.45 * edge, 0.9)
    options = SystemOptions(
        nonbonded_cutoff=cutoff, switch_distance=0.85 * cutoff, constraints=None, remove_cm_motion=False
    )
    solute: openmm.System = prmtop.createSystem(**options.part().arguments())
    system = solution.solution_system(solute, solvent, placed.box_quantity, options=options)
    topology = solution.join_topologies(prmtop.topology, solvent, placed.box_quantity)
    if positions_file is not None and positions_file.exists():
        return Structure(topology, system, np.load(positions_file) * unit.nanometer)
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 1 * unit.femtosecond)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatform("CPU"))
    simulation.context.setPositions(placed.positions_quantity)
    simulation.minimizeEnergy(maxIterations=200)
    if relax_steps:
        simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, seed)
        simulation.step(relax_steps)
    relaxed = simulation.context.getState(positions=True).getPositions(asNumpy=True)
    positions = np.array(relaxed.value_in_unit(unit.nanometer))
    if positions_file is not None:
        np.save(positions_file, positions)
    return Structure(topology, system, positions * unit.nanometer)
