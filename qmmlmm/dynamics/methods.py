"""How hops are decided: settings, without state."""

from __future__ import annotations

from dataclasses import dataclass

from qmmlmm.errors import nearest

PROPAGATIONS = ("local diabatisation", "couplings")
DECOHERENCES = ("energy", "none")


@dataclass(frozen=True)
class FewestSwitches:
    """Fewest-switches surface hopping: amplitudes are propagated, and hops follow the flow between them.

    Parameters
    ----------
    propagation : {"local diabatisation", "couplings"}
        Where the time dependence of the states comes from: overlaps between the states of subsequent geometries, or
        derivative couplings times velocities. Local diabatisation is stable at sharp crossings.
    substeps : int
        Electronic steps in a nuclear one; energies and couplings are interpolated linearly.
    decoherence : {"energy", "none"}
        ``"energy"`` damps the amplitudes of the other states by the energy gap and the kinetic energy of the region.

    Raises
    ------
    ValueError
        If a setting makes no sense.

    Notes
    -----
    Tully, J. Chem. Phys. 93, 1061 (1990); local diabatisation and its hopping probabilities: Granucci, Persico and
    Toniolo, J. Chem. Phys. 114, 10608 (2001), and Plasser et al., J. Chem. Phys. 137, 22A514 (2012); decoherence by
    energy: Granucci and Persico, J. Chem. Phys. 126, 134114 (2007), with C = 0.1 hartree.
    """

    propagation: str = "local diabatisation"
    substeps: int = 20
    decoherence: str = "energy"

    def __post_init__(self) -> None:
        check_choice("FewestSwitches: propagation", self.propagation, PROPAGATIONS)
        check_choice("FewestSwitches: decoherence", self.decoherence, DECOHERENCES)
        if isinstance(self.substeps, bool) or not isinstance(self.substeps, int) or self.substeps < 1:
            raise ValueError(f"FewestSwitches: substeps is a positive integer, got {self.substeps!r}")


@dataclass(frozen=True)
class LandauZener:
    """Hops where the gap to another state has a minimum in time, and spin flips where states of two spins cross.

    Works from energies alone; spin flips need the spin-orbit coupling of both states too, see `CoefficientSurfaces`.

    Notes
    -----
    States of one multiplicity avoid each other.
    Belyaev and Lebedev, Phys. Rev. A 84, 014701 (2011): with the gap Z at its minimum the probability is

        P = exp(-pi / (2 hbar) sqrt(Z^3 / (d^2 Z / dt^2)))

    Gap and second derivative come from the parabola through three steps. The step with the minimum is known one step
    later; the trajectory goes back there, hops, and takes that step again on the new surface.

    States of different multiplicity cross, and stay what they are but for the spin-orbit coupling V. Zener, Proc. R.
    Soc. Lond. A 137, 696 (1932): the probability to hop is

        P = 1 - exp(-2 pi V^2 / (hbar |d(E_1 - E_2)/dt|))

    with the rate at which the energies cross, from the step in which they do; the hop is at the end of that step. No
    phase is kept between two crossings, and where the states come near and do not cross there is no hop: the
    trajectory has to pass quickly, with a kinetic energy far above V, and the coupling is the same all the way.

    At a hop and at a spin flip the momenta of the region are scaled, all of them by the same factor, so that the total
    energy stays: there is no coupling vector to go along. So all kinetic energy of the region counts, more than along a
    coupling, and fewer hops upward are frustrated the larger the region is.
    """


def check_choice(name: str, given: str, valid: tuple[str, ...]) -> None:
    """Raise ValueError unless `given` is one of the valid texts."""
    if given not in valid:
        raise ValueError(f"{name} is one of {', '.join(map(repr, valid))}, got {given!r}.{nearest(str(given), valid)}")
