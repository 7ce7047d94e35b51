"""The charges that a model predicts beside its energy, in the potential of the surroundings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qmmlmm.coupling.potential import EvaluatedPotential, RegionSpecification
from qmmlmm.embedding.model_inputs import ModelInputs
from qmmlmm.embedding.module_evaluator import ModuleEvaluator
from qmmlmm.errors import EvaluationError, PotentialError
from qmmlmm.ml.charged_model import ChargedModel, Module
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.ml.module_trial import trial_sites

CHARGE_ERROR = 1e-4
"""Largest difference between the sum of the charges and the charge of the region, e. A model in single precision stays
below it."""

SURROUNDINGS = frozenset({"potential", "field", "near_positions", "near_charges"})
"""Inputs that a model in a vacuum does not get."""


@dataclass(frozen=True)
class ModelCharges:
    """The response of a model by the charges that it predicts itself.

    The base of the `EmbeddedPotential` is a pretrained model with charges, such as `SO3LRPotential` or
    `aimnet2_potential`, or an `MLPotential` whose module has the form ``forward(inputs)`` and returns ``charges`` (n,)
    e beside ``energy``. They add up to the charge of the region.

    Notes
    -----
    E = E_base(R) + sum_i q_i(R) phi_i, with one evaluation of the model. Autograd differentiates the charges, so that
    forces are exact: dE/dR = dE_base/dR + sum_i (phi_i dq_i/dR + q_i grad phi_i). There is no polarisation.
    """

    def fingerprint(self) -> str:
        """Return the name of this kind of response, which has no numbers of its own."""
        return "charges of the model"

    def check_base(self, base: EvaluatedPotential) -> ChargedModel | MLPotential:
        """Return the base if it is a model that may return charges.

        Raises
        ------
        PotentialError
            If it is another potential, or a network of qmmlmm, which has a response of its own.
        """
        if isinstance(base, ChargedModel) or (isinstance(base, MLPotential) and base.network is None):
            return base
        raise PotentialError(
            f"base: ModelCharges() uses the charges that a module returns beside its energy, and {base!r:.100} has "
            "none; give SO3LRPotential or aimnet2_potential, or MLPotential(module, ...) with forward(inputs) -> "
            "{'energy': ..., 'charges': ...}, or fit a FixedResponse"
        )

    def check(self, base: EvaluatedPotential, specification: RegionSpecification) -> None:
        """Raise PotentialError if the model returns no charges of this region. It is called once."""
        where = f"term {specification.name!r}"
        module, state = self._module(base)
        try:
            inputs = ModelInputs(specification, state)(trial_sites(specification))
            charges = module(inputs).get("charges")
        except Exception:  # noqa: BLE001  (a module may be made for other geometries; its first evaluation shows)
            return
        if charges is None:
            raise PotentialError(
                f'{where}: the model returns no "charges", which ModelCharges() needs; forward(inputs) returns a '
                "Dict[str, Tensor] with them"
            )
        fault = _fault(charges, specification)
        if fault:
            raise PotentialError(f"{where}: {fault}")

    def create_evaluator(self, base: EvaluatedPotential, specification: RegionSpecification) -> ModuleEvaluator:
        """Return an evaluator of base and charges for one region."""
        state = self._module(base)[1]
        return ModuleEvaluator(specification, self.in_potential(base, specification), state)

    def in_potential(self, base: EvaluatedPotential, specification: RegionSpecification) -> Module:
        """Return a module with the energy of base and charges, for one region."""
        return _InPotential(self._module(base)[0], specification)

    def _module(self, base: EvaluatedPotential) -> tuple[Module, int]:
        """Return the model of the base, and its electronic state."""
        model = self.check_base(base)
        return (model.charged_module(), 0) if isinstance(model, ChargedModel) else (model.module, model.state)


class _InPotential:
    """Energy of a model and of its charges in the potential, in the form of a module."""

    def __init__(self, module: Module, specification: RegionSpecification) -> None:
        self._module, self._specification = module, specification

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        result = self._module({name: tensor for name, tensor in inputs.items() if name not in SURROUNDINGS})
        energy = result["energy"].sum()
        if "potential" not in inputs:
            return {"energy": energy}
        where = f"term {self._specification.name!r}"
        if "charges" not in result:
            raise EvaluationError(f'{where}: the model returns no "charges"')
        charges = result["charges"]
        fault = _fault(charges, self._specification)
        if fault:
            raise EvaluationError(f"{where}: {fault}")
        return {"energy": energy + (charges * inputs["potential"]).sum()}


def _fault(charges: Tensor, specification: RegionSpecification) -> str:
    """Return what is wrong with charges, or an empty text; that they are no numbers shows in the energy."""
    n = len(specification.atomic_numbers)
    if charges.shape != (n,):
        return f"the model returns charges of the shape {tuple(charges.shape)}; there is one for each of {n} atoms"
    total = float(charges.detach().to(torch.float64).sum())
    if abs(total - specification.charge) > CHARGE_ERROR:
        return (
            f"the charges of the model add up to {total:.5f} e, and the region has the charge {specification.charge}; "
            "distribute the rest in the module, or change the charge of the Region"
        )
    return ""
