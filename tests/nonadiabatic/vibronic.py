"""A diatomic molecule with two electronic states that cost nothing, as a potential for a region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import Capabilities, EvaluatedPotential, Evaluation, Evaluator
from qmmlmm.coupling.state_results import StateResults
from qmmlmm.nonadiabatic import SurfaceHopping, TermSurfaces, VelocityVerletIntegrator

STIFFNESS, LENGTH = 0.3, 2.2  # hartree/bohr^2, bohr
SLOPE, CROSSING, COUPLING = 0.08, 2.35, 0.01  # hartree/bohr, bohr, hartree
MASSES = (12.0, 16.0)


@dataclass(frozen=True)
class VibronicPotential(EvaluatedPotential):
    """A spring plus and minus the root of a linear gap and a constant coupling."""

    state: int = 0
    level = "QM"

    @property
    def capabilities(self):
        return Capabilities(frozenset({"mechanical"}), n_states=2, state=self.state)

    def create_evaluator(self, specification):
        return VibronicEvaluator(self.state)


class VibronicEvaluator(Evaluator):
    def __init__(self, state):
        self._state = state
        self._angle = None

    def select_state(self, index):
        self._state = index

    def forget(self):
        self._angle = None

    def memory(self):
        return {} if self._angle is None else {"angle": np.array(self._angle)}

    def recall(self, memory):
        self._angle = float(memory["angle"]) if memory else None

    def evaluate(self, geometry, field):
        vector = geometry.positions[1] - geometry.positions[0]
        r = np.linalg.norm(vector)
        gap = SLOPE * (r - CROSSING)
        root = np.hypot(gap, COUPLING)
        sign = 2 * self._state - 1
        slope = STIFFNESS * (r - LENGTH) + sign * SLOPE * gap / root
        base = 0.5 * STIFFNESS * (r - LENGTH) ** 2
        energies = np.array([base - root, base + root])
        angle, overlaps = np.arctan2(COUPLING, gap), None
        if self._angle is not None:
            half = 0.5 * (angle - self._angle)
            overlaps = np.array([[np.cos(half), np.sin(half)], [-np.sin(half), np.cos(half)]])
        self._angle = angle
        gradient = np.outer([-1.0, 1.0], slope * vector / r)
        states = StateResults(self._state, energies, state_overlaps=overlaps)
        return Evaluation(energy=float(energies[self._state]), gradient=gradient, states=states)


def molecule():
    """Return Topology and System of the molecule alone."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("CO", topology.addChain())
    force = openmm.NonbondedForce()
    for symbol, mass in zip("CO", MASSES, strict=True):
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
        system.addParticle(mass)
        force.addParticle(0.0, 0.3, 0.0)
    system.addForce(force)
    return topology, system


def vibronic_system(potential=None):
    topology, system = molecule()
    region = Region("co", (0, 1), charge=0, multiplicity=1)
    term = Term(potential or VibronicPotential(), region, embedding="mechanical")
    return create_mixed_system(topology, system, Hamiltonian([term]))


def simulation_of(mixed, step=0.0001):
    platform = openmm.Platform.getPlatform("Reference")
    return app.Simulation(mixed.topology, mixed.system, VelocityVerletIntegrator(step), platform)


def hopping_on(mixed, step=0.0001):
    return SurfaceHopping(simulation_of(mixed, step), TermSurfaces(mixed, "co/QM"), 1)


def create_hopping():
    return hopping_on(vibronic_system())
