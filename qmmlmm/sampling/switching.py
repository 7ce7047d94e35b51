"""Fast switching from one Hamiltonian to another by a global parameter, and the work that it takes."""

from __future__ import annotations

import math
from typing import Any

import openmm
from openmm import unit

from qmmlmm.errors import HamiltonianError, listed, nearest
from qmmlmm.mm.mixed_system import MixedSystem


def switching_work(
    mixed: MixedSystem,
    context: openmm.Context,
    parameter: str,
    start: float,
    end: float,
    steps: int,
    *,
    steps_between: int = 1,
) -> unit.Quantity:
    """Change a parameter in equal parts while the simulation runs, and return the work done on the system.

    Parameters
    ----------
    mixed : MixedSystem
        Its Hamiltonian has the parameter.
    context : openmm.Context
        In equilibrium with the parameter at `start`; afterwards at `end`.
    parameter : str
    start, end : float
        Values between which the parameter is changed.
    steps : int
        Parts of the change.
    steps_between : int
        Steps of the integrator after each part.

    Returns
    -------
    Quantity, kJ/mol
        For `qmmlmm.analysis.reweighting.bennett_acceptance_ratio`, with switchings in both directions.

    Raises
    ------
    HamiltonianError
        If there is no such parameter.
    ValueError
        If a number is out of range.

    Notes
    -----
    W = sum_k dlambda (dE/dlambda)(x_k), which is exact because the energy is linear in the parameter. Every step needs
    all levels that the parameter mixes, each once. Sources: Jarzynski, Phys. Rev. Lett. 78, 2690 (1997); Crooks, Phys.
    Rev. E 61, 2361 (2000).
    """
    names = list(mixed.hamiltonian.parameters)
    if parameter not in names:
        raise HamiltonianError(
            f"the Hamiltonian has no parameter {parameter!r}; it has {listed(names) or 'none'}."
            f"{nearest(parameter, names)}"
        )
    for name, value in (("start", start), ("end", end)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} is a finite number, got {value!r}")
    for name, count in (("steps", steps), ("steps_between", steps_between)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} is a whole number above zero, got {count!r}")
    integrator: Any = context.getIntegrator()
    work = 0.0 * unit.kilojoule_per_mole
    context.setParameter(parameter, start)
    for k in range(1, steps + 1):
        derivative = mixed.parameter_derivatives(context)[parameter]
        work += (end - start) / steps * derivative
        context.setParameter(parameter, start + (end - start) * k / steps)
        integrator.step(steps_between)
    return work
