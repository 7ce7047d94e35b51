"""The gradient of an excited state with the functional and the repulsion as array operations.

Notes
-----
PySCF's gradient is used with zeros for its derivatives of the functional and of the repulsion integrals, and this
module adds them from the density matrices. The energies of Coulomb repulsion, exchange with the share c, and the
functional are

    J(D, D)/2 + J(D, P) + J(S, S) - sum_spin c [K(D, D)/2 + K(D, P) + K(S, S) + K(A, A)] + E_xc

with the density matrix D of the reference, the relaxed difference density matrix P, and the symmetric part S of the
transition density matrix of X + Y and the antisymmetric part A of that of X - Y: Furche and Ahlrichs, J. Chem. Phys.
117, 7433 (2002), eq. 18. J takes the sums over spins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pyscf import dft, scf

from qmmlmm.qm.functional.response_integrator import ResponseIntegrator
from qmmlmm.qm.functional.state_gradient import state_functional_gradient
from qmmlmm.qm.states.repulsion_gradient import PairDensities, repulsion_gradient
from qmmlmm.units import FloatArray


def is_kohn_sham(mean_field: Any) -> bool:
    """Return whether a mean-field object has a functional beyond exact exchange."""
    if not isinstance(mean_field, dft.rks.KohnShamDFT):
        return False
    return bool(mean_field._numint._xc_type(mean_field.xc) != "HF")


def without_derivatives(gradient_method: Any, mean_field: Any, triplet: bool) -> Mapping[str, Callable[..., Any]]:
    """Make a gradient object leave out derivatives of repulsion integrals.

    Returns
    -------
    mapping
        Functions that replace those of PySCF's module, and leave out derivatives of the functional.
    """
    n = mean_field.mol.nao

    def nothing(mol: Any = None, dm: Any = None, hermi: int = 0, omega: Any = None) -> FloatArray:
        del mol, hermi, omega
        return np.zeros((len(dm), 3, n, n))

    gradient_method.get_j = gradient_method.get_k = nothing
    gradient_method.get_jk = lambda mol=None, dm=None, hermi=0: (nothing(mol, dm), nothing(mol, dm))
    if not is_kohn_sham(mean_field):
        return {}
    integrator: ResponseIntegrator = mean_field._numint
    restricted = not isinstance(mean_field, scf.uhf.UHF)

    def kernel(method: Any, functional: str, transition: Any, difference: Any = None, *rest: Any) -> Any:
        del method, functional, rest
        spins = () if restricted else (2,)
        zero = np.zeros((*spins, 4, n, n))
        if difference is None:
            return zero, None, None, None
        # PySCF's matrices are those of spin up.
        t, p = (np.array([m] if restricted else m) for m in (transition, difference))
        copies = 2.0 if restricted and not triplet else 1.0
        first, second = integrator.state_potentials(mean_field, copies * t, copies * p, triplet)
        if triplet:
            first = 2.0 * first
        of_transition, of_difference = zero.copy(), zero.copy()
        of_transition[..., 0, :, :], of_difference[..., 0, :, :] = (
            (m[0] if restricted else m) for m in (first, second)
        )
        # The part of second order in the transition density is in that of the difference.
        return of_transition, of_difference, zero, zero

    return {"_contract_xc_kernel": kernel}


def derivatives(
    mean_field: Any, ground: FloatArray, difference: FloatArray, transition: FloatArray, rotation: FloatArray
) -> FloatArray:
    """Return what `without_derivatives` leaves out, with the response of the grid.

    Parameters
    ----------
    mean_field : pyscf.scf.hf.SCF
    ground, difference, transition : (2, n_ao, n_ao) float array
        D, P and S of spin up and down, symmetric.
    rotation : (2, n_ao, n_ao) float array
        A, antisymmetric.

    Returns
    -------
    (n, 3) float array, hartree/bohr
    """
    gradient = np.zeros((mean_field.mol.natm, 3))
    shares = [(0.0, 1.0)]
    if isinstance(mean_field, dft.rks.KohnShamDFT):
        omega, long_range, share = mean_field._numint.rsh_and_hybrid_coeff(mean_field.xc, spin=mean_field.mol.spin)
        shares = [(0.0, share), *([(omega, long_range - share)] if omega else [])]
    if is_kohn_sham(mean_field):
        gradient += state_functional_gradient(mean_field, difference, transition)
    # Two spins that have the same energy are one.
    same = all(np.array_equal(abs(m[0]), abs(m[1])) for m in (ground, difference, transition, rotation))
    spins, copies = ((0,), 2.0) if same else ((0, 1), 1.0)
    d, p, s = (matrices.sum(axis=0) for matrices in (ground, difference, transition))
    coulomb = [(2.0 * (d + p), d), (2.0 * d, p)]
    if np.any(s):
        coulomb.append((4.0 * s, s))
    for omega, share in shares:
        exchange = []
        for spin in spins if share else ():
            factor = copies * share
            d_spin, p_spin, s_spin, a_spin = (m[spin] for m in (ground, difference, transition, rotation))
            exchange += [
                (2.0 * factor * (d_spin + p_spin), d_spin),
                (2.0 * factor * d_spin, p_spin),
                (4.0 * factor * s_spin, s_spin),
                (4.0 * factor * a_spin, a_spin),
            ]
        pairs = PairDensities([] if omega else coulomb, exchange)
        if pairs.coulomb or pairs.exchange:
            gradient += repulsion_gradient(mean_field.mol, pairs, omega)
    return gradient
