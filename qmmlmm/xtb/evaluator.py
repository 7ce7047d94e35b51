"""The evaluator of an xTB region."""

from __future__ import annotations

import functools

import numpy as np

from qmmlmm.coupling.field_checks import checked_field
from qmmlmm.coupling.potential import Evaluation, Evaluator, ExternalField, RegionSpecification
from qmmlmm.errors import EvaluationError, NonFiniteError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.units import ANGSTROM_IN_BOHR, FloatArray
from qmmlmm.xtb.compact_charges import CompactCharges
from qmmlmm.xtb.multipoles import AtomicPotential
from qmmlmm.xtb.settings import XTBSettings
from qmmlmm.xtb.smooth_potential import SmoothPotential
from qmmlmm.xtb.tblite_calculation import Solution, TBLiteCalculation

CLOSEST_ATOMS = 0.1 * ANGSTROM_IN_BOHR
"""Distance in bohr below which two atoms lie on top of each other, which tblite does not notice. Above it the energy
rises steeply as atoms approach, by 10 to 500 hartree up to this distance, so that a minimiser can step back."""


class XTBEvaluator(Evaluator):
    """Computes one region with tblite; created by `XTBPotential.create_evaluator`.

    Each calculation starts from a fresh guess, so that the energy is a function of the geometry and there is nothing to
    remember or forget.

    Parameters
    ----------
    settings : XTBSettings
    specification : RegionSpecification
    """

    def __init__(self, settings: XTBSettings, specification: RegionSpecification) -> None:
        self._rank = settings.rank
        self._n_atoms = len(specification.atomic_numbers)
        self._nuclear_charges = np.array(specification.atomic_numbers, dtype=float)
        self._term = f"term {specification.name!r}"
        self._calculation = TBLiteCalculation(settings, specification)
        self._evaluations, self._cycles = 0, 0

    def summary(self) -> dict[str, object]:
        """Return the number of calculations and of their cycles so far."""
        return {"calculations": self._evaluations, "scf_cycles": self._cycles}

    def evaluate(self, geometry: Geometry, field: ExternalField | None) -> Evaluation:
        """Return energy and derivatives, see `qmmlmm.coupling.potential.Evaluator`.

        Returns
        -------
        Evaluation
            Its `results` are ``mulliken_charges``, (n,) e, and ``atomic_dipoles``, (n, 3) e bohr, which feel the field;
            ``dipole``, (3,) e bohr, of both, about ``dipole_origin``, (3,) bohr, the centre of the nuclear charges; and
            ``scf_cycles``.

        Raises
        ------
        NonFiniteError
            If positions, field, energy or gradient are not finite.
        ConvergenceError
            If the self-consistent field does not converge.
        EvaluationError
            If the shapes are wrong, or two atoms, or a point charge and an atom, lie on top of each other.
        """
        positions = self._checked_positions(geometry.positions)
        evaluation = self._isolated(positions) if field is None else self._embedded(positions, field)
        self._check_finite(evaluation)
        return evaluation

    def _isolated(self, positions: FloatArray) -> Evaluation:
        solution = self._solve(positions, AtomicPotential.zero(self._n_atoms))
        return Evaluation(solution.energy, solution.gradient, results=self._results(positions, solution))

    def _embedded(self, positions: FloatArray, field: ExternalField) -> Evaluation:
        field = checked_field(positions, field, self._term)
        compact = CompactCharges(positions, field, self._rank)
        potential = compact.potential()
        smooth = None
        if field.smooth_potential is not None:
            smooth = SmoothPotential(positions, field.smooth_potential, self._rank)
            potential = potential + smooth.potential()
        if not all(np.isfinite(part).all() for part in (potential.value, potential.gradient, potential.curvature)):
            raise NonFiniteError(f"{self._term}: the potential of the surroundings is not finite at the atoms")
        solution = self._solve(positions, potential)
        multipoles = solution.multipoles.up_to(self._rank)
        gradient, charge_gradient = compact.gradients(multipoles)
        gradient = gradient + solution.gradient
        points, charges = np.zeros((0, 3)), np.zeros(0)
        if smooth is not None:
            smooth_gradient, points, charges = smooth.gradient_and_charges(multipoles)
            gradient = gradient + smooth_gradient
        return Evaluation(
            solution.energy,
            gradient,
            charge_gradient,
            points,
            charges,
            self._results(positions, solution),
            charge_energies=functools.partial(compact.energies, multipoles),
        )

    def _results(self, positions: FloatArray, solution: Solution) -> dict[str, object]:
        multipoles = solution.multipoles.up_to(self._rank)
        origin = self._nuclear_charges @ positions / self._nuclear_charges.sum()
        return {
            "mulliken_charges": multipoles.charges,
            "atomic_dipoles": multipoles.dipoles,
            "dipole": multipoles.charges @ (positions - origin) + multipoles.dipoles.sum(axis=0),
            "dipole_origin": origin,
            "scf_cycles": solution.cycles,
        }

    def _solve(self, positions: FloatArray, potential: AtomicPotential) -> Solution:
        solution = self._calculation.solve(positions, potential)
        self._evaluations += 1
        self._cycles += solution.cycles
        return solution

    def _checked_positions(self, positions: FloatArray) -> FloatArray:
        positions = np.array(positions, dtype=float)
        if positions.shape != (self._n_atoms, 3):
            raise EvaluationError(
                f"{self._term}: positions have shape {positions.shape}, the region needs {(self._n_atoms, 3)}"
            )
        wrong = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if len(wrong):
            raise NonFiniteError(f"{self._term}: positions of atoms {listed(wrong)} are not finite")
        distances = np.linalg.norm(positions[:, None] - positions, axis=2)
        close = np.argwhere(np.triu(distances < CLOSEST_ATOMS, k=1))
        if len(close):
            pairs = listed(f"{i} and {j} ({distances[i, j] / ANGSTROM_IN_BOHR:.2f} angstrom)" for i, j in close)
            raise EvaluationError(
                f"{self._term}: atoms of the region lie closer than 0.1 angstrom to each other: {pairs}; minimise with "
                "the force field first"
            )
        return positions

    def _check_finite(self, evaluation: Evaluation) -> None:
        found = {
            f"the energy ({evaluation.energy})": np.array([evaluation.energy]),
            "the gradient of the atoms": evaluation.gradient,
            "the gradient of the external charges": evaluation.charge_gradient,
        }
        wrong = [what for what, values in found.items() if not np.isfinite(values).all()]
        if wrong:
            raise NonFiniteError(f"{self._term}: {' and '.join(wrong)} is not finite")
