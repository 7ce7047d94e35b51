"""A term whose potential is a torch module: energy and forces on all particles from their positions."""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import functools
import io
import logging
from collections.abc import Callable, Mapping
from typing import Dict, Literal, Tuple  # noqa: UP035  (TorchScript reads these)

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import Evaluation
from qmmlmm.embedding import mesh_kernel
from qmmlmm.embedding.chain_rule import site_gradient
from qmmlmm.embedding.committee import CommitteeSpread
from qmmlmm.embedding.interaction import RegionInteraction
from qmmlmm.embedding.model_inputs import ModelInputs
from qmmlmm.embedding.module_potential import ModulePotential
from qmmlmm.embedding.region_geometry import RegionGeometry, tensors_of
from qmmlmm.embedding.region_term import RegionTerm
from qmmlmm.embedding.surroundings_field import SurroundingsField
from qmmlmm.embedding.torch_errors import check_positions, original_error, raise_error
from qmmlmm.geometry import Geometry
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR, FloatArray

NOT_ASKED = "not asked for: ml_compiled=False, or ml_backend='torchforce', which calls nothing compiled"
"""Why nothing of a term is compiled, if it was made so."""

_log = logging.getLogger(__name__)

MeshPrecision = Literal["double", "mixed"]
"""Precision of a term with electrostatic embedding: "mixed" is single precision on the mesh and double elsewhere."""

Model = torch.jit.ScriptModule | Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


class _TermModule(torch.nn.Module):
    """Model, inputs about the region and units of the result, for both kinds of term."""

    def __init__(self, layout: TermLayout, model: Model, state: int) -> None:
        super().__init__()
        self.model = model
        self.inputs = ModelInputs(layout.specification, state)
        self.name = layout.specification.name
        self.nm_in_bohr = NM_IN_BOHR
        self.energy_unit = layout.coefficient * HARTREE_IN_KJ_PER_MOL
        self.force_unit = -layout.coefficient * FORCE_AU_IN_OPENMM


