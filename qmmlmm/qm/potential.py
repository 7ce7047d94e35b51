"""PySCF as the potential of a region."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import MissingDependencyError, PotentialError, RegionError, listed, nearest
from qmmlmm.qm.excited import CASSCF, TDA, TDDFT, DeltaSCF, is_integer, spin_states

if TYPE_CHECKING:
    from qmmlmm.qm.evaluator import PySCFEvaluator

MINIMUM_MEMORY = 1000
"""Least memory, in MB, that a calculation can be given: PySCF works in blocks that shrink with what is left,
and very small ones have given wrong gradients without a message (pyscf issue 1171)."""

GUESSES = ("extrapolated", "last density", "fresh")

SHORT_RANGE_SPLITTING = 0.35
"""In 1/bohr. Integrals are needed for the charges within 7 angstrom alone, and the rest is so smooth that the
default embedding grid leaves an error of 1e-7 hartree in the operator."""

MESH_ORDER = 6
"""With the meshes that OpenMM's default tolerance gives, a splitting that is 1.6 times larger changes the energy of
acetone in water by 6e-7 hartree rms, in the place of 3.6e-6 at OpenMM's order of 5, and the net force is 4e-6 and not
1.1e-5 hartree/bohr, for 8 % more time in the surroundings. Order 8 would leave the error of the finer mesh alone,
4e-7, for a quarter more."""


@dataclass(frozen=True)
class PySCFPotential:
    """Hartree-Fock or density functional theory with PySCF, in the field of the surroundings.

    The ground state, or one of the electronic states that `excited` computes.

    Parameters
    ----------
    method : str
        ``"hf"`` or any exchange-correlation functional of PySCF, such as ``"b3lyp"``, ``"pbe"``,
        ``"wb97x-v"``; with ``pyscf-dispersion`` installed also ``"b3lyp-d3bj"`` and the like.
    basis : str
        Name of the orbital basis set. Its effective core potentials are used where it has them.
    density_fit : bool, optional
        Density fitting of the Coulomb and exchange terms. If not given, the ground state and Delta-SCF have it and
        linear response and CASSCF do not: PySCF has no gradient for it there.
    auxiliary_basis : str, optional
        Auxiliary basis set of the fit; PySCF's choice for the basis set if not given.
    grid_level : int
        Level 0 to 9 of PySCF's grid for the functional. Forces hold the response of the grid and are the
        exact derivative of the energy at any level.
    embedding_grid_level : int
        Level of the grid on which the density meets the smooth part of the external potential. Forces are the
        exact derivative of the energy at any level; the operator is in error by about 1e-5, 2e-6 and 4e-7
        hartree at level 0, 1 and 2 (water to p-xylene). The energy of hydrogen peroxide in water is in error by
        2.5e-4, 2e-7 and 2e-8 hartree, and forces by 3e-4, 1e-6 and 3e-7 hartree/bohr: level 1, with half the points
        of level 2, is enough for dynamics, and level 0 is not.
    conv_tol : float, hartree
        Change of the energy at which the self-consistent field is converged.
    max_cycle : int
        Number of cycles in each attempt.
    guess : {"extrapolated", "last density", "fresh"}
        What the self-consistent field of the next geometry starts from: the last densities in a time-reversible
        extrapolation, where the geometries are steps of a simulation, or the last density, or a fresh guess.
        After a jump of the geometry it is always a fresh guess.
    unrestricted : bool, optional
        Whether spin up and spin down have orbitals of their own. If not given, singlets do not and all other
        multiplicities do. CASSCF has one set of orbitals.
    excited : TDA, TDDFT, DeltaSCF or CASSCF, optional
        How electronic states are computed. If not given, there is the ground state alone.
    state : int
        The state that gives energy and forces, in the order of energy; 0 is the ground state. Energies of all states
        are in the results.
    follow_state : bool
        Whether the state keeps its character when states cross, by its overlap with that of the geometry before:
        `state` is its place in the order at the first geometry then, also of a run that a `RunDirectory` resumes. If
        not, the state is always the one at that place.
    max_memory : int, optional, MB
        What the calculation may use beyond the memory that the process already has; 4000 if not given.
    failure_directory : str or path, optional
        Where the geometry of a calculation without result is written; the current directory if not given.

    Raises
    ------
    PotentialError
        If a name is unknown or a setting makes no sense.
    MissingDependencyError
        If PySCF cannot be imported.
    """

    method: str
    basis: str
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
    max_memory: int | None = field(default=None, kw_only=True)
    failure_directory: str | Path | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _require_pyscf()
        from qmmlmm.qm.basis import check_auxiliary_exchange, check_basis_name
        from qmmlmm.qm.method import check_method, has_exact_exchange

        check_method(self.method)
        check_basis_name(self.basis)
        for name in ("density_fit", "unrestricted", "follow_state"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_) and not (name != "follow_state" and value is None):
                raise PotentialError(f"{name} is True or False, got {value!r}")
        self._check_state()
        if self.auxiliary_basis is not None:
            if self.density_fit is False:
                raise PotentialError(
                    f"auxiliary_basis {self.auxiliary_basis!r} is given but density_fit is False; drop one of the two"
                )
            check_basis_name(self.auxiliary_basis, "auxiliary_basis")
            if has_exact_exchange(self.method):
                check_auxiliary_exchange(self.auxiliary_basis, self.method)
        for name in ("grid_level", "embedding_grid_level"):
            level = getattr(self, name)
            if not is_integer(level) or not 0 <= level <= 9:
                raise PotentialError(f"{name} is an integer from 0 to 9, got {level!r}")
        if not 0.0 < self.conv_tol <= 1e-5:
            raise PotentialError(
                f"conv_tol lies above 0 and not above 1e-5 hartree, beyond which forces are no derivative "
                f"of the energy; got {self.conv_tol!r}"
            )
        if not is_integer(self.max_cycle) or self.max_cycle < 1:
            raise PotentialError(f"max_cycle is a positive integer, got {self.max_cycle!r}")
        if self.guess not in GUESSES:
            raise PotentialError(
                f"guess is one of {listed(GUESSES)}, got {self.guess!r}.{nearest(str(self.guess), GUESSES)}"
            )
        if self.max_memory is not None and not self.max_memory >= MINIMUM_MEMORY:
            raise PotentialError(
                f"max_memory is at least {MINIMUM_MEMORY} MB, because PySCF's gradients have been wrong "
                f"without a message below that; got {self.max_memory!r}"
            )

    def _check_state(self) -> None:
        """Raise PotentialError if the state does not exist or has no correct gradient."""
        excited = self.excited
        if excited is None:
            if self.state != 0 or self.follow_state:
                raise PotentialError(
                    f"state={self.state!r}, follow_state={self.follow_state} without excited: say how excited states "
                    "are computed, for example excited=TDA(n_states=3)"
                )
            return
        if not isinstance(excited, TDA | TDDFT | DeltaSCF | CASSCF):
            raise PotentialError(
                "excited is TDA(...), TDDFT(...), DeltaSCF(...) or CASSCF(...), such as TDA(n_states=3), got "
                f"{excited!r}"
            )
        if not is_integer(self.state) or not 0 <= self.state < excited.n_states:
            raise PotentialError(
                f"state {self.state!r} does not exist: n_states={excited.n_states} gives states 0 (the ground state) "
                f"to {excited.n_states - 1}; raise n_states or choose another state"
            )
        if isinstance(excited, DeltaSCF):
            if self.follow_state:
                raise PotentialError("follow_state with DeltaSCF: its state keeps its character anyway; leave it out")
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
                "density_fit=True with CASSCF: PySCF's gradient is wrong by 1e-3 hartree/bohr then, in silence; leave "
                "density_fit and auxiliary_basis out"
            )
        if self.unrestricted:
            raise PotentialError("unrestricted=True with CASSCF, which has one set of orbitals; leave it out")

    @property
    def fits_density(self) -> bool:
        """Whether Coulomb and exchange terms are fitted."""
        if self.density_fit is not None:
            return bool(self.density_fit)
        return not isinstance(self.excited, TDA | TDDFT | CASSCF) or self.auxiliary_basis is not None

    @property
    def level(self) -> str:
        """``"QM"``."""
        return "QM"

    @property
    def embeddings(self) -> frozenset[str]:
        """Both embeddings."""
        return frozenset({"mechanical", "electrostatic"})

    @property
    def short_range_splitting(self) -> float:
        """Ewald splitting parameter, 1/bohr, from which on charges are compact: see `EvaluatedPotential`."""
        return SHORT_RANGE_SPLITTING

    @property
    def mesh_order(self) -> int:
        """Order of the splines on the force field's mesh: see `EvaluatedPotential`."""
        return MESH_ORDER

    @property
    def takes_smeared_charges(self) -> bool:
        """Charges of the surroundings may be Gaussian distributions."""
        return True

    @property
    def selectable_states(self) -> int:
        """How many electronic states can have the forces; 0 if there is only one."""
        if self.excited is None or (isinstance(self.excited, TDA | TDDFT) and self.fits_density):
            return 0
        return self.excited.n_states

    def is_unrestricted(self, multiplicity: int) -> bool:
        """Return whether a region of this multiplicity gets unrestricted orbitals."""
        if isinstance(self.excited, CASSCF):
            return False
        return bool(multiplicity > 1 if self.unrestricted is None else self.unrestricted)

    def check(self, specification: RegionSpecification) -> None:
        """Raise if the potential cannot treat this region.

        Raises
        ------
        RegionError
            If an atomic number is no element, or charge and multiplicity do not fit the number of electrons.
        PotentialError
            If a basis set lacks an element, or an open shell is to be restricted.
        """
        _require_pyscf()
        from qmmlmm.qm.basis import check_elements, core_potentials, symbols_of

        term = f"term {specification.name!r}"
        if len(specification.atomic_numbers) == 0:
            raise RegionError(f"{term}: the region has no atoms")
        symbols = symbols_of(specification.atomic_numbers, term)
        _check_electrons(specification)
        spin = self.excited.spin if isinstance(self.excited, TDA | TDDFT) else None
        if spin is not None and self.is_unrestricted(specification.multiplicity):
            raise PotentialError(
                f"{term}: spin={spin!r} is for excited states of a restricted singlet; those of an unrestricted "
                "reference have no such label: leave spin out"
            )
        if isinstance(self.excited, CASSCF):
            _check_active_space(self.excited, specification)
        elif specification.multiplicity > 1 and not self.is_unrestricted(specification.multiplicity):
            raise PotentialError(
                f"{term}: multiplicity {specification.multiplicity} with unrestricted=False asks for a "
                "restricted open shell, which is not offered; leave unrestricted at None or set it to True"
            )
        check_elements(self.basis, symbols, term)
        core_potentials(self.basis, symbols, term)
        if self.auxiliary_basis is not None:
            check_elements(self.auxiliary_basis, symbols, term, "auxiliary_basis")

    def create_evaluator(self, specification: RegionSpecification) -> PySCFEvaluator:
        """Return a fresh evaluator for one region.

        Raises
        ------
        RegionError, PotentialError
            As `check`.
        """
        self.check(specification)
        from qmmlmm.qm.evaluator import PySCFEvaluator

        return PySCFEvaluator(self, specification)


