"""An OpenMM System with its terms: energies, derivatives, results, states, times."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import openmm
from openmm import app, unit

from qmmlmm.coupling.hamiltonian import Hamiltonian
from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import selectable_states
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.errors import HamiltonianError
from qmmlmm.ml.committee import CommitteeSpread
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.mm.force_field_potential import force_field_energy
from qmmlmm.mm.python_force import (
    EvaluatedTermInOpenMMUnits,
    TermCallback,
    state_parameter,
)
from qmmlmm.mm.term_layouts import (
    ResolvedRegion,
    link_bond_table,
    particle_labels,
)
from qmmlmm.units import BOHR_IN_NM, FloatArray

MM = "MM"
"""Key of the force field in `MixedSystem.term_energies`."""


@dataclass(frozen=True)
class MixedSystem:
    """An OpenMM System with its terms, as `create_mixed_system` returns it.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System
        Ordinary: any integrator, platform, reporter, barostat and serialiser works on it. Biases and barostats
        may be added before a Context is made.
    hamiltonian : Hamiltonian
    force_groups : mapping of str to int
        Force group of each term.
    layouts : mapping of str to TermLayout
        Each term, resolved: its atoms, link atoms and surroundings.
    regions : tuple of ResolvedRegion
    """

    topology: app.Topology
    system: openmm.System
    hamiltonian: Hamiltonian
    force_groups: Mapping[str, int]
    layouts: Mapping[str, TermLayout]
    regions: tuple[ResolvedRegion, ...]
    _forces: Mapping[str, int] = field(repr=False)
    _callbacks: Mapping[str, TermCallback] = field(repr=False)
    _committees: dict[str, CommitteeSpread] = field(repr=False, default_factory=dict)

    def term_energies(self, context: openmm.Context) -> dict[str, unit.Quantity]:
        """Return the energy of the force field and of each term, with its coefficient.

        The energies add up to the potential energy; each has its coefficient, at the present values of the parameters.
        Forces that were added to `system` later count as "MM". A term that runs in Python is not computed again at
        one of its last two geometries.

        Parameters
        ----------
        context : openmm.Context
            Of `system`.

        Returns
        -------
        dict of str to Quantity, kJ/mol
            "MM" first, then the terms in the order of the Hamiltonian.

        Raises
        ------
        EvaluationError
            Or what else a term raised, in its original class.
        """
        try:
            total = context.getState(energy=True).getPotentialEnergy()
            energies = {name: self._energy(context, name) for name in self.force_groups}
        except openmm.OpenMMException as error:
            self.raise_original(error)
        mm = total
        for energy in energies.values():
            mm = mm - energy
        return {MM: mm, **energies}

    def _energy(self, context: openmm.Context, name: str) -> unit.Quantity:
        group = self.force_groups[name]
        sharing = [force for force in self.system.getForces() if force.getForceGroup() == group]
        if len(sharing) == 1:
            return context.getState(energy=True, groups={group}).getPotentialEnergy()
        return self._separate(context, name)

    def _separate(self, context: openmm.Context, name: str) -> unit.Quantity:
        """Return the energy of a term that shares its force group, from a Context of its own."""
        system = openmm.System()
        for index in range(self.system.getNumParticles()):
            system.addParticle(self.system.getParticleMass(index))
        state = context.getState(positions=True)
        system.setDefaultPeriodicBoxVectors(*state.getPeriodicBoxVectors())
        xml = openmm.XmlSerializer.serialize(self.system.getForce(self._forces[name]))
        system.addForce(openmm.XmlSerializer.deserialize(xml))
        own = openmm.Context(system, openmm.VerletIntegrator(0.001), context.getPlatform())
        own.setPositions(state.getPositions(asNumpy=True))
        for parameter in own.getParameters():
            own.setParameter(parameter, context.getParameter(parameter))
        return own.getState(energy=True).getPotentialEnergy()

    def parameter_derivatives(self, context: openmm.Context) -> dict[str, unit.Quantity]:
        """Return the derivatives of the energy with respect to the parameters of the Hamiltonian.

        Every term that depends on a parameter is computed for it, also where its coefficient is zero; at one geometry
        once for all values of the parameters.

        Parameters
        ----------
        context : openmm.Context
            Of `system`.

        Returns
        -------
        dict of str to Quantity, kJ/mol
            In the order of `Hamiltonian.parameters`.

        Raises
        ------
        EvaluationError
            Or what else a term raised.
        """
        state = context.getState(positions=True)
        derivatives = dict.fromkeys(self.hamiltonian.parameters, 0.0)
        for name, term in zip(self.force_groups, self.hamiltonian.terms, strict=True):
            if not term.weight.slopes:
                continue
            if name in self._callbacks:
                energy = self._callbacks[name].energy(state, self.layouts[name].periodic)
            else:
                energy = force_field_energy(self.system.getForce(self._forces[name]), context)
            for parameter, slope in term.weight.slopes:
                derivatives[parameter] += slope * energy
        return {name: value * unit.kilojoule_per_mole for name, value in derivatives.items()}

    def force_uncertainty(self, context: openmm.Context, name: str) -> unit.Quantity:
        """Return how far off a committee expects its force on each atom of its region to be.

        Parameters
        ----------
        context : openmm.Context
            Of `system`.
        name : str
            Of an ML term whose model is a committee, for example ``"ligand/ML"``.

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
        The mean over the atoms tells configurations apart best: for acetone in several surroundings its correlation
        with the mean error was 0.85 to 0.91, that of the largest with the largest 0.74 to 0.81
        (`tests/benchmarks/committee_uncertainty.py`).
        """
        committee = self.committee(name)
        state = context.getState(positions=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        found = committee.atom_uncertainty(positions, box)
        return found * unit.kilojoule_per_mole / unit.nanometer

    def committee(self, name: str) -> CommitteeSpread:
        """Return what looks at the members of a committee, see `force_uncertainty`.

        Parameters
        ----------
        name : str
            Of an ML term.

        Raises
        ------
        HamiltonianError
            If there is no such ML term.
        """
        if name not in self._committees:
            terms = dict(zip(self.force_groups, self.hamiltonian.terms, strict=True))
            learned = {key: term.potential for key, term in terms.items() if isinstance(term.potential, MLPotential)}
            if name not in learned:
                raise HamiltonianError(
                    f"there is no ML term {name!r}; those that there are: {', '.join(learned) or 'none'}"
                )
            self._committees[name] = CommitteeSpread(self.layouts[name], learned[name])
        return self._committees[name]

    def evaluation_times(self, context: openmm.Context, repeats: int = 3) -> dict[str, unit.Quantity]:
        """Return what one evaluation of energy and forces costs, for the force field and each term.

        Terms that run in Python report the mean of their evaluations so far and are not computed again; the
        others are measured here at the present positions, which stay.

        Parameters
        ----------
        context : openmm.Context
            Of `system`, with positions.
        repeats : int
            Evaluations of which the shortest counts.

        Returns
        -------
        dict of str to Quantity, ms
            NaN for a Python term that was never evaluated.
        """
        positions = context.getState(positions=True).getPositions(asNumpy=True)
        terms = set(self.force_groups.values())
        groups = {MM: {f.getForceGroup() for f in self.system.getForces()} - terms}
        groups.update({name: {group} for name, group in self.force_groups.items()})
        times: dict[str, unit.Quantity] = {}
        for name, chosen in groups.items():
            if name in self._callbacks:
                callback = self._callbacks[name]
                seconds = callback.seconds / callback.evaluations if callback.evaluations else float("nan")
            else:
                seconds = float("inf")
                for _ in range(repeats):
                    context.setPositions(positions)
                    start = time.perf_counter()
                    context.getState(energy=True, forces=True, groups=chosen)
                    seconds = min(seconds, time.perf_counter() - start)
            times[name] = 1000.0 * seconds * unit.millisecond
        return times

    def evaluated_term(self, name: str) -> EvaluatedTerm:
        """Return a term that runs in Python, to label geometries with it or to look at its field.

        Parameters
        ----------
        name : str
            Of the term, for example ``"ligand/QM"``.

        Raises
        ------
        HamiltonianError
            If there is no such term, or it is a TorchScript module.
        """
        computations = {key: callback.computation for key, callback in self._callbacks.items()}
        evaluated = {
            key: computation.term
            for key, computation in computations.items()
            if isinstance(computation, EvaluatedTermInOpenMMUnits)
        }
        if name not in evaluated:
            raise HamiltonianError(
                f"term {name!r} is not computed by an evaluator in Python; terms that are: "
                f"{', '.join(evaluated) or 'none'}"
            )
        return evaluated[name]

    def results(self, name: str) -> dict[str, object]:
        """Return what the evaluator of a term reported at its last evaluation, as `evaluated_term` finds it."""
        last = self.evaluated_term(name).last
        return {} if last is None else dict(last.results)

    def select_state(self, context: openmm.Context, name: str, state: int) -> None:
        """Let another electronic state of a term move the particles of a Context.

        Parameters
        ----------
        context : openmm.Context
            Of `system`. Its parameter ``"<name> state"`` holds the choice, so that checkpoints do too.
        name : str
            Of a term with several states, such as ``"dye/QM"`` with excited states.
        state : int
            In the order of energy, 0 is the ground state; with `follow_state` the number at the first geometry.

        Raises
        ------
        HamiltonianError
            If the term has no states to choose from, or not this one.
        """
        count = self.selectable_states(name)
        if isinstance(state, bool) or state not in range(count):
            raise HamiltonianError(
                f"state {state!r} of term {name!r} does not exist: "
                + (f"there are states 0 to {count - 1}" if count > 1 else "it has one state alone")
            )
        context.setParameter(state_parameter(name), state)

    def selectable_states(self, name: str) -> int:
        """Return how many electronic states a term that runs in Python can switch between."""
        return selectable_states(self.evaluated_term(name).potential)

    def memory(self) -> dict[str, dict[str, FloatArray]]:
        """Return the electronic states of the last geometry of each term that compares the next ones with them.

        Returns
        -------
        dict of str to dict
            Arrays for `recall`; only terms that have computed such states.
        """
        found = {name: callback.memory() for name, callback in self._callbacks.items()}
        return {name: memory for name, memory in found.items() if memory}

    def recall(self, name: str, memory: dict[str, FloatArray]) -> None:
        """Let a term go on from what its `EvaluatedTerm.memory` returned; from an empty one as if new."""
        self.evaluated_term(name)
        self._callbacks[name].recall(memory)

    def evaluations(self, name: str) -> int:
        """Return how often a term that runs in Python was really computed, cached answers not counted."""
        if name not in self._callbacks:
            raise HamiltonianError(
                f"term {name!r} does not run in Python; those that do are: {', '.join(self._callbacks)}"
            )
        return self._callbacks[name].evaluations

    def summary(self) -> dict[str, dict[str, object]]:
        """Return what the terms that run in Python counted since they were made, as what `json` can write.

        Returns
        -------
        dict of str to dict
            For each term ``evaluations`` and ``seconds``; for PySCF also ``scf_results``, ``scf_cycles``,
            ``scf_cycles_mean``, ``scf_converged_from`` and ``scf_failed_from``: how often each rung of the ladder
            gave the result, and how often it was tried in vain.
        """
        return {name: callback.summary() for name, callback in self._callbacks.items()}

    def forget(self) -> None:
        """Let all terms compute as if they were new: no cached result, no density as a guess.

        After this, two simulations that start from the same checkpoint take the same steps, bit by bit where the
        platform is deterministic and PySCF has one thread. `RunDirectory.resume` calls it.
        """
        for callback in self._callbacks.values():
            callback.forget()

    def raise_original(self, error: BaseException) -> NoReturn:
        """Raise the exception of the term that ended a simulation, in its original class.

        OpenMM turns exceptions in terms, Ctrl-C among them, into an `OpenMMException`. Use it as::

            try:
                simulation.step(1000)
            except openmm.OpenMMException as error:
                mixed.raise_original(error)

        Parameters
        ----------
        error : BaseException
            Raised again as it is, if no term failed.
        """
        for callback in self._callbacks.values():
            original, callback.failure = callback.failure, None
            if original is not None and original is not error:
                raise original from error
        raise error

    def describe(self) -> dict[str, Any]:
        """Return what the System was made of, for a report or a JSON file."""
        labels = particle_labels(self.topology)
        terms = []
        for (name, layout), term in zip(self.layouts.items(), self.hamiltonian.terms, strict=True):
            terms.append(
                {
                    "name": name,
                    "region": term.region.name,
                    "level": term.potential.level,
                    "potential": repr(term.potential),
                    "coefficient": term.coefficient,
                    "multiplicity": term.spin_multiplicity,
                    "embedding": term.embedding,
                    "boundary_charges": term.boundary_charges,
                    "smeared_charges_nm": _in_nm(term.widths),
                    "force_group": self.force_groups[name],
                    "backend": _backend_name(self.system.getForce(self._forces[name])),
                    "atoms": len(layout.atoms),
                    "link_atoms": len(layout.link_bonds),
                }
            )
        return {
            "particles": self.system.getNumParticles(),
            "regions": [
                {
                    "name": found.region.name,
                    "atoms": [int(a) for a in found.atoms],
                    "charge": found.region.charge,
                    "multiplicity": found.region.multiplicity,
                    "link_bonds": link_bond_table(found, labels),
                }
                for found in self.regions
            ],
            "terms": terms,
        }


def _in_nm(widths: float | dict[int, float] | None) -> float | dict[str, float] | None:
    if isinstance(widths, dict):
        return {str(atom): round(width * BOHR_IN_NM, 9) for atom, width in widths.items()}
    return None if widths is None else round(widths * BOHR_IN_NM, 9)


def _backend_name(force: openmm.Force) -> str:
    return type(force).__name__ if isinstance(force, openmm.PythonForce | openmm.CustomCVForce) else "TorchForce"
