"""Labels from a term of a mixed System: its QM potential, evaluated for a region in its surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qmmlmm.coupling.potential import Evaluator
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.embedding.labels import NEAR_REACH
from qmmlmm.errors import EvaluationError
from qmmlmm.geometry import Geometry
from qmmlmm.learning.labels.label_task import LabelSource
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, NearCharges, check_method
from qmmlmm.setting_checks import (
    check_array,
    check_flag,
    check_instance,
    check_number,
    is_whole_number,
)
from qmmlmm.units import ANGSTROM_IN_BOHR, FloatArray

DEFAULT_REACH = NEAR_REACH / ANGSTROM_IN_BOHR
LARGEST_REACH = 50.0
"""Largest distance of near charges, angstrom; a larger one is a mistake in the unit."""


class Labeller(LabelSource):
    """Computes labelled frames of one region, with and without its surroundings.

    Parameters
    ----------
    term : EvaluatedTerm
        Term from `MixedSystem.evaluated_term`.
    method : str
        Name of the method with all settings that change energies: functional, basis set, grids, smeared charges.
    vacuum : bool
        Whether to label each geometry also without surroundings, which costs a second calculation and improves the
        training.
    near_reach : float, angstrom
        Distance from an atom within which charges of the surroundings are kept with their forces.

    Raises
    ------
    SettingError
        If an argument has the wrong type or is out of range.
    """

    def __init__(
        self,
        term: EvaluatedTerm,
        method: str,
        *,
        vacuum: bool = True,
        near_reach: float = DEFAULT_REACH,
    ) -> None:
        self.term = check_instance("term", term, EvaluatedTerm, "a term from mixed.evaluated_term(name)")
        self.method = check_method("method", method)
        self.near_reach = check_number("near_reach", near_reach, above=0.0, at_most=LARGEST_REACH, unit_name="angstrom")
        self._wants_vacuum = check_flag("vacuum", vacuum)
        embedded = term.layout.surroundings is not None
        self._selecting: EvaluatedTerm | None = None
        self._vacuum = term.potential.create_evaluator(term.layout.specification) if vacuum and embedded else None

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (self.term, self.method, self._wants_vacuum, self.near_reach))

    def forget(self) -> None:
        """Forget all labels before, so that the next label does not depend on them."""
        for evaluator in self._evaluators():
            evaluator.forget()

    def prepare(self) -> None:
        """Import packages that the first label would import."""
        self.term.evaluator.prepare()

    def _evaluators(self) -> list[Evaluator]:
        found = [self.term.evaluator]
        if self._selecting is not None:
            found.append(self._selecting.evaluator)
        return found if self._vacuum is None else [*found, self._vacuum]

    def label_states(
        self, geometry: Geometry, states: Sequence[int] = (0, 1), name: str = "frame"
    ) -> list[LabelledFrame]:
        """Return a frame for each of several electronic states at one geometry.

        All states after the first start from its orbitals and states, and cost little more than a gradient.

        Parameters
        ----------
        geometry : Geometry, nm
            Positions of all particles of the System.
        states : sequence of int
            Indices of states in the order of energy, 0 is the ground state; states in a vacuum have their own order.
        name : str
            Name of the frames, with the suffixes "-s0", "-s1", ...

        Raises
        ------
        EvaluationError
            If there is no such state, the geometry is of another System, or a calculation fails.
        """
        potential = self.term.potential
        capabilities = potential.capabilities
        count = capabilities.n_states if capabilities.n_states > 1 else 0
        if isinstance(states, str) or not isinstance(states, Sequence | np.ndarray):
            raise EvaluationError(f"states is a list of indices of states, got {states!r}")
        wrong = [state for state in states if not is_whole_number(state) or not 0 <= state < count]
        if wrong or not len(states):
            raise EvaluationError(
                f"term {self.term.name!r} cannot be labelled for the states {list(states)}: "
                + (f"it has states 0 to {count - 1}" if count > 1 else "its potential has only one state")
            )
        if capabilities.follows_state:
            raise EvaluationError(
                f"term {self.term.name!r} has follow_state=True, and labels are of states in the order of energy; "
                "leave it out"
            )
        if self._selecting is None:
            # A simulation may be using the term; its selected state must not change.
            self._selecting = EvaluatedTerm(self.term.layout, potential)
        evaluators = [self._selecting.evaluator, *([] if self._vacuum is None else [self._vacuum])]
        frames = []
        try:
            for state in states:
                for evaluator in evaluators:
                    evaluator.select_state(state)
                frame = self._label(self._selecting, geometry, f"{name}-s{state}")
                frames.append(replace(frame, electronic_state=int(state)))
        finally:
            for evaluator in evaluators:
                evaluator.select_state(capabilities.state)
        return frames

    def label(self, geometry: Geometry, name: str = "frame") -> LabelledFrame:
        """Return one labelled frame.

        Parameters
        ----------
        geometry : Geometry, nm
            Positions of all particles of the System, for example from `Geometry.from_context`.
        name : str
            Name of the frame.

        Raises
        ------
        EvaluationError
            If the geometry is of another System, or the calculation fails.
        """
        return self._label(self.term, geometry, name)

    def _label(self, term: EvaluatedTerm, geometry: Geometry, name: str) -> LabelledFrame:
        _check_geometry(term, geometry)
        label = term.label(geometry, self.near_reach * ANGSTROM_IN_BOHR)
        evaluation = label.evaluation
        specification = term.layout.specification
        frame = LabelledFrame(
            atomic_numbers=np.asarray(specification.atomic_numbers),
            positions=label.positions,
            energy=evaluation.energy,
            forces=-evaluation.gradient,
            method=self.method,
            charge=specification.charge,
            multiplicity=specification.multiplicity,
            electronic_state=term.potential.capabilities.state,
            charges=_array(evaluation.results.get("mulliken_charges")),
            dipole=_array(evaluation.results.get("dipole")),
            name=name,
        )
        if label.near is not None:
            near = label.near
            frame = replace(
                frame,
                potential=label.potential,
                field=-label.potential_gradient,
                field_gradient=-label.potential_curvature,
                near=NearCharges(near.positions, near.charges, -near.gradient, near.widths),
            )
        if self._vacuum is not None:
            bare = self._vacuum.evaluate(Geometry(label.positions), None)
            frame = replace(
                frame,
                vacuum_energy=bare.energy,
                vacuum_forces=-bare.gradient,
                vacuum_dipole=_array(bare.results.get("dipole")),
            )
        return frame


def _check_geometry(term: EvaluatedTerm, geometry: Geometry) -> None:
    where = f"term {term.name!r}"
    if not isinstance(geometry, Geometry):
        raise EvaluationError(f"{where}: labels are of a Geometry, for example Geometry.from_context(context)")
    check_array(f"{where}: positions", geometry.positions, (term.layout.n_particles, 3), error=EvaluationError)
    if not term.layout.periodic:
        return
    if geometry.box is None:
        raise EvaluationError(f"{where} is periodic: labels need box vectors")
    box = check_array(f"{where}: box vectors", geometry.box, (3, 3), error=EvaluationError)
    if not abs(np.linalg.det(box)) > 0.0:
        raise EvaluationError(f"{where}: the box vectors span no volume: {box.tolist()}")


def _restore(term: EvaluatedTerm, method: str, vacuum: bool, near_reach: float) -> Labeller:
    return Labeller(term, method, vacuum=vacuum, near_reach=near_reach)


def _array(value: object) -> FloatArray | None:
    return None if value is None else np.asarray(value, dtype=float)
