"""An embedded learned term on an accelerator, by steps that are always the same operations."""

from __future__ import annotations

import copy
import functools
from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import EvaluatedPotential, Evaluation, RegionSpecification
from qmmlmm.embedding.committee import CommitteeSpread
from qmmlmm.embedding.interaction import RegionInteraction
from qmmlmm.embedding.region_geometry import RegionGeometry, tensors_of
from qmmlmm.embedding.region_term import RegionTerm
from qmmlmm.embedding.static_field import Capacity
from qmmlmm.embedding.static_step import StaticModel, StaticStep
from qmmlmm.embedding.torch_errors import check_positions
from qmmlmm.embedding.torch_term import MeshPrecision, TorchTerm
from qmmlmm.errors import EvaluationError, NonFiniteError
from qmmlmm.geometry import Geometry
from qmmlmm.units import FloatArray

N_STATUS = 6
"""Numbers of the status of `StaticStep`."""

ATTEMPTS = 5
"""Evaluations of one geometry until all capacities are large enough: sources and boxes, then charges, and some more."""


class StaticPotential(EvaluatedPotential):
    """A potential with a model for static steps."""

    @property
    @abstractmethod
    def module(self) -> torch.jit.ScriptModule:
        """The model as TorchScript."""

    @abstractmethod
    def create_static_model(self, specification: RegionSpecification) -> StaticModel:
        """Return the model of one region for static steps."""


def default_device() -> torch.device:
    """Return the first CUDA device, or the CPU without one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class StaticTerm(RegionTerm):
    """An embedded term as `qmmlmm.embedding.torch_term.TorchTerm`, whose steps never wait for the host.

    It has been tested on the CPU, where it is slower, and not yet on a GPU.

    Parameters
    ----------
    layout : TermLayout
        Layout with surroundings.
    potential : StaticPotential
    precision : {"double", "mixed"}
    device : torch.device, optional
        By default `default_device`.

    Notes
    -----
    The capacity of the arrays grows when a geometry needs more and is evaluated again. The same geometry then has the
    same energy but for round-off.
    """

    potential: StaticPotential

    def __init__(
        self,
        layout: TermLayout,
        potential: StaticPotential,
        precision: MeshPrecision = "double",
        device: torch.device | None = None,
    ) -> None:
        super().__init__(layout, potential)
        self.capacity = Capacity()
        self._precision: MeshPrecision = precision
        self._device = device
        self._step: StaticStep | None = None
        self._box: FloatArray | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (StaticTerm, (self.layout, self.potential, self._precision, self._device))

    @functools.cached_property
    def _model(self) -> StaticModel:
        return self.potential.create_static_model(self.layout.specification)

    @functools.cached_property
    def ordinary(self) -> TorchTerm:
        """The same term on the CPU, for what is not a step."""
        return TorchTerm(self.layout, self.potential, self.potential.module, self._precision)

    def compute(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return energy, kJ/mol, and forces, kJ/(mol nm), see `RegionTerm.compute`."""
        positions, box = tensors_of(geometry)
        check_positions(positions, self.name)
        if self.layout.periodic and box is None:
            raise EvaluationError(f"term {self.name!r}: a term of a periodic System was given no box")
        for _ in range(ATTEMPTS):
            energy, forces, status = self._evaluate(positions, geometry.box)
            if status[5] >= 1.0:
                # Raises the error, which names two atoms.
                RegionGeometry(self.layout).sites(*tensors_of(geometry.in_bohr()))
            capacity = self.capacity.for_numbers(
                int(status[0]), int(status[1]), (int(status[2]), int(status[3]), int(status[4]))
            )
            if capacity == self.capacity:
                break
            self.capacity, self._step = capacity, None
        else:
            raise EvaluationError(f"term {self.name!r}: no capacity was large enough for the charges near the region")
        if not np.isfinite(energy + forces.sum()):
            raise NonFiniteError(f"term {self.name!r} has an energy or forces that are not numbers")
        return energy, forces

    def _evaluate(self, positions: Tensor, box: FloatArray | None) -> tuple[float, FloatArray, FloatArray]:
        """Return energy, forces and status of one step."""
        device = self._device or default_device()
        if self._step is None:
            mesh_dtype = torch.float32 if self._precision == "mixed" else torch.float64
            # A copy: the move to a device would take the weights of the potential along.
            model = copy.deepcopy(self._model)
            self._step = StaticStep(self.layout, model, self.capacity, mesh_dtype).eval().to(device)
            self._box = None
        if box is not None and self.layout.periodic and (self._box is None or not np.array_equal(box, self._box)):
            self._step.set_box(torch.from_numpy(box).to(device))
            self._box = box.copy()
        energy, forces, status = self._step(positions.to(device))
        # One copy to the host, which waits once.
        found = torch.cat([energy.reshape(1), status, forces.reshape(-1)]).cpu().numpy()
        return float(found[0]), found[1 + N_STATUS :].reshape(-1, 3).copy(), found[1 : 1 + N_STATUS]

    def committee(self) -> CommitteeSpread:
        """Return the spread of a committee's members, see `RegionTerm.committee`."""
        return self.ordinary.committee()

    def interaction(self, geometry: Geometry, evaluation: Evaluation | None = None) -> RegionInteraction:
        """Return the interaction of the region with its surroundings, see `RegionTerm.interaction`."""
        return self.ordinary.interaction(geometry, evaluation)
