"""Settings of a region's calculation with PySCF."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qmmlmm.errors import MissingDependencyError, PotentialError
from qmmlmm.qm.basis_by_element import BasisByElement
from qmmlmm.qm.excited import CASSCF, TDA, TDDFT, DeltaSCF
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    as_float,
    check_choice,
    check_flag,
    check_path,
    check_whole_number,
    is_number,
    is_whole_number,
)

MINIMUM_MEMORY = 1000
"""Smallest memory of a calculation, MB: PySCF works in blocks that shrink with the free memory, and very small ones
have given wrong gradients without a message (pyscf issue 1171)."""

GUESSES = ("extrapolated", "last density", "fresh")


@dataclass(frozen=True)
class PySCFSettings:
    """All settings of a `PySCFPotential`, which documents them."""

    method: str
    basis: str | Mapping[str, str]
    density_fit: bool | None = field(default=None, kw_only=True)
    auxiliary_basis: str | None = field(default=None, kw_only=True)
    grid_level: int = field(default=3, kw_only=True)
    embedding_grid_level: int = field(default=2, kw_only=True)
    conv_tol: float = field(default=1e-9, kw_only=True)
    max_cycle: int = field(default=100, kw_only=True)
    guess: str = field(default="extrapolated", kw_only=True)
    unrestricted: bool | None = field(default=None, kw_only=True)
    excited: TDA | TDDFT | DeltaSCF | CASSCF | None = field(default=None, kw_only=True)
    state: int = field(default=0, kw_only=True)
    follow_state: bool = field(default=False, kw_only=True)
    accelerated: bool = field(default=True, kw_only=True)
    max_memory: int | None = field(default=None, kw_only=True)
    failure_directory: str | Path | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        require_pyscf()
        from qmmlmm.qm.basis import check_auxiliary_exchange, check_basis, check_basis_name
        from qmmlmm.qm.method import check_method, has_exact_exchange

        check_method(self.method)
        if isinstance(self.basis, Mapping) and not isinstance(self.basis, BasisByElement):
            object.__setattr__(self, "basis", BasisByElement(self.basis))
        check_basis(self.basis)
        check_flag("follow_state", self.follow_state, PotentialError)
        check_flag("accelerated", self.accelerated, PotentialError)
        for name, flag in (("density_fit", self.density_fit), ("unrestricted", self.unrestricted)):
            if flag is not None:
                check_flag(name, flag, PotentialError)
        self._check_state()
        if self.auxiliary_basis is not None:
            if self.density_fit is False:
                raise PotentialError(
                    f"auxiliary_basis {self.auxiliary_basis!r} is given but density_fit is False; drop one of the two"
                )
            check_basis_name(self.auxiliary_basis, "auxiliary_basis")
            if has_exact_exchange(self.method):
                check_auxiliary_exchange(self.auxiliary_basis, self.method)
        for name, level in (("grid_level", self.grid_level), ("embedding_grid_level", self.embedding_grid_level)):
            check_whole_number(name, level, at_least=0, at_most=9, what="an integer", error=PotentialError)
        if not is_number(self.conv_tol) or not 0.0 < as_float(self.conv_tol) <= 1e-5:
            raise PotentialError(
                f"conv_tol lies above 0 and not above 1e-5 hartree, beyond which forces are no derivative "
                f"of the energy; got {self.conv_tol!r}"
            )
        check_whole_number("max_cycle", self.max_cycle, at_most=LARGEST_COUNT, error=PotentialError)
        check_choice("guess", self.guess, GUESSES, PotentialError)
        memory = self.max_memory
        if memory is not None and not (is_number(memory) and MINIMUM_MEMORY <= as_float(memory) < math.inf):
            raise PotentialError(
                f"max_memory is at least {MINIMUM_MEMORY} MB, because PySCF's gradients have been wrong "
                f"without a message below that; got {memory!r}"
            )
        if self.failure_directory is not None:
            check_path("failure_directory", self.failure_directory, PotentialError)

    def _check_state(self) -> None:
        """Raise PotentialError if the state does not exist or has no correct gradient."""
        excited = self.excited
        if excited is None:
            if check_whole_number("state", self.state, at_least=0, error=PotentialError) or self.follow_state:
                raise PotentialError(
                    f"state={self.state!r}, follow_state={self.follow_state} without excited: give the method for "
                    "excited states, for example excited=TDA(n_states=3)"
                )
            return
        if not isinstance(excited, TDA | TDDFT | DeltaSCF | CASSCF):
            raise PotentialError(
                "excited is TDA(...), TDDFT(...), DeltaSCF(...) or CASSCF(...), such as TDA(n_states=3), got "
                f"{excited!r}"
            )
        if not is_whole_number(self.state) or not 0 <= self.state < excited.n_states:
            raise PotentialError(
                f"state {self.state!r} does not exist: n_states={excited.n_states} gives states 0 (the ground state) "
                f"to {excited.n_states - 1}; raise n_states or choose another state"
            )
        if isinstance(excited, DeltaSCF):
            if self.follow_state:
                raise PotentialError("follow_state with DeltaSCF: its state always keeps its character; leave it out")
            return
        if isinstance(excited, CASSCF):
            self._check_casscf()
            return
        if self.fits_density and self.state > 0:
            raise PotentialError(
                "density_fit=True with an excited state: PySCF has no gradient for it; leave density_fit out or set it "
                "to False. With state=0 excitation energies can have it"
            )
        from qmmlmm.qm.method import check_response

        check_response(self.method)

    def _check_casscf(self) -> None:
        """Raise PotentialError if other settings do not go with CASSCF."""
        from qmmlmm.qm.method import is_hartree_fock

        if not is_hartree_fock(self.method):
            raise PotentialError(f"CASSCF has no functional: method is 'hf' with it, got {self.method!r}")
        if self.fits_density:
            raise PotentialError(
                "density_fit=True with CASSCF: PySCF's gradient is then wrong by 1e-3 hartree/bohr, without a message; "
                "leave density_fit and auxiliary_basis out"
            )
        if self.unrestricted:
            raise PotentialError("unrestricted=True with CASSCF, which has one set of orbitals; leave it out")

    @property
    def basis_sets(self) -> str | BasisByElement:
        """The basis set of all elements, or those by element."""
        return self.basis if isinstance(self.basis, str) else BasisByElement(self.basis)

    @property
    def fits_density(self) -> bool:
        """Whether Coulomb and exchange terms are fitted."""
        if self.density_fit is not None:
            return bool(self.density_fit)
        return not isinstance(self.excited, TDA | TDDFT | CASSCF) or self.auxiliary_basis is not None

    def is_unrestricted(self, multiplicity: int) -> bool:
        """Return whether a region of this multiplicity gets unrestricted orbitals."""
        if isinstance(self.excited, CASSCF):
            return False
        return bool(multiplicity > 1 if self.unrestricted is None else self.unrestricted)


def require_pyscf() -> None:
    """Raise MissingDependencyError if PySCF cannot be imported."""
    try:
        importlib.import_module("pyscf")
    except ImportError as error:
        raise MissingDependencyError(
            f"a QM potential needs PySCF, which cannot be imported ({error}); install it with 'pip install pyscf'"
        ) from error
