"""The evaluator of a QM region: one geometry after another."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from pyscf import dft, gto, lib, scf

from qmmlmm.coupling.potential import Evaluation, ExternalField, RegionSpecification
from qmmlmm.errors import EvaluationError, NonFiniteError, listed
from qmmlmm.qm.basis import core_potentials, symbols_of
from qmmlmm.qm.casscf_overlap import centred
from qmmlmm.qm.casscf_states import CasscfStates
from qmmlmm.qm.compact import CompactCharges
from qmmlmm.qm.convergence import ScfRecord, converge
from qmmlmm.qm.delta_scf import DeltaScfStates
from qmmlmm.qm.density_history import DensityHistory
from qmmlmm.qm.excited import CASSCF, TDA, TDDFT, DeltaSCF
from qmmlmm.qm.failure import write_failure
from qmmlmm.qm.grid_response import FiniteThirdDerivatives
from qmmlmm.qm.method import has_exact_exchange, is_hartree_fock
from qmmlmm.qm.smooth import SmoothPotential
from qmmlmm.qm.state import ElectronicState, ground_state, properties
from qmmlmm.qm.states import ResponseStates
from qmmlmm.units import ANGSTROM_IN_BOHR, FloatArray

if TYPE_CHECKING:
    from qmmlmm.qm.potential import PySCFPotential

DEFAULT_MEMORY = 4000
"""Megabytes beyond what the process has already."""

GRID_MEMORY_SHARE = 0.25
"""Share of the memory in which the basis functions on the embedding grid are kept."""

NONLOCAL_GRID_LEVEL = 1
"""Grid level of non-local correlation (VV10): its cost goes with the square of the number of points, and it
is smooth."""

FINEST_ORBITALS = 1e-8
"""Hartree: orbital gradients are not asked to be smaller, which round-off may not allow."""

CLOSEST = 0.3 * ANGSTROM_IN_BOHR
"""Distance in bohr below which a point charge lies inside an atom."""


class PySCFEvaluator:
    """Computes one region with PySCF; made by `PySCFPotential.create_evaluator`.

    It keeps the densities of its last results, for the guess of the next calculation.

    Parameters
    ----------
    potential : PySCFPotential
    specification : RegionSpecification
    """

    def __init__(self, potential: PySCFPotential, specification: RegionSpecification) -> None:
        self._potential = potential
        self._specification = specification
        self._term = f"term {specification.name!r}"
        self._symbols = symbols_of(specification.atomic_numbers, self._term)
        self._core_potentials = core_potentials(potential.basis, self._symbols, self._term)
        self._history = DensityHistory()
        self._record = ScfRecord()
        self._states: ResponseStates | DeltaScfStates | None = None
        self._casscf: CasscfStates | None = None
        excited = potential.excited
        if isinstance(excited, CASSCF):
            self._casscf = CasscfStates(excited, potential.state, potential.follow_state, self._term)
        elif isinstance(excited, DeltaSCF):
            self._states = DeltaScfStates(excited, potential.method, potential.state, self._term, self._record)
        elif excited is not None:
            self._states = ResponseStates(
                excited, potential.method, potential.state, potential.follow_state, self._term
            )

    def forget(self) -> None:
        """Forget densities and states: the next calculation starts from a fresh guess, as in a new process."""
        self._history.forget()
        for states in (self._states, self._casscf):
            if states is not None:
                states.forget()

    def summary(self) -> dict[str, object]:
        """Return the self-consistent cycles of all calculations so far, and what they converged from."""
        return self._record.summary() | ({} if self._casscf is None else self._casscf.summary())

    def select_state(self, index: int) -> None:
        """Let another electronic state have energy and forces from now on."""
        for states in (self._states, self._casscf):
            if states is not None:
                states.select(index)

    def memory(self) -> dict[str, FloatArray]:
        """Return the electronic states of the last geometry as arrays, for a checkpoint."""
        states = self._states if self._casscf is None else self._casscf
        return {} if states is None else states.memory()

    def recall(self, memory: dict[str, FloatArray]) -> None:
        """Go on from what `memory` returned: the states of the next geometry are compared with those."""
        states = self._states if self._casscf is None else self._casscf
        if states is not None:
            states.recall(centred(self._molecule(memory["positions"])), memory)

    def mean_field(self, positions: FloatArray, external_field: ExternalField | None) -> Any:
        """Return the mean-field object of PySCF with the field in its one-electron operator, not yet converged.

        All that starts from it, response and correlation alike, sees the same operator.

        Parameters
        ----------
        positions : (n, 3) float array, bohr
        external_field : ExternalField or None

        Returns
        -------
        pyscf.scf.hf.SCF
        """
        return self._prepare(positions, external_field)[0]

    def evaluate(self, positions: FloatArray, external_field: ExternalField | None) -> Evaluation:
        """Return energy and derivatives.

        Parameters
        ----------
        positions : (n, 3) float array, bohr
            Of the region's atoms, then of its link atoms.
        external_field : ExternalField or None
            None with mechanical embedding.

        Returns
        -------
        Evaluation
            Its `results` are ``dipole``, (3,) e bohr, about ``dipole_origin``, (3,) bohr, the centre of the
            nuclear charges; ``mulliken_charges``, (n,) e; ``scf_cycles``, all attempts together;
            ``scf_guess``, the attempt that converged: ``"extrapolated guess"``, ``"last density"``,
            ``"fresh guess"``, ``"damping and level shift"`` or ``"second order"``; with unrestricted orbitals
            ``s_squared``, of the reference, and ``spin_populations``, (n,).

            With excited states dipole, charges and spin populations are those of the state with the forces, from its
            relaxed density, and there are ``state``, its place in the order of energy; ``state_energies``, (m,)
            hartree, the ground state first; ``oscillator_strengths``, (m,), and ``transition_dipoles``, (m, 3) e bohr,
            from the ground state, whose own entry is zero; ``state_order``, (m,), for each place the number that the
            state of this character had at the first geometry; and from the second geometry on ``state_overlaps``,
            (m, m), of the states of the last geometry, in rows, with these. With CASSCF ``casscf_cycles`` and
            ``casscf_guess`` stand in the place of those of the self-consistent field.

        Raises
        ------
        NonFiniteError
            If positions, field, energy or gradient are not finite.
        ConvergenceError
            If the self-consistent field does not converge in any attempt.
        EvaluationError
            If the shapes are wrong or a point charge lies on a nucleus.
        """
        mean_field, compact, smooth = self._prepare(positions, external_field)
        overlap = np.asarray(mean_field.get_ovlp())

        def save() -> str:
            return self._save(positions, external_field)

        def reference() -> dict[str, object]:
            return converge(mean_field, self._guesses(positions, overlap), self._term, save, self._record)

        try:
            outcome: dict[str, object] = {}
            accept = _nothing
            if self._casscf is not None:
                state, accept = self._casscf.solve(mean_field, reference, save)
            else:
                outcome = reference()
                if self._states is None:
                    state = ground_state(mean_field, self._potential.method)
                else:
                    state, accept = self._states.solve(mean_field, self._another(mean_field), save)
            evaluation = self._in_field(mean_field, compact, smooth, state, outcome)
        finally:
            _close_scratch(mean_field)
        self._check_finite(evaluation, save)
        if self._casscf is None:
            self._history.add(positions, overlap, mean_field)
        else:
            coupling = functools.partial(self._coupling, mean_field, compact, smooth)
            evaluation = dataclasses.replace(evaluation, coupling=coupling)
        accept()
        return evaluation

    def energy(self, positions: FloatArray, external_field: ExternalField | None) -> float:
        """Return the energy alone, in hartree, from a fresh guess; takes what `evaluate` takes, and raises the same.

        An excited state is taken by its place in the order of energy here.
        """
        mean_field = self._prepare(positions, external_field)[0]

        def save() -> str:
            return self._save(positions, external_field)

        try:
            converge(mean_field, [], self._term, save, self._record)
            energy = float(mean_field.e_tot)
            if self._casscf is not None:
                energy = self._casscf.energy(mean_field, save)
            elif self._states is not None:
                energy = self._states.energy(mean_field, self._another(mean_field), save)
        finally:
            _close_scratch(mean_field)
        if not np.isfinite(energy):
            raise NonFiniteError(
                f"{self._term}: the energy ({energy}) is not finite; {self._save(positions, external_field)}"
            )
        return energy

    def excitations(self, positions: FloatArray, external_field: ExternalField | None) -> dict[str, object]:
        """Return what the results of `evaluate` say about the states, from a fresh guess and in the order of energy.

        With TDA and TDDFT no forces are computed, which take a third of the time. Takes what `evaluate` takes, and
        raises the same.
        """
        if not isinstance(self._states, ResponseStates):
            return self.evaluate(positions, external_field).results
        mean_field = self._prepare(positions, external_field)[0]

        def save() -> str:
            return self._save(positions, external_field)

        try:
            outcome = converge(mean_field, [], self._term, save, self._record)
            results = self._states.excitations(mean_field, save) | outcome
        finally:
            _close_scratch(mean_field)
        energies = np.asarray(results["state_energies"], dtype=float)
        if not np.isfinite(energies).all():
            raise NonFiniteError(f"{self._term}: energies of the states are not finite ({energies}); {save()}")
        return results

    def _guesses(self, positions: FloatArray, overlap: FloatArray) -> list[tuple[str, FloatArray]]:
        if self._potential.guess == "fresh":
            return []
        found = self._history.guesses(positions, overlap)
        return found if self._potential.guess == "extrapolated" else found[-1:]

    def _prepare(
        self, positions: FloatArray, external_field: ExternalField | None
    ) -> tuple[Any, CompactCharges | None, SmoothPotential | None]:
        positions = self._checked_positions(positions)
        field = self._checked_field(positions, external_field)
        molecule = self._molecule(positions)
        mean_field = self._mean_field(molecule)
        compact = CompactCharges(molecule, field) if field is not None else None
        smooth = self._smooth(molecule, field)
        _embed(mean_field, [part for part in (compact, smooth) if part is not None])
        return mean_field, compact, smooth

    def _in_field(
        self,
        mean_field: Any,
        compact: CompactCharges | None,
        smooth: SmoothPotential | None,
        state: ElectronicState,
        outcome: dict[str, object],
    ) -> Evaluation:
        """Return a state with all forces of the external field, which come from its density, whatever its method."""
        gradient, density = state.gradient, state.density
        charge_gradient, smooth_points, smooth_charges = np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)
        if compact is not None:
            atom_part, charge_gradient = compact.gradients(density)
            gradient = gradient + atom_part
        if smooth is not None:
            atom_part, smooth_points, smooth_charges = smooth.gradient_and_charges(density)
            gradient = gradient + atom_part
        return Evaluation(
            energy=state.energy,
            gradient=gradient,
            charge_gradient=charge_gradient,
            smooth_points=smooth_points,
            smooth_charges=smooth_charges,
            results=properties(mean_field, state) | outcome,
            charge_energies=None if compact is None else functools.partial(compact.charge_energies, density),
        )

    def _coupling(
        self, mean_field: Any, compact: CompactCharges | None, smooth: SmoothPotential | None, first: int, second: int
    ) -> tuple[Evaluation, Evaluation]:
        """Return evaluations that differ by the coupling of two states: that of a transition density, and of none."""
        assert self._casscf is not None
        found = self._casscf.coupling(first, second)
        nothing = ElectronicState(0.0, np.zeros_like(found.gradient), np.zeros_like(found.density))
        upper, lower = (self._in_field(mean_field, compact, smooth, state, {}) for state in (found, nothing))
        return upper, lower

    def _molecule(self, positions: FloatArray) -> Any:
        specification, potential = self._specification, self._potential
        molecule = gto.Mole()
        molecule.verbose = 0
        molecule.unit = "Bohr"
        molecule.atom = list(zip(self._symbols, positions.tolist(), strict=True))
        molecule.basis = potential.basis
        molecule.ecp = self._core_potentials
        molecule.charge = int(specification.charge)
        molecule.spin = int(specification.multiplicity) - 1
        # PySCF subtracts the memory of the whole process, in which OpenMM and torch have their share.
        molecule.max_memory = self._memory() + lib.current_memory()[0]
        return molecule.build(dump_input=False, parse_arg=False)

    def _another(self, mean_field: Any) -> Any:
        """Return an object with unrestricted orbitals and the same operators, if one is needed; else None."""
        if not isinstance(self._potential.excited, DeltaSCF):
            return None
        other = self._mean_field(mean_field.mol, unrestricted=True)
        other.get_hcore, other.energy_nuc = mean_field.get_hcore, mean_field.energy_nuc
        if self._potential.fits_density:
            other.with_df = mean_field.with_df
        return other

    def _mean_field(self, molecule: Any, unrestricted: bool | None = None) -> Any:
        potential = self._potential
        if unrestricted is None:
            unrestricted = potential.is_unrestricted(self._specification.multiplicity)
        if is_hartree_fock(potential.method):
            mean_field = scf.UHF(molecule) if unrestricted else scf.RHF(molecule)
        else:
            mean_field = dft.UKS(molecule) if unrestricted else dft.RKS(molecule)
            mean_field.xc = potential.method
            if isinstance(potential.excited, TDA | TDDFT):
                mean_field._numint = FiniteThirdDerivatives()
            mean_field.grids.level = potential.grid_level
            mean_field.nlcgrids.level = NONLOCAL_GRID_LEVEL
        if potential.fits_density:
            mean_field = mean_field.density_fit(auxbasis=potential.auxiliary_basis)
        # PySCF opens a checkpoint file for every object; closing it removes it.
        mean_field._chkfile.close()
        mean_field.chkfile = None
        mean_field.conv_tol = potential.conv_tol
        mean_field.max_cycle = potential.max_cycle
        if potential.excited is not None:
            # Excitation energies are of first order in what the orbitals miss, and energies of second.
            wanted = max(potential.excited.conv_tol, FINEST_ORBITALS)
            mean_field.conv_tol_grad = min(np.sqrt(potential.conv_tol), wanted)
        if potential.fits_density and not has_exact_exchange(potential.method):
            # Where exchange does not ask for the fitted integrals, PySCF computes them anew in every cycle.
            mean_field.with_df.build()
        return mean_field

    def _smooth(self, molecule: Any, external_field: ExternalField | None) -> SmoothPotential | None:
        if external_field is None or external_field.smooth_potential is None:
            return None
        return SmoothPotential(
            molecule,
            self._potential.embedding_grid_level,
            external_field.smooth_potential,
            GRID_MEMORY_SHARE * self._memory(),
            self._specification.name,
        )

    def _memory(self) -> float:
        potential = self._potential
        return float(DEFAULT_MEMORY if potential.max_memory is None else potential.max_memory)

    def _checked_positions(self, positions: FloatArray) -> FloatArray:
        positions = np.array(positions, dtype=float)
        expected = (len(self._symbols), 3)
        if positions.shape != expected:
            raise EvaluationError(f"{self._term}: positions have shape {positions.shape}, the region needs {expected}")
        wrong = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if len(wrong):
            raise NonFiniteError(f"{self._term}: positions of atoms {listed(wrong)} are not finite")
        return positions

    def _checked_field(self, positions: FloatArray, external_field: ExternalField | None) -> ExternalField | None:
        if external_field is None:
            return None
        count = len(external_field.positions)
        shapes = {
            "positions": (external_field.positions, (count, 3)),
            "point_charges": (external_field.point_charges, (count,)),
            "gaussian_charges": (external_field.gaussian_charges, (count,)),
        }
        for name, (values, shape) in shapes.items():
            if np.shape(values) != shape:
                raise EvaluationError(
                    f"{self._term}: {name} of the external field have shape {np.shape(values)}, expected {shape}"
                )
            wrong = np.unique(np.nonzero(~np.isfinite(values))[0])
            if len(wrong):
                raise NonFiniteError(f"{self._term}: {name} of external charges {listed(wrong)} are not finite")
        widths = external_field.widths
        if widths is not None and (np.shape(widths) != (count,) or not np.all((widths >= 0.0) & (widths < np.inf))):
            raise EvaluationError(
                f"{self._term}: widths of the external field are ({count},) finite numbers that are not negative, got "
                f"an array of shape {np.shape(widths)} from {np.min(widths, initial=np.inf):g} bohr on"
            )
        splitting = external_field.splitting
        if np.any(external_field.gaussian_charges) and not (splitting is not None and splitting > 0.0):
            raise EvaluationError(
                f"{self._term}: the external field has Gaussian charges but its splitting is {splitting!r}; "
                "give a positive splitting in 1/bohr"
            )
        points = np.flatnonzero(external_field.point_charges)
        for atom, position in enumerate(positions):
            distances = np.linalg.norm(external_field.positions[points] - position, axis=1)
            if len(points) and distances.min() < CLOSEST:
                away = distances.min() / ANGSTROM_IN_BOHR
                raise EvaluationError(
                    f"{self._term}: external point charge {points[distances.argmin()]} lies {away:.2f} angstrom from "
                    f"atom {atom} of the region, closer than 0.3; leave the region's own charges out of its external "
                    "field"
                )
        return external_field

    def _save(self, positions: FloatArray, external_field: ExternalField | None) -> str:
        specification, potential = self._specification, self._potential
        comment = (
            f"charge={specification.charge} multiplicity={specification.multiplicity} "
            f'method="{potential.method}" basis="{potential.basis}"'
        )
        return write_failure(
            potential.failure_directory,
            specification.name,
            comment,
            self._symbols,
            positions,
            external_field,
        )

    def _check_finite(self, evaluation: Evaluation, save: Any) -> None:
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


def _nothing() -> None:
    """Accept a result of which nothing is kept."""


def _close_scratch(mean_field: Any) -> None:
    """Remove the file in which density fitting keeps integrals that have no room in memory."""
    scratch: Any = getattr(getattr(mean_field, "with_df", None), "_cderi_to_save", None)
    if scratch is not None:
        scratch.close()


def _embed(mean_field: Any, parts: list[Any]) -> None:
    """Put the external potential into the one-electron operator of this mean-field object.

    Everything that starts from the object, response and correlation alike, sees the same operator.
    """
    if not parts:
        return
    core = mean_field.get_hcore() + sum(part.core_hamiltonian() for part in parts)
    nuclear = float(mean_field.energy_nuc()) + sum(part.nuclear_energy() for part in parts)
    mean_field.get_hcore = lambda mol=None: core
    mean_field.energy_nuc = lambda: nuclear
