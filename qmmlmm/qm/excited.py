"""How the electronic states of a region are computed: settings, without state."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from qmmlmm.errors import PotentialError, nearest

SPINS = ("singlet", "triplet")
ACTIVE_SPACES = ("frontier", "natural")


@dataclass(frozen=True)
class _LinearResponse:
    """Settings of excited states by linear response.

    Parameters
    ----------
    n_states : int
        Number of states, the ground state counted: state 0 is the ground state, and 1 to ``n_states - 1`` are the
        lowest excited states.
    spin : {"singlet", "triplet"}, optional
        Of the excited states of a restricted reference; singlets if not given. The states of an unrestricted
        reference have no such label.
    conv_tol : float
        Norm of the residual at which the amplitudes are converged, and of the orbital gradient (hartree) at which the
        orbitals are. The forces err by about as much.
    max_cycle : int
        Number of cycles of the iterative diagonalisation.

    Raises
    ------
    PotentialError
        If a setting makes no sense.
    """

    n_states: int
    spin: str | None = None
    conv_tol: float = 1e-6
    max_cycle: int = 100

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_count(name, self.n_states)
        if self.spin is not None and self.spin not in SPINS:
            raise PotentialError(
                f"{name}: spin is 'singlet' or 'triplet', or not given, got {self.spin!r}."
                f"{nearest(str(self.spin), list(SPINS))}"
            )
        if not 0.0 < self.conv_tol <= 1e-4:
            raise PotentialError(f"{name}: conv_tol lies above 0 and is at most 1e-4, got {self.conv_tol!r}")
        if not is_integer(self.max_cycle) or self.max_cycle < 1:
            raise PotentialError(f"{name}: max_cycle is a positive integer, got {self.max_cycle!r}")


@dataclass(frozen=True)
class TDA(_LinearResponse):
    """Excited states in the Tamm-Dancoff approximation; of Hartree-Fock: CIS."""


@dataclass(frozen=True)
class TDDFT(_LinearResponse):
    """Excited states by linear-response time-dependent density functional theory, or Hartree-Fock."""


@dataclass(frozen=True)
class DeltaSCF:
    """One excited determinant with orbitals of its own, kept by the maximum overlap method.

    An electron of one spin goes from an occupied to an empty orbital of the ground state; both are counted from the gap
    between them. The determinant is unrestricted: of a closed shell it is singlet and triplet in equal parts, and its
    energy lies between the two. Its states are 0, the ground state, and 1.

    Parameters
    ----------
    hole : int
        0 is the highest occupied orbital, 1 the one below.
    particle : int
        0 is the lowest empty orbital, 1 the one above.
    spin : {"up", "down"}
        Of the electron. The multiplicity's unpaired electrons are spin up.
    conv_tol : float
        Orbital gradient, in hartree, at which the orbitals are converged.

    Raises
    ------
    PotentialError
        If a setting makes no sense.

    Notes
    -----
    Gilbert, Besley and Gill, J. Phys. Chem. A 112, 13164 (2008). The occupied orbitals are those that overlap most with
    the excited determinant of the last geometry; at the first one, with that of the ground state's orbitals (Barca,
    Gilbert and Gill, J. Chem. Theory Comput. 14, 1501 (2018)).
    """

    hole: int = 0
    particle: int = 0
    spin: str = "up"
    conv_tol: float = 1e-6

    @property
    def n_states(self) -> int:
        """Two."""
        return 2

    def __post_init__(self) -> None:
        for name in ("hole", "particle"):
            value = getattr(self, name)
            if not is_integer(value) or value < 0:
                raise PotentialError(f"DeltaSCF: {name} counts orbitals from the gap, 0, 1, 2 ..., got {value!r}")
        if self.spin not in ("up", "down"):
            raise PotentialError(
                f"DeltaSCF: spin is 'up' or 'down', of the electron that is excited, got {self.spin!r}"
            )
        if not 0.0 < self.conv_tol <= 1e-4:
            raise PotentialError(f"DeltaSCF: conv_tol lies above 0 and is at most 1e-4, got {self.conv_tol!r}")


@dataclass(frozen=True)
class CASSCF:
    """State-averaged complete active space SCF, all states with the same weight and the region's multiplicity.

    Parameters
    ----------
    n_states : int
        Number of states that are averaged, at least 2; state 0 is the lowest.
    n_electrons, n_orbitals : int
        Active electrons and orbitals.
    active : {"frontier", "natural"}, tuple of int, or tuple of str
        Orbitals that the first geometry starts from: ``"frontier"``, those of Hartree-Fock around the gap; natural
        orbitals of MP2 around the gap; Hartree-Fock orbitals by their number from 0 in the order of energy; or labels
        of atomic orbitals such as ``("C 2pz", "N 2pz")``, whose valence space is taken from the orbitals (AVAS).
    conv_tol : float
        Gradient of the orbitals at which they are converged.
    max_cycle : int

    Raises
    ------
    PotentialError
        If a setting makes no sense or the active space has fewer states.

    Notes
    -----
    Later geometries start from the core and active orbitals of those before, extrapolated along a trajectory, so that
    the active space stays the same; if it does not, this is an error. States have the multiplicity of the region and
    none below is missed: up to 400 determinants are diagonalised as a whole, more are iterated.

    AVAS: Sayfutyarova, Sun, Chan and Knizia, J. Chem. Theory Comput. 13, 4063 (2017).
    """

    n_states: int
    n_electrons: int
    n_orbitals: int
    active: str | tuple[int, ...] | tuple[str, ...] = "frontier"
    conv_tol: float = 1e-6
    max_cycle: int = 100

    def __post_init__(self) -> None:
        check_count("CASSCF", self.n_states)
        for name in ("n_electrons", "n_orbitals", "max_cycle"):
            value = getattr(self, name)
            if not is_integer(value) or value < 1:
                raise PotentialError(f"CASSCF: {name} is a positive integer, got {value!r}")
        if self.n_electrons > 2 * self.n_orbitals:
            raise PotentialError(
                f"CASSCF: {self.n_electrons} electrons do not fit into {self.n_orbitals} active orbitals"
            )
        if not 0.0 < self.conv_tol <= 1e-4:
            raise PotentialError(f"CASSCF: conv_tol lies above 0 and is at most 1e-4, got {self.conv_tol!r}")
        self._check_active()

    def _check_active(self) -> None:
        active = self.active
        if isinstance(active, str):
            if active not in ACTIVE_SPACES:
                raise PotentialError(
                    f"CASSCF: active is one of {', '.join(map(repr, ACTIVE_SPACES))}, a tuple of orbital numbers, or a "
                    f"tuple of labels such as ('C 2pz', 'N 2pz'), got {active!r}.{nearest(active, ACTIVE_SPACES)}"
                )
            return
        if not isinstance(active, tuple) or not active or len({isinstance(a, str) for a in active}) != 1:
            raise PotentialError(f"CASSCF: active is a text, or a tuple of numbers or of labels, got {active!r}")
        if isinstance(active[0], str):
            return
        if len(active) != self.n_orbitals or len(set(active)) != len(active):
            raise PotentialError(f"CASSCF: active names {self.n_orbitals} different orbitals, got {active!r}")
        if not all(is_integer(a) and int(a) >= 0 for a in active):
            raise PotentialError(f"CASSCF: active counts orbitals from 0, got {active!r}")


def spin_states(n_electrons: int, n_orbitals: int, multiplicity: int) -> int:
    """Return how many states of a multiplicity an active space has.

    Notes
    -----
    Paldus, J. Chem. Phys. 61, 5321 (1974), eq. 30.
    """
    if (n_electrons + multiplicity - 1) % 2 or multiplicity - 1 > min(n_electrons, 2 * n_orbitals - n_electrons):
        return 0
    low = (n_electrons - multiplicity + 1) // 2
    high = (n_electrons + multiplicity + 1) // 2
    return multiplicity * comb(n_orbitals + 1, low) * comb(n_orbitals + 1, high) // (n_orbitals + 1)


TDA.__doc__ = f"{TDA.__doc__}\n{(_LinearResponse.__doc__ or '').partition(chr(10))[2]}"
TDDFT.__doc__ = f"{TDDFT.__doc__}\n{(_LinearResponse.__doc__ or '').partition(chr(10))[2]}"


def check_count(method: str, n_states: object) -> None:
    """Raise PotentialError unless the number of states is an integer of at least two."""
    if not is_integer(n_states) or int(n_states) < 2:  # type: ignore[call-overload]
        raise PotentialError(
            f"{method}: n_states counts all states, the ground state among them, and is an integer of at least 2, "
            f"got {n_states!r}"
        )


def is_integer(value: object) -> bool:
    """Return whether a value is an integer and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
