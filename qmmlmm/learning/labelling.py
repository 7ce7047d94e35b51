"""Labels from a term of a mixed System: what its QM potential says about a region in its surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from openmm import unit

from qmmlmm.coupling.potential import selectable_states
from qmmlmm.embedding.evaluated_term import NEAR_REACH, EvaluatedTerm
from qmmlmm.errors import EvaluationError
from qmmlmm.learning.labelled_frame import LabelledFrame, NearCharges
from qmmlmm.units import ANGSTROM_IN_BOHR, NM_IN_BOHR, in_unit

DEFAULT_REACH = NEAR_REACH / ANGSTROM_IN_BOHR


class Labeller:
    """Makes labelled frames of one region, with and without its surroundings.

    Parameters
    ----------
    term : EvaluatedTerm
        From `MixedSystem.evaluated_term`.
    method : str
        Name of the method, with all that changes energies: functional, basis set, grids, smeared charges.
    vacuum : bool
        Whether each geometry is also labelled without surroundings, which costs a second calculation and helps the
        training much.
    near_reach : float, angstrom
        Charges of the surroundings within this distance of an atom are kept with their forces.
    """

    def __init__(
        self,
        term: EvaluatedTerm,
        method: str,
        *,
        vacuum: bool = True,
        near_reach: float = NEAR_REACH / ANGSTROM_IN_BOHR,
    ) -> None:
        self.term = term
        self.method = method
        self.near_reach = near_reach
        self._wants_vacuum = vacuum
        embedded = term.layout.surroundings is not None
        self._selecting: EvaluatedTerm | None = None
        self._vacuum = term.potential.create_evaluator(term.layout.specification) if vacuum and embedded else None

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (self.term, self.method, self._wants_vacuum, self.near_reach))

    def forget(self) -> None:
        """Make the next label as if it were the first: the same, whatever was labelled before."""
        self.term.forget()
        for other in (self._selecting, self._vacuum):
            forget = getattr(other, "forget", None)
            if forget is not None:
                forget()

    def label_states(
        self, positions: Any, box: Any = None, states: Sequence[int] = (0, 1), name: str = "frame"
    ) -> list[LabelledFrame]:
        """Return a frame of each of several electronic states of one geometry.

        The second and all others start from orbitals and states of the first, and cost little more than a gradient.

        Parameters
        ----------
        positions, box, name
            As `label` takes them; the names get "-s0", "-s1", ... at their end.
        states : sequence of int
            In the order of energy, 0 is the ground state; in vacuum the states are counted in their own order.

        Raises
        ------
        EvaluationError
            If there is no such state, or a calculation fails.
        """
        potential = self.term.potential
        count = selectable_states(potential)
        wrong = [state for state in states if not 0 <= state < count]
        if wrong or not len(states):
            raise EvaluationError(
                f"term {self.term.name!r} cannot be labelled for the states {list(states)}: "
                + (f"it has states 0 to {count - 1}" if count > 1 else "its potential has one state alone")
            )
        if getattr(potential, "follow_state", False):
            raise EvaluationError(
                f"term {self.term.name!r} has follow_state=True, and labels are of states in the order of energy; "
                "leave it out"
            )
        if self._selecting is None:
            # A simulation may be using the term, whose state must stay.
            self._selecting = EvaluatedTerm(self.term.layout, potential)
        evaluators: list[Any] = [self._selecting, *([] if self._vacuum is None else [self._vacuum])]
        frames = []
        try:
            for state in states:
                for evaluator in evaluators:
                    evaluator.select_state(state)
                frame = self._label(self._selecting, positions, box, f"{name}-s{state}")
                frames.append(replace(frame, electronic_state=int(state)))
        finally:
            for evaluator in evaluators:
                evaluator.select_state(int(getattr(potential, "state", 0)))
        return frames

    def label(self, positions: Any, box: Any = None, name: str = "frame") -> LabelledFrame:
        """Return one labelled frame.

        Parameters
        ----------
        positions : (n_particles, 3) Quantity or float array, nm
            Of all particles of the System.
        box : (3, 3) Quantity or float array, nm, optional
            Not needed without periodicity.
        name : str
            Of the frame.

        Raises
        ------
        EvaluationError
            If the calculation fails. No frame is made up in its place.
        """
        return self._label(self.term, positions, box, name)

    def _label(self, term: EvaluatedTerm, positions: Any, box: Any, name: str) -> LabelledFrame:
        places = np.array(in_unit(positions, unit.nanometer), dtype=float) * NM_IN_BOHR
        if box is None and term.layout.periodic:
            raise EvaluationError(f"term {term.name!r} is periodic: labels need box vectors")
        vectors = np.eye(3) if box is None else np.array(in_unit(box, unit.nanometer), dtype=float) * NM_IN_BOHR
        label = term.label(places, vectors, self.near_reach * ANGSTROM_IN_BOHR)
        specification = term.layout.specification
        options: dict[str, Any] = {}
        if label.near is not None:
            near = label.near
            options = {
                "potential": label.potential,
                "field": -label.potential_gradient,
                "field_gradient": -label.potential_curvature,
                "near": NearCharges(near.positions, near.charges, -near.gradient, near.widths),
            }
        if self._vacuum is not None:
            bare = self._vacuum.evaluate(label.positions, None)
            options |= {
                "vacuum_energy": bare.energy,
                "vacuum_forces": -bare.gradient,
                "vacuum_dipole": _array(bare.results.get("dipole")),
            }
        return LabelledFrame(
            atomic_numbers=np.asarray(specification.atomic_numbers),
            positions=label.positions,
            energy=label.energy,
            forces=-label.gradient,
            method=self.method,
            charge=specification.charge,
            multiplicity=specification.multiplicity,
            electronic_state=int(getattr(term.potential, "state", 0)),
            charges=_array(label.results.get("mulliken_charges")),
            dipole=_array(label.results.get("dipole")),
            name=name,
            **options,
        )


def _restore(term: EvaluatedTerm, method: str, vacuum: bool, near_reach: float) -> Labeller:
    return Labeller(term, method, vacuum=vacuum, near_reach=near_reach)


def _array(value: object) -> np.ndarray | None:
    return None if value is None else np.asarray(value, dtype=float)
