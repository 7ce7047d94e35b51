"""Models of openmm-ml, evaluated by the functions that they give to OpenMM, without a Context."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import openmm
import torch
from openmm import unit
from torch import Tensor

from qmmlmm.coupling.potential import Evaluation, Evaluator, ExternalField
from qmmlmm.errors import EvaluationError
from qmmlmm.geometry import Geometry
from qmmlmm.units import BOHR_IN_NM, FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, FloatArray

ENERGY_UNIT = unit.kilojoule_per_mole
FORCE_UNIT = unit.kilojoule_per_mole / unit.nanometer

_patching = threading.RLock()


class RegionState:
    """Positions of a region in the form of an `openmm.State`, for functions that a PythonForce calls.

    It has what OpenMM documents for such functions: positions, box vectors, parameters, and time and steps, both zero.

    Parameters
    ----------
    geometry : Geometry, nm
    parameters : mapping of str to float
    """

    def __init__(self, geometry: Geometry, parameters: Mapping[str, float]) -> None:
        self._geometry, self._parameters = geometry, parameters

    def getPositions(self, asNumpy: bool = False) -> unit.Quantity:
        """Return the positions, (n, 3) nm."""
        return _quantity(self._geometry.positions, asNumpy)

    def getPeriodicBoxVectors(self, asNumpy: bool = False) -> unit.Quantity:
        """Return the box vectors, (3, 3) nm; those of OpenMM's default box without one."""
        box = 2.0 * np.eye(3) if self._geometry.box is None else self._geometry.box
        return _quantity(box, asNumpy)

    def getPeriodicBoxVolume(self) -> unit.Quantity:
        """Return the volume of the box, nm^3."""
        box = self.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        return float(np.linalg.det(box)) * unit.nanometer**3

    def getParameters(self) -> dict[str, float]:
        """Return the global parameters of the force, at their defaults."""
        return dict(self._parameters)

    def getTime(self) -> unit.Quantity:
        """Return a time of zero, ps."""
        return 0.0 * unit.picosecond

    def getStepCount(self) -> int:
        """Return zero."""
        return 0


def _quantity(vectors: FloatArray, as_numpy: bool) -> unit.Quantity:
    """Return a copy of vectors in nm, as an OpenMM State does."""
    return (vectors.copy() if as_numpy else [openmm.Vec3(*map(float, vector)) for vector in vectors]) * unit.nanometer


Function: TypeAlias = Callable[[RegionState], tuple[object, object]]
"""Function of a State that returns energy, kJ/mol, and forces, (n, 3) kJ/(mol nm)."""


@dataclass
class CreatedFunctions:
    """Functions of the PythonForces that were created.

    Parameters
    ----------
    functions : list of callable
    on_all : bool
        Whether each of them gets all particles.
    """

    functions: list[Function] = field(default_factory=list)
    on_all: bool = True


@contextlib.contextmanager
def created_functions() -> Iterator[CreatedFunctions]:
    """Keep the functions of PythonForces that this thread creates inside the block: OpenMM does not return them.

    Its attribute for a pickle of the function would give copies of the models, and of calculators that users hold.
    Other threads create PythonForces as always.
    """
    kept, thread = CreatedFunctions(), threading.get_ident()

    with _patching:
        original = openmm.PythonForce

        class PythonForce(original):  # type: ignore[misc, valid-type]
            def __init__(self, computation: Function, *parameters: object) -> None:
                super().__init__(computation, *parameters)
                if threading.get_ident() == thread:
                    kept.functions.append(computation)

            def setParticles(self, particles: object) -> None:
                super().setParticles(particles)
                if threading.get_ident() == thread:
                    kept.on_all = False

        openmm.PythonForce = PythonForce
        try:
            yield kept
        finally:
            openmm.PythonForce = original


