"""Forces of OpenMM that change the box."""

from __future__ import annotations

import openmm

BAROSTATS = (
    openmm.MonteCarloBarostat,
    openmm.MonteCarloAnisotropicBarostat,
    openmm.MonteCarloFlexibleBarostat,
    openmm.MonteCarloMembraneBarostat,
)
"""Their classes, which apply no forces."""


def barostats_of(system: openmm.System) -> list[openmm.Force]:
    """Return the barostats of a System.

    Parameters
    ----------
    system : openmm.System
    """
    return [force for force in system.getForces() if isinstance(force, BAROSTATS)]
