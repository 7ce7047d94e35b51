"""Terms that run in Python, as callbacks of `openmm.PythonForce`.

OpenMM turns an exception in a callback into an OpenMMException that has lost its class. So a callback keeps
the original, and `MixedSystem.raise_original` raises it again.
"""

from __future__ import annotations

import functools
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import openmm
from openmm import unit

from qmmlmm.coupling.coefficient import Coefficient
from qmmlmm.coupling.potential import selectable_states
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.errors import EvaluationError, NonFiniteError, listed
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR, FloatArray

_NO_BOX = np.eye(3)

# All live callbacks by key. A copy of a System (copy.deepcopy, XmlSerializer, CustomCVForce) made in this
# process shares the callback, its SCF density and its cache; in another process the term is built anew.
_live: weakref.WeakValueDictionary[str, TermCallback] = weakref.WeakValueDictionary()


class ComputesInOpenMMUnits(Protocol):
    """Energy and forces of one term: positions and box in nm to kJ/mol and kJ/(mol nm), with the coefficient."""

    @property
    def name(self) -> str:
        """Name of the term."""
        ...

    def compute_openmm(self, positions: FloatArray, box: FloatArray) -> tuple[float, FloatArray]:
        """Return energy and forces on all particles."""
        ...


class EvaluatedTermInOpenMMUnits:
    """Gives an `EvaluatedTerm` OpenMM's units and its coefficient.

    Parameters
    ----------
    term : EvaluatedTerm
    """

    def __init__(self, term: EvaluatedTerm) -> None:
        self.term = term

    @property
    def name(self) -> str:
        """Name of the term."""
        return self.term.name

    @property
    def selectable_states(self) -> int:
        """How many electronic states the term can switch between; 0 if it cannot."""
        return selectable_states(self.term.potential)

    @property
    def first_state(self) -> int:
        """The state that the potential was made with."""
        return int(getattr(self.term.potential, "state", 0))

    def forget(self) -> None:
        """Forget earlier geometries."""
        self.term.forget()

    def summary(self) -> dict[str, object]:
        """Return what the evaluator counted."""
        return self.term.summary()

    def compute_openmm(self, positions: FloatArray, box: FloatArray) -> tuple[float, FloatArray]:
        """Return energy, kJ/mol, and forces, kJ/(mol nm), of positions and box in nm."""
        energy, gradient = self.term.compute(positions * NM_IN_BOHR, box * NM_IN_BOHR)
        coefficient = self.term.layout.coefficient
        return coefficient * energy * HARTREE_IN_KJ_PER_MOL, -coefficient * FORCE_AU_IN_OPENMM * gradient


