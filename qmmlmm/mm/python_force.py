"""Terms that run in Python, as callbacks of `openmm.PythonForce`.

OpenMM turns an exception in a callback into an OpenMMException, without its class. The callback keeps the original, and
`MixedSystem.raise_original` raises it again.
"""

from __future__ import annotations

import functools
import pickle
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Mapping

import numpy as np
import openmm

from qmmlmm.coupling.coefficient import Coefficient
from qmmlmm.coupling.potential import Memory
from qmmlmm.embedding.region_term import RegionTerm
from qmmlmm.errors import EvaluationError, NonFiniteError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.mm.term_runner import TermRunner
from qmmlmm.units import FloatArray

# All live callbacks by key. A copy of a System (copy.deepcopy, XmlSerializer, CustomCVForce) in this process shares the
# callback, its SCF density and its cache; in another process the term is created again.
_live: weakref.WeakValueDictionary[str, PythonRunner] = weakref.WeakValueDictionary()


class PythonRunner(TermRunner):
    """Runs a term as the function that a PythonForce calls.

    Parameters
    ----------
    region_term : RegionTerm
    key : str, optional
        Key of the callback in this process.
    weight : Coefficient, optional
        Coefficient that depends on parameters of the Context. While it is zero the term is not computed.
    """

    runs_in_python = True

    def __init__(self, region_term: RegionTerm, key: str | None = None, weight: Coefficient | None = None) -> None:
        super().__init__(region_term.name, region_term)
        self.weight = weight
        self.key = key or uuid.uuid4().hex
        self._lock = threading.Lock()
        # A barostat evaluates a trial volume and, if it is rejected, the previous geometry again.
        self._cached: deque[tuple[Geometry, int | None, float, FloatArray]] = deque(maxlen=2)
        self._state: int | None = None
        self._on_some = False
        _live[self.key] = self
        pass_openmm_an_array()

    def __reduce__(self) -> tuple[object, ...]:
        # Bytes within the pickle: OpenMM crashes if an exception leaves unpickling, and there are many reasons for one.
        return (_find_or_build, (self.key, pickle.dumps((self.region_term, self.weight))))

    @property
    def backend(self) -> str:
        """``"PythonForce"``."""
        return "PythonForce"

    def __call__(self, state: openmm.State) -> tuple[float, FloatArray]:
        """Return energy, kJ/mol, and forces, kJ/(mol nm), on the particles of the State."""
        self.failure = None
        try:
            parameters = state.getParameters()
            factor = 1.0 if self.weight is None else self.weight.value(parameters)
            geometry = Geometry.from_state(state, self.region_term.layout.periodic)
            if factor == 0.0:
                return 0.0, np.zeros_like(geometry.positions)
            name = state_parameter(self.name)
            chosen = round(parameters[name]) if name in parameters else None
            self._on_some = len(geometry.positions) < self.region_term.layout.n_particles
            if self._on_some:
                geometry = self._among_all(geometry)
            energy, forces = self.compute(geometry, chosen)
            if self._on_some:
                forces = forces[self.region_term.layout.particles]
            return (energy, forces) if factor == 1.0 else (factor * energy, factor * forces)
        except BaseException as error:
            self.failure = error
            # OpenMM keeps only the text.
            step = state.getStepCount()
            error.add_note(f"raised in term {self.name!r} at step {step} of the simulation")
            raise EvaluationError(f"{type(error).__name__} at step {step}: {error}") from error

    def energy_without_weight(self, context: openmm.Context, force: openmm.Force) -> float:
        """Return the energy at the present geometry without a weight that depends on parameters, kJ/mol."""
        layout = self.region_term.layout
        geometry = Geometry.from_state(context.getState(positions=True), layout.periodic)
        if self._on_some:  # the geometry of the last call, whose result is known
            geometry = self._among_all(Geometry(geometry.positions[layout.particles], geometry.box))
        return self.compute(geometry)[0]

    def _among_all(self, geometry: Geometry) -> Geometry:
        """Return the geometry of all particles, of which only those of the term have a position."""
        layout = self.region_term.layout
        positions = np.zeros((layout.n_particles, 3))
        positions[layout.particles] = geometry.positions
        return Geometry(positions, geometry.box)

    def exchange(self, region_term: RegionTerm) -> None:
        """Let another potential compute the same term."""
        with self._lock:
            self._cached.clear()
            self._region_term = region_term

    def forget(self) -> None:
        """Reset: the next geometry is computed as the first one."""
        with self._lock:
            self._cached.clear()
            evaluator = self.region_term.evaluator
            if evaluator is not None:
                evaluator.forget()

    def summary(self) -> dict[str, object]:
        """Return the number and time of evaluations, and the counts of the evaluator."""
        counted: dict[str, object] = {"evaluations": self.evaluations, "seconds": round(self.seconds, 3)}
        evaluator = self.region_term.evaluator
        return counted if evaluator is None else counted | evaluator.summary()

    def memory(self) -> Memory:
        """Return the arrays from which `recall` continues; empty if there are none."""
        evaluator = self.region_term.evaluator
        return {} if evaluator is None else evaluator.memory()

    def recall(self, memory: Memory) -> None:
        """Continue from what `memory` returned; like a new term if it is empty."""
        evaluator = self.region_term.evaluator
        if evaluator is None:
            super().recall(memory)
            return
        with self._lock:
            self._cached.clear()
            evaluator.recall(memory)

    def compute(self, geometry: Geometry, electronic_state: int | None = None) -> tuple[float, FloatArray]:
        """Return energy and forces without the weight, from the cache if the geometry is one of the last two.

        Parameters
        ----------
        geometry : Geometry, nm
            All particles.
        electronic_state : int, optional
            State that is selected for this call and later ones.

        Raises
        ------
        NonFiniteError
            If a position is not a number.
        EvaluationError
            If the term cannot be computed.
        """
        with self._lock:
            if electronic_state is not None and electronic_state != self._state:
                self._select(electronic_state)
            for known, known_state, energy, forces in self._cached:
                if known_state == self._state and geometry.is_same(known):
                    return energy, forces.copy()
            wrong = np.flatnonzero(~np.isfinite(geometry.positions).all(axis=1))
            if len(wrong):
                raise NonFiniteError(
                    f"positions that are not numbers reached term {self.name!r}, on atoms {listed(wrong)}; "
                    "the simulation was unstable before: use a smaller step or minimise first"
                )
            start = time.perf_counter()
            energy, forces = self.region_term.compute(geometry)
            self.seconds += time.perf_counter() - start
            self.evaluations += 1
            self._cached.append((geometry, self._state, energy, forces))
            return energy, forces.copy()

    def _select(self, electronic_state: int) -> None:
        if not 0 <= electronic_state < self.n_states:
            raise EvaluationError(
                f"the parameter {state_parameter(self.name)!r} of the Context is {electronic_state}, and there "
                f"are states 0 to {self.n_states - 1}"
            )
        evaluator = self.region_term.evaluator
        assert evaluator is not None
        evaluator.select_state(electronic_state)
        self._state = electronic_state


