"""The System and the Context that walkers share, with one model after another in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import openmm
from openmm import app

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.learning.loop.collective_variables import CollectiveVariable
from qmmlmm.learning.loop.guard import Guard
from qmmlmm.learning.loop.metadynamics import HillForce, Metadynamics
from qmmlmm.learning.loop.selection import describe_region
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.learning.loop.store import Job
from qmmlmm.learning.loop.walk import Walking
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.mm.creation import create_mixed_system
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.model_exchange import exchange_model
from qmmlmm.units import FloatArray, IntArray


class RunningModel:
    """Puts models in the place of a QM term and runs them.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System
        The force field.
    term : Term
        With the QM potential.
    biases : sequence of str
        Forces, serialised.
    settings : LoopSettings
    variables : mapping of str to collective variable
    platform : str
    properties : mapping of str to str
        Of the platform.
    backend : str
        `ml_backend` of `create_mixed_system`.
    metadynamics : Metadynamics or None
        Of the walks with a model.

    Attributes
    ----------
    name : str
        Of the ML term.
    mixed : MixedSystem or None
        None before the first model.
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
        backend: Any,
        metadynamics: Metadynamics | None = None,
    ) -> None:
        self._topology, self._system, self._term, self._biases = topology, system, term, list(biases)
        self._settings, self._variables = settings, variables
        self._platform = openmm.Platform.getPlatform(platform)
        self._properties = {**({"DeterministicForces": "true"} if platform == "CPU" else {}), **properties}
        self._backend = backend
        self._metadynamics = metadynamics
        self.guard = Guard(topology, system, term.region.atoms, settings)
        self.name = f"{term.region.name}/ML"
        self.mixed: MixedSystem | None = None
        self._walking: Walking | None = None
        self._number: int | None = None

    def force_field(self) -> Walking:
        """Return walkers that run with the force field and the biases alone."""
        system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(self._system))
        return self._walking_in(system)

    def put_in(
        self, number: int, potential: Callable[[], MLPotential], told: Callable[[MixedSystem, int], None] | None = None
    ) -> tuple[MixedSystem, Walking]:
        """Return System and walkers that run with the model after a round.

        Parameters
        ----------
        number : int
            Of the round.
        potential : callable
            Returns the model; called if it does not run already.
        told : callable, optional
            Called with the System and the number if the model was put in.
        """
        if self.mixed is not None and self._walking is not None and self._number == number:
            return self.mixed, self._walking
        model = potential()
        if self.mixed is None or self._walking is None:
            term = replace(self._term, potential=model, name=self.name)
            mixed = create_mixed_system(self._topology, self._system, Hamiltonian([term]), ml_backend=self._backend)
            self._walking = self._walking_in(mixed.system, self._metadynamics)
            self.mixed = mixed
        # Also the first time, so that the forces are in the same order, and sums have the same last digit, whether the
        # System was built for this model or an earlier one.
        exchange_model(self.mixed, self.name, model, [self._walking.context])
        self._number = number
        if told is not None:
            told(self.mixed, number)
        return self.mixed, self._walking

    def describe(self, job: Job, numbers: IntArray) -> FloatArray:
        """Return the descriptor of a geometry.

        Parameters
        ----------
        job : Job
            With a snapshot.
        numbers : (n,) int array
            Atomic numbers of the region and its link atoms.
        """
        assert self.mixed is not None
        assert job.snapshot is not None
        sites, potential = self.mixed.committee(self.name).environment(job.snapshot.positions, job.snapshot.box)
        return describe_region(numbers, sites, potential)

    def _walking_in(self, system: openmm.System, metadynamics: Metadynamics | None = None) -> Walking:
        for xml in self._biases:
            system.addForce(openmm.XmlSerializer.deserialize(xml))
        hills = None if metadynamics is None else HillForce(metadynamics, self._settings.temperature, system)
        return Walking(system, self.guard, self._settings, self._platform, self._properties, self._variables, hills)
