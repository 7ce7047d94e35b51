"""Potentials whose model predicts charges of the atoms beside the energy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

from qmmlmm.coupling.potential import EvaluatedPotential

Module: TypeAlias = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
"""Function of inputs that autograd differentiates, in the form ``forward(inputs)`` of `qmmlmm.ml.MLPotential`."""


class ChargedModel(EvaluatedPotential):
    """A potential in a vacuum whose charges `ModelCharges` puts into the potential of the surroundings."""

    @abstractmethod
    def charged_module(self) -> Module:
        """Return the model: its result has ``energy`` (), hartree, and ``charges`` (n,), e."""
