"""An OpenMM System with its terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

import openmm
from openmm import app, unit

from qmmlmm.coupling.hamiltonian import Hamiltonian
from qmmlmm.coupling.potential import Memory
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.embedding.torch_errors import is_of_torch, original_error
from qmmlmm.errors import HamiltonianError, listed, nearest
from qmmlmm.geometry import Geometry
from qmmlmm.mm.description import SystemDescription, describe, description_html
from qmmlmm.mm.felt_charges import FeltCharges
from qmmlmm.mm.mixed_term import MixedTerm
from qmmlmm.mm.python_force import state_parameter
from qmmlmm.mm.term_energies import mean_seconds, shortest_seconds, term_energy
from qmmlmm.mm.term_layouts import ResolvedRegion
from qmmlmm.mm.term_runner import TorchForceRunner
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    check_flag,
    check_instance,
    check_mapping,
    check_whole_number,
    is_whole_number,
)

MM = "MM"
"""Key of the force field in `MixedSystem.term_energies`."""


class MixedSystem:
    """An OpenMM System with its terms, as `create_mixed_system` returns it.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System
    hamiltonian : Hamiltonian
    terms : mapping of str to MixedTerm
        Terms in the order of the Hamiltonian.
    regions : sequence of ResolvedRegion

    Notes
    -----
    A term's Force is found by its name, so that Forces may be added, moved and assigned to other force groups.
    """

    def __init__(
        self,
        topology: app.Topology,
        system: openmm.System,
        hamiltonian: Hamiltonian,
        terms: Mapping[str, MixedTerm],
        regions: Sequence[ResolvedRegion],
    ) -> None:
        self._topology = topology
        self._system = system
        self._hamiltonian = hamiltonian
        self._terms = dict(terms)
        self._regions = tuple(regions)
        self._charges = FeltCharges.of(system) if any(_feels_charges(term) for term in terms.values()) else None

    def __getstate__(self) -> dict[str, Any]:
        # A copy of a PythonForce has lost its name: OpenMM does not serialise it.
        return vars(self) | {"_force_names": [force.getName() for force in self._system.getForces()]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = state["_force_names"]
        vars(self).update({key: value for key, value in state.items() if key != "_force_names"})
        for force, name in zip(self._system.getForces(), names, strict=True):
            force.setName(name)

    def __repr__(self) -> str:
        return f"MixedSystem({self._system.getNumParticles()} particles, terms {listed(self._terms, 10)})"

    def _repr_html_(self) -> str:
        """Return tables of the terms and cut bonds, which notebooks show."""
        return description_html(self.describe())

    @property
    def topology(self) -> app.Topology:
        """The Topology."""
        return self._topology

    @property
    def system(self) -> openmm.System:
        """An ordinary System, for any integrator, platform, reporter, barostat and serialiser.

        Biases and barostats may be added before a Context is created.
        """
        return self._system

    @property
    def hamiltonian(self) -> Hamiltonian:
        """The Hamiltonian."""
        return self._hamiltonian

    @property
    def terms(self) -> Mapping[str, MixedTerm]:
        """All terms by name, in the order of the Hamiltonian."""
        return MappingProxyType(self._terms)

    @property
    def regions(self) -> tuple[ResolvedRegion, ...]:
        """The regions of the Hamiltonian with their cut bonds and virtual sites."""
        return self._regions

    def term(self, name: str) -> MixedTerm:
        """Return a term by its name.

        Raises
        ------
        HamiltonianError
            If there is no such term.
        """
        if not isinstance(name, str) or name not in self._terms:
            names = list(self._terms)
            raise HamiltonianError(
                f"there is no term {name!r}; terms are: {listed(names, 10)}.{nearest(str(name), names)}"
            )
        return self._terms[name]

    def force(self, name: str) -> openmm.Force:
        """Return the Force of a term.

        Raises
        ------
        HamiltonianError
            If there is no such term, or its Force was removed from the System or renamed.
        """
        self.term(name)
        found = [force for force in self._system.getForces() if force.getName() == name]
        if len(found) != 1:
            raise HamiltonianError(
                f"the System has {len(found)} Forces named {name!r}, and the term of that name has one; do not remove "
                "or rename the Forces of terms, or create the mixed System again"
            )
        return found[0]

    def force_group(self, name: str) -> int:
        """Return the present force group of a term."""
        return int(self.force(name).getForceGroup())

    def replace_term(self, term: MixedTerm) -> None:
        """Replace the record of the term of the same name; `qmmlmm.mm.model_exchange` calls it.

        Raises
        ------
        HamiltonianError
            If there is no such term, or the terms no longer add up to one energy.
        """
        self.term(term.name)
        terms = self._terms | {term.name: term}
        parameters = dict(self._hamiltonian.parameters)
        self._hamiltonian = Hamiltonian([mixed.term for mixed in terms.values()], parameters=parameters)
        self._terms = terms

    def check_unchanged(self, context: openmm.Context | None = None) -> None:
        """Raise if the System was changed so that it and its terms no longer belong to one Hamiltonian.

        `term_energies`, samplers and run directories call it. Forces may be added, moved, and assigned to other force
        groups.

        Parameters
        ----------
        context : openmm.Context, optional
            Context whose System is checked, which may be a copy; that of this object if not given.

        Raises
        ------
        HamiltonianError
            If the Force of a term was removed or renamed.
        UnsupportedSystemError
            If charges of the force field, or how they interact, were changed after `create_mixed_system`.
        """
        for name in self._terms:
            self.force(name)
        if self._charges is not None:
            self._charges.check(self._system if context is None else context.getSystem())

    def term_energies(self, context: openmm.Context, *, check_charges: bool = True) -> dict[str, unit.Quantity]:
        """Return the energy of the force field and of each term, with its coefficient.

        The energies add up to the potential energy, at the present values of the parameters. Forces that were added to
        `system` count as "MM". A term that runs in Python is not computed again at one of its last two geometries.

        Parameters
        ----------
        context : openmm.Context
            Context of `system`.
        check_charges : bool
            Whether to call `check_unchanged`, which reads the charges of all particles: 0.1 s for 24,000 of them.

        Returns
        -------
        dict of str to Quantity, kJ/mol
            "MM" first, then the terms in the order of the Hamiltonian.

        Raises
        ------
        EvaluationError
            If a term fails; also other exceptions of a term, in their original class.
        HamiltonianError, UnsupportedSystemError
            If the System was changed, see `check_unchanged`.
        SettingError
            If it is no Context.
        """
        _check_context(context)
        if check_flag("check_charges", check_charges):
            self.check_unchanged(context)
        try:
            total = context.getState(energy=True).getPotentialEnergy()
            energies = {name: term_energy(context, self._system, self.force(name)) for name in self._terms}
        except openmm.OpenMMException as error:
            self.raise_original(error)
        mm = total
        for energy in energies.values():
            mm = mm - energy
        return {MM: mm, **energies}

    def parameter_derivatives(self, context: openmm.Context) -> dict[str, unit.Quantity]:
        """Return the derivatives of the energy with respect to the parameters of the Hamiltonian.

        Every term that depends on a parameter is computed, also if its coefficient is zero; at one geometry once for
        all values of the parameters.

        Parameters
        ----------
        context : openmm.Context
            Context of `system`.

        Returns
        -------
        dict of str to Quantity, kJ/mol
            Derivatives in the order of `Hamiltonian.parameters`.

        Raises
        ------
        EvaluationError
            If a term fails; also other exceptions of a term, in their original class.
        HamiltonianError
            If the Force of a term was removed or renamed.
        SettingError
            If it is no Context.

        Notes
        -----
        Samplers call it at every step. Unlike `term_energies` it does not read the charges of all particles again.
        """
        _check_context(context)
        derivatives = dict.fromkeys(self._hamiltonian.parameters, 0.0)
        for name, mixed in self._terms.items():
            slopes = mixed.term.weight.slopes
            if not slopes:
                continue
            try:
                energy = mixed.runner.energy_without_weight(context, self.force(name))
            except openmm.OpenMMException as error:
                self.raise_original(error)
            for parameter, factor in slopes:
                derivatives[parameter] += factor * energy
        return {name: value * unit.kilojoule_per_mole for name, value in derivatives.items()}

    def force_uncertainty(self, context: openmm.Context, name: str) -> unit.Quantity:
        """Return the expected error of a committee's force on each atom of its region.

        Parameters
        ----------
        context : openmm.Context
            Context of `system`.
        name : str
            Name of an ML term whose model is a committee, for example ``"ligand/ML"``.

        Returns
        -------
        (n_atoms,) Quantity, kJ/(mol nm)
            Root mean square over x, y and z of the spread of the members, times the scale that the training found; in
            the order of the region's atoms, without its link atoms. The coefficient of the term is left out.

        Raises
        ------
        HamiltonianError
            If there is no such ML term.
        PotentialError
            If its model is no committee.

        Notes
        -----
        The mean over the atoms distinguishes configurations best: for acetone in several surroundings its correlation
        with the mean error was 0.85 to 0.91, and that of the largest with the largest 0.74 to 0.81
        (`tests/benchmarks/committee_uncertainty.py`).
        """
        committee = self.term(name).runner.region_term.committee()
        _check_context(context)
        found = committee.atom_uncertainty(Geometry.from_context(context))
        return found * unit.kilojoule_per_mole / unit.nanometer

    def evaluation_times(self, context: openmm.Context, repeats: int = 3) -> dict[str, unit.Quantity]:
        """Return the time of one evaluation of energy and forces, for the force field and each term.

        For terms that run in Python it is the mean of their evaluations so far; the others are measured at the present
        positions.

        Parameters
        ----------
        context : openmm.Context
            Context of `system` with positions.
        repeats : int
            Number of evaluations, of which the shortest counts.

        Returns
        -------
        dict of str to Quantity, ms
            Times; NaN for a Python term that was never evaluated.
        """
        check_whole_number("repeats", repeats, at_most=LARGEST_COUNT)
        _check_context(context)
        by_term = {name: self.force_group(name) for name in self._terms}
        others = {force.getForceGroup() for force in self._system.getForces()} - set(by_term.values())
        seconds = {MM: shortest_seconds(context, others, repeats)}
        for name, group in by_term.items():
            runner = self._terms[name].runner
            seconds[name] = (
                mean_seconds(runner) if runner.runs_in_python else shortest_seconds(context, {group}, repeats)
            )
        return {name: 1000.0 * value * unit.millisecond for name, value in seconds.items()}

    def evaluated_term(self, name: str) -> EvaluatedTerm:
        """Return a term that an evaluator computes in Python, to label geometries or for its field.

        Parameters
        ----------
        name : str
            Name of the term, for example ``"ligand/QM"``.

        Raises
        ------
        HamiltonianError
            If there is no such term, or it is a torch module or the force field.
        """
        found = self.term(name).runner.region_term
        if not isinstance(found, EvaluatedTerm):
            raise HamiltonianError(f"term {name!r} is a torch module and is not computed by an evaluator in Python")
        return found

    def results(self, name: str) -> dict[str, object]:
        """Return the results of the last evaluation of a term's evaluator; empty before the first."""
        last = self.evaluated_term(name).last
        return {} if last is None else last.report()

    def select_state(self, context: openmm.Context, name: str, state: int) -> None:
        """Select the electronic state of a term that has energy and forces in a Context.

        Parameters
        ----------
        context : openmm.Context
            Context of `system`. Its parameter ``"<name> state"`` holds the choice, so that checkpoints have it too.
        name : str
            Name of a term with several states, such as ``"dye/QM"`` with excited states.
        state : int
            Index in the order of energy, 0 is the ground state; with `follow_state` the index at the first geometry.

        Raises
        ------
        HamiltonianError
            If the term does not have this state.
        """
        count = self.term(name).runner.n_states
        if not is_whole_number(state) or state not in range(count):
            raise HamiltonianError(
                f"state {state!r} of term {name!r} does not exist: "
                + (f"there are states 0 to {count - 1}" if count > 1 else "it has only one state")
            )
        _check_context(context)
        context.setParameter(state_parameter(name), state)

    def memory(self) -> dict[str, Memory]:
        """Return the electronic states of the last geometry, for terms that compare the next ones with them.

        Returns
        -------
        dict of str to dict
            Arrays for `recall`, only for terms that have computed such states.
        """
        found = {name: mixed.runner.memory() for name, mixed in self._terms.items()}
        return {name: memory for name, memory in found.items() if memory}

    def recall(self, name: str, memory: Memory) -> None:
        """Let a term continue from what `memory` returned for it; like a new term if it is empty."""
        runner = self.term(name).runner
        check_mapping("memory", memory)
        runner.recall(memory)

    def summary(self) -> dict[str, dict[str, object]]:
        """Return counts of the terms that run in Python since they were created, as JSON values.

        Returns
        -------
        dict of str to dict
            For each term ``evaluations`` and ``seconds``; for PySCF also ``scf_results``, ``scf_cycles``,
            ``scf_cycles_mean``, ``scf_converged_from`` and ``scf_failed_from``, the numbers of successes and failures
            of each attempt to converge.
        """
        found = {name: mixed.runner.summary() for name, mixed in self._terms.items()}
        return {name: counted for name, counted in found.items() if counted}

    def forget(self) -> None:
        """Reset all terms: no cached result, no density as a guess.

        Two simulations that start from the same checkpoint after this take the same steps, bit by bit if the platform
        is deterministic and PySCF has one thread. `RunDirectory.resume` calls it.
        """
        for mixed in self._terms.values():
            mixed.runner.forget()

    def raise_original(self, error: BaseException) -> NoReturn:
        """Raise the exception of the term that ended a simulation, in its original class.

        It is an `EvaluationError` where the code of a model fails. OpenMM turns exceptions in terms, Ctrl-C among
        them, into an `OpenMMException`. Use it as::

            try:
                simulation.step(1000)
            except openmm.OpenMMException as error:
                mixed.raise_original(error)

        Parameters
        ----------
        error : BaseException
            Exception that is raised unchanged if no term failed.
        """
        for mixed in self._terms.values():
            original, mixed.runner.failure = mixed.runner.failure, None
            if original is not None and original is not error:
                raise original from error
        in_torch = [name for name, mixed in self._terms.items() if isinstance(mixed.runner, TorchForceRunner)]
        if in_torch and isinstance(error, openmm.OpenMMException) and is_of_torch(str(error)):
            raise original_error(f"term {' or '.join(map(repr, in_torch))}", str(error)) from error
        raise error

    def describe(self) -> SystemDescription:
        """Return the regions and terms of the System as JSON values, for a report."""
        groups = {name: self.force_group(name) for name in self._terms}
        return describe(self._topology, self._regions, self._terms, groups)


def _check_context(context: object) -> None:
    check_instance("context", context, openmm.Context, "an openmm.Context, such as simulation.context")


def _feels_charges(mixed: MixedTerm) -> bool:
    """Return whether a term keeps charges of the force field, of its surroundings or of its images."""
    return mixed.term.embedding == "electrostatic" or mixed.term.potential.capabilities.long_range
