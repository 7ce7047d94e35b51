"""Linear-response states of a region at one geometry after another: guesses, order, characters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qmmlmm.coupling.potential import Memory
from qmmlmm.coupling.state_results import StateResults
from qmmlmm.qm.excited import TDA, TDDFT
from qmmlmm.qm.scf.density_history import JUMP
from qmmlmm.qm.scf.reference import Reference
from qmmlmm.qm.states.electronic_state import ground_state
from qmmlmm.qm.states.linear_response import Amplitudes, excited_state, solve, transition_moments
from qmmlmm.qm.states.state_overlap import StateSnapshot, carried_excitations, snapshot, state_overlaps
from qmmlmm.qm.states.state_solver import SolvedState, StateSolver
from qmmlmm.qm.states.state_tracking import StateChoice, match
from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class _Known:
    """The states of the last geometry, their characters, and guesses for the next geometry in their orbitals."""

    states: StateSnapshot
    characters: tuple[int, ...]
    guesses: list[tuple[FloatArray, ...]]


class ResponseStates(StateSolver):
    """Excited states of one region by linear response, at one geometry after another.

    Parameters
    ----------
    settings : TDA or TDDFT
    functional : str
        Method of the reference.
    state : int
        Index of the state with energy and forces; 0 is the ground state.
    follow : bool
        Whether the state keeps its character when states cross. `state` is then its index at the first geometry.
    term : str
        Name of the term, for messages.
    accelerated : bool
        See `PySCFPotential`.
    """

    def __init__(
        self, settings: TDA | TDDFT, functional: str, state: int, follow: bool, term: str, accelerated: bool = False
    ) -> None:
        self._settings = settings
        self._functional = functional
        self._term = term
        self._accelerated = accelerated
        self._choice = StateChoice(state, follow, term)
        self._known: _Known | None = None

    def select(self, state: int) -> None:
        """Select the state that has energy and forces from the next geometry on."""
        self._choice.state = state

    def forget(self) -> None:
        """Reset: no guess, and characters are those of the next geometry."""
        self._known = None

    def memory(self) -> Memory:
        """Return the states of the last geometry as arrays."""
        known = self._known
        if known is None:
            return {}
        states = known.states
        arrays = {"positions": states.molecule.atom_coords(), "characters": np.array(known.characters)}
        for name, parts in (("occupied", states.occupied), ("empty", states.empty)):
            arrays |= {f"{name}.{spin}": part for spin, part in enumerate(parts)}
        for name, vectors in (("excitations", states.excitations), ("guesses", known.guesses)):
            for spin in range(len(states.occupied)):
                arrays[f"{name}.{spin}"] = np.array([parts[spin] for parts in vectors])
        return arrays | {"triplet": np.array(states.triplet)}

    def recall(self, molecule: Any, memory: Memory) -> None:
        """Continue from what `memory` returned, with a molecule at its positions."""
        spins = range(2 if "occupied.1" in memory else 1)

        def excitations(name: str) -> list[tuple[FloatArray, ...]]:
            return list(zip(*(memory[f"{name}.{spin}"] for spin in spins), strict=True))

        states = StateSnapshot(
            molecule,
            tuple(memory[f"occupied.{spin}"] for spin in spins),
            tuple(memory[f"empty.{spin}"] for spin in spins),
            excitations("excitations"),
            bool(memory["triplet"]),
        )
        self._known = _Known(states, tuple(int(c) for c in memory["characters"]), excitations("guesses"))

    def energy(self, reference: Reference) -> float:
        """Return the energy of the state with this index in the order of energy, hartree; nothing is kept."""
        mean_field = reference.converge()
        state = self._choice.state
        if state == 0:
            return float(mean_field.e_tot)
        found = solve(mean_field, self._settings, [], self._term, reference.save)
        return float(mean_field.e_tot + found.energies[state - 1])

    def excitations(self, reference: Reference) -> StateResults:
        """Return all states in the order of energy and without forces; nothing is kept."""
        mean_field = reference.converge()
        amplitudes = solve(mean_field, self._settings, [], self._term, reference.save)
        return _results(mean_field, amplitudes, self._choice.state, tuple(range(self._settings.n_states)))

    def solve(self, reference: Reference) -> SolvedState:
        """Return the state that has energy and forces, see `StateSolver.solve`."""
        mean_field = reference.converge()
        last = self._known
        bare = snapshot(mean_field, [])
        if last is not None and _moved(last.states, bare) > JUMP:
            if self._choice.follow:
                self._choice.warn_of_jump()
            last = None
        guess = [] if last is None else carried_excitations(last.guesses, last.states, bare)
        amplitudes = solve(mean_field, self._settings, guess, self._term, reference.save)
        states = self._snapshot(mean_field, amplitudes)
        overlaps = None
        characters = tuple(range(self._settings.n_states))
        if last is not None:
            matched = match(state_overlaps(last.states, states), last.characters, self._term)
            amplitudes = amplitudes.with_signs(matched.signs[1:] * matched.signs[0])
            states = self._snapshot(mean_field, amplitudes)
            characters, overlaps = matched.characters, matched.overlaps
            self._choice.check_kept(matched, reference.save)
        position = self._choice.position(characters)
        if position == 0:
            state = ground_state(mean_field, self._functional)
        else:
            state = excited_state(amplitudes, position - 1, self._functional, self._term, self._accelerated)

        def accept() -> None:
            # The space of the last two geometries includes a linear extrapolation.
            latest = amplitudes.guesses()
            self._known = _Known(states, characters, latest + guess[: len(latest)])

        found = replace(
            state,
            results={"response_products": amplitudes.products},
            states=replace(_results(mean_field, amplitudes, position, characters), state_overlaps=overlaps),
        )
        return SolvedState(found, accept)

    def _snapshot(self, mean_field: Any, amplitudes: Amplitudes) -> StateSnapshot:
        return snapshot(mean_field, amplitudes.excitations(), amplitudes.triplet)


def _results(mean_field: Any, amplitudes: Amplitudes, position: int, characters: tuple[int, ...]) -> StateResults:
    dipoles, strengths = transition_moments(amplitudes)
    return StateResults(
        state=position,
        state_energies=float(mean_field.e_tot) + np.concatenate([[0.0], amplitudes.energies]),
        state_order=np.array(characters),
        oscillator_strengths=np.concatenate([[0.0], strengths]),
        transition_dipoles=np.concatenate([np.zeros((1, 3)), dipoles]),
    )


def _moved(old: StateSnapshot, new: StateSnapshot) -> float:
    shift = old.molecule.atom_coords() - new.molecule.atom_coords()
    return float(np.linalg.norm(shift, axis=1).max())
