"""Small solutes in a box of TIP3P water, for terms that treat the whole solute.

The solute has charges and Lennard-Jones parameters and no bonded terms: replace its force field by a potential, or hold
it fixed, as `relaxed` does.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit

from systems import solution
from systems.options import SystemOptions
from systems.structure import Structure

# sigma in nm, epsilon in kJ/mol: OPLS-AA, sp2 carbon and its hydrogen, nitrogen of amides, oxygen of carbonyls, sulfur
# of thioethers, halogens of halobenzenes.
# Source: Jorgensen, Maxwell and Tirado-Rives, J. Am. Chem. Soc. 118, 11225 (1996).
LENNARD_JONES = {
    "H": (0.242, 0.126),
    "C": (0.355, 0.293),
    "N": (0.325, 0.711),
    "O": (0.296, 0.879),
    "F": (0.285, 0.255),
    "S": (0.360, 1.485),
    "Cl": (0.340, 1.255),
}

TEMPERATURE = 300 * unit.kelvin


@dataclass(frozen=True)
class Solute:
    """A molecule and its charges.

    Parameters
    ----------
    name : str
        Name of the residue.
    symbols : tuple of str
    positions : (n, 3) float array, angstrom
    charges : tuple of float, e
        They add up to an integer.
    lennard_jones : tuple of (float, float), nm and kJ/mol, optional
        Sigma and epsilon of each atom; by default `LENNARD_JONES` of its element.
    """

    name: str
    symbols: tuple[str, ...]
    positions: np.ndarray
    charges: tuple[float, ...]
    lennard_jones: tuple[tuple[float, float], ...] | None = None

    @property
    def charge(self) -> int:
        """Total charge, e."""
        return round(sum(self.charges))

    def __len__(self) -> int:
        return len(self.symbols)


def _solute(name: str, *atoms: tuple[str, float, float, float, float]) -> Solute:
    return Solute(
        name, tuple(a[0] for a in atoms), np.array([a[1:4] for a in atoms]), tuple(float(a[4]) for a in atoms)
    )


METHYLENE = _solute(
    "CH2",
    # The singlet; charges that give its dipole, 1.9 debye.
    ("C", 0.0, 0.0, 0.0, -0.56),
    ("H", 0.0, 0.866, 0.700, 0.28),
    ("H", 0.0, -0.866, 0.700, 0.28),
)
FORMALDEHYDE = _solute(
    "FOR",
    ("C", 0.0, 0.0, 0.0, 0.45),
    ("O", 0.0, 0.0, 1.205, -0.45),
    ("H", 0.0, 0.940, -0.587, 0.0),
    ("H", 0.0, -0.940, -0.587, 0.0),
)
METHANIMINIUM = _solute(
    "MIM",
    ("C", 0.0, 0.0, 0.63, 0.10),
    ("N", 0.0, 0.0, -0.65, -0.30),
    ("H", 0.0, 0.94, 1.17, 0.20),
    ("H", 0.0, -0.94, 1.17, 0.20),
    ("H", 0.0, 0.86, -1.19, 0.40),
    ("H", 0.0, -0.86, -1.19, 0.40),
)


def build(
    solute: Solute,
    *,
    edge: float = 2.0,
    n_water: int = 240,
    seed: int = 1,
    splitting: float | None = None,
    ion_pairs: int = 0,
) -> Structure:
    """Place a solute in the middle of a cube of water, with ions that neutralise its charge.

    Parameters
    ----------
    solute : Solute
    edge : float, nm
        Edge of the cube. The cutoff is 0.45 times that, and at most 0.9 nm.
    n_water : int
        Number of water molecules; zero for the solute without water and box.
    seed : int
        Seed of the choice of waters that are removed.
    splitting : float, 1/nm, optional
        PME's alpha, with a mesh of 0.04 nm; OpenMM's choice if not given. With 5.2 or more a QM term needs no finer
        mesh of its own, which makes its evaluations cheaper.
    ion_pairs : int
        Number of sodium and chloride ions beside those that neutralise the solute.

    Returns
    -------
    Structure
        Not relaxed; the solute comes first. Rigid water.
    """
    single = app.Topology()
    residue = single.addResidue(solute.name, single.addChain("A"))
    atoms = [single.addAtom(f"{s}{k}", app.Element.getBySymbol(s), residue) for k, s in enumerate(solute.symbols)]
    for first, second in _bonds(solute):
        single.addBond(atoms[first], atoms[second])
    system = _solute_system(solute)
    positions = 0.1 * solute.positions
    if not n_water:
        return Structure(single, system, positions * unit.nanometer)
    box = np.eye(3) * edge
    solvent = solution.Solvent(
        n_water, n_chloride=ion_pairs + max(solute.charge, 0), n_sodium=ion_pairs + max(-solute.charge, 0)
    )
    centred = positions - positions.mean(axis=0) + 0.5 * edge
    placed = solution.place_solvent(centred, box, solvent, np.random.default_rng(seed))
    cutoff = min(0.45 * edge, 0.9)
    # Without a switching function the total energy has steps where water crosses the cutoff.
    options = SystemOptions(
        nonbonded_cutoff=cutoff, switch_distance=0.85 * cutoff, constraints=None, remove_cm_motion=False
    )
    complete = solution.solution_system(system, solvent, placed.box_quantity, options=options)
    if splitting is not None:
        (force,) = (force for force in complete.getForces() if isinstance(force, openmm.NonbondedForce))
        force.setPMEParameters(splitting, *[math.ceil(edge / 0.04)] * 3)
    topology = solution.join_topologies(single, solvent, placed.box_quantity)
    return Structure(topology, complete, placed.positions_quantity)


def relaxed(
    structure: Structure, n_solute: int, *, picoseconds: float, minimise: bool = True, seed: int = 1
) -> np.ndarray:
    """Return positions, (n_atoms, 3) nm, after dynamics of the water at 300 K around a fixed solute.

    Parameters
    ----------
    structure : Structure
    n_solute : int
        Number of atoms at the beginning that are held fixed.
    picoseconds : float
        Length of the dynamics.
    minimise : bool
        Whether the energy of the water is minimised at the end.
    seed : int
    """
    system = copy.deepcopy(structure.system)
    for atom in range(n_solute):
        system.setParticleMass(atom, 0.0)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5 / unit.picosecond, 2 * unit.femtosecond)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(structure.topology, system, integrator, openmm.Platform.getPlatform("CPU"))
    simulation.context.setPositions(structure.positions)
    simulation.minimizeEnergy(maxIterations=100)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    simulation.step(round(picoseconds / 0.002))
    if minimise:
        simulation.minimizeEnergy(maxIterations=200)
    return np.array(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value)


def surrounded(
    structure: Structure, geometry: np.ndarray, motion: np.ndarray, *, picoseconds: float, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions, (n_atoms, 3) nm, and velocities, nm/ps, with a sampled solute in water at 300 K.

    Parameters
    ----------
    structure : Structure
        Structure whose first atoms are the solute.
    geometry, motion : (n, 3) float arrays, nm and nm/ps
        Positions and velocities of the solute, such as a sample of its normal modes. Its center moves to that of the
        solute in `structure`.
    picoseconds : float
        Length of the dynamics of the water around the solute, which is held fixed.
    seed : int
    """
    n = len(geometry)
    start = np.array(structure.positions.value_in_unit(unit.nanometer))
    start[:n] = geometry - geometry.mean(axis=0) + start[:n].mean(axis=0)
    structure = dataclasses.replace(structure, positions=start * unit.nanometer)
    positions = relaxed(structure, n, picoseconds=picoseconds, minimise=False, seed=seed)
    reference = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(structure.system, openmm.VerletIntegrator(0.001), reference)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(TEMPERATURE, seed)
    velocities = np.array(context.getState(velocities=True).getVelocities(asNumpy=True)._value)
    velocities[:n] = motion
    return positions, velocities


def _bonds(solute: Solute) -> list[tuple[int, int]]:
    """Return pairs of atoms that are closer than a bond can be long."""
    found = []
    for first, second in itertools.combinations(range(len(solute)), 2):
        hydrogens = [solute.symbols[first], solute.symbols[second]].count("H")
        longest = (1.75, 1.3, 0.0)[hydrogens]  # angstrom
        if np.linalg.norm(solute.positions[first] - solute.positions[second]) < longest:
            found.append((first, second))
    return found


def _solute_system(solute: Solute) -> openmm.System:
    system, force = openmm.System(), openmm.NonbondedForce()
    lennard_jones = solute.lennard_jones or tuple(LENNARD_JONES[symbol] for symbol in solute.symbols)
    for symbol, charge, parameters in zip(solute.symbols, solute.charges, lennard_jones, strict=True):
        system.addParticle(app.Element.getBySymbol(symbol).mass)
        force.addParticle(charge, *parameters)
    for first, second in itertools.combinations(range(len(solute)), 2):
        force.addException(first, second, 0.0, 1.0, 0.0)
    # `solution.solution_system` appends bonds and angles of water to these.
    for empty in (openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()):
        system.addForce(empty)
    system.addForce(force)
    return system