class TermCallback:
    """The function that a PythonForce calls.

    Parameters
    ----------
    computation : ComputesInOpenMMUnits
    key : str, optional
        Identifies the callback in this process.
    weight : Coefficient, optional
        Depends on parameters of the Context; the computation has no coefficient of its own then. While it is zero the
        term is not computed.

    Attributes
    ----------
    failure : BaseException or None
        The exception that ended the last call, if one did.
    evaluations : int
        How often the term was really computed.
    seconds : float
        Wall time of these evaluations together.
    """

    def __init__(
        self, computation: ComputesInOpenMMUnits, key: str | None = None, weight: Coefficient | None = None
    ) -> None:
        self.computation = computation
        self.weight = weight
        self.key = key or uuid.uuid4().hex
        self.failure: BaseException | None = None
        self.evaluations = 0
        self.seconds = 0.0
        self._lock = threading.Lock()
        # A barostat asks for the trial volume and, if it is refused, goes back to the geometry before.
        self._cached: deque[tuple[FloatArray, FloatArray, int | None, float, FloatArray]] = deque(maxlen=2)
        self._state: int | None = None
        _live[self.key] = self
        _hand_openmm_an_array()

    def __reduce__(self) -> tuple[object, ...]:
        return (_find_or_build, (self.key, self.computation, self.weight))

    def __call__(self, state: openmm.State) -> tuple[float, FloatArray]:
        """Return energy, kJ/mol, and forces, kJ/(mol nm), on all particles."""
        self.failure = None
        try:
            parameters = state.getParameters()
            factor = 1.0 if self.weight is None else self.weight.value(parameters)
            positions, box = _geometry(state)
            if factor == 0.0:
                return 0.0, np.zeros_like(positions)
            name = state_parameter(self.computation.name)
            chosen = round(parameters[name]) if name in parameters else None
            energy, forces = self.compute(positions, box, chosen)
            return (energy, forces) if factor == 1.0 else (factor * energy, factor * forces)
        except BaseException as error:
            self.failure = error
            # OpenMM keeps the text alone.
            step = state.getStepCount()
            error.add_note(f"raised in term {self.computation.name!r} at step {step} of the simulation")
            raise RuntimeError(f"{type(error).__name__} at step {step}: {error}") from error

    def energy(self, state: openmm.State, periodic: bool) -> float:
        """Return the energy of a geometry without the weight that depends on parameters, kJ/mol."""
        positions, box = _geometry(state)
        # A state from outside has the default box also where no force is periodic.
        return self.compute(positions, box if periodic else _NO_BOX)[0]

    def forget(self) -> None:
        """Compute the next geometry as if it were the first."""
        with self._lock:
            self._cached.clear()
            if isinstance(self.computation, EvaluatedTermInOpenMMUnits):
                self.computation.forget()

    def summary(self) -> dict[str, object]:
        """Return how often the term was computed, how long that took, and what its evaluator counted."""
        counted: dict[str, object] = {"evaluations": self.evaluations, "seconds": round(self.seconds, 3)}
        if isinstance(self.computation, EvaluatedTermInOpenMMUnits):
            counted |= self.computation.summary()
        return counted

    def memory(self) -> dict[str, FloatArray]:
        """Return what the term needs of the last geometry; nothing if it needs nothing."""
        if isinstance(self.computation, EvaluatedTermInOpenMMUnits):
            return self.computation.term.memory()
        return {}

    def recall(self, memory: dict[str, FloatArray]) -> None:
        """Go on from what the term's `memory` returned."""
        with self._lock:
            self._cached.clear()
            if isinstance(self.computation, EvaluatedTermInOpenMMUnits):
                self.computation.term.recall(memory)

    def compute(
        self, positions: FloatArray, box: FloatArray, electronic_state: int | None = None
    ) -> tuple[float, FloatArray]:
        """Return energy and forces without the weight, from the cache if the geometry is one of the last two.

        A state that is not None is selected, for later calls too.

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
            for old_positions, old_box, old_state, energy, forces in self._cached:
                same = old_state == self._state and np.array_equal(positions, old_positions)
                if same and np.array_equal(box, old_box):
                    return energy, forces.copy()
            wrong = np.flatnonzero(~np.isfinite(positions).all(axis=1))
            if len(wrong):
                raise NonFiniteError(
                    f"positions that are not numbers reached term {self.computation.name!r}, on atoms {listed(wrong)}; "
                    "the simulation was unstable before: use a smaller step or minimise first"
                )
            start = time.perf_counter()
            energy, forces = self.computation.compute_openmm(positions, box)
            self.seconds += time.perf_counter() - start
            self.evaluations += 1
            self._cached.append((positions, box, self._state, energy, forces))
            return energy, forces.copy()

    def _select(self, electronic_state: int) -> None:
        computation = self.computation
        assert isinstance(computation, EvaluatedTermInOpenMMUnits)
        if not 0 <= electronic_state < computation.selectable_states:
            raise EvaluationError(
                f"the parameter {state_parameter(computation.name)!r} of the Context is {electronic_state}, and there "
                f"are states 0 to {computation.selectable_states - 1}"
            )
        computation.term.select_state(electronic_state)
        self._state = electronic_state


def state_parameter(term: str) -> str:
    """Return the parameter of a Context that says which electronic state of a term has energy and forces."""
    return f"{term} state"


@functools.cache
def _hand_openmm_an_array() -> None:
    """Pass a NumPy array to OpenMM once.

    OpenMM before 8.6 reads the forces that a PythonForce returns through NumPy's C interface, but sets this up only
    when some other call hands it a sequence: without one, as in a run that starts from a checkpoint or a State, the
    process ends. Source: issue 5399 of openmm on GitHub.
    """
    system = openmm.System()
    system.addParticle(1.0)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(np.zeros((1, 3)))


def _geometry(state: openmm.State) -> tuple[FloatArray, FloatArray]:
    """Return positions and box vectors in nm."""
    positions = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    try:
        return positions, np.array(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer))
    except openmm.OpenMMException:
        return positions, _NO_BOX


def _find_or_build(key: str, computation: ComputesInOpenMMUnits, weight: Coefficient | None) -> TermCallback:
    return _live.get(key) or TermCallback(computation, key, weight)


def create_python_force(
    callback: TermCallback, periodic: bool, parameters: Mapping[str, float] | None = None
) -> openmm.PythonForce:
    """Return a PythonForce on all particles that calls `callback`.

    Parameters
    ----------
    callback : TermCallback
    periodic : bool
    parameters : mapping of str to float, optional
        First values of the global parameters that its weight depends on.

    Notes
    -----
    If the term has several electronic states, the force has a parameter more, named by `state_parameter`.
    """
    values = dict(parameters or {})
    computation = callback.computation
    if isinstance(computation, EvaluatedTermInOpenMMUnits) and computation.selectable_states > 1:
        values[state_parameter(computation.name)] = computation.first_state
    force = openmm.PythonForce(callback, values)
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force
