"""Any potential, embedded: its energy in a vacuum, and a response to the field of the surroundings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from qmmlmm.coupling.level_of_theory import LevelOfTheory
from qmmlmm.coupling.potential import (
    Capabilities,
    EvaluatedPotential,
    Evaluation,
    Evaluator,
    ExternalField,
    Memory,
    RegionSpecification,
)
from qmmlmm.embedding.module_evaluator import ModuleEvaluator
from qmmlmm.embedding.module_potential import ModuleInField, ResponsePotential
from qmmlmm.errors import PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.ml.fixed_response import FixedResponse
from qmmlmm.ml.general_response import GeneralResponse
from qmmlmm.ml.model_charges import ModelCharges
from qmmlmm.ml.response_model import ResponseModel
from qmmlmm.setting_checks import check_instance

Response = FixedResponse | ResponseModel | GeneralResponse | ModelCharges
"""What embeds a base."""


@dataclass(frozen=True)
class EmbeddedPotential(ResponsePotential):
    """A potential without surroundings, embedded by the response of its molecule to their field.

    Parameters
    ----------
    base : EvaluatedPotential
        Potential that is evaluated in a vacuum, such as `OpenMMMLPotential`, `MLPotential` or `XTBPotential`.
    response : FixedResponse, ResponseModel, GeneralResponse or ModelCharges
        Response of the same molecule, fitted or trained, one that knows many molecules, or the charges that the base
        predicts itself.

    Raises
    ------
    PotentialError
        If the base has no mechanical embedding, computes periodic images or is a difference, or is no module that may
        have charges with `ModelCharges`.

    Notes
    -----
    E(R, phi) = E_base(R) + E_response(R, phi). The interaction of the region with its own images in a box is that of
    the response. Forces are exact on every atom, in the precision of the base.
    """

    base: EvaluatedPotential
    response: Response

    def __post_init__(self) -> None:
        check_instance("base", self.base, EvaluatedPotential, error=PotentialError)  # type: ignore[type-abstract]
        if not isinstance(self.response, ModelCharges | ResponseModel | GeneralResponse):
            what = "an instance of FixedResponse, ResponseModel or GeneralResponse, or ModelCharges()"
            check_instance("response", self.response, FixedResponse, what, PotentialError)
        capabilities = self.base.capabilities
        if "mechanical" not in capabilities.embeddings:
            raise PotentialError(
                f"base: {self.base.method_name} has no energy without surroundings to which to add one"
            )
        if capabilities.long_range:
            raise PotentialError(
                f"base: {self.base.method_name} has long_range=True and computes periodic images, which are part of "
                "the embedding here; take long_range=False"
            )
        if self.base.difference is not None:
            raise PotentialError(f"base: it is the difference {self.base.difference} and no energy of a level")
        if isinstance(self.response, ModelCharges):
            self.response.check_base(self.base)

    @property
    def level(self) -> str:
        """The level of the base."""
        return self.base.level

    @property
    def method_name(self) -> str:
        """Name of the method."""
        return f"{self.base.method_name} with a response"

    @property
    def level_of_theory(self) -> LevelOfTheory:
        """That of the base with a hash of the response."""
        settings = {"base": self.base.level_of_theory.as_json(), "response": self.response.fingerprint()}
        return LevelOfTheory(self.method_name, settings)

    @property
    def capabilities(self) -> Capabilities:
        """Both embeddings, in the electronic state of the base."""
        embeddings = frozenset({"mechanical", "electrostatic"})
        return Capabilities(embeddings, state=self.base.capabilities.state, smeared_charges=True)

    def check(self, specification: RegionSpecification) -> None:
        """Raise PotentialError or RegionError if base or response cannot treat this region."""
        self.base.check(specification)
        if isinstance(self.response, ModelCharges):
            self.response.check(self.base, specification)
        elif isinstance(self.response, ResponseModel | GeneralResponse):
            self.response.check(specification, self.base.capabilities.state)
        else:
            self.response.check(specification)

    def create_evaluator(self, specification: RegionSpecification) -> Evaluator:
        """Return a fresh evaluator for one region.

        Raises
        ------
        PotentialError, RegionError
            As `check`.
        """
        self.check(specification)
        if isinstance(self.response, ModelCharges):
            return self.response.create_evaluator(self.base, specification)
        response = self._of_molecule(specification)
        evaluator = ModuleEvaluator(specification, response, self.base.capabilities.state)
        return EmbeddedEvaluator(self.base.create_evaluator(specification), evaluator)

    def module_in_field(self, specification: RegionSpecification) -> ModuleInField:
        """Return the response, or the base with its charges, see `ResponsePotential.module_in_field`."""
        if isinstance(self.response, ModelCharges):
            return ModuleInField(self.response.in_potential(self.base, specification), whole=True)
        response = self._of_molecule(specification)
        return ModuleInField(response.module() if isinstance(response, ResponseModel) else response, whole=False)

    def committee_in_field(self, specification: RegionSpecification) -> torch.jit.ScriptModule | None:
        """Return the members of a trained response; their spread is the error of the interaction, not of the base."""
        if isinstance(self.response, ModelCharges):
            return None
        response = self._of_molecule(specification)
        return response.module(each_member=True) if isinstance(response, ResponseModel) else None

    def _of_molecule(self, specification: RegionSpecification) -> FixedResponse | ResponseModel:
        """Return the response of one molecule."""
        assert not isinstance(self.response, ModelCharges)
        if isinstance(self.response, GeneralResponse):
            return self.response.of_molecule(specification.atomic_numbers)
        return self.response

    def __repr__(self) -> str:
        return f"EmbeddedPotential({self.base!r}, response={self.response.fingerprint()!r})"


class EmbeddedEvaluator(Evaluator):
    """Adds base and response; created by `EmbeddedPotential.create_evaluator`.

    Parameters
    ----------
    base : Evaluator
    response : Evaluator
    """

    def __init__(self, base: Evaluator, response: Evaluator) -> None:
        self._base, self._response = base, response

    def evaluate(self, geometry: Geometry, field: ExternalField | None) -> Evaluation:
        """Return energy and derivatives, see `qmmlmm.coupling.potential.Evaluator`."""
        alone = self._base.evaluate(geometry, None)
        if field is None:
            # Charges and dipole of the base are not those that its surroundings feel.
            return Evaluation(alone.energy, alone.gradient)
        response = self._response.evaluate(geometry, field)
        return replace(response, energy=alone.energy + response.energy, gradient=alone.gradient + response.gradient)

    def energy(self, geometry: Geometry, field: ExternalField | None) -> float:
        """Return only the energy, hartree."""
        alone = self._base.energy(geometry, None)
        return alone if field is None else alone + self._response.energy(geometry, field)

    def prepare(self) -> None:
        """Import what the base imports."""
        self._base.prepare()

    def forget(self) -> None:
        """Reset the base."""
        self._base.forget()

    def summary(self) -> dict[str, object]:
        """Return the counts of the base."""
        return self._base.summary()

    def memory(self) -> Memory:
        """Return the memory of the base."""
        return self._base.memory()

    def recall(self, memory: Memory) -> None:
        """Continue from the memory of the base."""
        self._base.recall(memory)
