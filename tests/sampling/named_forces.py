"""Any System whose Forces are the terms of a MixedSystem: for integrators, which ask for force groups alone."""

from __future__ import annotations

from openmm import app

from qmmlmm import Hamiltonian, Region, Term
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.mixed_term import MixedTerm
from tests.toy_potentials import SettingsOnly


def mixed_of_forces(system, names):
    """Return a MixedSystem whose terms are the Forces of these names; no term is a multiple of another."""
    region = Region("site", [0])
    terms = {
        name: Term(SettingsOnly(name), region, embedding="mechanical", coefficient=1.0 / len(names), name=name)
        for name in names
    }
    mixed_terms = {name: MixedTerm(name, term, None, None) for name, term in terms.items()}
    return MixedSystem(app.Topology(), system, Hamiltonian(terms.values()), mixed_terms, ())
