"""The gradient of everything but the one-electron operator and the overlap, where it is faster than PySCF's."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import dft, scf
from pyscf.dft import gen_grid

from qmmlmm.qm.functional.densities import ORDERS
from qmmlmm.qm.functional.fitted_gradient import fitted_gradient
from qmmlmm.qm.functional.functional_gradient import functional_gradient
from qmmlmm.units import FloatArray


def two_electron_gradient(mean_field: Any) -> FloatArray | None:
    """Return the gradient of Coulomb, exchange and exchange-correlation energies at a fixed density matrix.

    Parameters
    ----------
    mean_field : pyscf.scf.hf.SCF
        Converged mean-field object with density fitting.

    Returns
    -------
    (n, 3) float array, hartree/bohr, or None
        None for what PySCF has to do: non-local correlation, restricted open shells, other partitions of space than
        Becke's, and linearly dependent auxiliary functions.
    """
    if isinstance(mean_field, scf.rohf.ROHF):
        return None
    density = mean_field.make_rdm1()
    orbitals = _occupied(mean_field)
    if not isinstance(mean_field, dft.rks.KohnShamDFT):
        return fitted_gradient(mean_field.with_df, orbitals, True, 1.0)
    integrator = mean_field._numint
    kind = integrator._xc_type(mean_field.xc)
    standard = mean_field.grids.becke_scheme == gen_grid.original_becke
    if kind not in ORDERS or mean_field.do_nlc() or not standard:
        return None
    omega, long_range, share = integrator.rsh_and_hybrid_coeff(mean_field.xc, spin=mean_field.mol.spin)
    # The same parts as in the energy, because each of them is fitted by itself.
    if omega == 0.0:
        plain, ranged, limit = share, 0.0, 0.0
    elif long_range == 0.0:
        plain, ranged, limit = 0.0, share, -omega
    elif share == 0.0:
        plain, ranged, limit = 0.0, long_range, omega
    else:
        plain, ranged, limit = share, long_range - share, omega
    fitted = fitted_gradient(mean_field.with_df, orbitals, True, plain)
    if fitted is not None and ranged:
        with mean_field.with_df.range_coulomb(limit) as fit:
            more = fitted_gradient(fit, orbitals, False, ranged)
        fitted = None if more is None else fitted + more
    if fitted is None:
        return None
    return np.asarray(fitted + functional_gradient(mean_field, density, kind)[1])


def _occupied(mean_field: Any) -> list[FloatArray]:
    """Return the occupied orbitals, each (n_ao, k), of both spins together or of each."""
    orbitals, occupations = np.asarray(mean_field.mo_coeff), np.asarray(mean_field.mo_occ)
    if occupations.ndim == 1:
        return [orbitals[:, occupations > 0]]
    return [c[:, n > 0] for c, n in zip(orbitals, occupations, strict=True)]
