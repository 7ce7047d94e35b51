"""A hop between two electronic states."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hop:
    """A hop, or a hop that was frustrated.

    Parameters
    ----------
    step : int
        Step of the simulation.
    origin, target : int
        States before and after.
    energy_change : float, kJ/mol
        Potential energy after the hop less that before.
    accepted : bool
        False if the kinetic energy along the direction was not sufficient.
    """

    step: int
    origin: int
    target: int
    energy_change: float
    accepted: bool
