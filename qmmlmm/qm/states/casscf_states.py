"""SA-CASSCF states of a region at one geometry after another."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pyscf import mcscf
from pyscf.fci import spin_op

from qmmlmm.coupling.potential import Memory
from qmmlmm.coupling.state_results import StateResults
from qmmlmm.errors import ConvergenceError, EvaluationError
from qmmlmm.qm.excited import CASSCF
from qmmlmm.qm.scf.density_history import JUMP, OrbitalHistory, orthonormal
from qmmlmm.qm.scf.reference import Reference
from qmmlmm.qm.states.active_space import starting_orbitals
from qmmlmm.qm.states.casscf_overlap import CasscfSnapshot, casscf_overlaps, centred
from qmmlmm.qm.states.casscf_response import casscf_coupling, casscf_state, transition_moments
from qmmlmm.qm.states.derivative_integrals import DerivativeIntegrals
from qmmlmm.qm.states.electronic_state import ElectronicState
from qmmlmm.qm.states.full_ci import SPIN_ERROR, full_ci, spin_square
from qmmlmm.qm.states.state_solver import SolvedState, StateSolver
from qmmlmm.qm.states.state_tracking import StateChoice, match
from qmmlmm.units import FloatArray

logger = logging.getLogger("qmmlmm.qm")

LEAST_ACTIVE_SPACE = 0.7
"""Least overlap of two active spaces, as smallest singular value; below it an active orbital has been replaced."""

FINEST_VECTORS, FINEST_ENERGY = 1e-13, 1e-10  # hartree


@dataclass
class CasscfRecord:
    """Counts of all CASSCF calculations of one evaluator."""

    cycles: int = 0
    converged: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, object]:
        """Return the counts as JSON values."""
        results = sum(self.converged.values())
        return {
            "casscf_results": results,
            "casscf_cycles": self.cycles,
            "casscf_cycles_mean": round(self.cycles / results, 2) if results else None,
            "casscf_converged_from": dict(self.converged),
        }


class CasscfStates(StateSolver):
    """SA-CASSCF states of one region, at one geometry after another.

    Parameters
    ----------
    settings : CASSCF
    state : int
        Index of the state with energy and forces.
    follow : bool
        Whether it keeps its character when states cross.
    term : str
        Name of the term, for messages.
    """

    keeps_reference = False

    def __init__(self, settings: CASSCF, state: int, follow: bool, term: str) -> None:
        self._settings = settings
        self._term = term
        self._choice = StateChoice(state, follow, term)
        self._known: CasscfSnapshot | None = None
        self._history = OrbitalHistory()
        self._characters: tuple[int, ...] = ()
        self._converged: Any = None
        self._integrals: DerivativeIntegrals | None = None
        self._record = CasscfRecord()

    def select(self, state: int) -> None:
        """Select the state that has energy and forces from the next geometry on."""
        self._choice.state = state

    def forget(self) -> None:
        """Reset: start from the orbitals of Hartree-Fock."""
        self._known = None
        self._history.forget()

    def summary(self) -> dict[str, object]:
        """Return the counts."""
        return self._record.summary()

    def memory(self) -> Memory:
        """Return the states of the last geometry as arrays."""
        known = self._known
        if known is None:
            return {}
        return {
            "positions": known.molecule.atom_coords(),
            "characters": np.array(self._characters),
            "orbitals": known.orbitals,
            "vectors": np.array(known.vectors),
            "sizes": np.array([known.n_core, known.n_active, *known.n_electrons]),
        }

    def recall(self, molecule: Any, memory: Memory) -> None:
        """Continue from what `memory` returned, with a molecule at its positions."""
        n_core, n_active, up, down = (int(n) for n in memory["sizes"])
        vectors = list(memory["vectors"])
        self._known = CasscfSnapshot(molecule, memory["orbitals"], n_core, n_active, (up, down), vectors)
        self._history.forget()
        self._characters = tuple(int(c) for c in memory["characters"])

    def energy(self, reference: Reference) -> float:
        """Return the energy of the state with this index in the order of energy, hartree; nothing is kept."""
        mean_field = reference.converge()
        casscf = self._method(mean_field)
        start = starting_orbitals(mean_field, casscf, self._settings, self._term)
        self._converge(casscf, start, None, reference.save)
        return float(casscf.e_states[self._choice.state])

    def solve(self, reference: Reference) -> SolvedState:
        """Return the state that has energy and forces, see `StateSolver.solve`.

        The reference is converged only if there are no orbitals of a close geometry.
        """
        mean_field, save = reference.mean_field, reference.save
        settings = self._settings
        casscf = self._method(mean_field)
        molecule = centred(mean_field.mol)
        overlap = np.asarray(mean_field.get_ovlp())
        guesses = self._guesses(molecule, overlap)
        last = self._known if guesses else None
        if last is None:
            reference.converge()
            kind = settings.active if isinstance(settings.active, str) else "chosen"
            guesses = [(f"{kind} orbitals", starting_orbitals(mean_field, casscf, settings, self._term))]
        vectors = None if last is None else last.vectors
        cycles = 0
        for name, orbitals in guesses:
            cycles += self._converge(casscf, orbitals, vectors, save)
            states = self._snapshot(molecule, casscf)
            overlaps, shared = (None, 1.0) if last is None else casscf_overlaps(last, states)
            if shared >= LEAST_ACTIVE_SPACE:
                origin = name
                break
        else:
            raise EvaluationError(
                f"{self._term}: an active orbital has become another one since the last geometry (the active "
                f"spaces overlap by {shared:.2f}); {save()}. Take a larger active space or shorter steps"
            )
        self._record.converged[origin] = self._record.converged.get(origin, 0) + 1
        characters, matched_overlaps = tuple(range(settings.n_states)), None
        if overlaps is not None:
            found = match(overlaps, self._characters, self._term)
            casscf.ci = [sign * vector for sign, vector in zip(found.signs, casscf.ci, strict=True)]
            states = self._snapshot(molecule, casscf)
            characters, matched_overlaps = found.characters, found.overlaps
            self._choice.check_kept(found, save)
        position = self._choice.position(characters)
        self._integrals = DerivativeIntegrals(casscf.mol)
        state = casscf_state(casscf, position, self._term, self._integrals)
        dipoles, strengths = transition_moments(casscf)
        results = StateResults(
            state=position,
            state_energies=np.array(casscf.e_states, dtype=float),
            state_order=np.array(characters),
            state_overlaps=matched_overlaps,
            oscillator_strengths=strengths,
            transition_dipoles=dipoles,
        )
        self._converged = casscf

        def accept() -> None:
            self._known, self._characters = states, characters
            self._history.add(molecule.atom_coords(), overlap, (states.core, states.active))

        counted = {"casscf_cycles": cycles, "casscf_guess": origin}
        return SolvedState(replace(state, results=counted, states=results), accept)

    def coupling(self, first: int, second: int) -> ElectronicState:
        """Return the coupling of two states of the last geometry, see `casscf_coupling`."""
        return casscf_coupling(self._converged, first, second, self._term, self._integrals)

    def _method(self, mean_field: Any) -> Any:
        settings = self._settings
        unpaired = mean_field.mol.spin
        up = (settings.n_electrons + unpaired) // 2
        casscf = mcscf.CASSCF(mean_field, settings.n_orbitals, (up, settings.n_electrons - up))
        casscf.verbose = 0
        casscf.chkfile = None
        casscf.fcisolver = full_ci(
            *(mean_field.mol, settings.n_orbitals, casscf.nelecas, unpaired + 1), FINEST_VECTORS, settings.max_cycle
        )
        casscf = casscf.state_average_([1.0 / settings.n_states] * settings.n_states)
        # The gradient is the criterion; energies of hundreds of hartree have no more digits.
        casscf.conv_tol = FINEST_ENERGY
        casscf.conv_tol_grad = settings.conv_tol
        casscf.max_cycle_macro = settings.max_cycle
        return casscf

    def _guesses(self, molecule: Any, overlap: FloatArray) -> list[tuple[str, FloatArray]]:
        """Return names and orbitals of guesses, the best first; none if the last geometry is far away."""
        known = self._known
        if known is None:
            return []
        found = []
        if np.linalg.norm(known.molecule.atom_coords() - molecule.atom_coords(), axis=1).max() <= JUMP:
            groups = [g for name, g in self._history.guesses(molecule.atom_coords()) if name == "extrapolated guess"]
            names = ["last geometries"] * len(groups) + ["last geometry"]
            for name, (core, active) in zip(names, [*groups, (known.core, known.active)], strict=True):
                orbitals = _completed(core, active, known.orbitals, overlap)
                if orbitals is not None:
                    found.append((name, orbitals))
        if not found:
            self._history.forget()
            self._choice.warn_of_jump()
        return found

    def _converge(self, casscf: Any, orbitals: FloatArray, vectors: Any, save: Callable[[], str]) -> int:
        """Converge and check the spin; return the number of cycles."""
        cycles = 0

        def count(variables: dict[str, Any]) -> None:
            nonlocal cycles
            cycles += 1

        casscf.callback = count
        casscf.kernel(orbitals, vectors)
        if not casscf.converged:
            logger.warning("%s: SA-CASSCF continues with the second-order solver after %d cycles", self._term, cycles)
            second = casscf.newton()
            second.callback = count
            second.kernel(casscf.mo_coeff, casscf.ci)
            casscf.mo_coeff, casscf.ci, casscf.converged = second.mo_coeff, second.ci, second.converged
            casscf.e_tot, casscf.fcisolver.e_states = second.e_tot, second.fcisolver.e_states
        self._record.cycles += cycles
        if not casscf.converged:
            raise ConvergenceError(
                f"{self._term}: SA-CASSCF did not converge in {cycles} cycles; {save()}. Choose another active space, "
                "more states where some are nearly degenerate, or a looser conv_tol of CASSCF"
            )
        if not np.all(np.diff(casscf.e_states) >= 0.0):
            order = np.argsort(casscf.e_states, kind="stable")
            casscf.fcisolver.e_states = np.asarray(casscf.e_states)[order]
            casscf.ci = [casscf.ci[k] for k in order]
        multiplicity = casscf.mol.spin + 1
        for index, vector in enumerate(casscf.ci):
            square = float(spin_op.spin_square(vector, casscf.ncas, casscf.nelecas)[0])
            if abs(square - spin_square(multiplicity)) > SPIN_ERROR:
                raise EvaluationError(
                    f"{self._term}: root {index} of CASSCF has flipped to another spin (S^2 = {square:.3f}, "
                    f"multiplicity {multiplicity} expected); {save()}. Lower n_states or take a larger active space"
                )
        return cycles

    def _snapshot(self, molecule: Any, casscf: Any) -> CasscfSnapshot:
        up, down = casscf.nelecas
        orbitals = np.asarray(casscf.mo_coeff)
        return CasscfSnapshot(molecule, orbitals, casscf.ncore, casscf.ncas, (int(up), int(down)), list(casscf.ci))


def _completed(core: FloatArray, active: FloatArray, others: FloatArray, overlap: FloatArray) -> FloatArray | None:
    """Return all orbitals, orthonormal: core, active, and the rest from `others`; None if they are linearly
    dependent."""
    made = np.zeros((len(overlap), 0))
    for group in (core, active, others[:, core.shape[1] + active.shape[1] :]):
        found = orthonormal(group - made @ (made.T @ overlap @ group), overlap)
        if found is None:
            return None
        made = np.hstack([made, found])
    return made
