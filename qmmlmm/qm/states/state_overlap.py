"""Overlaps of the electronic states of two geometries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf import gto

from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class StateSnapshot:
    """The states of one geometry as single excitations out of one determinant.

    Parameters
    ----------
    molecule : pyscf.gto.Mole
        Molecule about its centre, so that a shift of the region has no effect.
    occupied, empty : tuple of (n_ao, k) float array
        Orbitals, for one spin or for both.
    excitations : list of tuple of (n_occupied, n_empty) float array
        X of each excited state, for one spin or for both; the norm of all spins together is one.
    triplet : bool
        Whether spin down has the opposite amplitudes of spin up; for restricted orbitals.
    """

    molecule: Any
    occupied: tuple[FloatArray, ...]
    empty: tuple[FloatArray, ...]
    excitations: list[tuple[FloatArray, ...]]
    triplet: bool = False


def snapshot(mean_field: Any, excitations: list[tuple[FloatArray, ...]], triplet: bool = False) -> StateSnapshot:
    """Return the states of a converged mean-field object and their excitations, in any norm."""
    molecule = mean_field.mol
    centred = molecule.copy()
    centred.set_geom_(molecule.atom_coords() - molecule.atom_coords().mean(axis=0), unit="Bohr")
    orbitals, occupations = np.asarray(mean_field.mo_coeff), np.asarray(mean_field.mo_occ)
    if occupations.ndim == 1:
        orbitals, occupations = orbitals[None], occupations[None]
    pairs = list(zip(orbitals, occupations, strict=True))
    copies = 3 - len(pairs)  # one set of restricted orbitals stands for both spins
    norms = [np.sqrt(copies * sum(float((x**2).sum()) for x in parts)) for parts in excitations]
    return StateSnapshot(
        molecule=centred,
        occupied=tuple(c[:, n > 0] for c, n in pairs),
        empty=tuple(c[:, n == 0] for c, n in pairs),
        excitations=[tuple(x / norm for x in parts) for parts, norm in zip(excitations, norms, strict=True)],
        triplet=triplet,
    )


def basis_overlap(old: StateSnapshot, new: StateSnapshot) -> FloatArray:
    """Return the overlap of the basis functions of the old geometry with those of the new one."""
    return np.asarray(gto.intor_cross("int1e_ovlp", old.molecule, new.molecule))


def state_overlaps(old: StateSnapshot, new: StateSnapshot) -> FloatArray:
    """Return the overlaps of the old states, in rows, with the new ones, the ground state first.

    Notes
    -----
    With A the overlap of old and new occupied orbitals and M its inverse, an excitation i to a replaces row i of A and
    one j to b column j, so that by the determinant lemma

        <i to a | j to b> = det A [(S_vo M)_ai (M S_ov)_jb + M_ji (S_vv - S_vo M S_ov)_ab]

    and all overlaps are matrix products. The other spin gives another factor det A, or det A times one of its
    excitations. States of TDDFT are represented by normalised X.
    """
    basis = basis_overlap(old, new)
    count_old, count_new = 1 + len(old.excitations), 1 + len(new.excitations)
    determinants = 1.0
    first = np.zeros((len(old.occupied), count_old - 1))
    second = np.zeros((len(new.occupied), count_new - 1))
    together = np.zeros((count_old - 1, count_new - 1))
    for spin in range(len(old.occupied)):
        occupied = old.occupied[spin].T @ basis @ new.occupied[spin]
        inverse = np.linalg.inv(occupied)
        determinants *= float(np.linalg.det(occupied))
        vo = old.empty[spin].T @ basis @ new.occupied[spin]
        ov = old.occupied[spin].T @ basis @ new.empty[spin]
        vv = old.empty[spin].T @ basis @ new.empty[spin]
        rows, columns = vo @ inverse, inverse @ ov
        rest = vv - vo @ columns
        x_old = [parts[spin] for parts in old.excitations]
        x_new = [parts[spin] for parts in new.excitations]
        first[spin] = [np.sum(x * rows.T) for x in x_old]
        second[spin] = [np.sum(x * columns) for x in x_new]
        for row, x in enumerate(x_old):
            # M_ji W_ab, summed over the old pair (i, a).
            pulled = inverse @ x @ rest
            together[row] += [np.sum(pulled * other) for other in x_new]
    if len(old.occupied) == 1:
        determinants **= 2
        together *= 2.0
        # In a triplet the contributions of both spins cancel.
        by_spin = (0.0 if old.triplet else 2.0, 0.0 if new.triplet else 2.0)
    else:
        by_spin = (1.0, 1.0)
    of_old, of_new = by_spin[0] * first.sum(axis=0), by_spin[1] * second.sum(axis=0)
    overlaps = np.empty((count_old, count_new))
    overlaps[0, 0] = 1.0
    overlaps[1:, 0] = of_old
    overlaps[0, 1:] = of_new
    overlaps[1:, 1:] = np.outer(of_old, of_new) + together
    return determinants * overlaps


def carried_excitations(
    excitations: list[tuple[FloatArray, ...]], old: StateSnapshot, new: StateSnapshot
) -> list[tuple[FloatArray, ...]]:
    """Return excitations between the old orbitals in the new orbitals, for any order and signs."""
    basis = basis_overlap(old, new)
    occupied = [n.T @ basis.T @ o for o, n in zip(old.occupied, new.occupied, strict=True)]
    empty = [o.T @ basis @ n for o, n in zip(old.empty, new.empty, strict=True)]
    return [
        tuple(left @ x @ right for left, x, right in zip(occupied, parts, empty, strict=True)) for parts in excitations
    ]