def functions_of(system: openmm.System, created: CreatedFunctions) -> tuple[list[Function], dict[str, float]] | None:
    """Return functions that together are the energy of a System, with the values of their parameters.

    Parameters
    ----------
    system : openmm.System
    created : CreatedFunctions
        Functions of the PythonForces that were created with the System.

    Returns
    -------
    functions : list of callable
    parameters : dict of str to float
        None instead of both if a force is neither a PythonForce of these on all particles nor a TorchForce.
    """
    functions, parameters, in_python = list(created.functions), dict[str, float](), 0
    for force in system.getForces():
        if isinstance(force, openmm.PythonForce):
            in_python += 1
            parameters |= dict(force.getGlobalParameters())
            continue
        found = _torch_function(force)
        if found is None:
            return None
        functions.append(found[0])
        parameters |= found[1]
    if not functions or not created.on_all or in_python != len(created.functions):
        return None
    return functions, parameters


def _torch_function(force: openmm.Force) -> tuple[Function, dict[str, float]] | None:
    """Return the module of a TorchForce as a function, with the values of its parameters; None for another force."""
    # Whoever made a TorchForce has imported its package.
    package = sys.modules.get("openmmtorch")
    if package is None or not package.TorchForce.isinstance(force):
        return None
    torch_force = package.TorchForce.cast(force)
    count = range(torch_force.getNumGlobalParameters())
    parameters = {
        torch_force.getGlobalParameterName(k): float(torch_force.getGlobalParameterDefaultValue(k)) for k in count
    }
    periodic, with_forces = torch_force.usesPeriodicBoundaryConditions(), torch_force.getOutputsForces()
    module = torch_force.getModule()

    def evaluate(state: RegionState) -> tuple[object, object]:
        positions = torch.tensor(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer), requires_grad=True)
        arguments = [positions]
        if periodic:
            box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
            arguments.append(torch.tensor(box))
        values = state.getParameters()
        arguments += [torch.tensor(values[name]) for name in parameters]
        with torch.enable_grad():
            result = module(*arguments)
            if with_forces:
                return result
            (gradient,) = torch.autograd.grad(result.sum(), positions)
        return result, -gradient

    return evaluate, parameters


class FunctionEvaluator(Evaluator):
    """Computes a region by the functions of its model.

    Parameters
    ----------
    name : str
        Name of the term, for messages.
    functions : list of callable
        Functions whose sum is the energy.
    parameters : mapping of str to float
        Values of their global parameters.
    """

    def __init__(self, name: str, functions: list[Function], parameters: Mapping[str, float]) -> None:
        self._name, self._functions, self._parameters = name, functions, parameters

    def evaluate(self, geometry: Geometry, field: ExternalField | None) -> Evaluation:
        """Return energy and derivatives, see `qmmlmm.coupling.potential.Evaluator`."""
        box = None if geometry.box is None else geometry.box * BOHR_IN_NM
        state = RegionState(Geometry(geometry.positions * BOHR_IN_NM, box), self._parameters)
        total, total_forces = 0.0, np.zeros_like(geometry.positions)
        for function in self._functions:
            energy, forces = self._call(function, state)
            if forces.shape != total_forces.shape:
                raise EvaluationError(
                    f"term {self._name!r}: the model returns forces of the shape {forces.shape}, and the region has "
                    f"{len(total_forces)} atoms with its link atoms"
                )
            total, total_forces = total + energy, total_forces + forces
        return Evaluation(total / HARTREE_IN_KJ_PER_MOL, -total_forces / FORCE_AU_IN_OPENMM)

    def _call(self, function: Function, state: RegionState) -> tuple[float, FloatArray]:
        try:
            energy, forces = function(state)
            return float(_array(energy, ENERGY_UNIT).item()), _array(forces, FORCE_UNIT)
        # What a model raises, nobody knows.
        except Exception as error:
            raise EvaluationError(
                f"term {self._name!r}: the model of openmm-ml failed: {type(error).__name__}: {error}"
            ) from error


def _array(value: object, kind: unit.Unit) -> FloatArray:
    """Return a result as an array; it may be a Quantity or a tensor."""
    if isinstance(value, unit.Quantity):
        value = value.value_in_unit(kind)
    return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.float64)
