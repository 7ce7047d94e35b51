"""A System and a Context that walkers share, in which models are exchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import openmm
from openmm import app

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.potential import EvaluatedPotential
from qmmlmm.learning.labels.label_job import Job
from qmmlmm.learning.loop.guard import Guard
from qmmlmm.learning.loop.selection import describe_region
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.learning.loop.walker_simulation import WalkerSimulation
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.mm.creation import MLBackend, create_mixed_system
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.model_exchange import exchange_model
from qmmlmm.sampling.collective_variables import CollectiveVariable
from qmmlmm.sampling.metadynamics import HillForce, Metadynamics
from qmmlmm.units import FloatArray, IntArray


class RunningModel:
    """Runs walkers with models instead of a QM term.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System
        System of the force field.
    term : Term
        Term with the QM potential.
    biases : sequence of str
        Serialised Forces.
    settings : LoopSettings
    variables : mapping of str to collective variable
    platform : str
    properties : mapping of str to str
        Properties of the platform.
    backend : {"auto", "torchforce", "pythonforce"}
        `ml_backend` of `create_mixed_system`.
    metadynamics : Metadynamics or None
        Metadynamics of walkers with a model.
    base : EvaluatedPotential or None
        Level to which models are differences; it also runs walkers before the first model, instead of the force field.

    Attributes
    ----------
    name : str
        Name of the ML term.
    mixed : MixedSystem or None
        System with the model; None before the first model.
    """

    def __init__(
        self,
        topology: app.Topology,
        system: openmm.System,
        term: Term,
        biases: Sequence[str],
        settings: LoopSettings,
        variables: Mapping[str, CollectiveVariable],
        platform: str,
        properties: Mapping[str, str],
        backend: MLBackend,
        metadynamics: Metadynamics | None = None,
        base: EvaluatedPotential | None = None,
    ) -> None:
        self._topology, self._system, self._term, self._biases = topology, system, term, list(biases)
        self._settings, self._variables = settings, variables
        self._platform = openmm.Platform.getPlatform(platform)
        self._properties = {**({"DeterministicForces": "true"} if platform == "CPU" else {}), **properties}
        self._backend = backend
        self._metadynamics = metadynamics
        self.guard = Guard(topology, system, term.region.atoms, settings)
        self._base = base
        self.name = f"{term.region.name}/{'ML' if base is None else 'correction'}"
        self.mixed: MixedSystem | None = None
        self._simulation: WalkerSimulation | None = None
        self._number: int | None = None

    def without_model(self) -> tuple[WalkerSimulation, WalkerSimulation]:
        """Return simulations without a model, with the biases: of the base, and of the force field for minimisations.

        They are the same if there is no base.
        """
        relaxation = self.force_field()
        if self._base is None:
            return relaxation, relaxation
        return self._create_simulation(self._create_mixed([self._base_term(self._base)]).system), relaxation

    def force_field(self) -> WalkerSimulation:
        """Return a simulation with only the force field and the biases."""
        system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(self._system))
        return self._create_simulation(system)

    def use_model(
        self,
        number: int,
        potential: Callable[[], MLPotential],
        on_model: Callable[[MixedSystem, int], None] | None = None,
    ) -> tuple[MixedSystem, WalkerSimulation]:
        """Return System and simulation with the model that was trained in a round.

        Parameters
        ----------
        number : int
            Number of the round.
        potential : callable
            Function that returns the model, called if the model is not in use already.
        on_model : callable, optional
            Function that is called with the System and the number of the round after an exchange.
        """
        if self.mixed is not None and self._simulation is not None and self._number == number:
            return self.mixed, self._simulation
        model = potential()
        if self.mixed is None or self._simulation is None:
            term = replace(self._term, potential=model, name=self.name, correction=self._base is not None)
            mixed = self._create_mixed([term] if self._base is None else [self._base_term(self._base), term])
            self._simulation = self._create_simulation(mixed.system, self._metadynamics)
            self.mixed = mixed
        # Also for the first model: the order of the forces, and thus the last digit of sums, must not depend on which
        # model the System was created with.
        exchange_model(self.mixed, self.name, model, [self._simulation.context])
        self._number = number
        if on_model is not None:
            on_model(self.mixed, number)
        return self.mixed, self._simulation

    def describe(self, job: Job, numbers: IntArray) -> FloatArray:
        """Return the descriptor of a geometry.

        Parameters
        ----------
        job : Job
            Job with a geometry.
        numbers : (n,) int array
            Atomic numbers of the region and its link atoms.
        """
        assert self.mixed is not None
        assert job.geometry is not None
        committee = self.mixed.term(self.name).runner.region_term.committee()
        sites, potential = committee.environment(job.geometry)
        return describe_region(numbers, sites, potential)

    def _base_term(self, base: EvaluatedPotential) -> Term:
        return replace(self._term, potential=base, name=f"{self._term.region.name}/base")

    def _create_mixed(self, terms: Sequence[Term]) -> MixedSystem:
        return create_mixed_system(self._topology, self._system, Hamiltonian(terms), ml_backend=self._backend)

    def _create_simulation(self, system: openmm.System, metadynamics: Metadynamics | None = None) -> WalkerSimulation:
        for xml in self._biases:
            system.addForce(openmm.XmlSerializer.deserialize(xml))
        hills = None if metadynamics is None else HillForce(metadynamics, self._settings.temperature, system)
        return WalkerSimulation(
            system, self.guard, self._settings, self._platform, self._properties, self._variables, hills
        )
