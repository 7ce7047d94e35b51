"""A learned term as one torch module: all positions in, energy and forces on all particles out."""

# Annotations stay objects here (no `from __future__ import annotations`): TorchScript cannot read strings.

import io
from typing import Dict, Literal, Optional, Tuple  # noqa: UP035  (TorchScript reads these)

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.embedding.geometry import RegionGeometry
from qmmlmm.embedding.surroundings_field import SurroundingsField
from qmmlmm.errors import NonFiniteError
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR, FloatArray

MeshPrecision = Literal["double", "mixed"]
"""Of a term with electrostatic embedding: "mixed" is single precision on the mesh, double everywhere else."""


class _TermModule(torch.nn.Module):
    """What both kinds of term have: the model, what it is told about the region, and the units of the result."""

    atomic_numbers: Tensor
    charge: Tensor
    multiplicity: Tensor
    state: Tensor
    no_box: Tensor

    def __init__(self, layout: TermLayout, model: torch.jit.ScriptModule, state: int = 0) -> None:
        super().__init__()
        self.model = model
        specification = layout.specification
        self.register_buffer("atomic_numbers", torch.tensor(specification.atomic_numbers))
        self.register_buffer("charge", torch.tensor(float(specification.charge), dtype=torch.float64))
        self.register_buffer("multiplicity", torch.tensor(float(specification.multiplicity), dtype=torch.float64))
        self.register_buffer("state", torch.tensor(float(state), dtype=torch.float64))
        self.register_buffer("no_box", torch.eye(3, dtype=torch.float64))
        self.name = specification.name
        self.nm_in_bohr = NM_IN_BOHR
        self.energy_unit = layout.coefficient * HARTREE_IN_KJ_PER_MOL
        self.force_unit = -layout.coefficient * FORCE_AU_IN_OPENMM


