"""A term of a potential in a vacuum with a response to the field of its surroundings."""

from __future__ import annotations

import functools

import numpy as np
import torch

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.embedding import mesh_kernel
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.embedding.module_potential import ModuleInField, ResponsePotential
from qmmlmm.embedding.region_geometry import tensors_of
from qmmlmm.embedding.torch_errors import original_error
from qmmlmm.embedding.torch_term import EmbeddedTermModule, MeshPrecision
from qmmlmm.errors import NonFiniteError, QmmlmmError
from qmmlmm.geometry import Geometry
from qmmlmm.units import FloatArray


class ResponseTerm(EvaluatedTerm):
    """One term of the Hamiltonian: an `Evaluator` in a vacuum, and a torch module in the field.

    It has the same energy as `EvaluatedTerm`, whose evaluator gets the field as charges and a smooth part, and takes a
    fraction of its time: the module gets potential and field at its sites, as in `TorchTerm`. Labels are those of
    `EvaluatedTerm`.

    Parameters
    ----------
    layout : TermLayout
        Layout with surroundings.
    potential : ResponsePotential
    precision : {"double", "mixed"}
        Precision of the mesh.
    compiled : bool
        Whether the mesh that `qmmlmm compile` compiled is used, if it is there.
    """

    potential: ResponsePotential

    def __init__(
        self,
        layout: TermLayout,
        potential: ResponsePotential,
        precision: MeshPrecision = "double",
        compiled: bool = False,
    ) -> None:
        super().__init__(layout, potential)
        self._precision, self._compiled = precision, compiled

    def __reduce__(self) -> tuple[object, ...]:
        return (ResponseTerm, (self.layout, self.potential, self._precision, self._compiled))

    # Recording a network takes seconds, so that it waits for the first evaluation.
    @functools.cached_property
    def _part(self) -> ModuleInField:
        return self.potential.module_in_field(self.layout.specification)

    @functools.cached_property
    def _in_field(self) -> EmbeddedTermModule:
        compiled = self._compiled and self.layout.periodic and not mesh_kernel.unavailable_because()
        state = self.potential.capabilities.state
        return EmbeddedTermModule(self.layout, self._part.module, self._precision, state, compiled)

    def compute(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return energy, kJ/mol, and forces, kJ/(mol nm), see `RegionTerm.compute`."""
        try:
            with torch.enable_grad():
                energy, forces = self._in_field(*tensors_of(geometry))
        except QmmlmmError:
            raise
        except (RuntimeError, torch.jit.Error) as error:
            raise original_error(f"term {self.name!r}", str(error)) from error
        result = float(energy.detach()), np.asarray(forces.detach().numpy(), dtype=float)
        return result if self._part.whole else self._with_base(geometry, *result)

    def _with_base(self, geometry: Geometry, energy: float, forces: FloatArray) -> tuple[float, FloatArray]:
        """Return energy and forces with those without surroundings."""
        module, bohr = self._in_field, geometry.in_bohr()
        alone, gradient = self._collected(self._evaluator.evaluate(self.region_geometry(bohr), None), bohr, None)
        if not np.isfinite(alone) or not np.isfinite(gradient).all():
            raise NonFiniteError(f"term {self.name!r}: the base has an energy or forces that are not numbers")
        return energy + module.energy_unit * alone, forces + module.force_unit * gradient