class MechanicalTermModule(_TermModule):
    """A model of a region without surroundings, in the form that `openmmtorch.TorchForce` calls.

    Parameters
    ----------
    layout : TermLayout
    model : torch.jit.ScriptModule
        Model that follows the contract of `qmmlmm.ml.MLPotential`.
    state : int
        Electronic state.
    """

    def __init__(self, layout: TermLayout, model: torch.jit.ScriptModule, state: int = 0) -> None:
        super().__init__(layout, model, state)
        self.geometry = RegionGeometry(layout)

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return energy and forces in OpenMM's units.

        Parameters
        ----------
        positions : (n_particles, 3) tensor, nm
        box : (3, 3) tensor or None, nm

        Returns
        -------
        energy : () tensor, kJ/mol
        forces : (n_particles, 3) tensor, kJ/(mol nm)
        """
        # TorchForce passes positions that require a gradient, and freezes the module, which drops detach().
        check_positions(positions, self.name)
        with torch.no_grad():
            all_positions = positions.to(torch.float64) * self.nm_in_bohr
            vectors = box
            if vectors is not None:
                vectors = vectors.to(torch.float64) * self.nm_in_bohr
            sites = self.geometry.sites(all_positions, vectors).clone()
        sites = sites.requires_grad_(True)
        energy = self.model(self.inputs(sites))["energy"].sum()
        # "holding the GIL" here: give create_mixed_system ml_backend="pythonforce", or minimise without a reporter.
        gradient = torch.autograd.grad([energy], [sites])[0]
        if gradient is None:
            gradient = torch.zeros_like(sites)
        with torch.no_grad():
            nothing = torch.zeros((0, 3), dtype=torch.float64, device=sites.device)
            total = self.geometry.collect(gradient.to(torch.float64), nothing, all_positions, vectors)
            energy = energy.to(torch.float64) * self.energy_unit
            forces = total * self.force_unit
        if not bool(torch.isfinite(energy + forces.sum())):
            raise_error("NonFiniteError", "term '" + self.name + "' has an energy or forces that are not numbers")
        return energy, forces


class EmbeddedTermModule(_TermModule):
    """A model of a region in the field of its surroundings, in the form that `openmmtorch.TorchForce` calls.

    Parameters
    ----------
    layout : TermLayout
        Layout with surroundings.
    model : torch.jit.ScriptModule or callable
        Model that follows the contract of `qmmlmm.ml.MLPotential`. Any other callable than TorchScript is for calls
        from Python.
    precision : {"double", "mixed"}
    state : int
        Electronic state.
    compiled_mesh : bool
        Whether the mesh is that of `qmmlmm.embedding.mesh_kernel`; TorchForce cannot call it.

    Notes
    -----
    The model is differentiated with respect to positions, potential and field of its sites, and to the positions of
    near charges if it uses them. The adjoint of the field gives the forces on the surroundings, see
    `SurroundingsField`; the model's derivatives for near charges are added.
    """

    def __init__(
        self,
        layout: TermLayout,
        model: Model,
        precision: MeshPrecision = "double",
        state: int = 0,
        compiled_mesh: bool = False,
    ) -> None:
        super().__init__(layout, model, state)
        mesh_dtype = torch.float32 if precision == "mixed" else torch.float64
        self.field = SurroundingsField(layout, mesh_dtype, compiled=compiled_mesh)

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return energy and forces in OpenMM's units, as `MechanicalTermModule.forward`."""
        # As in MechanicalTermModule: the leaves of the model's graph are clones made without a graph.
        check_positions(positions, self.name)
        with torch.no_grad():
            all_positions = positions.to(torch.float64) * self.nm_in_bohr
            vectors = box
            if vectors is not None:
                vectors = vectors.to(torch.float64) * self.nm_in_bohr
            prepared = self.field.prepare(all_positions, vectors)
            surroundings = self.field.potential(prepared)
            sites = prepared.sites.clone()
            potential = surroundings.value.clone()
            field = -surroundings.gradient
            near = prepared.near_positions.clone()
        sites = sites.requires_grad_(True)
        potential = potential.requires_grad_(True)
        field = field.requires_grad_(True)
        near = near.requires_grad_(True)
        inputs: Dict[str, Tensor] = self.inputs(sites)  # noqa: UP006
        inputs["potential"] = potential
        inputs["field"] = field
        inputs["near_positions"] = near
        inputs["near_charges"] = prepared.near_charges
        energy = self.model(inputs)["energy"].sum()
        # "holding the GIL" here: give create_mixed_system ml_backend="pythonforce", or minimise without a reporter.
        gradients = torch.autograd.grad([energy], [sites, potential, field, near], allow_unused=True)
        explicit = torch.zeros_like(sites)
        charges = torch.zeros_like(potential)
        dipoles = torch.zeros_like(field)
        by_position, by_potential, by_field, by_near = gradients[0], gradients[1], gradients[2], gradients[3]
        if by_position is not None:
            explicit = by_position
        if by_potential is not None:
            charges = by_potential
        if by_field is not None:
            dipoles = -by_field
        with torch.no_grad():
            once, once_sites, once_sources = self.field.reference_energy(prepared)
            on_sites = once_sites + site_gradient(
                explicit, charges, dipoles, surroundings.gradient, surroundings.curvature
            )
            on_sources = once_sources + self.field.adjoint(prepared, surroundings, charges, dipoles)
            if by_near is not None:
                on_sources.index_add_(0, prepared.near_index, by_near.to(torch.float64))
            total = self.field.geometry.collect(on_sites, on_sources, all_positions, vectors)
            energy = (energy.to(torch.float64) + once) * self.energy_unit
            forces = total * self.force_unit
        if not bool(torch.isfinite(energy + forces.sum())):
            raise_error("NonFiniteError", "term '" + self.name + "' has an energy or forces that are not numbers")
        return energy, forces


def script_term(
    layout: TermLayout,
    model: torch.jit.ScriptModule,
    precision: MeshPrecision = "double",
    state: int = 0,
    compiled_mesh: bool = False,
) -> torch.jit.ScriptModule:
    """Return a term as TorchScript, in evaluation mode; it is called as `MechanicalTermModule.forward`."""
    if layout.surroundings is None:
        module: torch.nn.Module = MechanicalTermModule(layout, model, state)
    else:
        module = EmbeddedTermModule(layout, model, precision, state, compiled_mesh)
    return torch.jit.script(module.eval())


