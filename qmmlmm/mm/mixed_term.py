"""The record of one term of a mixed System."""

from __future__ import annotations

from dataclasses import dataclass

from qmmlmm.coupling.hamiltonian import Term
from qmmlmm.coupling.layout import TermLayout
from qmmlmm.mm.term_runner import TermRunner


@dataclass(frozen=True)
class MixedTerm:
    """A term of the Hamiltonian in a System.

    Parameters
    ----------
    name : str
        Key in `MixedSystem.terms`, and name of its Force.
    term : Term
    layout : TermLayout
        Atoms, link atoms and surroundings of the term.
    runner : TermRunner
        Runner of the term in OpenMM.
    """

    name: str
    term: Term
    layout: TermLayout
    runner: TermRunner