def _require_pyscf() -> None:
    try:
        importlib.import_module("pyscf")
    except ImportError as error:
        raise MissingDependencyError(
            f"a QM potential needs PySCF, which cannot be imported ({error}); install it with 'pip install pyscf'"
        ) from error


def _check_active_space(settings: CASSCF, specification: RegionSpecification) -> None:
    """Raise PotentialError unless the active space fits the electrons and has as many states."""
    term = f"term {specification.name!r}"
    electrons = int(np.sum(specification.atomic_numbers)) - specification.charge
    space = f"{settings.n_electrons} active electrons in {settings.n_orbitals} orbitals"
    if settings.n_electrons > electrons or (electrons - settings.n_electrons) % 2:
        raise PotentialError(
            f"{term}: CASSCF with {space} leaves {electrons - settings.n_electrons} of {electrons} electrons for "
            "doubly occupied orbitals; n_electrons is "
            + ("even" if electrons % 2 == 0 else "odd")
            + f" here and at most {electrons}"
        )
    found = spin_states(settings.n_electrons, settings.n_orbitals, specification.multiplicity)
    if settings.n_states > found:
        raise PotentialError(
            f"{term}: CASSCF with {space} has {found} states of multiplicity {specification.multiplicity}, and "
            f"n_states={settings.n_states}; take a larger active space or fewer states"
        )


def _check_electrons(specification: RegionSpecification) -> None:
    """Raise RegionError unless charge and multiplicity fit the number of electrons."""
    protons = int(np.sum(specification.atomic_numbers))
    electrons = protons - specification.charge
    term = f"term {specification.name!r}"
    if electrons < 1:
        raise RegionError(
            f"{term}: charge {specification.charge} leaves {electrons} electrons of {protons} protons; "
            "check the charge of the region"
        )
    multiplicity = specification.multiplicity
    if multiplicity < 1 or (electrons - multiplicity) % 2 == 0 or multiplicity > electrons + 1:
        possible = range(1 if electrons % 2 == 0 else 2, electrons + 2, 2)
        raise RegionError(
            f"{term}: {electrons} electrons (charge {specification.charge}) cannot have multiplicity "
            f"{multiplicity}; possible are {listed(possible)}. Check charge, multiplicity and the cut bonds "
            "of the region"
        )
