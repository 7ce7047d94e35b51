"""The states of a region from one geometry to the next: guesses, order, characters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qmmlmm.errors import EvaluationError
from qmmlmm.qm.density_history import JUMP
from qmmlmm.qm.excited import TDA, TDDFT
from qmmlmm.qm.response import Amplitudes, excited_state, solve, transition_moments
from qmmlmm.qm.state import ElectronicState, ground_state
from qmmlmm.qm.state_overlap import StateSnapshot, carried_excitations, snapshot, state_overlaps
from qmmlmm.qm.state_tracking import LEAST_CHARACTER, match
from qmmlmm.units import FloatArray

logger = logging.getLogger("qmmlmm.qm")


@dataclass(frozen=True)
class _Known:
    """The states of the last geometry, which character each has, and guesses for the next in their orbitals."""

    states: StateSnapshot
    characters: tuple[int, ...]
    guesses: list[tuple[FloatArray, ...]]


class ResponseStates:
    """Excited states of one region by linear response, at one geometry after another.

    Parameters
    ----------
    settings : TDA or TDDFT
    functional : str
        Method of the reference.
    state : int
        The state with the forces, counted from 0, the ground state.
    follow : bool
        Whether the state keeps its character when states cross. `state` is its place in the order at the first
        geometry then.
    term : str
        For messages.
    """

    def __init__(self, settings: TDA | TDDFT, functional: str, state: int, follow: bool, term: str) -> None:
        self._settings = settings
        self._functional = functional
        self._state = state
        self._follow = follow
        self._term = term
        self._known: _Known | None = None

    def select(self, state: int) -> None:
        """Let another state have the forces from now on."""
        self._state = state

    def forget(self) -> None:
        """Start anew: no guess, and characters are counted from the next geometry on."""
        self._known = None

    def memory(self) -> dict[str, FloatArray]:
        """Return the states of the last geometry as arrays."""
        known = self._known
        if known is None:
            return {}
        states = known.states
        arrays = {"positions": states.molecule.atom_coords(), "characters": np.array(known.characters)}
        for name in ("occupied", "empty"):
            arrays |= {f"{name}.{spin}": part for spin, part in enumerate(getattr(states, name))}
        for name, vectors in (("excitations", states.excitations), ("guesses", known.guesses)):
            for spin in range(len(states.occupied)):
                arrays[f"{name}.{spin}"] = np.array([parts[spin] for parts in vectors])
        return arrays | {"triplet": np.array(states.triplet)}

    def recall(self, molecule: Any, memory: dict[str, FloatArray]) -> None:
        """Go on from what `memory` returned, with a molecule of these atoms at its positions."""
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

    def energy(self, mean_field: Any, another: Any, save: Callable[[], str]) -> float:
        """Return the energy of the state by its place in the order, in hartree; nothing is kept.

        The second argument is not used.
        """
        if self._state == 0:
            return float(mean_field.e_tot)
        found = solve(mean_field, self._settings, [], self._term, save)
        return float(mean_field.e_tot + found.energies[self._state - 1])

    def excitations(self, mean_field: Any, save: Callable[[], str]) -> dict[str, object]:
        """Return what `solve` tells of all states, in the order of energy and without forces; nothing is kept."""
        amplitudes = solve(mean_field, self._settings, [], self._term, save)
        return self._results(mean_field, amplitudes, self._state, tuple(range(self._settings.n_states)))

    def solve(
        self, mean_field: Any, another: Any, save: Callable[[], str]
    ) -> tuple[ElectronicState, Callable[[], None]]:
        """Return the state with the forces, and what is called when the result is accepted.

        Parameters
        ----------
        mean_field : pyscf.scf.hf.SCF
            Converged.
        another
            Not used.
        save : callable
            Saves the geometry and returns a sentence that says where.
        """
        last = self._known
        bare = snapshot(mean_field, [])
        if last is not None and _moved(last.states, bare) > JUMP:
            if self._follow:
                logger.warning(
                    "%s: the geometry jumped, and states cannot be followed: state %d is counted by energy again",
                    *(self._term, self._state),
                )
            last = None
        guess = [] if last is None else carried_excitations(last.guesses, last.states, bare)
        amplitudes = solve(mean_field, self._settings, guess, self._term, save)
        states = self._snapshot(mean_field, amplitudes)
        results: dict[str, object] = {}
        characters = tuple(range(self._settings.n_states))
        if last is not None:
            overlaps = state_overlaps(last.states, states)
            matched = match(overlaps, last.characters, self._term)
            amplitudes = amplitudes.with_signs(matched.signs[1:] * matched.signs[0])
            states = self._snapshot(mean_field, amplitudes)
            characters = matched.characters
            results["state_overlaps"] = matched.overlaps
            kept = float(matched.kept[self._place(characters)])
            if self._follow and kept < LEAST_CHARACTER:
                raise EvaluationError(
                    f"{self._term}: the followed state has lost its character: of the states computed, the nearest has "
                    f"a squared overlap of {kept:.2f} with it; {save()}. Raise n_states, so that the state is among "
                    "those computed, or take shorter steps"
                )
        place = self._place(characters)
        if place == 0:
            state = ground_state(mean_field, self._functional)
        else:
            state = excited_state(amplitudes, place - 1, self._functional, self._term)
        results |= self._results(mean_field, amplitudes, place, characters)

        def accept() -> None:
            # The space of the last two geometries holds what a linear extrapolation would give.
            latest = amplitudes.guesses()
            self._known = _Known(states, characters, latest + guess[: len(latest)])

        found = ElectronicState(state.energy, state.gradient, state.density, state.spin_density, results)
        return found, accept

    def _place(self, characters: tuple[int, ...]) -> int:
        """Return the place in the order of the state with the forces."""
        return characters.index(self._state) if self._follow else self._state

    def _snapshot(self, mean_field: Any, amplitudes: Amplitudes) -> StateSnapshot:
        return snapshot(mean_field, amplitudes.excitations(), amplitudes.triplet)

    def _results(
        self, mean_field: Any, amplitudes: Amplitudes, place: int, characters: tuple[int, ...]
    ) -> dict[str, object]:
        dipoles, strengths = transition_moments(amplitudes)
        excitations = np.concatenate([[0.0], amplitudes.energies])
        return {
            "state": place,
            "response_products": amplitudes.products,
            "state_energies": float(mean_field.e_tot) + excitations,
            "state_order": np.array(characters),
            "oscillator_strengths": np.concatenate([[0.0], strengths]),
            "transition_dipoles": np.concatenate([np.zeros((1, 3)), dipoles]),
        }


def _moved(old: StateSnapshot, new: StateSnapshot) -> float:
    shift = old.molecule.atom_coords() - new.molecule.atom_coords()
    return float(np.linalg.norm(shift, axis=1).max())
