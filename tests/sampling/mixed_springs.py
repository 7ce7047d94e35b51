"""A particle on two springs that a global parameter mixes, in the place of a MixedSystem."""

from types import SimpleNamespace

import openmm
from openmm import unit

PARAMETER = "lambda_qm"


class MixedSprings:
    """Has what switching and adaptive corrections ask of a MixedSystem.

    Parameters
    ----------
    first, second : float, kJ/(mol nm^2)
    shift : float, nm
        Of the second spring's minimum, along x.
    """

    def __init__(self, first: float, second: float, shift: float) -> None:
        self.hamiltonian = SimpleNamespace(parameters={PARAMETER: 0.0})
        self.derivatives = 0
        self.system = openmm.System()
        self.system.addParticle(4.0)
        force = openmm.CustomCompoundBondForce(
            1,
            f"(1-{PARAMETER})*0.5*{first}*(x1^2+y1^2+z1^2)+{PARAMETER}*0.5*{second}*((x1-{shift})^2+y1^2+z1^2)",
        )
        force.addGlobalParameter(PARAMETER, 0.0)
        force.addEnergyParameterDerivative(PARAMETER)
        force.addBond([0])
        self.system.addForce(force)

    def parameter_derivatives(self, context: openmm.Context) -> dict[str, unit.Quantity]:
        self.derivatives += 1
        found = context.getState(parameterDerivatives=True).getEnergyParameterDerivatives()
        return {PARAMETER: found[PARAMETER] * unit.kilojoule_per_mole}

    def raise_original(self, error: BaseException) -> None:
        raise error
