"""Electronic states for surface hopping from the terms of a Hamiltonian."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import unit

from qmmlmm.dynamics.surfaces import SurfacePoint
from qmmlmm.errors import HamiltonianError
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR, FloatArray, IntArray


class TermSurfaces:
    """The electronic states of one term, such as QM with excited states.

    Parameters
    ----------
    mixed : MixedSystem
    term : str
        Name of a term with several states, such as ``"dye/QM"``, with a coefficient that is a number. In QM/ML/MM the
        other terms of its atoms are the same for all states.
    couplings : bool
        Whether derivative couplings between all states are computed at every geometry; each pair costs as much as a
        gradient. Only CASSCF has them.

    Raises
    ------
    HamiltonianError
        If the term has one state alone, follows a state by itself, or has a coefficient that changes.
    """

    def __init__(self, mixed: MixedSystem, term: str, *, couplings: bool = False) -> None:
        count = mixed.selectable_states(term)
        if count < 2:
            raise HamiltonianError(
                f"term {term!r} has one electronic state; give its potential several, for example "
                "PySCFPotential(..., excited=TDA(n_states=3))"
            )
        potential = mixed.evaluated_term(term).potential
        if getattr(potential, "follow_state", False):
            raise HamiltonianError(
                f"term {term!r} has follow_state=True, and surface hopping follows states itself; leave it out"
            )
        if mixed.hamiltonian.terms[list(mixed.force_groups).index(term)].weight.slopes:
            raise HamiltonianError(f"the coefficient of term {term!r} depends on a parameter; make it a number")
        self._mixed = mixed
        self._term = term
        self._couplings = couplings
        self._count = count
        self._layout = mixed.layouts[term]

    @property
    def n_states(self) -> int:
        """Number of states."""
        return self._count

    @property
    def atoms(self) -> IntArray:
        """The atoms of the region."""
        return np.asarray(self._layout.atoms, dtype=np.int64)

    def select(self, context: openmm.Context, state: int) -> None:
        """Let a state move the particles from now on."""
        self._mixed.select_state(context, self._term, state)

    def observe(self, context: openmm.Context) -> SurfacePoint:
        """Return the states at the present geometry; the energy of the one that moves the particles is the term's."""
        group = self._mixed.force_groups[self._term]
        try:
            state = context.getState(energy=True, positions=True, groups={group})
        except openmm.OpenMMException as error:
            self._mixed.raise_original(error)
        results = self._mixed.results(self._term)
        scale = self._layout.coefficient * HARTREE_IN_KJ_PER_MOL
        energies = np.asarray(results["state_energies"], dtype=float)
        active = energies[int(str(results["state"]))]
        overlaps = results.get("state_overlaps")
        return SurfacePoint(
            scale * (energies - active) + state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole),
            None if overlaps is None else np.asarray(overlaps),
            self._all_couplings(state) if self._couplings else None,
        )

    def memory(self) -> dict[str, FloatArray]:
        """Return the states of the last geometry as arrays."""
        return self._mixed.evaluated_term(self._term).memory()

    def recall(self, memory: dict[str, FloatArray]) -> None:
        """Go on from what `memory` returned."""
        self._mixed.recall(self._term, memory)

    def _all_couplings(self, state: openmm.State) -> FloatArray:
        term = self._mixed.evaluated_term(self._term)
        positions = np.array(state.getPositions(asNumpy=True)._value) * NM_IN_BOHR
        box = np.eye(3)
        if self._layout.periodic:
            box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) * NM_IN_BOHR
        found = np.zeros((self._count, self._count, len(positions), 3))
        for first in range(self._count):
            for second in range(first + 1, self._count):
                found[first, second] = term.coupling(first, second, positions, box) * NM_IN_BOHR
                found[second, first] = -found[first, second]
        return found