class TorchTerm(RegionTerm):
    """A term of a torch module, for calls from Python.

    Parameters
    ----------
    layout : TermLayout
    potential : ModulePotential
    model : torch.jit.ScriptModule, optional
        Module that follows the contract of `qmmlmm.ml.MLPotential`; by default that of the potential.
    precision : {"double", "mixed"}
    compiled : bool
        Whether `compute` uses what `qmmlmm compile` compiled, if it is there and fits.
    """

    potential: ModulePotential

    def __init__(
        self,
        layout: TermLayout,
        potential: ModulePotential,
        model: torch.jit.ScriptModule | None = None,
        precision: MeshPrecision = "double",
        compiled: bool = False,
    ) -> None:
        super().__init__(layout, potential)
        self.compiled = compiled
        self._given_model = model
        self._precision = precision

    @functools.cached_property
    def not_compiled_because(self) -> dict[str, str]:
        """Reasons why parts of the term are not compiled, by part; an empty text for a part that is."""
        found = {"network": self.potential.not_compiled_because(self._surrounded)}
        if self._surrounded and self.layout.periodic:
            found["mesh"] = mesh_kernel.unavailable_because()
        if not self.compiled:
            found = dict.fromkeys(found, NOT_ASKED)
        elif self._given_model is not None:
            found["network"] = "another module was given"
        return found

    @property
    def only_in_python(self) -> bool:
        """Whether `compute` calls what TorchForce cannot."""
        return self.potential.runs_in_python or "" in self.not_compiled_because.values()

    @property
    def _surrounded(self) -> bool:
        return self.layout.surroundings is not None

    @functools.cached_property
    def _model(self) -> torch.jit.ScriptModule:
        return self._given_model or self.potential.term_module(self._surrounded)

    @functools.cached_property
    def module(self) -> torch.jit.ScriptModule:
        """The term as TorchScript, in OpenMM's units, with nothing compiled."""
        return script_term(self.layout, self._model, self._precision, self.potential.capabilities.state)

    @functools.cached_property
    def _running(self) -> torch.jit.ScriptModule:
        """The term that `compute` calls."""
        reasons = self.not_compiled_because
        for part, reason in reasons.items():
            if reason and self.compiled:
                _log.info("term %r: the %s is not compiled: %s", self.name, part, reason)
        if "" not in reasons.values():
            return self.module
        state = self.potential.capabilities.state
        return script_term(self.layout, self._running_model, self._precision, state, reasons.get("mesh") == "")

    @functools.cached_property
    def _running_model(self) -> torch.jit.ScriptModule:
        if self.not_compiled_because["network"]:
            return self._model
        return self.potential.term_module(self._surrounded, compiled=True)

    def __reduce__(self) -> tuple[object, ...]:
        archive = None
        # The potential brings its own module along.
        if self._given_model is not None:
            buffer = io.BytesIO()
            torch.jit.save(self._given_model, buffer)
            archive = buffer.getvalue()
        return (_restore_term, (self.layout, self.potential, archive, self._precision, self.compiled))

    def compute(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return energy, kJ/mol, and forces, kJ/(mol nm), see `RegionTerm.compute`."""
        try:
            with torch.enable_grad():
                energy, forces = self._running(*tensors_of(geometry))
        except (RuntimeError, torch.jit.Error) as error:
            raise original_error(f"term {self.name!r}", str(error)) from error
        return float(energy.detach()), np.asarray(forces.detach().numpy(), dtype=float)

    @functools.cached_property
    def _committee(self) -> CommitteeSpread:
        model = self._given_model or self.potential.term_module(
            self._surrounded, each_member=True, compiled=self.compiled
        )
        return CommitteeSpread(self.layout, model, self.potential.capabilities.state)

    def committee(self) -> CommitteeSpread:
        """Return the spread of a committee's members, see `RegionTerm.committee`."""
        return self._committee

    def interaction(self, geometry: Geometry, evaluation: Evaluation | None = None) -> RegionInteraction:
        """Return the interaction of the region with its surroundings, see `RegionTerm.interaction`.

        Notes
        -----
        A model's charges and dipoles in the field are the derivatives of its energy with respect to potential and
        gradient at its atoms, induced dipoles included. With alpha a polarisability, -1/2 alpha F^2 then falls into the
        interaction -alpha F^2 and the polarisation energy 1/2 alpha F^2.
        """
        field = SurroundingsField(self.layout)
        inputs = ModelInputs(self.layout.specification, self.potential.capabilities.state)
        prepared = field.prepare(*tensors_of(geometry.in_bohr()))
        surroundings = field.potential(prepared)

        def energy_of(value: Tensor, electric_field: Tensor, near_charges: Tensor) -> Tensor:
            around = {"near_positions": prepared.near_positions.clone(), "near_charges": near_charges}
            given = inputs(prepared.sites.clone()) | {"potential": value, "field": electric_field} | around
            return self._running_model(given)["energy"].sum()

        leaves = [surroundings.value.clone(), -surroundings.gradient, prepared.near_charges.clone()]
        for leaf in leaves:
            leaf.requires_grad_(True)
        energy = energy_of(*leaves)
        found = torch.autograd.grad([energy], leaves, allow_unused=True)
        charges, minus_dipoles, by_near_charge = (
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(leaves, found, strict=True)
        )
        with torch.no_grad():
            alone = energy_of(*(torch.zeros_like(leaf) for leaf in leaves))
            energies = field.source_energies(prepared, charges, -minus_dipoles)
            # The model's explicit dependence on near charges, besides their potential.
            energies.index_add_(0, prepared.near_index, prepared.near_charges * by_near_charge)
        return RegionInteraction(float(energy.detach()), float(alone), energies.numpy())


def _restore_term(
    layout: TermLayout,
    potential: ModulePotential,
    archive: bytes | None,
    precision: MeshPrecision,
    compiled: bool = False,
) -> TorchTerm:
    model = None if archive is None else torch.jit.load(io.BytesIO(archive), map_location="cpu")
    return TorchTerm(layout, potential, model, precision, compiled)
