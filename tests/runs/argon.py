"""A box of argon with two force groups, in the place of a MixedSystem: quick, and with known terms.

Processes that tests start import it as ``tests.runs.argon``.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import openmm
from openmm import app, unit

N_ATOMS = 27
BOX = 2.4  # nm
SIGMA, EPSILON = 0.34, 0.9959  # argon: nm, kJ/mol
SPRING = 3.0  # kJ/(mol nm^2), holds the "region" to a point
MASS = 39.948
TIMESTEP = 0.004  # ps
TERMS = {"MM": 0, "cluster, left/ML": 1}


class Failure:
    """A callback of PythonForce that fails when told to, and keeps the exception."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail_at: int | None = None
        self.error: BaseException = RuntimeError("the SCF did not converge")
        self.original: BaseException | None = None

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        self.calls += 1
        if self.fail_at is not None and self.calls >= self.fail_at:
            self.original = self.error
            raise self.error
        return 0.0, np.zeros((N_ATOMS, 3))


class Argon:
    """Has what reporters and run directories need of a MixedSystem."""

    def __init__(self, *, spring: float = SPRING, periodic: bool = True, failure: Failure | None = None) -> None:
        self.topology = app.Topology()
        chain = self.topology.addChain()
        for _ in range(N_ATOMS):
            residue = self.topology.addResidue("AR", chain)
            self.topology.addAtom("AR", app.Element.getBySymbol("Ar"), residue)
        self.system = openmm.System()
        nonbonded = openmm.NonbondedForce()
        if periodic:
            vectors = BOX * np.eye(3)
            self.topology.setPeriodicBoxVectors(vectors * unit.nanometer)
            self.system.setDefaultPeriodicBoxVectors(*vectors)
            nonbonded.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
            nonbonded.setCutoffDistance(1.0)
        for _ in range(N_ATOMS):
            self.system.addParticle(MASS)
            nonbonded.addParticle(0.0, SIGMA, EPSILON)
        self.system.addForce(nonbonded)
        region = openmm.CustomExternalForce("0.5*k*(x^2+y^2+z^2)")
        region.addGlobalParameter("k", spring)
        region.addParticle(0)
        region.setForceGroup(1)
        self.system.addForce(region)
        self.failure = failure
        if failure is not None:
            self.system.addForce(openmm.PythonForce(failure))
        self.spring = spring
        self.forgotten = 0
        self.checks: list[bool] = []

    def positions(self) -> np.ndarray:
        side = round(N_ATOMS ** (1 / 3))
        grid = np.stack(np.meshgrid(*3 * [np.arange(side)], indexing="ij"), axis=-1).reshape(-1, 3)
        return (grid + 0.25) * BOX / side

    def simulation(self, platform: str = "Reference", *, ready: bool = True, seed: int = 5) -> app.Simulation:
        integrator = openmm.LangevinMiddleIntegrator(90.0, 1.0, TIMESTEP)
        integrator.setRandomNumberSeed(seed)
        simulation = app.Simulation(self.topology, self.system, integrator, openmm.Platform.getPlatformByName(platform))
        if ready:
            simulation.context.setPositions(self.positions())
            simulation.context.setVelocitiesToTemperature(90.0, seed)
        return simulation

    def term_energies(self, context: openmm.Context, *, check_charges: bool = True) -> dict[str, Any]:
        self.checks.append(check_charges)
        return {
            name: context.getState(energy=True, groups={group}).getPotentialEnergy() for name, group in TERMS.items()
        }

    def check_unchanged(self, context: openmm.Context) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {
            "regions": [{"name": "cluster, left", "atoms": [0]}],
            "terms": [{"name": name} for name in TERMS if name != "MM"],
            "spring": self.spring,
        }

    def summary(self) -> dict[str, dict[str, object]]:
        return {"cluster, left/QM": {"evaluations": self.forgotten}}

    def forget(self) -> None:
        self.forgotten += 1

    def memory(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def recall(self, name: str, memory: dict[str, np.ndarray]) -> None:
        raise AssertionError

    def raise_original(self, error: BaseException) -> NoReturn:
        if self.failure is not None and self.failure.original is not None:
            raise self.failure.original from error
        raise error
