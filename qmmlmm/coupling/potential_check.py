"""A public check of a potential against the contract of `qmmlmm.coupling.potential`."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import TextIOBase
from typing import TextIO

import numpy as np

from qmmlmm.coupling.potential import (
    Capabilities,
    EvaluatedPotential,
    Evaluation,
    Evaluator,
    ExternalField,
    RegionSpecification,
)
from qmmlmm.errors import PotentialError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.setting_checks import LARGEST_COUNT, check_positive, check_whole_number
from qmmlmm.units import FloatArray, Vectors

STEP = 4e-3
"""Step of the central differences, bohr: they are of fourth order, and energies converged to 1e-9 hartree leave an
error of approximately 4e-7 hartree/bohr."""

FIELD_STEP = 2e-2
"""Step of potentials, hartree/e, and relative step of charges."""

DIRECTIONS = 2
"""Number of random directions of the central differences. Each coordinate moves by the same step in all of them, so
that an error in one coordinate shows in full."""

SAME_ENERGY = 1e-7
"""Largest difference between energies of the same geometry, hartree."""

TURNED_ENERGY = 1e-4
"""Largest change of the energy by a rotation, hartree: quadrature grids of density functionals do not rotate."""

SAME_CHARGE = 1e-5
"""Largest difference between the charge that the surroundings feel and the total charge, e."""

SPLITTING = 0.3
"""Splitting parameter of the Gaussian charges, 1/bohr."""

MARGIN = 20.0
"""Edge of the box less the extent of the region, bohr, for potentials that compute periodic images."""

N_CHARGES, CLOSEST, FARTHEST = 6, 5.0, 9.0
"""Number of charges around the region, and limits of their distance from its atoms, bohr."""


@dataclass(frozen=True)
class CheckResult:
    """One row of a report.

    Parameters
    ----------
    name : str
        Name of the check.
    measured, bound : float
        Largest deviation and its limit.
    unit : str
    """

    name: str
    measured: float
    bound: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether the deviation is a number within the bound."""
        return bool(self.measured <= self.bound)


@dataclass(frozen=True)
class PotentialReport:
    """All checks of a potential.

    Parameters
    ----------
    potential : str
    results : tuple of CheckResult
    """

    potential: str
    results: tuple[CheckResult, ...]

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if not result.passed)

    def __str__(self) -> str:
        width = max(len(result.name) for result in self.results)
        lines = [self.potential, f"{'check':<{width}}  {'measured':>9}  {'bound':>9}  unit"]
        for result in self.results:
            mark = "" if result.passed else "  FAILED"
            lines.append(f"{result.name:<{width}}  {result.measured:9.1e}  {result.bound:9.1e}  {result.unit}{mark}")
        return "\n".join(lines)


def check_potential(
    potential: EvaluatedPotential,
    atomic_numbers: Sequence[int],
    positions: Vectors,
    charge: int = 0,
    multiplicity: int = 1,
    *,
    tolerance: float = 1e-5,
    stream: TextIO | None = None,
) -> PotentialReport:
    """Test a potential against its contract and print a table.

    Parameters
    ----------
    potential : EvaluatedPotential
    atomic_numbers : sequence of int
        A small region that the potential can treat.
    positions : (n, 3) Quantity or float array, nm
        A geometry off the minimum, so that forces are not zero.
    charge, multiplicity : int
    tolerance : float, hartree/bohr
        Largest error of a force. A potential in single precision needs approximately 1e-3.
    stream : text file, optional
        Output of the table; standard output if not given.

    Returns
    -------
    PotentialReport

    Raises
    ------
    PotentialError
        If a check fails; the message lists all failures. Also if an argument is invalid.

    Notes
    -----
    The checks are: forces on the region, in a vacuum and in the field, and on the charges around it, against numerical
    derivatives; the net force; translation and rotation; the total charge in a constant potential; the charges in the
    smooth part; that inputs are unchanged, that the potential can be pickled, and that a new evaluator gives the same
    energy; and every declared capability: electronic states with their forces, smeared charges, energies with single
    charges, couplings, periodic images.
    """
    if not isinstance(potential, EvaluatedPotential):
        raise PotentialError(
            f"check_potential takes a subclass of qmmlmm.coupling.potential.EvaluatedPotential, got "
            f"{type(potential).__name__}"
        )
    check_positive("tolerance", tolerance, "hartree/bohr", PotentialError)
    if isinstance(atomic_numbers, str | bytes | Mapping) or not isinstance(atomic_numbers, Iterable):
        raise PotentialError(f"atomic_numbers are a list of integers, got {atomic_numbers!r}")
    numbers = [
        check_whole_number("each of atomic_numbers", z, at_most=118, error=PotentialError) for z in atomic_numbers
    ]
    if not numbers:
        raise PotentialError("atomic_numbers has no atom; give a small region that the potential can treat")
    check_whole_number("charge", charge, at_least=-LARGEST_COUNT, at_most=sum(numbers), error=PotentialError)
    check_whole_number("multiplicity", multiplicity, at_most=sum(numbers) + 1, error=PotentialError)
    if stream is not None and not isinstance(stream, TextIOBase):
        raise PotentialError(f"stream is a text file that is open for writing, got {stream!r}")
    geometry = Geometry.from_quantities(positions).in_bohr()
    if len(geometry.positions) != len(numbers):
        raise PotentialError(f"positions are of {len(geometry.positions)} atoms and atomic_numbers of {len(numbers)}")
    specification = RegionSpecification("check", np.array(numbers, dtype=np.int64), charge, multiplicity)
    potential.check(specification)
    results = tuple(_Check(potential, specification, geometry.positions, tolerance).run())
    report = PotentialReport(repr(potential), results)
    (sys.stdout if stream is None else stream).write(f"{report}\n")
    if report.failures:
        found = [f"{f.name}: {f.measured:.1e} {f.unit}, bound {f.bound:.1e}" for f in report.failures]
        raise PotentialError(f"{type(potential).__name__} breaks the contract of a potential: {listed(found, 20)}")
    return report


