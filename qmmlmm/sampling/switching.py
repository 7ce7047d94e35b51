"""Fast switching from one Hamiltonian to another by a global parameter, and its work."""

from __future__ import annotations

from openmm import app, unit

from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.sampling.driven_parameter import check_driven_parameter
from qmmlmm.setting_checks import LARGEST_COUNT, check_finite_number, check_whole_number


def switching_work(
    mixed: MixedSystem,
    simulation: app.Simulation,
    parameter: str,
    start: float,
    end: float,
    steps: int,
    *,
    steps_between: int = 1,
) -> unit.Quantity:
    """Change a parameter in equal parts during a simulation, and return the work done on the system.

    Parameters
    ----------
    mixed : MixedSystem
        System whose Hamiltonian has the parameter.
    simulation : openmm.app.Simulation
        Simulation in equilibrium with the parameter at `start`. Its reporters report as in any run.
    parameter : str
        Name of the parameter.
    start, end : float
        First and last value of the parameter.
    steps : int
        Number of parts of the change.
    steps_between : int
        Number of steps of the integrator after each part.

    Returns
    -------
    Quantity, kJ/mol
        Work, for `qmmlmm.free_energy.reweighting.bennett_acceptance_ratio` with switchings in both directions.

    Raises
    ------
    HamiltonianError
        If there is no such parameter.
    SettingError
        If a number is out of range, or an argument has another type.
    UnsupportedSystemError
        If charges of the System were changed after it was created.

    Notes
    -----
    W = sum_k dlambda (dE/dlambda)(x_k), which is exact because the energy is linear in the parameter. Every part
    evaluates all levels that the parameter mixes once. Sources: Jarzynski, Phys. Rev. Lett. 78, 2690 (1997); Crooks,
    Phys. Rev. E 61, 2361 (2000).
    """
    check_driven_parameter(mixed, simulation, parameter)
    for name, value in (("start", start), ("end", end)):
        check_finite_number(name, value)
    for name, count in (("steps", steps), ("steps_between", steps_between)):
        check_whole_number(name, count, at_most=LARGEST_COUNT)
    context = simulation.context
    mixed.check_unchanged(context)
    work = 0.0 * unit.kilojoule_per_mole
    context.setParameter(parameter, start)
    for k in range(1, steps + 1):
        derivative = mixed.parameter_derivatives(context)[parameter]
        work += (end - start) / steps * derivative
        context.setParameter(parameter, start + (end - start) * k / steps)
        simulation.step(steps_between)
    return work
