"""A particle on two springs that a global parameter mixes, in the place of a MixedSystem."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.mm.mixed_system import MixedSystem

PARAMETER = "lambda_qm"


class MixedSprings(MixedSystem):
    """Has what switching, adaptive corrections and run directories ask of a MixedSystem.

    Parameters
    ----------
    first, second : float, kJ/(mol nm^2)
    shift : float, nm
        Of the second spring's minimum, along x.
    """

    def __init__(self, first: float, second: float, shift: float) -> None:
        hamiltonian = SimpleNamespace(parameters={PARAMETER: 0.0})
        super().__init__(app.Topology(), openmm.System(), hamiltonian, {}, ())
        self.derivatives = 0
        residue = self.topology.addResidue("PAR", self.topology.addChain())
        self.topology.addAtom("P", app.element.helium, residue)
        self.system.addParticle(4.0)
        self.energy = (
            f"(1-{PARAMETER})*0.5*{first}*(x1^2+y1^2+z1^2)+{PARAMETER}*0.5*{second}*((x1-{shift})^2+y1^2+z1^2)"
        )
        force = openmm.CustomCompoundBondForce(1, self.energy)
        force.addGlobalParameter(PARAMETER, 0.0)
        force.addEnergyParameterDerivative(PARAMETER)
        force.addBond([0])
        self.system.addForce(force)

    def simulation(self, integrator: openmm.Integrator, position=(0.05, 0.01, 0.0)) -> app.Simulation:
        simulation = app.Simulation(self.topology, self.system, integrator, openmm.Platform.getPlatform("Reference"))
        simulation.context.setPositions([position])
        return simulation

    def parameter_derivatives(self, context: openmm.Context) -> dict[str, unit.Quantity]:
        self.derivatives += 1
        found = context.getState(parameterDerivatives=True).getEnergyParameterDerivatives()
        return {PARAMETER: found[PARAMETER] * unit.kilojoule_per_mole}

    def term_energies(self, context: openmm.Context, *, check_charges: bool = True) -> dict[str, unit.Quantity]:
        return {"MM": context.getState(energy=True).getPotentialEnergy()}

    def check_unchanged(self, context: openmm.Context) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {"energy": self.energy}

    def summary(self) -> dict[str, dict[str, object]]:
        return {}

    def forget(self) -> None:
        pass

    def memory(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def recall(self, name: str, memory: dict[str, np.ndarray]) -> None:
        raise AssertionError

    def raise_original(self, error: BaseException) -> NoReturn:
        raise error


class StepReporter:
    """Keeps the steps at which a Simulation called it."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.steps: list[int] = []

    def describeNextReport(self, simulation):
        return {"steps": self.interval - simulation.currentStep % self.interval, "periodic": None, "include": []}

    def report(self, simulation, state) -> None:
        self.steps.append(simulation.currentStep)


def total_energy(context: openmm.Context) -> float:
    """Return potential and kinetic energy together, kJ/mol."""
    state = context.getState(energy=True)
    return (state.getPotentialEnergy() + state.getKineticEnergy())._value
