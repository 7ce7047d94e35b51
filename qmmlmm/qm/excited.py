"""How the electronic states of a region are computed: settings, without state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qmmlmm.errors import PotentialError, nearest

SPINS = ("singlet", "triplet")


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
