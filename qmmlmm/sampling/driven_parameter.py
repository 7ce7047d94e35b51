"""The parameter of a Hamiltonian that a method of sampling changes during a simulation."""

from __future__ import annotations

from openmm import app

from qmmlmm.errors import HamiltonianError, listed, nearest
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.setting_checks import check_instance


def check_driven_parameter(mixed: MixedSystem, simulation: app.Simulation, parameter: str) -> str:
    """Return the name of a parameter that a Hamiltonian and a Simulation of its System have.

    Parameters
    ----------
    mixed : MixedSystem
    simulation : openmm.app.Simulation
    parameter : str

    Raises
    ------
    HamiltonianError
        If there is no such parameter.
    SettingError
        If an argument has another type.
    """
    check_instance("mixed", mixed, MixedSystem)
    check_instance("simulation", simulation, app.Simulation, "an openmm.app.Simulation")
    names = list(mixed.hamiltonian.parameters)
    if not isinstance(parameter, str) or parameter not in names:
        raise HamiltonianError(
            f"the Hamiltonian has no parameter {parameter!r}; it has {listed(names) or 'none'}."
            f"{nearest(str(parameter), names)}"
        )
    if parameter not in dict(simulation.context.getParameters()):
        raise HamiltonianError(
            f"the simulation has no parameter {parameter!r}: it runs another System; create it with mixed.system"
        )
    return parameter
