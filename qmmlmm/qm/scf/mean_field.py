"""Mean-field objects of PySCF, with the surroundings in their operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from pyscf import dft, gto, lib, scf

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.qm.basis_by_element import basis_of
from qmmlmm.qm.excited import TDA, TDDFT
from qmmlmm.qm.functional.response_integrator import ResponseIntegrator
from qmmlmm.qm.functional.third_derivatives import FiniteThirdDerivatives
from qmmlmm.qm.functional.two_grids import COARSE_LEVEL, GridDifference, TwoGridIntegrator
from qmmlmm.qm.method import has_exact_exchange, is_hartree_fock
from qmmlmm.qm.scf.orbital_convergence import OrbitalConvergence
from qmmlmm.qm.settings import PySCFSettings
from qmmlmm.units import FloatArray

DEFAULT_MEMORY = 4000
"""Default memory in addition to that of the process, MB."""

NONLOCAL_GRID_LEVEL = 1
"""Grid level of non-local correlation (VV10), which is smooth and whose cost grows with the square of the number of
points."""

GRID_MEMORY_SHARE = 0.25
"""Share of the memory for the basis functions on each of the embedding's and the functional's grids."""

RESPONSE_SHARE = 0.003
"""Tolerance of the orbitals' gradient as a share of that of the amplitudes of linear response: energies of states from
different guesses then differ by less than 1e-9 hartree with the default of 1e-6."""

FINEST_OF_RESPONSE = 3e-9
"""Smallest tolerance of orbital gradients with linear response, hartree; smaller ones take many cycles more. Where
gradients stop above it, `OrbitalConvergence` takes what is reached."""

FINEST_ORBITALS = 1e-8
"""Smallest tolerance of orbital gradients, hartree; round-off may not allow a smaller one."""


class OneElectronOperator(Protocol):
    """A part of the surroundings in the one-electron operator."""

    def core_hamiltonian(self) -> FloatArray:
        """Return the operator, (n_ao, n_ao) hartree."""
        ...

    def nuclear_energy(self) -> float:
        """Return the energy of the nuclei in it, hartree."""
        ...


def memory_limit(settings: PySCFSettings) -> float:
    """Return the memory of a calculation in addition to that of the process, MB."""
    return float(DEFAULT_MEMORY if settings.max_memory is None else settings.max_memory)


def create_molecule(
    settings: PySCFSettings,
    specification: RegionSpecification,
    symbols: Sequence[str],
    core_potentials: Mapping[str, str],
    positions: FloatArray,
) -> Any:
    """Return PySCF's molecule of a region.

    Parameters
    ----------
    settings : PySCFSettings
    specification : RegionSpecification
    symbols : sequence of str
    core_potentials : dict
        Core potentials in PySCF's form.
    positions : (n, 3) float array, bohr
    """
    molecule = gto.Mole()
    molecule.verbose = 0
    molecule.unit = "Bohr"
    molecule.atom = list(zip(symbols, positions.tolist(), strict=True))
    basis = settings.basis_sets
    molecule.basis = basis if isinstance(basis, str) else {symbol: basis_of(basis, symbol) for symbol in set(symbols)}
    molecule.ecp = dict(core_potentials)
    molecule.charge = int(specification.charge)
    molecule.spin = int(specification.multiplicity) - 1
    # PySCF subtracts the memory of the whole process, which includes OpenMM and torch.
    molecule.max_memory = memory_limit(settings) + lib.current_memory()[0]
    return molecule.build(dump_input=False, parse_arg=False)


def create_mean_field(
    settings: PySCFSettings,
    molecule: Any,
    unrestricted: bool | None = None,
    difference: GridDifference | None = None,
) -> Any:
    """Return a mean-field object, not converged; by default restricted or not as in the settings.

    Parameters
    ----------
    settings : PySCFSettings
    molecule : pyscf.gto.Mole
    unrestricted : bool, optional
    difference : GridDifference, optional
        What is known of the two grids of a functional in this region; without it there is only the full grid.
    """
    if unrestricted is None:
        unrestricted = settings.is_unrestricted(molecule.spin + 1)
    if is_hartree_fock(settings.method):
        mean_field = scf.UHF(molecule) if unrestricted else scf.RHF(molecule)
    else:
        mean_field = dft.UKS(molecule) if unrestricted else dft.RKS(molecule)
        mean_field.xc = settings.method.strip()
        _set_integrator(mean_field, settings, difference)
        mean_field.grids.level = settings.grid_level
        mean_field.nlcgrids.level = NONLOCAL_GRID_LEVEL
    if settings.fits_density:
        mean_field = mean_field.density_fit(auxbasis=settings.auxiliary_basis)
    # PySCF opens a checkpoint file for every object; closing it removes it.
    mean_field._chkfile.close()
    mean_field.chkfile = None
    mean_field.conv_tol = settings.conv_tol
    mean_field.max_cycle = settings.max_cycle
    if settings.excited is not None:
        tolerance = orbital_tolerance(settings)
        mean_field.conv_tol_grad = tolerance
        if isinstance(settings.excited, TDA | TDDFT):
            mean_field.check_convergence = OrbitalConvergence(tolerance, _first_order_tolerance(settings))
    if settings.fits_density and not has_exact_exchange(settings.method):
        # If exchange does not need the fitted integrals, PySCF computes them again in every cycle.
        mean_field.with_df.build()
    return mean_field


def orbital_tolerance(settings: PySCFSettings) -> float:
    """Return the orbital gradient at which the field is converged, hartree."""
    tolerance = _first_order_tolerance(settings)
    excited = settings.excited
    if isinstance(excited, TDA | TDDFT):
        # Excitation energies are of first order in the error of orbitals, and of second order in that of amplitudes.
        return min(tolerance, max(RESPONSE_SHARE * excited.conv_tol, FINEST_OF_RESPONSE))
    return tolerance


def _first_order_tolerance(settings: PySCFSettings) -> float:
    """Return an orbital gradient whose error in energies of states is about their own tolerance, hartree."""
    tolerance = float(np.sqrt(settings.conv_tol))
    return tolerance if settings.excited is None else min(tolerance, max(settings.excited.conv_tol, FINEST_ORBITALS))


def _set_integrator(mean_field: Any, settings: PySCFSettings, difference: GridDifference | None) -> None:
    """Set the numerical integrator of a functional."""
    response = isinstance(settings.excited, TDA | TDDFT)
    if not settings.accelerated:
        if response:
            mean_field._numint = FiniteThirdDerivatives()
        return
    limits = (settings.conv_tol, orbital_tolerance(settings), GRID_MEMORY_SHARE * memory_limit(settings))
    two_grids = difference is not None and settings.grid_level > COARSE_LEVEL
    if response:
        mean_field._numint = ResponseIntegrator(difference or GridDifference(), *limits)
        if not two_grids:
            mean_field._numint.leave_out_coarse_grid()
    elif difference is not None and two_grids:
        mean_field._numint = TwoGridIntegrator(difference, *limits)


def put_in_field(mean_field: Any, parts: Sequence[OneElectronOperator]) -> None:
    """Add the external potential to the one-electron operator of a mean-field object.

    Response and correlation methods that start from the object have the same operator.
    """
    if not parts:
        return
    core = mean_field.get_hcore() + sum(part.core_hamiltonian() for part in parts)
    nuclear = float(mean_field.energy_nuc()) + sum(part.nuclear_energy() for part in parts)
    mean_field.get_hcore = lambda mol=None: core
    mean_field.energy_nuc = lambda: nuclear


def remove_scratch(mean_field: Any) -> None:
    """Remove the file with integrals of density fitting that do not fit into memory."""
    # Objects without density fitting have no `with_df`, and only those that needed a file have one.
    scratch: Any = getattr(getattr(mean_field, "with_df", None), "_cderi_to_save", None)
    if scratch is not None:
        scratch.close()
