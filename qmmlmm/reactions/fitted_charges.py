"""Charges of a region fitted to the forces of its density on the charges around it."""

from __future__ import annotations

import numpy as np

from qmmlmm.embedding.region_geometry import nearest_displacements
from qmmlmm.units import BOHR_IN_NM, HARTREE_IN_KJ_PER_MOL, FloatArray, IntArray

COULOMB = HARTREE_IN_KJ_PER_MOL * BOHR_IN_NM
"""Energy of two unit charges at a distance of 1 nm, kJ/mol."""

RESTRAINT = 1e-4
"""Weight of the restraint that keeps badly determined charges at their previous values, relative to the mean diagonal
element."""


def force_columns(
    positions: FloatArray, box: FloatArray | None, sources: IntArray, targets: IntArray, charges: FloatArray
) -> FloatArray:
    """Return the forces on target charges for a unit charge on each source, (n_targets, 3, n_sources) kJ/(mol nm).

    Parameters
    ----------
    positions : (n, 3) float array, nm
    box : (3, 3) float array or None, nm
        Only the nearest image counts.
    sources, targets : int arrays
        Particles.
    charges : (n_targets,) float array, e
    """
    pairs = (positions[targets][:, None, :] - positions[sources][None, :, :]).reshape(-1, 3)
    delta = nearest_displacements(pairs, box).reshape(len(targets), len(sources), 3)
    cubed = (delta * delta).sum(-1) ** 1.5
    forces = COULOMB * charges[:, None, None] * delta / cubed[:, :, None]
    return np.asarray(forces.transpose(0, 2, 1))


def fit_charges(
    columns: FloatArray, groups: IntArray, residual: FloatArray, previous: FloatArray, total: float
) -> FloatArray:
    """Return charges of which the forces on the surroundings differ from the previous ones by a residual.

    Parameters
    ----------
    columns : (n_targets, 3, n_sources) float array
        From `force_columns`.
    groups : (n_targets,) int array
        Number of the group of each target: forces on a group are added, because OpenMM distributes those on virtual
        sites among their parents.
    residual : (n_targets, 3) float array, kJ/(mol nm)
        Forces minus those of the previous charges.
    previous : (n_sources,) float array, e
    total : float, e
        Sum of the charges.

    Notes
    -----
    Least squares under the condition of the total charge, with a weak harmonic restraint as in Bayly et al., J. Phys.
    Chem. 97, 10269 (1993).
    """
    n_sources = len(previous)
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    matrix = np.zeros((n_groups, 3, n_sources))
    wanted = np.zeros((n_groups, 3))
    np.add.at(matrix, groups, columns)
    np.add.at(wanted, groups, residual)
    flat, right = matrix.reshape(-1, n_sources), wanted.reshape(-1)
    normal = flat.T @ flat
    scale = float(np.trace(normal)) / n_sources
    system = np.zeros((n_sources + 1, n_sources + 1))
    system[:n_sources, :n_sources] = normal + (RESTRAINT * scale if scale > 0.0 else 1.0) * np.eye(n_sources)
    system[:n_sources, -1] = system[-1, :n_sources] = scale if scale > 0.0 else 1.0
    condition = (scale if scale > 0.0 else 1.0) * (total - float(previous.sum()))
    change = np.linalg.solve(system, np.append(flat.T @ right, condition))[:n_sources]
    return previous + change
