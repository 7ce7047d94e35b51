"""PySCF as the potential of a region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qmmlmm.coupling.electrons import check_electrons
from qmmlmm.coupling.level_of_theory import LevelOfTheory
from qmmlmm.coupling.potential import Capabilities, EvaluatedPotential, RegionSpecification
from qmmlmm.errors import PotentialError, RegionError
from qmmlmm.qm.excited import CASSCF, TDA, TDDFT, spin_states
from qmmlmm.qm.settings import PySCFSettings, require_pyscf

if TYPE_CHECKING:
    from qmmlmm.qm.evaluator import PySCFEvaluator

SHORT_RANGE_SPLITTING = 0.35
"""Splitting parameter, 1/bohr. Integrals are needed only for the charges within 7 angstrom, and the rest is so smooth
that the default embedding grid leaves an error of 1e-7 hartree in the operator."""

MESH_ORDER = 6
"""Order of the force field's mesh. With the meshes of OpenMM's default tolerance, a splitting that is 1.6 times larger
changes the energy of acetone in water by 6e-7 hartree rms, instead of 3.6e-6 at OpenMM's order of 5, and the net force
is 4e-6 instead of 1.1e-5 hartree/bohr, for 8 % more time in the surroundings. Order 8 would leave only the error of the
finer mesh, 4e-7, for 25 % more time."""


@dataclass(frozen=True)
class PySCFPotential(PySCFSettings, EvaluatedPotential):
    """Hartree-Fock or density functional theory with PySCF, in the field of the surroundings.

    The ground state, or one of the electronic states of `excited`. For the positions and the external field of a region
    in a System, as the evaluator gets them, see `EvaluatedTerm.field_at`.

    Parameters
    ----------
    method : str
        ``"hf"`` or any exchange-correlation functional of PySCF, such as ``"b3lyp"``, ``"pbe"``,
        ``"wb97x-v"``; with ``pyscf-dispersion`` installed also those with dispersion, read as PySCF reads them, such as
        ``"b3lyp-d3bj"``, ``"pbe-d4"`` and ``"wb97m-d3bj"``, which is wB97M-V with D3(BJ) instead of VV10.
    basis : str or mapping of str to str
        Name of the orbital basis set, or a name for each element symbol, with that of all other elements under
        ``"default"``: ``{"Zn": "def2-tzvp", "default": "6-31g*"}``. Effective core potentials of the basis sets are
        used. Names that PySCF does not have are taken from the basis set exchange, if the package basis-set-exchange is
        installed.
    density_fit : bool, optional
        Density fitting of the Coulomb and exchange terms. By default the ground state and Delta-SCF use it. Linear
        response and CASSCF do not, because PySCF has no gradient for it.
    auxiliary_basis : str, optional
        Auxiliary basis set of the fit; PySCF's choice for the basis set if not given.
    grid_level : int
        Level of PySCF's grid for the functional, 0 to 9. Forces include the response of the grid and are the exact
        derivative of the energy at any level.
    embedding_grid_level : int
        Level of the grid for the smooth part of the external potential. Forces are the exact derivative of the energy
        at any level. The error of the operator is approximately 1e-5, 2e-6 and 4e-7 hartree at level 0, 1 and 2 (water
        to p-xylene). For hydrogen peroxide in water the error of the energy is 2.5e-4, 2e-7 and 2e-8 hartree, and that
        of the forces 3e-4, 1e-6 and 3e-7 hartree/bohr: level 1, with half the points of level 2, is sufficient for
        dynamics, and level 0 is not.
    conv_tol : float, hartree
        Change of the energy at which the self-consistent field is converged.
    max_cycle : int
        Number of cycles in each attempt.
    guess : {"extrapolated", "last density", "fresh"}
        Initial density at the next geometry: an extrapolation of the last densities, which is time-reversible, if the
        geometries are steps of a simulation; or the last density; or a fresh guess. After a jump of the geometry it is
        always a fresh guess.
    unrestricted : bool, optional
        Whether spin up and spin down have separate orbitals. By default, singlets do not and all other multiplicities
        do. CASSCF always has one set of orbitals.
    excited : TDA, TDDFT, DeltaSCF or CASSCF, optional
        Method for electronic states. By default there is only the ground state.
    state : int
        Index of the state with energy and forces, in the order of energy; 0 is the ground state. The results have the
        energies of all states.
    follow_state : bool
        Whether the state keeps its character when states cross, according to its overlap with that of the previous
        geometry. `state` is then its index at the first geometry, also of a run that a `RunDirectory` resumes. If
        false, the state is always the one with that index.
    accelerated : bool
        Whether to use the accelerated code of this package. The field of the ground state, TDA and TDDFT then iterates
        on a coarse grid with the difference to the full one, and array operations compute gradients and the response of
        the functional. Energies are those of PySCF's own code within 1e-9 hartree, and gradients of the same density
        within 1e-11 hartree/bohr; with excited states, both are within 1e-8. If false, PySCF computes everything.
    max_memory : int, optional, MB
        Memory for the calculation in addition to that of the process; 4000 if not given.
    failure_directory : str or path, optional
        Directory for the geometries of failed calculations; the current one if not given.

    Raises
    ------
    PotentialError
        If a name is unknown or a setting is invalid.
    MissingDependencyError
        If PySCF cannot be imported.
    """

    @property
    def level(self) -> str:
        """``"QM"``."""
        return "QM"

    @property
    def method_name(self) -> str:
        """Functional and basis set, such as ``"b3lyp/6-31g*"``."""
        return f"{self.method}/{self.basis!s}"

    @property
    def level_of_theory(self) -> LevelOfTheory:
        """Functional and basis set with the settings that change energies by more than convergence does."""
        settings: dict[str, object] = {
            "density_fit": self.fits_density,
            "auxiliary_basis": self.auxiliary_basis,
            "grid_level": self.grid_level,
            "unrestricted": self.unrestricted,
            "excited": None if self.excited is None else repr(self.excited),
            "state": self.state,
        }
        return LevelOfTheory(self.method_name, settings)

    @property
    def capabilities(self) -> Capabilities:
        """Both embeddings; the states of `excited`, except that density-fitted linear response cannot select one."""
        selectable = self.excited is not None and not (isinstance(self.excited, TDA | TDDFT) and self.fits_density)
        return Capabilities(
            frozenset({"mechanical", "electrostatic"}),
            n_states=self.excited.n_states if selectable and self.excited is not None else 1,
            state=self.state,
            follows_state=self.follow_state,
            smeared_charges=True,
            couplings=isinstance(self.excited, CASSCF),
            charge_energies=True,
            splitting=SHORT_RANGE_SPLITTING,
            mesh_order=MESH_ORDER,
        )

    def check(self, specification: RegionSpecification) -> None:
        """Raise if the potential cannot treat this region.

        Raises
        ------
        RegionError
            If an atomic number is no element, or charge and multiplicity do not fit the number of electrons.
        PotentialError
            If a basis set lacks an element, or for a restricted open shell.
        """
        require_pyscf()
        from qmmlmm.qm.basis import check_elements, core_potentials, symbols_of

        term = f"term {specification.name!r}"
        if len(specification.atomic_numbers) == 0:
            raise RegionError(f"{term}: the region has no atoms")
        symbols = symbols_of(specification.atomic_numbers, term)
        check_electrons(specification)
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
                f"{term}: multiplicity {specification.multiplicity} with unrestricted=False would be a "
                "restricted open shell, which is not supported; leave unrestricted at None or set it to True"
            )
        check_elements(self.basis_sets, symbols, term)
        core_potentials(self.basis_sets, symbols, term)
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
