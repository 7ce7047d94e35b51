"""Labels of a difference between two levels: those of the target, less a base evaluated on the same frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from qmmlmm.coupling.level_of_theory import Difference, LevelOfTheory
from qmmlmm.coupling.potential import EvaluatedPotential, Evaluation, Evaluator, RegionSpecification
from qmmlmm.errors import DataSetError, EvaluationError, PotentialError, RegionError, SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.learning.labels.frame_field import field_of_frame
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, check_together
from qmmlmm.learning.labels.response_labels import response_labels
from qmmlmm.setting_checks import check_instance
from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class DifferenceLabels:
    """Frames whose labels are differences.

    Parameters
    ----------
    frames : list of LabelledFrame
        Frames with the energy, forces, forces on near charges and dipoles of target less base. Their method is
        `Difference.method`.
    difference : Difference
        The two levels.
    """

    frames: list[LabelledFrame]
    difference: Difference


def difference_labels(
    frames: list[LabelledFrame], base: EvaluatedPotential, *, target: LevelOfTheory | None = None
) -> DifferenceLabels:
    """Evaluate a base on labelled frames, in the field of their surroundings and without it, and subtract it.

    Parameters
    ----------
    frames : list of LabelledFrame
        Labels of the target.
    base : EvaluatedPotential
        Potential such as `XTBPotential` or `MLPotential`, with electrostatic embedding if the frames have surroundings.
    target : LevelOfTheory, optional
        Level of the labels, if its settings are to be recorded; by default the method of the frames.

    Raises
    ------
    DataSetError
        If the frames do not go together, lack the gradient of the field, or the base fails for one.
    SettingError
        If the base cannot be one.

    Notes
    -----
    Dipoles are kept if the base has them, charges of atoms are not: those of two levels are not the same quantity.
    """
    check_together(frames)
    difference = check_base(base, target or LevelOfTheory(frames[0].method))
    evaluators: dict[tuple[int, int], Evaluator] = {}
    found = []
    for frame in frames:
        if frame.electronic_state != base.capabilities.state:
            raise DataSetError(
                f"frame {frame.name!r} is of the electronic state {frame.electronic_state}, the base {difference.base} "
                f"of state {base.capabilities.state}; take a base of the same state"
            )
        key = frame.charge, frame.multiplicity
        try:
            if key not in evaluators:
                specification = RegionSpecification(f"base {difference.base}", frame.atomic_numbers, *key)
                base.check(specification)
                evaluators[key] = base.create_evaluator(specification)
            found.append(_subtracted(frame, evaluators[key], base, difference))
        except (PotentialError, RegionError, EvaluationError) as error:
            raise DataSetError(
                f"frame {frame.name!r}: the base {difference.base} cannot be evaluated: {error}; leave the frame out, "
                "or take another base"
            ) from error
    return DifferenceLabels(found, difference)


def check_base(base: object, target: LevelOfTheory) -> Difference:
    """Return the difference of a target to a base.

    Raises
    ------
    SettingError
        If the base is no potential that an evaluator computes, or a difference itself, or the target.
    """
    potential = check_instance("base", base, EvaluatedPotential, "a potential such as XTBPotential('gfn2-xtb')")  # type: ignore[type-abstract]
    if potential.difference is not None:
        raise SettingError(
            f"base is the difference {potential.difference} and no energy of a level; take {potential.difference.base} "
            "or a full model"
        )
    try:
        return Difference(target, potential.level_of_theory)
    except PotentialError as error:
        raise SettingError(f"base: {error}; labels of the base itself leave nothing to learn") from error


def _subtracted(
    frame: LabelledFrame, evaluator: Evaluator, base: EvaluatedPotential, difference: Difference
) -> LabelledFrame:
    """Return a frame with the labels of a base subtracted."""
    field = field_of_frame(frame)
    needed = "mechanical" if field is None else "electrostatic"
    if needed not in base.capabilities.embeddings:
        raise PotentialError(f"it has no {needed} embedding, and the labels are {'in a field' if field else 'without'}")
    if frame.near is not None and frame.near.widths is not None and not base.capabilities.smeared_charges:
        raise PotentialError("it cannot feel smeared charges, and the labels did")
    geometry = Geometry(frame.positions)
    # A jump of the geometry, of which the result must not depend.
    evaluator.forget()
    inside = evaluator.evaluate(geometry, field)
    near = frame.near
    if near is not None:
        near = replace(near, forces=near.forces + inside.charge_gradient)
    has_vacuum = field is not None and frame.vacuum_energy is not None and frame.vacuum_forces is not None
    alone: Evaluation | None = None
    if has_vacuum:
        evaluator.forget()
        alone = evaluator.evaluate(geometry, None)
    return replace(
        frame,
        energy=frame.energy - inside.energy,
        forces=frame.forces + inside.gradient,
        dipole=_less(frame.dipole, inside),
        charges=None,
        near=near,
        vacuum_energy=None if alone is None or frame.vacuum_energy is None else frame.vacuum_energy - alone.energy,
        vacuum_forces=None if alone is None or frame.vacuum_forces is None else frame.vacuum_forces + alone.gradient,
        vacuum_dipole=None if alone is None else _less(frame.vacuum_dipole, alone),
        method=difference.method,
    )


def _less(dipole: FloatArray | None, base: Evaluation) -> FloatArray | None:
    """Return a dipole less that of the base, about the same point; None if one of them is missing."""
    other = base.results.get("dipole")
    return None if dipole is None or other is None else dipole - np.asarray(other, dtype=float)


def learned_frames(
    base: EvaluatedPotential | None, parts: Iterable[list[LabelledFrame]], response_only: bool = False
) -> tuple[list[list[LabelledFrame]], Difference | None]:
    """Return lists of frames with the labels that are learned, and the difference that these are if there is a base.

    Parameters
    ----------
    base : EvaluatedPotential or None
        Potential that is subtracted.
    parts : iterable of list of LabelledFrame
    response_only : bool
        Whether only the response to the surroundings is learned; there is no base then.
    """
    lists = [list(part) for part in parts]
    if response_only:
        return [response_labels(part) for part in lists], None
    if base is None:
        return lists, None
    labels = difference_labels([frame for part in lists for frame in part], base)
    remaining = iter(labels.frames)
    return [[next(remaining) for _ in part] for part in lists], labels.difference
