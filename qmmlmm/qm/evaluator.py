"""The evaluator of a QM region."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qmmlmm.coupling.field_checks import checked_field
from qmmlmm.coupling.potential import Evaluation, Evaluator, ExternalField, Memory, RegionSpecification
from qmmlmm.coupling.state_results import StateResults
from qmmlmm.errors import EvaluationError, NonFiniteError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.qm.basis import core_potentials, symbols_of
from qmmlmm.qm.blas_threads import with_one_blas_thread
from qmmlmm.qm.excited import CASSCF, TDA, TDDFT, DeltaSCF
from qmmlmm.qm.failure import write_failure
from qmmlmm.qm.field.compact_charges import CompactCharges
from qmmlmm.qm.field.smooth_potential import SmoothPotential
from qmmlmm.qm.functional.two_grids import GridDifference
from qmmlmm.qm.scf.convergence import ScfRecord
from qmmlmm.qm.scf.density_history import DensityHistory
from qmmlmm.qm.scf.mean_field import (
    create_mean_field,
    create_molecule,
    put_in_field,
    remove_scratch,
)
from qmmlmm.qm.scf.reference import Reference
from qmmlmm.qm.settings import PySCFSettings
from qmmlmm.qm.states.casscf_overlap import centred
from qmmlmm.qm.states.casscf_states import CasscfStates
from qmmlmm.qm.states.delta_scf import DeltaScfStates
from qmmlmm.qm.states.electronic_state import ElectronicState, properties
from qmmlmm.qm.states.response_states import ResponseStates
from qmmlmm.qm.states.state_solver import GroundState, StateSolver
from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class _Surroundings:
    """A mean-field object with the surroundings in its one-electron operator, and the parts of their forces."""

    mean_field: Any
    compact: CompactCharges | None
    smooth: SmoothPotential | None

    def evaluate(self, state: ElectronicState, outcome: dict[str, object]) -> Evaluation:
        """Return the evaluation of a state, with the forces of the external field from its density."""
        gradient, density = state.gradient, state.density
        charge_gradient, smooth_points, smooth_charges = np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)
        if self.compact is not None:
            atom_part, charge_gradient = self.compact.gradients(density)
            gradient = gradient + atom_part
        if self.smooth is not None:
            atom_part, smooth_points, smooth_charges = self.smooth.gradient_and_charges(density)
            gradient = gradient + atom_part
        compact = self.compact
        return Evaluation(
            energy=state.energy,
            gradient=gradient,
            charge_gradient=charge_gradient,
            smooth_points=smooth_points,
            smooth_charges=smooth_charges,
            results=properties(self.mean_field, state) | outcome,
            states=state.states,
            charge_energies=None if compact is None else functools.partial(compact.charge_energies, density),
        )

    def coupling(self, solver: StateSolver, first: int, second: int) -> tuple[Evaluation, Evaluation]:
        """Return evaluations that differ by the coupling of two states: of a transition density, and of none."""
        found = solver.coupling(first, second)
        nothing = ElectronicState(0.0, np.zeros_like(found.gradient), np.zeros_like(found.density))
        return self.evaluate(found, {}), self.evaluate(nothing, {})


class PySCFEvaluator(Evaluator):
    """Computes one region with PySCF; created by `PySCFPotential.create_evaluator`.

    It keeps the densities of its last results for the guess of the next calculation. For the positions and the external
    field of a region in a System see `EvaluatedTerm.field_at`.

    Parameters
    ----------
    settings : PySCFSettings
    specification : RegionSpecification
    """

    def __init__(self, settings: PySCFSettings, specification: RegionSpecification) -> None:
        self._settings = settings
        self._specification = specification
        self._term = f"term {specification.name!r}"
        self._symbols = symbols_of(specification.atomic_numbers, self._term)
        self._core_potentials = core_potentials(settings.basis_sets, self._symbols, self._term)
        self._history = DensityHistory()
        self._difference = GridDifference()
        self._record = ScfRecord()
        self._solver = _create_solver(settings, self._term)

    def forget(self) -> None:
        """Reset: the next calculation starts from a fresh guess, as in a new process."""
        self._history.forget()
        self._solver.forget()

    def summary(self) -> dict[str, object]:
        """Return counts of cycles and of guesses of all calculations so far."""
        return self._record.summary() | self._solver.summary()

    def select_state(self, state: int) -> None:
        """Select the electronic state that has energy and forces from the next evaluation on."""
        self._solver.select(state)

    def memory(self) -> Memory:
        """Return the electronic states of the last geometry as arrays, for a checkpoint."""
        return self._solver.memory()

    def recall(self, memory: Memory) -> None:
        """Continue from what `memory` returned: the states of the next geometry are compared with those."""
        self.forget()
        if memory:
            self._solver.recall(centred(self._molecule(memory["positions"])), memory)

    def mean_field(self, geometry: Geometry, field: ExternalField | None) -> Any:
        """Return the mean-field object of PySCF with the field in its one-electron operator, not yet converged.

        Response and correlation methods that start from it have the same operator.

        Parameters
        ----------
        geometry : Geometry, bohr
        field : ExternalField or None
            External field; that of a region in a System is ``EvaluatedTerm.field_at(geometry).external_field()``.

        Returns
        -------
        pyscf.scf.hf.SCF
        """
        return self._surroundings(geometry, field).mean_field

    @with_one_blas_thread
    def evaluate(self, geometry: Geometry, field: ExternalField | None) -> Evaluation:
        """Return energy and derivatives, see `qmmlmm.coupling.potential.Evaluator`.

        Returns
        -------
        Evaluation
            Its `results` are ``dipole``, (3,) e bohr, about ``dipole_origin``, (3,) bohr, the centre of the
            nuclear charges; ``mulliken_charges``, (n,) e; ``scf_cycles``, all attempts together;
            ``scf_guess``, the attempt that converged: ``"extrapolated guess"``, ``"last density"``,
            ``"fresh guess"``, ``"damping and level shift"`` or ``"second order"``; with unrestricted orbitals
            ``s_squared``, of the reference, and ``spin_populations``, (n,).

            With excited states dipole, charges and spin populations are those of the state with the forces, from its
            relaxed density, and `states` has all states. With CASSCF ``casscf_cycles`` and ``casscf_guess`` replace
            those of the self-consistent field.

        Raises
        ------
        NonFiniteError
            If positions, field, energy or gradient are not finite.
        ConvergenceError
            If the self-consistent field does not converge in any attempt.
        EvaluationError
            If the shapes are wrong or a point charge lies on a nucleus.
        """
        surroundings = self._surroundings(geometry, field)
        overlap = np.asarray(surroundings.mean_field.get_ovlp())
        guesses = self._guesses(geometry.positions, overlap) if self._solver.keeps_reference else []
        reference = self._reference(surroundings, guesses, geometry, field)
        try:
            solved = self._solver.solve(reference)
            outcome = reference.outcome if self._solver.keeps_reference else {}
            evaluation = surroundings.evaluate(solved.state, outcome)
        finally:
            remove_scratch(surroundings.mean_field)
        self._check_finite(evaluation, reference.save)
        if self._solver.keeps_reference:
            self._history.add(geometry.positions, overlap, surroundings.mean_field)
        if isinstance(self._settings.excited, CASSCF):
            coupling = functools.partial(surroundings.coupling, self._solver)
            evaluation = dataclasses.replace(evaluation, coupling=coupling)
        solved.accept()
        return evaluation

    @with_one_blas_thread
    def energy(self, geometry: Geometry, field: ExternalField | None) -> float:
        """Return only the energy, hartree, from a fresh guess; parameters and exceptions are those of `evaluate`.

        The index of an excited state is that in the order of energy.
        """
        surroundings = self._surroundings(geometry, field)
        reference = self._reference(surroundings, [], geometry, field)
        try:
            energy = self._solver.energy(reference)
        finally:
            remove_scratch(surroundings.mean_field)
        if not np.isfinite(energy):
            raise NonFiniteError(f"{self._term}: the energy ({energy}) is not finite; {reference.save()}")
        return energy

    @with_one_blas_thread
    def excitations(self, geometry: Geometry, field: ExternalField | None) -> StateResults | None:
        """Return all states from a fresh guess and in the order of energy.

        With TDA and TDDFT no forces are computed, which saves a third of the time. Parameters and exceptions are those
        of `evaluate`.
        """
        surroundings = self._surroundings(geometry, field)
        reference = self._reference(surroundings, [], geometry, field)
        try:
            states = self._solver.excitations(reference)
        finally:
            remove_scratch(surroundings.mean_field)
        if states is not None and not np.isfinite(states.state_energies).all():
            raise NonFiniteError(
                f"{self._term}: energies of the states are not finite ({states.state_energies}); {reference.save()}"
            )
        return states

    def _guesses(self, positions: FloatArray, overlap: FloatArray) -> list[tuple[str, FloatArray]]:
        if self._settings.guess == "fresh":
            return []
        found = self._history.guesses(positions, overlap)
        return found if self._settings.guess == "extrapolated" else found[-1:]

    def _surroundings(self, geometry: Geometry, field: ExternalField | None) -> _Surroundings:
        positions = self._checked_positions(geometry.positions)
        field = None if field is None else checked_field(positions, field, self._term)
        molecule = self._molecule(positions)
        difference = self._difference if isinstance(self._settings.excited, TDA | TDDFT | None) else None
        mean_field = create_mean_field(self._settings, molecule, difference=difference)
        compact = None if field is None else CompactCharges(molecule, field)
        smooth = None
        if field is not None and field.smooth_potential is not None:
            smooth = SmoothPotential(
                molecule,
                self._settings.embedding_grid_level,
                field.smooth_potential,
                self._specification.name,
            )
        put_in_field(mean_field, [part for part in (compact, smooth) if part is not None])
        return _Surroundings(mean_field, compact, smooth)

    def _reference(
        self,
        surroundings: _Surroundings,
        guesses: list[tuple[str, FloatArray]],
        geometry: Geometry,
        field: ExternalField | None,
    ) -> Reference:
        mean_field, settings = surroundings.mean_field, self._settings

        def save() -> str:
            return self._save(geometry.positions, field)

        def create_unrestricted() -> Any:
            other = create_mean_field(settings, mean_field.mol, unrestricted=True)
            other.get_hcore, other.energy_nuc = mean_field.get_hcore, mean_field.energy_nuc
            if settings.fits_density:
                other.with_df = mean_field.with_df
            return other

        return Reference(mean_field, guesses, self._term, save, self._record, create_unrestricted)

    def _molecule(self, positions: FloatArray) -> Any:
        return create_molecule(self._settings, self._specification, self._symbols, self._core_potentials, positions)

    def _checked_positions(self, positions: FloatArray) -> FloatArray:
        positions = np.array(positions, dtype=float)
        expected = (len(self._symbols), 3)
        if positions.shape != expected:
            raise EvaluationError(f"{self._term}: positions have shape {positions.shape}, the region needs {expected}")
        wrong = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if len(wrong):
            raise NonFiniteError(f"{self._term}: positions of atoms {listed(wrong)} are not finite")
        return positions

    def _save(self, positions: FloatArray, external_field: ExternalField | None) -> str:
        specification, settings = self._specification, self._settings
        comment = (
            f"charge={specification.charge} multiplicity={specification.multiplicity} "
            f'method="{settings.method}" basis="{settings.basis!s}"'
        )
        return write_failure(
            settings.failure_directory,
            specification.name,
            comment,
            self._symbols,
            positions,
            external_field,
        )

    def _check_finite(self, evaluation: Evaluation, save: Callable[[], str]) -> None:
        wrong = np.flatnonzero(~np.isfinite(evaluation.gradient).all(axis=1))
        wrong_charges = np.flatnonzero(~np.isfinite(evaluation.charge_gradient).all(axis=1))
        if np.isfinite(evaluation.energy) and not len(wrong) and not len(wrong_charges):
            return
        what = []
        if not np.isfinite(evaluation.energy):
            what.append(f"the energy ({evaluation.energy})")
        if len(wrong):
            what.append(f"the gradient of atoms {listed(wrong)}")
        if len(wrong_charges):
            what.append(f"the gradient of external charges {listed(wrong_charges)}")
        raise NonFiniteError(f"{self._term}: {' and '.join(what)} is not finite; {save()}")


def _create_solver(settings: PySCFSettings, term: str) -> StateSolver:
    """Return the solver for the electronic states of the settings."""
    excited = settings.excited
    if excited is None:
        return GroundState(settings.method, settings.accelerated and settings.fits_density)
    if isinstance(excited, CASSCF):
        return CasscfStates(excited, settings.state, settings.follow_state, term)
    if isinstance(excited, DeltaSCF):
        return DeltaScfStates(excited, settings.method, settings.state, term)
    return ResponseStates(
        excited, settings.method, settings.state, settings.follow_state, term, accelerated=settings.accelerated
    )
