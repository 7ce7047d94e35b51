"""A salty solution small enough for central differences, and potentials whose exact answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from qmmlmm import OpenMMPotential

REACH = 6.0
"""alpha times the cutoff of the NonbondedForce: erfc is 2e-17 there, and nobody can tell where it ends."""

CUTOFF = 1.0
ALPHA = REACH / CUTOFF
BOXES = {
    "cubic": 2.2 * np.eye(3),
    "octahedron": 2.6 * np.array([[1, 0, 0], [1 / 3, 2 * np.sqrt(2) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(6) / 3]]),
    "triclinic": np.array([[2.3, 0, 0], [0.5, 2.2, 0], [-0.9, 0.8, 2.4]]),
}
# Odd: at the Nyquist frequency of an even mesh the sign of m is a matter of taste, which shows in a skewed
# box if the mesh is as coarse as this one.
GRID = (25, 27, 23)
# A zigzag chain of six carbon atoms, with the hydrogens left out; bonds of 0.15 nm.
CHAIN = np.array([[0, 0, 0], [0.13, 0.08, 0], [0.26, 0, 0.03], [0.38, 0.09, 0.02], [0.51, 0.01, 0], [0.6, 0.12, 0.05]])
CHAIN_CHARGES = np.array([0.4, -0.7, 0.55, -0.25, 0.3, -0.3])
N_CHAIN = len(CHAIN)


class FixedCharges(torch.nn.Module):
    """E = sum of q phi."""

    def __init__(self, charges):
        super().__init__()
        self.register_buffer("charges", torch.tensor(charges, dtype=torch.float64))

    def forward(self, positions, potential, field):
        return (self.charges * potential).sum()


class Polarisable(torch.nn.Module):
    """Charges and dipoles that follow the geometry, and polarisabilities."""

    def __init__(self, charges):
        super().__init__()
        self.register_buffer("charges", torch.tensor(charges, dtype=torch.float64))

    def forward(self, positions, potential, field):
        delta = positions[:, None, :] - positions[None, :, :]
        squared = (delta * delta).sum(-1)
        spread = torch.exp(-squared / 30.0).sum(-1)
        charges = self.charges + 0.3 * (spread - spread.mean())
        dipoles = 0.2 * (delta * torch.exp(-squared / 20.0)[:, :, None]).sum(1)
        alpha = 4.0 + spread
        return (
            0.01 * squared.sum()
            + (charges * potential).sum()
            - (dipoles * field).sum()
            - 0.5 * (alpha * (field * field).sum(-1)).sum()
        )


def add_molecule(topology, name, elements, bonds):
    residue = topology.addResidue(name, topology.addChain())
    atoms = [topology.addAtom(f"A{k}", element, residue) for k, element in enumerate(elements)]
    for a, b in bonds:
        topology.addBond(atoms[a], atoms[b], order=1)  # else, without hydrogens, it looks like a double bond


def scattered(rng, box, occupied, count, clearance, low=0.0, high=1.0):
    """Points in the box that are `clearance` away from those before, images considered."""
    shifts = np.array([[a, b, c] for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]) @ box
    points = [np.asarray(p) for p in occupied]
    while len(points) < len(occupied) + count:
        trial = rng.uniform(low, high, 3) @ box
        away = np.array(points)[:, None, :] - trial - shifts[None]
        if (np.linalg.norm(away, axis=2) > clearance).all():
            points.append(trial)
    return np.array(points[len(occupied) :])


def solution(shape="cubic", region_charge=0, ion_charge=0, n_chains=1, scale=1.0, alpha=ALPHA, grid=GRID, seed=1):
    """One or two chains among ions of both signs, in a box or, with shape None, without one.

    Pairs inside a chain do not interact: as a region of fixed charges it gives the plain force field back.
    """
    rng = np.random.default_rng(seed)
    topology, system, force = app.Topology(), openmm.System(), openmm.NonbondedForce()
    box = scale * (BOXES[shape] if shape else BOXES["cubic"])
    charges, places = [], []
    for k in range(n_chains):
        add_molecule(topology, "CHN", [app.element.carbon] * N_CHAIN, [(i, i + 1) for i in range(N_CHAIN - 1)])
        charges.append(CHAIN_CHARGES + (region_charge if k == 0 else -region_charge) / N_CHAIN)
        # The second starts at the edge of the box and is cut by it.
        places.append(CHAIN + (np.array([0.4, 0.45, 0.5]) if k == 0 else np.array([0.93, 0.9, 0.97])) @ box)
    chain_places = np.concatenate(places)
    ions = scattered(rng, box, chain_places, 40, 0.22 * scale)
    ion_charges = rng.uniform(0.3, 0.9, 40) * np.tile([1, -1], 20)
    ion_charges += (ion_charge - ion_charges.sum()) / 40
    for _ in ions:
        add_molecule(topology, "ION", [app.element.sodium], [])
    for charge in np.concatenate([*charges, ion_charges]):
        system.addParticle(20.0)
        force.addParticle(charge, 0.2, 0.1)
    for k in range(n_chains):
        for i in range(N_CHAIN):
            for j in range(i):
                force.addException(N_CHAIN * k + i, N_CHAIN * k + j, 0.0, 0.2, 0.0)
    positions = np.concatenate([chain_places, ions])
    if shape:
        system.setDefaultPeriodicBoxVectors(*box)
        topology.setPeriodicBoxVectors(box * unit.nanometer)
        force.setNonbondedMethod(openmm.NonbondedForce.PME)
        force.setCutoffDistance(CUTOFF)
        force.setPMEParameters(alpha, *grid)
        force.setExceptionsUsePeriodicBoundaryConditions(True)
        # Molecules that the box cuts in two.
        positions = positions - np.floor(positions @ np.linalg.inv(box)) @ box
    system.addForce(force)
    return SimpleNamespace(
        topology=topology,
        system=system,
        positions=positions,
        box=box if shape else np.eye(3),
        charges=np.concatenate([*charges, ion_charges]),
        chains=[tuple(range(N_CHAIN * k, N_CHAIN * (k + 1))) for k in range(n_chains)],
        region_charges=[region_charge, -region_charge][:n_chains],
    )


def energy_and_forces(system, positions, box=None, groups=-1):
    """In kJ/mol and kJ/(mol nm), on Reference."""
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    if box is not None:
        context.setPeriodicBoxVectors(*box)
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True, groups=groups)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def fixed_in_openmm(charges):
    """A region of fixed charges as a System of its own, in which they do not feel each other."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for k, charge in enumerate(charges):
        system.addParticle(1.0)
        force.addParticle(charge, 1.0, 0.0)
        for other in range(k):
            force.addException(other, k, 0.0, 1.0, 0.0)
    system.addForce(force)
    return OpenMMPotential(system)


@pytest.fixture
def tools():
    """What the tests of this folder share."""
    return SimpleNamespace(
        FixedCharges=FixedCharges,
        Polarisable=Polarisable,
        solution=solution,
        energy_and_forces=energy_and_forces,
        add_molecule=add_molecule,
        fixed_in_openmm=fixed_in_openmm,
    )


@pytest.fixture
def far_reach(monkeypatch):
    """Let the short-range part reach as far as that of the NonbondedForce here."""
    monkeypatch.setattr("qmmlmm.mm.term_layouts.SHORT_RANGE_REACH", REACH)
