"""Labels from a term of a mixed System: what its QM potential says about a region in its surroundings."""

from __future__ import annotations

from typing import Any

import numpy as np
from openmm import unit

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
        self._vacuum = term.potential.create_evaluator(term.layout.specification) if vacuum and embedded else None

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (self.term, self.method, self._wants_vacuum, self.near_reach))

    def forget(self) -> None:
        """Make the next label as if it were the first: the same, whatever was labelled before."""
        self.term.forget()
        forget = getattr(self._vacuum, "forget", None)
        if forget is not None:
            forget()

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
        places = np.array(in_unit(positions, unit.nanometer), dtype=float) * NM_IN_BOHR
        if box is None and self.term.layout.periodic:
            raise EvaluationError(f"term {self.term.name!r} is periodic: labels need box vectors")
        vectors = np.eye(3) if box is None else np.array(in_unit(box, unit.nanometer), dtype=float) * NM_IN_BOHR
        label = self.term.label(places, vectors, self.near_reach * ANGSTROM_IN_BOHR)
        specification = self.term.layout.specification
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
            electronic_state=int(getattr(self.term.potential, "state", 0)),
            charges=_array(label.results.get("mulliken_charges")),
            dipole=_array(label.results.get("dipole")),
            name=name,
            **options,
        )


def _restore(term: EvaluatedTerm, method: str, vacuum: bool, near_reach: float) -> Labeller:
    return Labeller(term, method, vacuum=vacuum, near_reach=near_reach)


def _array(value: object) -> np.ndarray | None:
    return None if value is None else np.asarray(value, dtype=float)
