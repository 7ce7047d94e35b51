"""Settings of the electronic states of a region."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

from qmmlmm.errors import PotentialError, nearest
from qmmlmm.setting_checks import as_float, check_whole_number, is_number, is_whole_number

SPINS = ("singlet", "triplet")
ACTIVE_SPACES = ("frontier", "natural")


@dataclass(frozen=True)
class _LinearResponse:
    """Settings of excited states by linear response.

    Parameters
    ----------
    n_states : int
        Number of states, including the ground state, which is state 0; 1 to ``n_states - 1`` are the lowest excited
        states.
    spin : {"singlet", "triplet"}, optional
        Spin of the excited states of a restricted reference; singlets if not given. The states of an unrestricted
        reference have no such label.
    conv_tol : float
        Norm of the residual at which the amplitudes are converged, and of the orbital gradient (hartree) at which the
        orbitals are converged. The error of the forces is of the same size.
    max_cycle : int
        Number of cycles of the iterative diagonalisation.

    Raises
    ------
    PotentialError
        If a setting is invalid.
    """

    n_states: int
    spin: str | None = None
    conv_tol: float = 1e-6
    max_cycle: int = 100

    def __post_init__(self) -> None:
        name = type(self).__name__
        _check_count(name, self.n_states)
        if self.spin is not None and not (isinstance(self.spin, str) and self.spin in SPINS):
            raise PotentialError(
                f"{name}: spin is 'singlet' or 'triplet', or not given, got {self.spin!r}."
                f"{nearest(str(self.spin), list(SPINS))}"
            )
        _check_tolerance(name, self.conv_tol)
        check_whole_number(f"{name}: max_cycle", self.max_cycle, error=PotentialError)


@dataclass(frozen=True)
class TDA(_LinearResponse):
    """Excited states in the Tamm-Dancoff approximation; of Hartree-Fock: CIS."""


@dataclass(frozen=True)
class TDDFT(_LinearResponse):
    """Excited states by linear-response time-dependent density functional theory, or Hartree-Fock."""


@dataclass(frozen=True)
class DeltaSCF:
    """One excited determinant with its own orbitals, kept by the maximum overlap method.

    An electron of one spin is moved from an occupied to an empty orbital of the ground state; both are counted from the
    gap. The determinant is unrestricted: for a closed shell it is an equal mixture of singlet and triplet, with an
    energy between the two. Its states are 0, the ground state, and 1.

    Parameters
    ----------
    hole : int
        Occupied orbital: 0 is the highest one, 1 the one below.
    particle : int
        Empty orbital: 0 is the lowest one, 1 the one above.
    spin : {"up", "down"}
        Spin of the electron. The unpaired electrons of the multiplicity are spin up.
    conv_tol : float
        Orbital gradient, in hartree, at which the orbitals are converged.

    Raises
    ------
    PotentialError
        If a setting is invalid.

    Notes
    -----
    Gilbert, Besley and Gill, J. Phys. Chem. A 112, 13164 (2008). The occupied orbitals are those with the
    largest overlap with the excited determinant of the last geometry; at the first one, with that of the ground state's
    orbitals (Barca, Gilbert and Gill, J. Chem. Theory Comput. 14, 1501 (2018)).
    """

    hole: int = 0
    particle: int = 0
    spin: str = "up"
    conv_tol: float = 1e-6

    @property
    def n_states(self) -> int:
        """Two: the ground state and the determinant."""
        return 2

    def __post_init__(self) -> None:
        for name in ("hole", "particle"):
            value = vars(self)[name]
            if not is_whole_number(value) or value < 0:
                raise PotentialError(f"DeltaSCF: {name} counts orbitals from the gap, 0, 1, 2 ..., got {value!r}")
        if not isinstance(self.spin, str) or self.spin not in ("up", "down"):
            raise PotentialError(
                f"DeltaSCF: spin is 'up' or 'down', of the electron that is excited, got {self.spin!r}"
            )
        _check_tolerance("DeltaSCF", self.conv_tol)


@dataclass(frozen=True)
class CASSCF:
    """State-averaged complete active space SCF, all states with the same weight and the region's multiplicity.

    Parameters
    ----------
    n_states : int
        Number of averaged states, at least 2; state 0 is the lowest.
    n_electrons, n_orbitals : int
        Numbers of active electrons and orbitals.
    active : {"frontier", "natural"}, tuple of int, or tuple of str
        Initial active orbitals at the first geometry: ``"frontier"``, those of Hartree-Fock around the gap;
        ``"natural"``, natural orbitals of MP2 around the gap; Hartree-Fock orbitals by their index in the order of
        energy; or labels of atomic orbitals such as ``("C 2pz", "N 2pz")``, whose valence space is selected (AVAS).
    conv_tol : float
        Gradient of the orbitals at which they are converged.
    max_cycle : int
        Number of macro-iterations.

    Raises
    ------
    PotentialError
        If a setting is invalid.

    Notes
    -----
    Later geometries start from the previous core and active orbitals, extrapolated along a trajectory, so that the
    active space is the same; a different one is an error. States have the multiplicity of the region, and no lower one
    is missed: up to 400 determinants are diagonalised as a whole, more are iterated.

    AVAS: Sayfutyarova, Sun, Chan and Knizia, J. Chem. Theory Comput. 13, 4063 (2017).
    """

    n_states: int
    n_electrons: int
    n_orbitals: int
    active: str | tuple[int, ...] | tuple[str, ...] = "frontier"
    conv_tol: float = 1e-6
    max_cycle: int = 100

    def __post_init__(self) -> None:
        _check_count("CASSCF", self.n_states)
        for name in ("n_electrons", "n_orbitals", "max_cycle"):
            check_whole_number(f"CASSCF: {name}", vars(self)[name], error=PotentialError)
        if self.n_electrons > 2 * self.n_orbitals:
            raise PotentialError(
                f"CASSCF: {self.n_electrons} electrons do not fit into {self.n_orbitals} active orbitals"
            )
        _check_tolerance("CASSCF", self.conv_tol)
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
        if not all(is_whole_number(a) and int(a) >= 0 for a in active):
            raise PotentialError(f"CASSCF: active counts orbitals from 0, got {active!r}")
        if len(active) != self.n_orbitals or len(set(active)) != len(active):
            raise PotentialError(f"CASSCF: active names {self.n_orbitals} different orbitals, got {active!r}")


def spin_states(n_electrons: int, n_orbitals: int, multiplicity: int) -> int:
    """Return the number of states of a multiplicity in an active space.

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


def _check_tolerance(method: str, conv_tol: object) -> None:
    """Raise PotentialError unless a tolerance is small enough for forces."""
    if not is_number(conv_tol) or not 0.0 < as_float(conv_tol) <= 1e-4:
        raise PotentialError(f"{method}: conv_tol lies above 0 and is at most 1e-4, got {conv_tol!r}")


def _check_count(method: str, n_states: object) -> None:
    """Raise PotentialError unless the number of states is an integer of at least two."""
    if not is_whole_number(n_states) or n_states < 2:
        raise PotentialError(
            f"{method}: n_states counts all states, including the ground state, and is an integer of at least 2, "
            f"got {n_states!r}"
        )
