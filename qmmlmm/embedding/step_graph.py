"""A static step that a CUDA device records once and replays.

A replay starts all kernels of a step by one call of the host, which then has nothing to do. It reads and writes the
same places in memory each time: positions are copied into place before it, and what depends on the box is in place.

It has not run on a GPU yet: the decisions in this module are tested with a recorder that records nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

Result = tuple[Tensor, Tensor, Tensor]

WARM_UP = 3
"""Steps before the recording, in which torch and cuFFT set up what they need only once."""


class GraphRecorder(ABC):
    """Records the operations of a function, for replays."""

    @abstractmethod
    def record(self, function: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Return the results of a function, and a call that computes them again in the same places in memory."""


class CudaRecorder(GraphRecorder):
    """Records into a CUDA graph."""

    def record(self, function: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Return results and replay, see `GraphRecorder.record`."""
        # As torch's documentation asks: a first run on another stream, and the recording after it.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = function()
        return result, graph.replay


class StepGraph:
    """Evaluates one static step by replays. A step of other shapes needs another one.

    Parameters
    ----------
    step : torch.nn.Module
        A `StaticStep` or `MechanicalStaticStep`, on its device, whose box was set.
    recorder : GraphRecorder
    """

    def __init__(self, step: torch.nn.Module, recorder: GraphRecorder) -> None:
        self._step = step
        self._recorder = recorder
        self._positions: Tensor | None = None
        self._result: Result | None = None
        self._replay: Callable[[], None] | None = None

    def __call__(self, positions: Tensor) -> Result:
        """Return what the step returns; the next call overwrites it.

        Parameters
        ----------
        positions : (n_particles, 3) float64 tensor, nm
        """
        if self._replay is None:
            self._positions = positions.clone()
            self._result, self._replay = self._recorder.record(self._run)
        assert self._positions is not None
        assert self._result is not None
        self._positions.copy_(positions)
        # Also after a recording, which on a device computes nothing.
        self._replay()
        return self._result

    def _run(self) -> Result:
        result: Result = self._step(self._positions)
        return result
