"""What a term needs of a potential that is a torch module, or has a part that is one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qmmlmm.coupling.potential import EvaluatedPotential, RegionSpecification
from qmmlmm.embedding.static_step import StaticModel


class ModulePotential(EvaluatedPotential):
    """A potential that is a torch module and, for some, a model for static steps."""

    @property
    @abstractmethod
    def module(self) -> torch.jit.ScriptModule:
        """The model as TorchScript, for any inputs."""

    @property
    @abstractmethod
    def runs_in_python(self) -> bool:
        """Whether the model calls Python, so that TorchForce cannot run it."""

    @abstractmethod
    def term_module(
        self, surrounded: bool, *, each_member: bool = False, compiled: bool = False
    ) -> torch.jit.ScriptModule:
        """Return the model as TorchScript, for the inputs of one term.

        Parameters
        ----------
        surrounded : bool
            Whether it is given a potential and a field.
        each_member : bool
            Whether derivatives of each ``member_energies`` are asked for, too.
        compiled : bool
            Whether compiled operations are used where they are. Such a module calls Python.
        """

    @abstractmethod
    def not_compiled_because(self, surrounded: bool) -> str:
        """Return the reason why the model has no compiled operations, or an empty text if it has."""

    @abstractmethod
    def create_static_model(
        self, specification: RegionSpecification, surrounded: bool = True, compiled_for: str | None = None
    ) -> StaticModel:
        """Return the model of one region for static steps.

        Parameters
        ----------
        specification : RegionSpecification
        surrounded : bool
            Whether it is given a potential and a field.
        compiled_for : {"cpu", "cuda"}, optional
            Kind of device whose compiled operations are used if they are there; by default none are.
        """


@dataclass(frozen=True)
class ModuleInField:
    """The part of a potential that feels the field.

    Parameters
    ----------
    module : callable
        Function of inputs that autograd differentiates, in the form ``forward(inputs)`` of `qmmlmm.ml.MLPotential`.
    whole : bool
        Whether its energy is the whole one; otherwise the energy without surroundings is added.
    """

    module: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
    whole: bool


class ResponsePotential(EvaluatedPotential):
    """A potential in Python whose energy in a field is that of a torch module, or has one in it."""

    @abstractmethod
    def module_in_field(self, specification: RegionSpecification) -> ModuleInField:
        """Return the module for one region, which has passed `check`."""

    @abstractmethod
    def committee_in_field(self, specification: RegionSpecification) -> torch.jit.ScriptModule | None:
        """Return the module with the energies of the members in a field; None if there is no such part.

        Parameters
        ----------
        specification : RegionSpecification
        """