def state_parameter(term: str) -> str:
    """Return the name of the Context parameter for the electronic state of a term."""
    return f"{term} state"


@functools.cache
def pass_openmm_an_array() -> None:
    """Pass a NumPy array to OpenMM once.

    OpenMM before 8.6 reads the forces of a PythonForce through NumPy's C interface, but sets this up only when another
    call gets a sequence: without one, as in a run that starts from a checkpoint or a State, the process crashes.
    Source: issue 5399 of openmm on GitHub.
    """
    system = openmm.System()
    system.addParticle(1.0)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(np.zeros((1, 3)))


class UnreadableTerm:
    """A callback that replaces a term that could not be read from a serialised System. Each call raises an error.

    Parameters
    ----------
    archive : bytes
        Pickle that could not be read; it is written again as it is.
    error : Exception
    """

    def __init__(self, key: str, archive: bytes, error: Exception) -> None:
        self._key, self._archive, self._error = key, archive, error

    def __reduce__(self) -> tuple[object, ...]:
        return (_find_or_build, (self._key, self._archive))

    def __call__(self, state: openmm.State) -> tuple[float, FloatArray]:
        """Raise EvaluationError."""
        raise EvaluationError(
            f"a term of this serialised System cannot be read here: {type(self._error).__name__}: {self._error}; "
            "install the packages and versions with which it was written, or make the System again from its script"
        ) from self._error


def _find_or_build(key: str, archive: bytes) -> PythonRunner | UnreadableTerm:
    found = _live.get(key)
    if found is not None:
        return found
    try:
        region_term, weight = pickle.loads(archive)
        return PythonRunner(region_term, key, weight)
    except Exception as error:  # noqa: BLE001 - OpenMM crashes if any exception leaves this function
        return UnreadableTerm(key, archive, error)


def create_python_force(runner: PythonRunner, parameters: Mapping[str, float] | None = None) -> openmm.PythonForce:
    """Return a PythonForce that calls `runner`, from OpenMM 8.6 on only with the particles that a term depends on.

    Parameters
    ----------
    runner : PythonRunner
    parameters : mapping of str to float, optional
        Initial values of the global parameters in its weight.

    Notes
    -----
    If the term has several electronic states, the force has one more parameter, named by `state_parameter`.
    """
    values = dict(parameters or {})
    if runner.n_states > 1:
        values[state_parameter(runner.name)] = runner.region_term.potential.capabilities.state
    force = openmm.PythonForce(runner, values)
    layout = runner.region_term.layout
    force.setUsesPeriodicBoundaryConditions(layout.periodic)
    # OpenMM 8.5 has no such method, and passes all particles.
    if layout.surroundings is None and hasattr(force, "setParticles"):
        force.setParticles(layout.particles.tolist())
    return force
