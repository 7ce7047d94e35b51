"""SA-CASSCF states of a region from one geometry to the next."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pyscf import mcscf
from pyscf.fci import spin_op

from qmmlmm.errors import ConvergenceError, EvaluationError
from qmmlmm.qm.active_space import starting_orbitals
from qmmlmm.qm.casscf_overlap import CasscfSnapshot, casscf_overlaps, centred
from qmmlmm.qm.casscf_response import casscf_coupling, casscf_state, transition_moments
from qmmlmm.qm.density_history import JUMP, LEAST_OVERLAP
from qmmlmm.qm.excited import CASSCF
from qmmlmm.qm.state import ElectronicState
from qmmlmm.qm.state_tracking import LEAST_CHARACTER, match
from qmmlmm.units import FloatArray

logger = logging.getLogger("qmmlmm.qm")

SPIN_PENALTY = 0.5
"""Hartree by which other multiplicities are lifted, times the excess of S^2."""

LEAST_ACTIVE_SPACE = 0.7
"""Smallest singular value of the overlap of two active spaces below which an active orbital is another one."""

SPIN_ERROR = 0.01
"""Of S^2, beyond which a state has another multiplicity."""

FINEST_VECTORS, FINEST_ENERGY = 1e-13, 1e-10  # hartree


@dataclass
class CasscfRecord:
    """Counts of all calculations of one evaluator."""

    cycles: int = 0
    converged: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, object]:
        """Return the counts as what `json` can write."""
        results = sum(self.converged.values())
        return {
            "casscf_results": results,
            "casscf_cycles": self.cycles,
            "casscf_cycles_mean": round(self.cycles / results, 2) if results else None,
            "casscf_converged_from": dict(self.converged),
        }


class CasscfStates:
    """SA-CASSCF states of one region, at one geometry after another.

    Parameters
    ----------
    settings : CASSCF
    state : int
        The state with the forces.
    follow : bool
        Whether it keeps its character when states cross.
    term : str
        For messages.
    """

    def __init__(self, settings: CASSCF, state: int, follow: bool, term: str) -> None:
        self._settings = settings
        self._state = state
        self._follow = follow
        self._term = term
        self._known: CasscfSnapshot | None = None
        self._characters: tuple[int, ...] = ()
        self._converged: Any = None
        self._record = CasscfRecord()

    def select(self, state: int) -> None:
        """Let another state have the forces from now on."""
        self._state = state

    def forget(self) -> None:
        """Start anew, from the orbitals of Hartree-Fock."""
        self._known = None

    def summary(self) -> dict[str, object]:
        """Return what was counted."""
        return self._record.summary()

    def memory(self) -> dict[str, FloatArray]:
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

    def recall(self, molecule: Any, memory: dict[str, FloatArray]) -> None:
        """Go on from what `memory` returned, with a molecule of these atoms at its positions."""
        n_core, n_active, up, down = (int(n) for n in memory["sizes"])
        vectors = list(memory["vectors"])
        self._known = CasscfSnapshot(molecule, memory["orbitals"], n_core, n_active, (up, down), vectors)
        self._characters = tuple(int(c) for c in memory["characters"])

    def energy(self, mean_field: Any, save: Callable[[], str]) -> float:
        """Return the energy of the state by its place in the order, from a converged mean field; nothing is kept."""
        casscf = self._method(mean_field)
        self._converge(casscf, starting_orbitals(mean_field, casscf, self._settings, self._term), None, save)
        return float(casscf.e_states[self._state])

    def solve(
        self, mean_field: Any, converge_reference: Callable[[], object], save: Callable[[], str]
    ) -> tuple[ElectronicState, Callable[[], None]]:
        """Return the state with the forces, and what is called when the result is accepted.

        Parameters
        ----------
        mean_field : pyscf.scf.hf.SCF
            Not yet converged.
        converge_reference : callable
            Converges it, where there are no orbitals of a geometry nearby.
        save : callable
            Saves the geometry and returns a sentence that says where.
        """
        settings = self._settings
        casscf = self._method(mean_field)
        molecule = centred(mean_field.mol)
        guess = self._guess(molecule, np.asarray(mean_field.get_ovlp()))
        last = self._known if guess is not None else None
        if guess is None or last is None:
            converge_reference()
            orbitals, vectors = starting_orbitals(mean_field, casscf, settings, self._term), None
            origin = f"{settings.active if isinstance(settings.active, str) else 'chosen'} orbitals"
        else:
            orbitals, vectors, origin = guess, last.vectors, "last geometry"
        outcome = self._converge(casscf, orbitals, vectors, save)
        self._record.converged[origin] = self._record.converged.get(origin, 0) + 1
        results: dict[str, object] = {"casscf_cycles": outcome, "casscf_guess": origin}
        states = self._snapshot(molecule, casscf)
        characters = tuple(range(settings.n_states))
        if last is not None:
            overlaps, shared = casscf_overlaps(last, states)
            if shared < LEAST_ACTIVE_SPACE:
                raise EvaluationError(
                    f"{self._term}: an active orbital has become another one since the last geometry (the active "
                    f"spaces overlap by {shared:.2f}); {save()}. Take a larger active space or shorter steps"
                )
            found = match(overlaps, self._characters, self._term)
            casscf.ci = [sign * vector for sign, vector in zip(found.signs, casscf.ci, strict=True)]
            states = self._snapshot(molecule, casscf)
            characters = found.characters
            results["state_overlaps"] = found.overlaps
            kept = float(found.kept[self._place(characters)])
            if self._follow and kept < LEAST_CHARACTER:
                raise EvaluationError(
                    f"{self._term}: the followed state has lost its character: of the states computed, the nearest has "
                    f"a squared overlap of {kept:.2f} with it; {save()}. Raise n_states, or take shorter steps"
                )
        place = self._place(characters)
        state = casscf_state(casscf, place, self._term)
        results |= self._results(casscf, place, characters)
        self._converged = casscf

        def accept() -> None:
            self._known, self._characters = states, characters

        return ElectronicState(state.energy, state.gradient, state.density, None, results), accept

    def coupling(self, bra: int, ket: int) -> ElectronicState:
        """Return the coupling of two states of the last geometry: see `casscf_coupling`."""
        return casscf_coupling(self._converged, bra, ket, self._term)

    def _place(self, characters: tuple[int, ...]) -> int:
        return characters.index(self._state) if self._follow else self._state

    def _method(self, mean_field: Any) -> Any:
        settings = self._settings
        unpaired = mean_field.mol.spin
        up = (settings.n_electrons + unpaired) // 2
        casscf = mcscf.CASSCF(mean_field, settings.n_orbitals, (up, settings.n_electrons - up))
        casscf.verbose = casscf.fcisolver.verbose = 0
        casscf.chkfile = None
        casscf.fcisolver.conv_tol = FINEST_VECTORS
        casscf.fcisolver.max_cycle = settings.max_cycle
        casscf.fix_spin_(shift=SPIN_PENALTY, ss=0.25 * unpaired * (unpaired + 2))
        casscf = casscf.state_average_([1.0 / settings.n_states] * settings.n_states)
        # The gradient decides; the energy of hundreds of hartree has no digits beyond.
        casscf.conv_tol = FINEST_ENERGY
        casscf.conv_tol_grad = settings.conv_tol
        casscf.max_cycle_macro = settings.max_cycle
        return casscf

    def _guess(self, molecule: Any, overlap: FloatArray) -> FloatArray | None:
        """Return the orbitals of the last geometry made orthonormal at this one; None if they are far from it."""
        known = self._known
        if known is None:
            return None
        moved = np.linalg.norm(known.molecule.atom_coords() - molecule.atom_coords(), axis=1).max()
        values, vectors = np.linalg.eigh(known.orbitals.T @ overlap @ known.orbitals)
        if moved > JUMP or values.min() < LEAST_OVERLAP:
            logger.warning(
                "%s: the geometry jumped, and states cannot be followed: state %d is counted by energy again",
                *(self._term, self._state),
            )
            return None
        return np.asarray(known.orbitals @ (vectors / np.sqrt(values)) @ vectors.T)

    def _converge(self, casscf: Any, orbitals: FloatArray, vectors: Any, save: Callable[[], str]) -> int:
        """Converge and check the spin; return the number of cycles."""
        cycles = 0

        def count(variables: dict[str, Any]) -> None:
            nonlocal cycles
            cycles += 1

        casscf.callback = count
        casscf.kernel(orbitals, vectors)
        if not casscf.converged:
            logger.warning("%s: SA-CASSCF goes on with the second-order solver after %d cycles", self._term, cycles)
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
        unpaired = casscf.mol.spin
        for index, vector in enumerate(casscf.ci):
            square = float(spin_op.spin_square(vector, casscf.ncas, casscf.nelecas)[0])
            if abs(square - 0.25 * unpaired * (unpaired + 2)) > SPIN_ERROR:
                raise EvaluationError(
                    f"{self._term}: root {index} of CASSCF has flipped to another spin (S^2 = {square:.3f}, "
                    f"multiplicity {unpaired + 1} asked for); {save()}. Lower n_states or take a larger active space"
                )
        return cycles

    def _snapshot(self, molecule: Any, casscf: Any) -> CasscfSnapshot:
        up, down = casscf.nelecas
        orbitals = np.asarray(casscf.mo_coeff)
        return CasscfSnapshot(molecule, orbitals, casscf.ncore, casscf.ncas, (int(up), int(down)), list(casscf.ci))

    def _results(self, casscf: Any, place: int, characters: tuple[int, ...]) -> dict[str, object]:
        dipoles, strengths = transition_moments(casscf)
        return {
            "state": place,
            "state_energies": np.array(casscf.e_states, dtype=float),
            "state_order": np.array(characters),
            "oscillator_strengths": strengths,
            "transition_dipoles": dipoles,
        }
