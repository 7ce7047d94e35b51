"""Small molecules as mixed Systems, in vacuum and in water."""

from __future__ import annotations

import functools
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import Capabilities, EvaluatedPotential, Evaluator
from qmmlmm.embedding.fixed_charges import charges_in_field

ETHANOL = (
    "CCOHHHHHH",
    [
        [1.1879, -0.3829, 0.0],
        [0.0, 0.5526, 0.0],
        [-1.1867, -0.2472, 0.0],
        [-1.9237, 0.385, 0.0],
        [2.0985, 0.2306, 0.0],
        [1.1184, -1.0093, 0.8869],
        [1.1184, -1.0093, -0.8869],
        [-0.0227, 1.1812, 0.8852],
        [-0.0227, 1.1812, -0.8852],
    ],
    [(0, 1), (1, 2), (2, 3), (0, 4), (0, 5), (0, 6), (1, 7), (1, 8)],
)
HYDROGEN_CYANIDE = ("CNH", [[0.0, 0.0, 0.0], [1.157, 0.0, 0.0], [-1.065, 0.0, 0.0]], [(0, 1), (0, 2)])


def bonded(molecule):
    """Return Topology and System of one molecule of springs without charges."""
    symbols, _, bonds = molecule
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    atoms = [
        topology.addAtom(f"{symbol}{k}", app.Element.getBySymbol(symbol), residue) for k, symbol in enumerate(symbols)
    ]
    system, force, springs = openmm.System(), openmm.NonbondedForce(), openmm.HarmonicBondForce()
    for atom in atoms:
        system.addParticle(atom.element.mass)
        force.addParticle(0.0, 0.3, 0.0)
    for first, second in bonds:
        topology.addBond(atoms[first], atoms[second])
        springs.addBond(first, second, 0.1, 0.0)
    system.addForce(force)
    system.addForce(springs)
    return topology, system


def vacuum(molecule, potential, charge=0, seed=None, repulsion=0.0):
    """Return a mixed System of one molecule in vacuum, mechanically embedded, and its positions, nm."""
    symbols, angstrom, _ = molecule
    topology, system = bonded(molecule)
    term = Term(potential, Region("molecule", range(len(symbols)), charge=charge), embedding="mechanical")
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    positions = np.array(angstrom) / 10.0
    if seed is not None:
        positions = positions + 0.005 * np.random.default_rng(seed).standard_normal(positions.shape)
    return SimpleNamespace(mixed=mixed, positions=positions, symbols=list(symbols))


@functools.cache
def water_box(n_waters, rigid=False):
    """Return Topology, System and positions, nm, of a cube of water that the force field has relaxed."""
    force_field = app.ForceField("amber14/tip3pfb.xml")
    modeller = app.Modeller(app.Topology(), [])
    modeller.addSolvent(force_field, numAdded=n_waters)
    system = force_field.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.6,
        rigidWater=rigid,
        # Smooth where atoms cross the cutoff.
        switchDistance=0.45,
    )
    integrator = openmm.LangevinMiddleIntegrator(300, 5.0, 0.001)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("CPU"), {"Threads": "1"})
    context.setPositions(modeller.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10, 200)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(500)
    state = context.getState(positions=True)
    return SimpleNamespace(
        topology=modeller.topology,
        system=system,
        positions=np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)),
    )


