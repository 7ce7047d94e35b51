"""Electronic states for surface hopping from the terms of a Hamiltonian."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import unit

from qmmlmm.coupling.potential import Memory
from qmmlmm.errors import HamiltonianError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.nonadiabatic.surfaces import SurfacePoint
from qmmlmm.setting_checks import check_flag, check_instance
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL, FloatArray, IntArray


class TermSurfaces:
    """The electronic states of one term, such as QM with excited states.

    Parameters
    ----------
    mixed : MixedSystem
    term : str
        Name of a term with several states and a constant coefficient, such as ``"dye/QM"``. In QM/ML/MM the other terms
        of its atoms are the same for all states.
    couplings : bool
        Whether to compute derivative couplings between all states at every geometry; each pair costs as much as a
        gradient. Only CASSCF has them.

    Raises
    ------
    HamiltonianError
        If the term has only one state, follows a state itself, has a coefficient that depends on a parameter, or has no
        couplings where they are requested.
    SettingError
        If an argument has another type.
    UnsupportedSystemError
        If charges of the System were changed after it was created.
    """

    def __init__(self, mixed: MixedSystem, term: str, *, couplings: bool = False) -> None:
        check_instance("mixed", mixed, MixedSystem)
        check_flag("couplings", couplings)
        mixed_term = mixed.term(term)
        capabilities = mixed_term.term.potential.capabilities
        if capabilities.n_states < 2:
            raise HamiltonianError(
                f"term {term!r} has one electronic state; give its potential several, for example "
                "PySCFPotential(..., excited=TDA(n_states=3))"
            )
        if capabilities.follows_state:
            raise HamiltonianError(
                f"term {term!r} has follow_state=True, and surface hopping follows states itself; leave it out"
            )
        if mixed_term.term.weight.slopes:
            raise HamiltonianError(f"the coefficient of term {term!r} depends on a parameter; make it a number")
        if couplings and not capabilities.couplings:
            raise HamiltonianError(
                f"term {term!r} has no derivative couplings, which only CASSCF has: leave couplings out"
            )
        mixed.check_unchanged()
        self._mixed = mixed
        self._term = term
        self._couplings = couplings
        self._count = capabilities.n_states
        self._layout = mixed_term.layout

    @property
    def n_states(self) -> int:
        """Number of states."""
        return self._count

    @property
    def atoms(self) -> IntArray:
        """The atoms of the region."""
        return np.asarray(self._layout.atoms, dtype=np.int64)

    def select(self, context: openmm.Context, state: int) -> None:
        """Select the state that moves the particles."""
        self._mixed.select_state(context, self._term, state)

    def observe(self, context: openmm.Context) -> SurfacePoint:
        """Return the states at the present geometry; the selected state has the energy of the term."""
        group = self._mixed.force_group(self._term)
        try:
            state = context.getState(energy=True, positions=True, groups={group})
        except openmm.OpenMMException as error:
            self._mixed.raise_original(error)
        last = self._mixed.evaluated_term(self._term).last
        assert last is not None
        assert last.states is not None
        scale = self._layout.coefficient * HARTREE_IN_KJ_PER_MOL
        energies = last.states.state_energies
        active = energies[last.states.state]
        return SurfacePoint(
            scale * (energies - active) + state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole),
            last.states.state_overlaps,
            self._all_couplings(state) if self._couplings else None,
        )

    def memory(self) -> Memory:
        """Return the states of the last geometry as arrays."""
        return self._mixed.term(self._term).runner.memory()

    def recall(self, memory: Memory) -> None:
        """Continue from what `memory` returned."""
        self._mixed.recall(self._term, memory)

    def _all_couplings(self, state: openmm.State) -> FloatArray:
        term = self._mixed.evaluated_term(self._term)
        geometry = Geometry.from_state(state, self._layout.periodic)
        found = np.zeros((self._count, self._count, len(geometry.positions), 3))
        for first in range(self._count):
            for second in range(first + 1, self._count):
                found[first, second] = term.coupling(first, second, geometry)
                found[second, first] = -found[first, second]
        return found