class MechanicalTermModule(_TermModule):
    """A model of a region without surroundings, as `openmmtorch.TorchForce` calls it.

    Parameters
    ----------
    layout : TermLayout
    model : torch.jit.ScriptModule
        Follows the contract of `qmmlmm.ml.MLPotential`.
    state : int
        Electronic state.
    """

    def __init__(self, layout: TermLayout, model: torch.jit.ScriptModule, state: int = 0) -> None:
        super().__init__(layout, model, state)
        self.geometry = RegionGeometry(layout)

    def forward(self, positions: Tensor, box: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:  # noqa: UP006, UP045
        """Return energy and forces in OpenMM's units.

        Parameters
        ----------
        positions : (n_particles, 3) tensor, nm
        box : (3, 3) tensor, nm

        Returns
        -------
        energy : () tensor, kJ/mol
        forces : (n_particles, 3) tensor, kJ/(mol nm)
        """
        # TorchForce hands in positions that require a gradient, and freezes the module, which drops detach().
        with torch.no_grad():
            all_positions = positions.to(torch.float64) * self.nm_in_bohr
            vectors = self.no_box
            if box is not None:
                vectors = box.to(torch.float64) * self.nm_in_bohr
            sites = self.geometry.sites(all_positions, vectors).clone()
        sites = sites.requires_grad_(True)
        inputs: Dict[str, Tensor] = {  # noqa: UP006
            "atomic_numbers": self.atomic_numbers,
            "charge": self.charge,
            "multiplicity": self.multiplicity,
            "state": self.state,
            "positions": sites,
        }
        energy = self.model(inputs)["energy"].sum()
        gradient = torch.autograd.grad([energy], [sites])[0]
        if gradient is None:
            gradient = torch.zeros_like(sites)
        with torch.no_grad():
            nothing = torch.zeros((0, 3), dtype=torch.float64, device=sites.device)
            total = self.geometry.collect(gradient.to(torch.float64), nothing, all_positions, vectors)
            energy = energy.to(torch.float64) * self.energy_unit
            forces = total * self.force_unit
        if not bool(torch.isfinite(energy + forces.sum())):
            raise RuntimeError("NonFiniteError: energy or forces of the term are not numbers: " + self.name)
        return energy, forces


class EmbeddedTermModule(_TermModule):
    """A model of a region in the field of its surroundings, as `openmmtorch.TorchForce` calls it.

    Parameters
    ----------
    layout : TermLayout
        With surroundings.
    model : torch.jit.ScriptModule
        Follows the contract of `qmmlmm.ml.MLPotential`.
    precision : {"double", "mixed"}
    state : int
        Electronic state.

    Notes
    -----
    The model is differentiated with respect to positions, potential and field of its own few sites, and to the
    positions of near charges if it uses them. The forces on the surroundings follow from potential and field by the
    adjoint of the field, see `SurroundingsField`; what the model says about near charges is added.
    """

    def __init__(
        self,
        layout: TermLayout,
        model: torch.jit.ScriptModule,
        precision: MeshPrecision = "double",
        state: int = 0,
    ) -> None:
        super().__init__(layout, model, state)
        self.field = SurroundingsField(layout, torch.float32 if precision == "mixed" else torch.float64)

    def forward(self, positions: Tensor, box: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:  # noqa: UP006, UP045
        """Return energy and forces in OpenMM's units, as `MechanicalTermModule.forward`."""
        # As in MechanicalTermModule: the leaves of the model's graph are clones made without a graph.
        with torch.no_grad():
            all_positions = positions.to(torch.float64) * self.nm_in_bohr
            vectors = self.no_box
            if box is not None:
                vectors = box.to(torch.float64) * self.nm_in_bohr
            sites = self.field.prepare(all_positions, vectors).clone()
            value, slope, curvature = self.field.potential()
            potential = value.clone()
            field = -slope
            near = self.field.near_positions.clone()
        sites = sites.requires_grad_(True)
        potential = potential.requires_grad_(True)
        field = field.requires_grad_(True)
        near = near.requires_grad_(True)
        inputs: Dict[str, Tensor] = {  # noqa: UP006
            "atomic_numbers": self.atomic_numbers,
            "charge": self.charge,
            "multiplicity": self.multiplicity,
            "state": self.state,
            "positions": sites,
            "potential": potential,
            "field": field,
            "near_positions": near,
            "near_charges": self.field.near_charges(),
        }
        energy = self.model(inputs)["energy"].sum()
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
            once, once_sites, once_sources = self.field.reference_energy()
            site_gradient = (
                explicit + charges[:, None] * slope + torch.matmul(curvature, dipoles[:, :, None])[:, :, 0] + once_sites
            )
            source_gradient = self.field.adjoint(charges, dipoles) + once_sources
            if by_near is not None:
                source_gradient.index_add_(0, self.field.near_index, by_near.to(torch.float64))
            total = self.field.geometry.collect(site_gradient, source_gradient, all_positions, vectors)
            energy = (energy.to(torch.float64) + once) * self.energy_unit
            forces = total * self.force_unit
        if not bool(torch.isfinite(energy + forces.sum())):
            raise RuntimeError("NonFiniteError: energy or forces of the term are not numbers: " + self.name)
        return energy, forces


def script_term(
    layout: TermLayout, model: torch.jit.ScriptModule, precision: MeshPrecision = "double", state: int = 0
) -> torch.jit.ScriptModule:
    """Return the term as TorchScript, in evaluation mode."""
    if layout.surroundings is None:
        module: torch.nn.Module = MechanicalTermModule(layout, model, state)
    else:
        module = EmbeddedTermModule(layout, model, precision, state)
    return torch.jit.script(module.eval())


class TorchTerm:
    """The same module called from Python, where TorchForce cannot be loaded.

    Parameters
    ----------
    name : str
    module : torch.jit.ScriptModule
        From `script_term`.
    """

    def __init__(self, name: str, module: torch.jit.ScriptModule) -> None:
        self.name = name
        self._module = module

    def __reduce__(self) -> tuple[object, ...]:
        buffer = io.BytesIO()
        torch.jit.save(self._module, buffer)
        return (_restore_term, (self.name, buffer.getvalue()))

    def compute_openmm(self, positions: FloatArray, box: FloatArray) -> tuple[float, FloatArray]:
        """Return energy and forces, with the coefficient.

        Parameters
        ----------
        positions : (n_particles, 3) float array, nm
        box : (3, 3) float array, nm

        Returns
        -------
        energy : float, kJ/mol
        forces : (n_particles, 3) float array, kJ/(mol nm)

        Raises
        ------
        NonFiniteError
            If the energy or a force is not a number.
        """
        try:
            with torch.enable_grad():
                energy, forces = self._module(torch.from_numpy(positions), torch.from_numpy(box))
        except (RuntimeError, torch.jit.Error) as error:
            if "NonFiniteError" in str(error):
                raise NonFiniteError(f"term {self.name!r} has an energy or forces that are not numbers") from error
            raise
        return float(energy), np.asarray(forces.numpy(), dtype=float)


def _restore_term(name: str, archive: bytes) -> TorchTerm:
    return TorchTerm(name, torch.jit.load(io.BytesIO(archive)))
