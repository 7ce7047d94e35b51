"""Overlaps of CASSCF states of two geometries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf import gto
from pyscf.fci import addons

from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class CasscfSnapshot:
    """CASSCF states of one geometry.

    Parameters
    ----------
    molecule : pyscf.gto.Mole
        Molecule about its centre, so that a shift of the region has no effect.
    orbitals : (n_ao, n) float array
        All orbitals: core, active, empty.
    n_core, n_active : int
    n_electrons : tuple of int
        Numbers of active electrons with spin up and down.
    vectors : list of (n_strings, n_strings) float array
        CI vectors.
    """

    molecule: Any
    orbitals: FloatArray
    n_core: int
    n_active: int
    n_electrons: tuple[int, int]
    vectors: list[FloatArray]

    @property
    def core(self) -> FloatArray:
        """Doubly occupied orbitals."""
        return self.orbitals[:, : self.n_core]

    @property
    def active(self) -> FloatArray:
        """Active orbitals."""
        return self.orbitals[:, self.n_core : self.n_core + self.n_active]


def centred(molecule: Any) -> Any:
    """Return the molecule about its centre."""
    copy = molecule.copy()
    copy.set_geom_(molecule.atom_coords() - molecule.atom_coords().mean(axis=0), unit="Bohr")
    return copy


def casscf_overlaps(old: CasscfSnapshot, new: CasscfSnapshot) -> tuple[FloatArray, float]:
    """Return the overlaps of the old states, in rows, with the new ones, and the overlap of the active spaces.

    The latter is the smallest singular value of the overlap matrix of the two active spaces: one if they are the same.

    Notes
    -----
    With A the overlap of old and new core orbitals, and B, C, D those of core with active, active with core and active
    with active ones, the determinant of core and active strings is det A times that of D - C A^-1 B between the
    active strings. So the states are CI vectors in one active space with that overlap, times det A for each spin.
    """
    basis = np.asarray(gto.intor_cross("int1e_ovlp", old.molecule, new.molecule))
    core = old.core.T @ basis @ new.core
    active = old.active.T @ basis @ new.active
    shared = float(np.linalg.svd(active, compute_uv=False).min())
    effective, factor = active, 1.0
    if old.n_core:
        effective = active - (old.active.T @ basis @ new.core) @ np.linalg.solve(core, old.core.T @ basis @ new.active)
        factor = float(np.linalg.det(core)) ** 2
    found = np.empty((len(old.vectors), len(new.vectors)))
    for row, bra in enumerate(old.vectors):
        turned = addons.transform_ci_for_orbital_rotation(bra, old.n_active, old.n_electrons, effective)
        found[row] = [float(np.sum(turned * ket)) for ket in new.vectors]
    return factor * found, shared
