"""A learned term on an accelerator, by steps that are always the same operations."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import Evaluation
from qmmlmm.embedding.committee import CommitteeSpread
from qmmlmm.embedding.interaction import RegionInteraction
from qmmlmm.embedding.module_potential import ModulePotential
from qmmlmm.embedding.region_geometry import RegionGeometry, tensors_of
from qmmlmm.embedding.region_term import RegionTerm
from qmmlmm.embedding.static_field import Capacity
from qmmlmm.embedding.static_step import AnyStaticStep, MechanicalStaticStep, StaticModel, StaticStep
from qmmlmm.embedding.step_graph import CudaRecorder, GraphRecorder, StepGraph
from qmmlmm.embedding.torch_errors import check_positions
from qmmlmm.embedding.torch_term import MeshPrecision, TorchTerm
from qmmlmm.errors import EvaluationError, NonFiniteError
from qmmlmm.geometry import Geometry
from qmmlmm.units import FloatArray

N_STATUS = 6
"""Numbers of the status of `StaticStep`."""

ATTEMPTS = 5
"""Evaluations of one geometry until all capacities are large enough: sources and boxes, then charges, and some more."""


def default_device() -> torch.device:
    """Return the first CUDA device, or the CPU without one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class StaticTerm(RegionTerm):
    """A term as `qmmlmm.embedding.torch_term.TorchTerm`, whose steps never wait for the host.

    It has been tested on the CPU, where it is slower, and not yet on a GPU.

    Parameters
    ----------
    layout : TermLayout
    potential : ModulePotential
    precision : {"double", "mixed"}
    device : torch.device, optional
        By default `default_device`.
    graph : bool
        Whether the device records a step and replays it, see `qmmlmm.embedding.step_graph`.
    compiled : bool
        Whether operations that `qmmlmm compile` compiled for the device are used, if they are there.

    Notes
    -----
    The capacity of the arrays grows when a geometry needs more and is evaluated again, and a graph is recorded again.
    The same geometry then has the same energy but for round-off.
    """

    potential: ModulePotential

    def __init__(
        self,
        layout: TermLayout,
        potential: ModulePotential,
        precision: MeshPrecision = "double",
        device: torch.device | None = None,
        *,
        graph: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__(layout, potential)
        self.capacity = Capacity()
        self.graph = graph
        self.compiled = compiled
        self._precision: MeshPrecision = precision
        self._device = device
        self._step: AnyStaticStep | None = None
        self._evaluate_step: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]] | None = None
        self._box: FloatArray | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (
            _restore_static,
            (self.layout, self.potential, self._precision, self._device, self.graph, self.compiled),
        )

    @functools.cached_property
    def _model(self) -> StaticModel:
        compiled_for = (self._device or default_device()).type if self.compiled else None
        return self.potential.create_static_model(self.layout.specification, self._surrounded, compiled_for)

    @property
    def _surrounded(self) -> bool:
        return self.layout.surroundings is not None

    @functools.cached_property
    def recorder(self) -> GraphRecorder:
        """What records a graph."""
        return CudaRecorder()

    @functools.cached_property
    def ordinary(self) -> TorchTerm:
        """The same term on the CPU, for what is not a step."""
        return TorchTerm(self.layout, self.potential, precision=self._precision, compiled=self.compiled)

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
            self._step = self._new_step().eval().to(device)
            self._evaluate_step = StepGraph(self._step, self._graph_recorder(device)) if self.graph else self._step
            self._box = None
        assert self._evaluate_step is not None
        if box is not None and self.layout.periodic and (self._box is None or not np.array_equal(box, self._box)):
            self._step.set_box(torch.from_numpy(box).to(device))
            self._box = box.copy()
        energy, forces, status = self._evaluate_step(positions.to(device))
        # One copy to the host, which waits once.
        found = torch.cat([energy.reshape(1), status, forces.reshape(-1)]).cpu().numpy()
        return float(found[0]), found[1 + N_STATUS :].reshape(-1, 3).copy(), found[1 : 1 + N_STATUS]

    def _new_step(self) -> AnyStaticStep:
        # A copy: the move to a device would take the weights of the potential along.
        model = copy.deepcopy(self._model)
        if not self._surrounded:
            return MechanicalStaticStep(self.layout, model)
        mesh_dtype = torch.float32 if self._precision == "mixed" else torch.float64
        return StaticStep(self.layout, model, self.capacity, mesh_dtype)

    def _graph_recorder(self, device: torch.device) -> GraphRecorder:
        """Return the recorder; without a CUDA device there is none, and nothing takes its place."""
        if isinstance(self.recorder, CudaRecorder) and device.type != "cuda":
            raise EvaluationError(
                f"term {self.name!r} was made with ml_step='graph', which needs a CUDA device, and runs on {device}; "
                "make the System again with ml_step='static' or without it"
            )
        return self.recorder

    def committee(self) -> CommitteeSpread:
        """Return the spread of a committee's members, see `RegionTerm.committee`."""
        return self.ordinary.committee()

    def interaction(self, geometry: Geometry, evaluation: Evaluation | None = None) -> RegionInteraction:
        """Return the interaction of the region with its surroundings, see `RegionTerm.interaction`."""
        return self.ordinary.interaction(geometry, evaluation)


def _restore_static(
    layout: TermLayout,
    potential: ModulePotential,
    precision: MeshPrecision,
    device: torch.device | None,
    graph: bool = False,
    compiled: bool = False,
) -> StaticTerm:
    return StaticTerm(layout, potential, precision, device, graph=graph, compiled=compiled)