@dataclass(frozen=True)
class _Quadratic:
    """A smooth potential c + b . r + r . A . r / 2 with its gradient."""

    constant: float
    linear: FloatArray
    quadratic: FloatArray

    def __call__(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        curved = points @ self.quadratic
        value = self.constant + points @ self.linear + 0.5 * (curved * points).sum(axis=1)
        return value, self.linear + curved

    def __add__(self, other: _Quadratic) -> _Quadratic:
        return _Quadratic(self.constant + other.constant, self.linear + other.linear, self.quadratic + other.quadratic)

    def scaled(self, factor: float) -> _Quadratic:
        """Return the potential times a factor."""
        return _Quadratic(factor * self.constant, factor * self.linear, factor * self.quadratic)


class _Check:
    """Runs all checks of one potential on one region, in bohr."""

    def __init__(
        self, potential: EvaluatedPotential, specification: RegionSpecification, positions: FloatArray, tolerance: float
    ) -> None:
        self._potential = potential
        self._specification = specification
        self._positions = positions
        self._tolerance = tolerance
        self._capabilities: Capabilities = potential.capabilities
        self._random = np.random.default_rng(1)
        self._evaluator: Evaluator = potential.create_evaluator(specification)
        self._box: FloatArray | None = None
        if self._capabilities.long_range:
            extent = float(np.ptp(positions, axis=0).max())
            self._box = (extent + MARGIN) * np.array([[1.0, 0.0, 0.0], [0.1, 1.0, 0.0], [-0.2, 0.1, 1.0]])

    def run(self) -> Iterator[CheckResult]:
        """Yield the results."""
        embeddings = self._capabilities.embeddings
        first = "mechanical" if "mechanical" in embeddings else "electrostatic"
        fields: dict[str, ExternalField | None] = {}
        alone = "in a vacuum" if self._box is None else "with periodic images"
        if "mechanical" in embeddings:
            fields[alone] = None
        if "electrostatic" in embeddings:
            fields["among point charges"] = self._points()
            fields["in a box"] = self._box_field()
            if self._capabilities.smeared_charges:
                fields["among smeared charges"] = self._smeared()
        field = fields[alone] if first == "mechanical" else fields["among point charges"]
        yield from self._repetition(field)
        yield from self._symmetry(field)
        for name, around in fields.items():
            yield from self._derivatives(name, around)
        if "electrostatic" in embeddings:
            yield from self._response(fields["in a box"])
        if self._capabilities.n_states > 1:
            yield from self._states(field)
        if self._capabilities.couplings:
            yield from self._coupling(field)

    # Surroundings of the region.

    def _points(self) -> ExternalField:
        found: list[FloatArray] = []
        centre = self._positions.mean(axis=0)
        extent = float(np.linalg.norm(self._positions - centre, axis=1).max())
        while len(found) < N_CHARGES:
            direction = self._random.normal(size=3)
            trial = centre + direction / np.linalg.norm(direction) * self._random.uniform(CLOSEST, FARTHEST + extent)
            closest = float(np.linalg.norm(self._positions - trial, axis=1).min())
            if CLOSEST < closest < FARTHEST:
                found.append(trial)
        charges = self._random.uniform(0.2, 0.8, N_CHARGES) * np.tile([1.0, -1.0], N_CHARGES // 2)
        return ExternalField(np.array(found), charges, np.zeros(N_CHARGES))

    def _smeared(self) -> ExternalField:
        points = self._points()
        return replace(points, widths=np.where(np.arange(N_CHARGES) % 2, 0.0, 1.0))

    def _box_field(self) -> ExternalField:
        """Return a field as in a box: screened points, the region's own Gaussian charges, and a smooth part."""
        points = self._points()
        n = len(self._positions)
        own = self._random.uniform(-0.2, 0.2, n)
        return ExternalField(
            np.concatenate([points.positions, self._positions]),
            np.concatenate([points.point_charges, np.zeros(n)]),
            np.concatenate([-points.point_charges, -own]),
            SPLITTING,
            self._quadratic(),
        )

    def _quadratic(self) -> _Quadratic:
        matrix = 1e-3 * self._random.normal(size=(3, 3))
        matrix = matrix + matrix.T
        return _Quadratic(0.02, 5e-3 * self._random.normal(size=3), matrix - np.trace(matrix) / 3.0 * np.eye(3))

    # The checks.

    def _repetition(self, field: ExternalField | None) -> Iterator[CheckResult]:
        positions, before = self._positions.copy(), copy.deepcopy(_arrays(field))
        first = self._evaluate(self._positions, field)
        unchanged = np.array_equal(positions, self._positions) and all(
            np.array_equal(old, new) for old, new in zip(before, _arrays(field), strict=True)
        )
        yield CheckResult("inputs that were changed", float(not unchanged), 0.0, "")
        shapes = first.gradient.shape == positions.shape and bool(np.isfinite(first.gradient).all())
        yield CheckResult("gradients of the wrong shape or not finite", float(not shapes), 0.0, "")
        again = pickle.loads(pickle.dumps(self._potential)).create_evaluator(self._specification)
        restored = again.evaluate(self._geometry(positions, field), field).energy
        yield CheckResult("energy after pickling", abs(restored - first.energy), SAME_ENERGY, "hartree")
        alone = again.energy(self._geometry(positions, field), field)
        yield CheckResult("energy alone", abs(alone - first.energy), SAME_ENERGY, "hartree")
        self._evaluator.forget()
        forgotten = self._evaluate(positions, field).energy
        yield CheckResult("energy after forgetting", abs(forgotten - first.energy), SAME_ENERGY, "hartree")
        memory = self._evaluator.memory()
        if memory:
            other = self._potential.create_evaluator(self._specification)
            other.recall(memory)
            recalled = other.evaluate(self._geometry(positions, field), field).energy
            yield CheckResult("energy after recalling a memory", abs(recalled - first.energy), SAME_ENERGY, "hartree")

    def _symmetry(self, field: ExternalField | None) -> Iterator[CheckResult]:
        evaluation = self._evaluate(self._positions, field)
        shift = np.array([0.7, -0.4, 0.3])
        moved = self._evaluate(self._positions + shift, _moved(field, shift, np.eye(3)))
        yield CheckResult("energy after a translation", abs(moved.energy - evaluation.energy), SAME_ENERGY, "hartree")
        if self._box is None:  # which does not turn with the region
            turn, _ = np.linalg.qr(self._random.normal(size=(3, 3)))
            turn *= np.sign(np.linalg.det(turn))
            turned = self._evaluate(self._positions @ turn.T, _moved(field, np.zeros(3), turn))
            error = abs(turned.energy - evaluation.energy)
            yield CheckResult("energy after a rotation", error, TURNED_ENERGY, "hartree")
        net = evaluation.gradient.sum(axis=0) + evaluation.charge_gradient.sum(axis=0)
        yield CheckResult("net force", float(abs(net).max()), self._tolerance, "hartree/bohr")

    def _derivatives(self, name: str, field: ExternalField | None) -> Iterator[CheckResult]:
        evaluation = self._evaluate(self._positions, field)
        yield self._force_error(f"forces on the region {name}", evaluation, field)
        if field is None:
            return

        def energy_of(positions: FloatArray) -> float:
            return self._evaluate(self._positions, replace(field, positions=positions)).energy

        worst = self._largest_error(energy_of, field.positions, evaluation.charge_gradient)
        yield CheckResult(f"forces on the charges {name}", worst, self._tolerance, "hartree/bohr")
        if self._capabilities.charge_energies:
            yield self._charge_energies(name, evaluation, field)

    def _force_error(self, name: str, evaluation: Evaluation, field: ExternalField | None) -> CheckResult:
        def energy_of(positions: FloatArray) -> float:
            return self._evaluate(positions, field).energy

        worst = self._largest_error(energy_of, self._positions, evaluation.gradient)
        return CheckResult(name, worst, self._tolerance, "hartree/bohr")

    def _largest_error(
        self, energy_of: Callable[[FloatArray], float], positions: FloatArray, gradient: FloatArray
    ) -> float:
        """Return the largest difference between a gradient and numerical derivatives, along random directions."""
        worst = 0.0
        for direction in self._random.choice([-1.0, 1.0], size=(DIRECTIONS, len(positions), 3)):
            near, far = (
                energy_of(positions + step * direction) - energy_of(positions - step * direction)
                for step in (STEP, 2.0 * STEP)
            )
            numerical = (8.0 * near - far) / (12.0 * STEP)
            worst = max(worst, abs(numerical - float((gradient * direction).sum())))
        return worst

    def _charge_energies(self, name: str, evaluation: Evaluation, field: ExternalField) -> CheckResult:
        found = evaluation.charge_energies
        if found is None:
            return CheckResult(f"energies with single charges {name}, which are declared", np.inf, 0.0, "hartree")
        weights = self._random.normal(size=len(field.positions))
        expected = float(weights @ found())
        energies = []
        for step in (FIELD_STEP, -FIELD_STEP):
            factor = 1.0 + step * weights
            changed = replace(
                field,
                point_charges=factor * field.point_charges,
                gaussian_charges=factor * field.gaussian_charges,
            )
            energies.append(self._evaluate(self._positions, changed).energy)
        error = abs((energies[0] - energies[1]) / (2.0 * FIELD_STEP) - expected)
        return CheckResult(f"energies with single charges {name}", error, 10.0 * self._tolerance, "hartree")

    def _response(self, field: ExternalField | None) -> Iterator[CheckResult]:
        """Check the charge with which the region feels the smooth part."""
        assert field is not None
        smooth = field.smooth_potential
        assert isinstance(smooth, _Quadratic)
        evaluation = self._evaluate(self._positions, field)
        flat = _Quadratic(1.0, np.zeros(3), np.zeros((3, 3)))
        for name, extra, bound in (
            ("total charge in a constant potential", flat, SAME_CHARGE),
            ("charges in the smooth part", self._quadratic(), self._tolerance),
        ):
            energies = [
                self._evaluate(self._positions, replace(field, smooth_potential=smooth + extra.scaled(step))).energy
                for step in (FIELD_STEP, -FIELD_STEP)
            ]
            numerical = (energies[0] - energies[1]) / (2.0 * FIELD_STEP)
            felt = float(evaluation.smooth_charges @ extra(evaluation.smooth_points)[0])
            expected = self._charge() if extra is flat else felt
            yield CheckResult(name, max(abs(numerical - expected), abs(felt - expected)), bound, "e")

    def _charge(self) -> float:
        """Return the total charge with which the region feels a constant potential."""
        # Both levels of a difference have the charge of the region.
        return 0.0 if self._potential.difference is not None else float(self._specification.charge)

    def _states(self, field: ExternalField | None) -> Iterator[CheckResult]:
        count, first = self._capabilities.n_states, self._capabilities.state
        for state in range(count):
            self._evaluator.forget()
            self._evaluator.select_state(state)
            evaluation = self._evaluate(self._positions, field)
            states = evaluation.states
            if states is None or len(states.state_energies) != count or states.state != state:
                yield CheckResult(f"state {state} of {count}, which is declared but missing", np.inf, 0.0, "")
                continue
            error = abs(float(states.state_energies[state]) - evaluation.energy)
            yield CheckResult(f"energy of state {state} among those of all", error, SAME_ENERGY, "hartree")
            yield self._force_error(f"forces of state {state}", evaluation, field)
        self._evaluator.forget()
        self._evaluator.select_state(first)

    def _coupling(self, field: ExternalField | None) -> Iterator[CheckResult]:
        evaluation = self._evaluate(self._positions, field)
        if evaluation.coupling is None or evaluation.states is None:
            yield CheckResult("couplings, which are declared", np.inf, 0.0, "")
            return
        upper, lower = evaluation.coupling(0, 1)
        gap = float(evaluation.states.state_energies[1] - evaluation.states.state_energies[0])
        error = abs((upper.energy - lower.energy) - gap)
        yield CheckResult("gap of coupled states", error, SAME_ENERGY, "hartree")

    def _evaluate(self, positions: FloatArray, field: ExternalField | None) -> Evaluation:
        return self._evaluator.evaluate(self._geometry(positions, field), field)

    def _geometry(self, positions: FloatArray, field: ExternalField | None) -> Geometry:
        return Geometry(positions, self._box if field is None else None)


def _arrays(field: ExternalField | None) -> list[FloatArray]:
    return [] if field is None else [field.positions, field.point_charges, field.gaussian_charges]


def _moved(field: ExternalField | None, shift: FloatArray, turn: FloatArray) -> ExternalField | None:
    return None if field is None else replace(field, positions=field.positions @ turn.T + shift)
