"""Methanimine, five atoms, in a small periodic box of water, for tests of derivatives that take seconds.

The System has charges and nothing else, and the positions are not equilibrated.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing
import openmm
from openmm import app, unit

FloatArray = np.typing.NDArray[np.float64]

EDGE = 1.24  # nm
SOLUTE = tuple(range(5))
# Angstrom, a little out of the plane, so that no derivative vanishes by symmetry.
METHANIMINE = (
    ("C", 0.02, 0.01, -0.03, 0.30),
    ("N", 1.29, 0.03, 0.05, -0.60),
    ("H", -0.55, 0.93, 0.08, 0.03),
    ("H", -0.53, -0.96, -0.02, 0.03),
    ("H", 1.70, -0.89, 0.12, 0.24),
)
WATER = (("O", 0.0, 0.0, 0.0, -0.834), ("H", 0.76, 0.59, 0.0, 0.417), ("H", -0.76, 0.59, 0.0, 0.417))


def build() -> tuple[app.Topology, openmm.System, FloatArray]:
    """Return a topology, a System that has only charges, and positions in nm."""
    random = np.random.default_rng(11)
    topology, system, force = app.Topology(), openmm.System(), openmm.NonbondedForce()
    chain = topology.addChain()
    positions: list[FloatArray] = []

    def add(name: str, atoms: tuple[tuple[str, float, float, float, float], ...], sites: FloatArray) -> None:
        residue = topology.addResidue(name, chain)
        for (symbol, *_, charge), site in zip(atoms, sites, strict=True):
            element = app.Element.getBySymbol(symbol)
            topology.addAtom(symbol, element, residue)
            system.addParticle(element.mass)
            force.addParticle(charge, 0.3, 0.0)
            positions.append(site)

    centre = np.full(3, EDGE / 2)
    solute = np.array([atom[1:4] for atom in METHANIMINE]) * 0.1
    add("MIM", METHANIMINE, solute - solute.mean(axis=0) + centre)
    water = np.array([atom[1:4] for atom in WATER]) * 0.1
    for cell in itertools.product(range(4), repeat=3):
        middle = (np.array(cell) + 0.5) * EDGE / 4
        if np.abs(middle - centre).max() < 0.25 * EDGE:
            continue
        turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
        add("HOH", WATER, middle + water @ turn)
    box = np.eye(3) * EDGE
    topology.setPeriodicBoxVectors(box * unit.nanometer)
    system.setDefaultPeriodicBoxVectors(*box)
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setCutoffDistance(0.55)
    for pair in itertools.combinations(SOLUTE, 2):
        force.addException(*pair, 0.0, 0.3, 0.0)
    for first in range(len(SOLUTE), system.getNumParticles(), 3):
        for pair in itertools.combinations(range(first, first + 3), 2):
            force.addException(*pair, 0.0, 0.3, 0.0)
    system.addForce(force)
    return topology, system, np.array(positions)


def near_and_far(positions: FloatArray) -> tuple[list[int], list[int]]:
    """Return the five particles of the surroundings that are nearest to the solute, and the five furthest.

    Parameters
    ----------
    positions : (n_atoms, 3) float array, nm
    """
    away = positions[len(SOLUTE) :, None] - positions[None, : len(SOLUTE)]
    away -= EDGE * np.round(away / EDGE)
    order = len(SOLUTE) + np.argsort(np.linalg.norm(away, axis=2).min(axis=1))
    return [int(a) for a in order[:5]], [int(a) for a in order[-5:]]
