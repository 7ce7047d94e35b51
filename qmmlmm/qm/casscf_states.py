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
from qmmlmm.qm.density_history import JUMP, OrbitalHistory, orthonormal
from qmmlmm.qm.derivative_integrals import DerivativeIntegrals
from qmmlmm.qm.excited import CASSCF
from qmmlmm.qm.full_ci import SPIN_ERROR, full_ci, spin_square
from qmmlmm.qm.state import ElectronicState
from qmmlmm.qm.state_tracking import LEAST_CHARACTER, match
from qmmlmm.units import FloatArray

logger = logging.getLogger("qmmlmm.qm")

LEAST_ACTIVE_SPACE = 0.7
"""Smallest singular value of the overlap of two active spaces below which an active orbital is another one."""

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
        self._history = OrbitalHistory()
        self._characters: tuple[int, ...] = ()
        self._converged: Any = None
        self._integrals: DerivativeIntegrals | None = None
        self._record = CasscfRecord()

    def select(self, state: int) -> None:
        """Let another state have the forces from now on."""
        self._state = state

    def forget(self) -> None:
        """Start anew, from the orbitals of Hartree-Fock."""
        self._known = None
        self._history.forget()

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
        self._history.forget()
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
        overlap = np.asarray(mean_field.get_ovlp())
        guesses = self._guesses(molecule, overlap)
        last = self._known if guesses else None
        if last is None:
            converge_reference()
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
        results: dict[str, object] = {"casscf_cycles": cycles, "casscf_guess": origin}
        characters = tuple(range(settings.n_states))
        if overlaps is not None:
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
        self._integrals = DerivativeIntegrals(casscf.mol)
        state = casscf_state(casscf, place, self._term, self._integrals)
        results |= self._results(casscf, place, characters)
        self._converged = casscf

        def accept() -> None:
            self._known, self._characters = states, characters
            self._history.add(molecule.atom_coords(), overlap, (states.core, states.active))

        return ElectronicState(state.energy, state.gradient, state.density, None, results), accept

    def coupling(self, bra: int, ket: int) -> ElectronicState:
        """Return the coupling of two states of the last geometry: see `casscf_coupling`."""
        return casscf_coupling(self._converged, bra, ket, self._term, self._integrals)

    def _place(self, characters: tuple[int, ...]) -> int:
        return characters.index(self._state) if self._follow else self._state

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
        # The gradient decides; the energy of hundreds of hartree has no digits beyond.
        casscf.conv_tol = FINEST_ENERGY
        casscf.conv_tol_grad = settings.conv_tol
        casscf.max_cycle_macro = settings.max_cycle
        return casscf

    def _guesses(self, molecule: Any, overlap: FloatArray) -> list[tuple[str, FloatArray]]:
        """Return where orbitals are from, and the orbitals, the best first; none if the last geometry is far away."""
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
            logger.warning(
                "%s: the geometry jumped, and states cannot be followed: state %d is counted by energy again",
                *(self._term, self._state),
            )
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
        multiplicity = casscf.mol.spin + 1
        for index, vector in enumerate(casscf.ci):
            square = float(spin_op.spin_square(vector, casscf.ncas, casscf.nelecas)[0])
            if abs(square - spin_square(multiplicity)) > SPIN_ERROR:
                raise EvaluationError(
                    f"{self._term}: root {index} of CASSCF has flipped to another spin (S^2 = {square:.3f}, "
                    f"multiplicity {multiplicity} asked for); {save()}. Lower n_states or take a larger active space"
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


def _completed(core: FloatArray, active: FloatArray, others: FloatArray, overlap: FloatArray) -> FloatArray | None:
    """Return all orbitals, orthonormal: core, active, and what `others` have beside these; None if any are lost."""
    made = np.zeros((len(overlap), 0))
    for group in (core, active, others[:, core.shape[1] + active.shape[1] :]):
        found = orthonormal(group - made @ (made.T @ overlap @ group), overlap)
        if found is None:
            return None
        made = np.hstack([made, found])
    return made