def waters_in_water(potential, n_region=3, n_waters=166, rigid=False):
    """Return a mixed System whose region is some waters around the centre of a box, embedded, and positions, nm."""
    case = water_box(n_waters, rigid)
    box = np.diag(case.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    oxygens = [atom.index for atom in case.topology.atoms() if atom.element.symbol == "O"]
    away = case.positions[oxygens] - 0.5 * box
    away -= box * np.round(away / box)
    near = np.argsort(np.linalg.norm(away, axis=1))[:n_region]
    atoms = [oxygens[k] + j for k in sorted(near) for j in range(3)]
    term = Term(potential, Region("cluster", atoms), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    return SimpleNamespace(mixed=mixed, positions=case.positions, atoms=atoms)


def waters_in_a_droplet(potential, n_region=2, n_waters=10):
    """Return a mixed System of waters without a box or a cutoff, of which the first ones are the region."""
    case = water_box(max(n_waters, 70))
    force_field = app.ForceField("amber14/tip3pfb.xml")
    modeller = app.Modeller(case.topology, case.positions * unit.nanometer)
    oxygens = [atom for atom in modeller.topology.atoms() if atom.element.symbol == "O"]
    centre = case.positions.mean(axis=0)
    order = sorted(oxygens, key=lambda atom: np.linalg.norm(case.positions[atom.index] - centre))
    modeller.delete([atom.residue for atom in order[n_waters:]])
    modeller.topology.setPeriodicBoxVectors(None)
    system = force_field.createSystem(modeller.topology, nonbondedMethod=app.NoCutoff, rigidWater=False)
    term = Term(potential, Region("cluster", range(3 * n_region)), embedding="electrostatic")
    mixed = create_mixed_system(modeller.topology, system, Hamiltonian([term]))
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    return SimpleNamespace(mixed=mixed, positions=positions, atoms=list(range(3 * n_region)))


class TransferEvaluator(Evaluator):
    """Two atoms and a third one that goes from the first to the second, with fixed charges."""

    charges = np.array([-0.3, -0.3, 0.6])
    height, apart, width = 0.02, 5.6, 1.4  # hartree, bohr, bohr

    def evaluate(self, geometry, field):
        positions = geometry.positions
        bonds = [positions[2] - positions[0], positions[2] - positions[1], positions[1] - positions[0]]
        first, second, outer = (float(np.linalg.norm(bond)) for bond in bonds)
        place = (first - second) / self.width
        length, away = first + second - self.apart, outer - self.apart
        energy = self.height * (place**2 - 1.0) ** 2 + 0.1 * length**2 + 0.1 * away**2
        slope = self.height * 4.0 * place * (place**2 - 1.0) / self.width
        pulls = [slope + 0.2 * length, -slope + 0.2 * length, 0.2 * away]
        gradient = np.zeros((3, 3))
        for (end, begin), bond, pull in zip(((2, 0), (2, 1), (1, 0)), bonds, pulls, strict=True):
            along = pull * bond / np.linalg.norm(bond)
            gradient[end] += along
            gradient[begin] -= along
        inside = charges_in_field(positions, self.charges, field)
        return replace(inside, energy=energy + inside.energy, gradient=gradient + inside.gradient)


class Transfer(EvaluatedPotential):
    """A cheap stand-in for the transfer of a proton: a double well along the difference of two distances."""

    level = "QM"
    capabilities = Capabilities(frozenset({"electrostatic"}))

    def create_evaluator(self, specification):
        return TransferEvaluator()


def transfer_in_water(edge=1.5):
    """Return a mixed System with `Transfer` in a box of water with PME, and its positions, nm."""
    topology = app.Topology()
    residue = topology.addResidue("TRF", topology.addChain())
    first, second, mover = (topology.addAtom(name, app.Element.getBySymbol("O"), residue) for name in ("A", "B", "M"))
    topology.addBond(first, mover)
    topology.addBond(second, mover)
    kinds = "".join(f'<Atom name="{name}" type="x" charge="0"/>' for name in ("A", "B", "M"))
    force_field = app.ForceField(
        "amber14/tip3pfb.xml",
        io.StringIO(
            '<ForceField><AtomTypes><Type name="x" class="x" element="O" mass="16"/></AtomTypes>'
            f'<Residues><Residue name="TRF">{kinds}<Bond atomName1="A" atomName2="M"/>'
            '<Bond atomName1="B" atomName2="M"/></Residue></Residues>'
            '<NonbondedForce coulomb14scale="0.8333333333333334" lj14scale="0.5">'
            '<UseAttributeFromResidue name="charge"/><Atom type="x" sigma="0.34" epsilon="0.5"/></NonbondedForce>'
            "</ForceField>"
        ),
    )
    start = np.array([[0.0, 0.0, 0.0], [0.296, 0.0, 0.0], [0.111, 0.0, 0.0]])
    modeller = app.Modeller(topology, start * unit.nanometer)
    modeller.addSolvent(force_field, boxSize=[edge] * 3 * unit.nanometer, neutralize=False)
    system = force_field.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.6, switchDistance=0.45, rigidWater=False
    )
    term = Term(Transfer(), Region("transfer", range(3)), embedding="electrostatic")
    mixed = create_mixed_system(modeller.topology, system, Hamiltonian([term]))
    return SimpleNamespace(mixed=mixed, positions=np.array(modeller.positions.value_in_unit(unit.nanometer)))


class WatersEvaluator(Evaluator):
    """Flexible waters with the charges, springs and Lennard-Jones interactions of TIP3P, atomic units."""

    charges = np.array([-0.834, 0.417, 0.417])
    springs = ((0, 1, 1.809, 0.49), (0, 2, 1.809, 0.49), (1, 2, 2.861, 0.15))
    sigma, epsilon = 5.95, 2.42e-4

    def evaluate(self, geometry, field):
        positions = geometry.positions
        n_waters = len(positions) // 3
        charges = np.tile(self.charges, n_waters)
        delta = positions[:, None] - positions[None]
        r = np.linalg.norm(delta, axis=-1) + np.eye(len(positions))
        # Derivatives of the energy with respect to each distance, symmetric.
        slopes = np.zeros_like(r)
        energy = 0.0
        for first in range(0, len(positions), 3):
            for i, j, length, stiffness in self.springs:
                i, j = first + i, first + j
                energy += 0.5 * stiffness * (r[i, j] - length) ** 2
                slopes[i, j] = slopes[j, i] = stiffness * (r[i, j] - length)
        water = np.repeat(np.arange(n_waters), 3)
        other = water[:, None] != water[None]
        products = charges[:, None] * charges[None] * other
        energy += 0.5 * (products / r).sum()
        slopes -= products / r**2
        sixth = np.zeros_like(r)
        sixth[::3, ::3] = (self.sigma / r[::3, ::3]) ** 6 * other[::3, ::3]
        energy += 0.5 * 4.0 * self.epsilon * (sixth**2 - sixth).sum()
        slopes += 4.0 * self.epsilon * (6.0 * sixth - 12.0 * sixth**2) / r
        gradient = (slopes[..., None] * delta / r[..., None]).sum(axis=1)
        inside = charges_in_field(positions, charges, field)
        return replace(inside, energy=energy + inside.energy, gradient=gradient + inside.gradient)


class Waters(EvaluatedPotential):
    """A cheap stand-in for quantum chemistry of waters, which polarises nothing."""

    level = "QM"
    capabilities = Capabilities(frozenset({"electrostatic"}))

    def create_evaluator(self, specification):
        return WatersEvaluator()
