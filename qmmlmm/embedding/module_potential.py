"""What a term needs of a potential that is a torch module, or has a part that is one."""

from __future__ import annotations

from abc import abstractmethod

import torch

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


class CommitteeInField(EvaluatedPotential):
    """A potential in Python whose energy in a field may be that of a committee of torch modules."""

    @abstractmethod
    def committee_in_field(self, specification: RegionSpecification) -> torch.jit.ScriptModule | None:
        """Return the module with the energies of the members in a field; None if there is no such part.

        Parameters
        ----------
        specification : RegionSpecification
        """
