"""Settings of the methods that decide about hops."""

from __future__ import annotations

from dataclasses import dataclass

from qmmlmm.setting_checks import check_choice, check_whole_number

PROPAGATIONS = ("local diabatisation", "couplings")
DECOHERENCES = ("energy", "none")
MOST_SUBSTEPS = 100_000


@dataclass(frozen=True)
class FewestSwitches:
    """Fewest-switches surface hopping: amplitudes are propagated, and hops follow the flow between them.

    Parameters
    ----------
    propagation : {"local diabatisation", "couplings"}
        Source of the time dependence of the states: overlaps between the states at subsequent geometries, or derivative
        couplings times velocities. Local diabatisation is stable at sharp crossings.
    substeps : int
        Number of electronic steps in a nuclear step; energies and couplings are interpolated linearly.
    decoherence : {"energy", "none"}
        ``"energy"`` damps the amplitudes of the other states by the energy gap and the kinetic energy of the region.

    Raises
    ------
    SettingError
        If a setting is out of range.

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
        check_whole_number("FewestSwitches: substeps", self.substeps, at_most=MOST_SUBSTEPS)


@dataclass(frozen=True)
class LandauZener:
    """Hops where the gap to another state has a minimum in time, and spin flips where states of two spins cross.

    Needs only energies; spin flips need the spin-orbit coupling of both states too, see `CoefficientSurfaces`.

    Notes
    -----
    States of one multiplicity avoid each other. With the gap Z at its minimum the probability to hop is (Belyaev and
    Lebedev, Phys. Rev. A 84, 014701 (2011))

        P = exp(-pi / (2 hbar) sqrt(Z^3 / (d^2 Z / dt^2)))

    Gap and second derivative come from the parabola through three steps. A minimum is known one step later; the
    trajectory returns to it, hops, and repeats that step on the new surface.

    States of different multiplicity cross; only the spin-orbit coupling V mixes them. The probability to hop is (Zener,
    Proc. R. Soc. Lond. A 137, 696 (1932))

        P = 1 - exp(-2 pi V^2 / (hbar |d(E_1 - E_2)/dt|))

    with the rate at which the energies cross, from the step in which they do; the hop is at the end of that step. The
    formula holds for a trajectory that passes the crossing quickly, with a kinetic energy far above V and a constant
    coupling: no phase is kept between two crossings, and states that come near and do not cross do not hop.

    At a hop and at a spin flip all momenta of the region are scaled by the same factor, so that the total energy is
    conserved: there is no coupling vector. All kinetic energy of the region counts, more than along a coupling; the
    larger the region, the fewer hops upward are frustrated.
    """
