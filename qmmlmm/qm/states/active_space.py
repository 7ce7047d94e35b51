"""Initial orbitals of a CASSCF calculation."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import mcscf, mp
from pyscf.mcscf import avas

from qmmlmm.errors import EvaluationError, listed
from qmmlmm.qm.excited import CASSCF
from qmmlmm.units import FloatArray


def starting_orbitals(mean_field: Any, casscf: Any, settings: CASSCF, term: str) -> FloatArray:
    """Return orbitals, (n_ao, n_orbitals), with the active ones after the core.

    Parameters
    ----------
    mean_field : pyscf.scf.hf.SCF
        Converged mean-field object.
    casscf : pyscf.mcscf.CASSCF
    settings : CASSCF
    term : str
        Name of the term, for messages.

    Raises
    ------
    EvaluationError
        If the active space does not fit.
    """
    orbitals = np.asarray(mean_field.mo_coeff)
    active = settings.active
    filled, count = int(casscf.ncore), orbitals.shape[1]
    if filled + settings.n_orbitals > count:
        raise EvaluationError(
            f"{term}: {settings.n_orbitals} active orbitals do not fit: of the {count} orbitals of the basis set "
            f"{filled} are doubly occupied, which leaves {count - filled}; lower n_orbitals or take a larger basis set"
        )
    if active == "frontier":
        return orbitals
    if active == "natural":
        if mean_field.mol.spin:
            raise EvaluationError(
                f"{term}: natural orbitals of MP2 need a closed shell; choose active orbitals in another way"
            )
        perturbed = mp.MP2(mean_field)
        perturbed.verbose = 0
        perturbed.kernel()
        density = perturbed.make_rdm1()
        occupations, turn = np.linalg.eigh(density)
        return orbitals @ turn[:, np.argsort(-occupations, kind="stable")]
    if isinstance(active[0], str):
        return _atomic_valence(mean_field, settings, term)
    wrong = [a for a in active if int(a) >= orbitals.shape[1]]
    if wrong:
        raise EvaluationError(
            f"{term}: active orbitals {listed(wrong)} do not exist; the basis set has {orbitals.shape[1]}, counted "
            "from 0"
        )
    return np.asarray(mcscf.sort_mo(casscf, orbitals, [int(a) for a in active], base=0))


def _atomic_valence(mean_field: Any, settings: CASSCF, term: str) -> FloatArray:
    labels = [str(a) for a in settings.active]
    known = mean_field.mol.ao_labels()
    unknown = [label for label in labels if not len(mean_field.mol.search_ao_label(label))]
    if unknown:
        raise EvaluationError(
            f"{term}: no atomic orbital is labelled {listed(unknown)}; there are, for example, "
            f"{listed(text.strip() for text in known)}"
        )
    count, electrons, orbitals = avas.kernel(mean_field, labels, verbose=0)
    electrons = round(float(np.sum(electrons)))
    if (count, electrons) != (settings.n_orbitals, settings.n_electrons):
        raise EvaluationError(
            f"{term}: the atomic orbitals {listed(labels)} make an active space of {electrons} electrons in {count} "
            f"orbitals, and CASSCF has n_electrons={settings.n_electrons}, n_orbitals={settings.n_orbitals}; "
            "take these numbers, or other labels"
        )
    return np.asarray(orbitals)
