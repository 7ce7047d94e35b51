"""One electronic state of a region, the result of all methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pyscf import scf

from qmmlmm.coupling.state_results import StateResults
from qmmlmm.qm.field.compact_charges import sum_by_atom
from qmmlmm.qm.functional.two_electron_gradient import two_electron_gradient
from qmmlmm.qm.method import is_hartree_fock
from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class ElectronicState:
    """Energy, gradient and densities of a state.

    Parameters
    ----------
    energy : float, hartree
        Energy, including the interaction with the external field.
    gradient : (n, 3) float array, hartree/bohr
        Gradient on the atoms, without the derivative of the external field's operator at a fixed density matrix.
    density : (n_ao, n_ao) float array
        Relaxed one-particle density matrix, the sum of both spins: the derivative of the energy with respect to the
        one-electron operator. It gives all forces of the external field, for every method.
    spin_density : (n_ao, n_ao) float array or None
        Relaxed density matrix of spin up minus spin down; None if it is not computed.
    results : mapping of str to object
        Further results.
    states : StateResults or None
        All states, if there are several.
    """

    energy: float
    gradient: FloatArray
    density: FloatArray
    spin_density: FloatArray | None = None
    results: Mapping[str, object] = field(default_factory=dict)
    states: StateResults | None = None


def ground_state(mean_field: Any, method: str, accelerated: bool = False) -> ElectronicState:
    """Return the state of a converged mean-field object, whose gradient is PySCF's own or an accelerated one."""
    density = np.asarray(mean_field.make_rdm1())
    gradient_method = mean_field.nuc_grad_method()
    gradient_method.verbose = 0
    if not is_hartree_fock(method):
        # Without the response of the grid, r2SCAN is wrong by 3e-4 and SCAN by 6e-2 hartree/bohr.
        gradient_method.grid_response = True
    two_electron = two_electron_gradient(mean_field) if accelerated else None
    if two_electron is not None:
        nothing = np.zeros((*density.shape[:-2], 3, *density.shape[-2:]))
        gradient_method.get_veff = lambda mol=None, dm=None: nothing
        gradient_method.extra_force = lambda atom, variables: two_electron[atom]
    gradient = np.asarray(gradient_method.kernel())
    spin_density = density[0] - density[1] if density.ndim == 3 else None
    total = density.sum(axis=0) if density.ndim == 3 else density
    return ElectronicState(float(mean_field.e_tot), gradient, total, spin_density)


def properties(mean_field: Any, state: ElectronicState) -> dict[str, object]:
    """Return dipole, charges and spin populations of a state, and its further results."""
    molecule = mean_field.mol
    nuclear_charges = molecule.atom_charges().astype(float)
    positions = molecule.atom_coords()
    # About the centre of the nuclear charges the nuclei have no dipole.
    origin = nuclear_charges @ positions / nuclear_charges.sum()
    with molecule.with_common_origin(origin):
        dipole = -np.einsum("xpq,pq->x", molecule.intor_symmetric("int1e_r", comp=3), state.density)
    overlap = mean_field.get_ovlp()
    results: dict[str, object] = {
        "dipole": dipole,
        "dipole_origin": origin,
        "mulliken_charges": nuclear_charges - _populations(molecule, state.density, overlap),
    }
    if isinstance(mean_field, scf.uhf.UHF):
        results["s_squared"] = float(mean_field.spin_square()[0])
    if state.spin_density is not None:
        results["spin_populations"] = _populations(molecule, state.spin_density, overlap)
    return results | dict(state.results)


def _populations(molecule: Any, density: FloatArray, overlap: FloatArray) -> FloatArray:
    """Return Mulliken populations, (n,) e."""
    return sum_by_atom(molecule, np.einsum("pq,pq->p", density, overlap))
