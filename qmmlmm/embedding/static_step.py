"""Energy and forces of an embedded learned term by operations of fixed shapes, for accelerators."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.embedding.chain_rule import site_gradient
from qmmlmm.embedding.static_field import Capacity, StaticField, StaticGeometry
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR


class ModelResult(NamedTuple):
    """The energy of a region and its derivatives.

    Parameters
    ----------
    energy : () tensor, hartree
    by_position : (n_sites, 3) tensor, hartree/bohr
    by_potential : (n_sites,) tensor, e
    by_field : (n_sites, 3) tensor, e bohr
    by_near : (k, 3) tensor, hartree/bohr
        With respect to the positions of near charges.
    found : () int64 tensor
        Number of near charges that act on the region in another way than by their potential.
    """

    energy: Tensor
    by_position: Tensor
    by_potential: Tensor
    by_field: Tensor
    by_near: Tensor
    found: Tensor


class StaticModel(torch.nn.Module):
    """A learned potential of one region and condition, as operations of fixed shapes without questions to the host."""

    @abstractmethod
    def evaluate(
        self,
        positions: Tensor,
        potential: Tensor,
        field: Tensor,
        near_positions: Tensor,
        near_charges: Tensor,
        capacity: int,
    ) -> ModelResult:
        """Return energy and derivatives.

        Parameters
        ----------
        positions : (n_sites, 3) tensor, bohr
        potential : (n_sites,) tensor, hartree/e
        field : (n_sites, 3) tensor, hartree/(e bohr)
        near_positions : (k, 3) tensor, bohr
        near_charges : (k,) tensor, e
            Charges of the surroundings; those that fill up the array are very far away.
        capacity : int
            Number of near charges that can act on the region in another way than by their potential.
        """


class AnyStaticStep(torch.nn.Module):
    """A term whose operations are always the same, for a box that `set_box` gives.

    It asks the host for nothing, and no shape depends on the geometry, so that a GPU can record and replay it. It has
    not run on a GPU yet.

    Parameters
    ----------
    layout : TermLayout
    model : StaticModel
    """

    box: Tensor

    def __init__(self, layout: TermLayout, model: StaticModel) -> None:
        super().__init__()
        self.model = model
        self.energy_unit = layout.coefficient * HARTREE_IN_KJ_PER_MOL
        self.force_unit = -layout.coefficient * FORCE_AU_IN_OPENMM
        self.register_buffer("box", torch.zeros(3, 3, dtype=torch.float64), persistent=False)

    @torch.no_grad()
    def set_box(self, box: Tensor) -> None:
        """Compute what depends only on the box, (3, 3) nm. Tensors keep their places in memory."""
        self.box.copy_(box * NM_IN_BOHR)
        self._follow_box()

    @abstractmethod
    def _follow_box(self) -> None:
        """Compute what depends only on `box`."""

    @abstractmethod
    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return energy, forces and what the host has to know to believe them.

        Parameters
        ----------
        positions : (n_particles, 3) float64 tensor, nm

        Returns
        -------
        energy : () tensor, kJ/mol
        forces : (n_particles, 3) tensor, kJ/(mol nm)
        status : (6,) float64 tensor
            Number of near sources, of near charges, of boxes on either side along the three box vectors, and the width
            of the region, see `StaticField` and `StaticGeometry`. Energy and forces are wrong if a number is larger
            than its capacity, or the width is one or more.
        """


class MechanicalStaticStep(AnyStaticStep):
    """A term without surroundings, as `qmmlmm.embedding.torch_term.MechanicalTermModule`.

    Parameters
    ----------
    layout : TermLayout
    model : StaticModel
    """

    def __init__(self, layout: TermLayout, model: StaticModel) -> None:
        super().__init__(layout, model)
        self.geometry = StaticGeometry(layout)

    def _follow_box(self) -> None:
        self.geometry.set_box(self.box)

    @torch.no_grad()
    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return energy, forces and status, see `AnyStaticStep.forward`."""
        positions = positions * NM_IN_BOHR
        box = self.box if self.geometry.periodic else None
        sites = self.geometry.sites(positions, box)
        nothing, nowhere = torch.zeros_like(sites[:, 0]), torch.zeros_like(sites)
        found = self.model.evaluate(sites, nothing, nowhere, nowhere[:0], nothing[:0], 0)
        total = self.geometry.collect(found.by_position, nowhere[:0], positions, box)
        status = torch.cat([positions.new_zeros(5), self.geometry.width.reshape(1)])
        return found.energy * self.energy_unit, total * self.force_unit, status


class StaticStep(AnyStaticStep):
    """An embedded term, as `qmmlmm.embedding.torch_term.EmbeddedTermModule`.

    Parameters
    ----------
    layout : TermLayout
        Layout with surroundings.
    model : StaticModel
    capacity : Capacity
    mesh_dtype : torch.dtype
    """

    def __init__(
        self, layout: TermLayout, model: StaticModel, capacity: Capacity, mesh_dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__(layout, model)
        self.capacity = capacity
        self.field = StaticField(layout, capacity, mesh_dtype)

    def _follow_box(self) -> None:
        self.field.set_box(self.box)

    @torch.no_grad()
    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return energy, forces and status, see `AnyStaticStep.forward`."""
        positions = positions * NM_IN_BOHR
        field = self.field
        box = self.box if field.periodic else None
        prepared = field.prepare(positions, box)
        surroundings = field.potential(prepared)
        found = self.model.evaluate(
            prepared.sites,
            surroundings.value,
            -surroundings.gradient,
            prepared.near_positions,
            prepared.near_charges,
            self.capacity.charges,
        )
        charges, dipoles = found.by_potential, -found.by_field
        once, once_sites, once_sources = field.reference_energy(prepared)
        on_sites = once_sites + site_gradient(
            found.by_position, charges, dipoles, surroundings.gradient, surroundings.curvature
        )
        on_sources = once_sources + field.adjoint(prepared, surroundings, charges, dipoles)
        on_sources.index_add_(0, prepared.near_index, found.by_near)
        total = field.geometry.collect(on_sites, on_sources, positions, box)
        numbers = torch.stack([field.found, found.found]).to(torch.float64)
        status = torch.cat([numbers, field.found_shells, field.geometry.width.reshape(1)])
        return (found.energy + once) * self.energy_unit, total * self.force_unit, status
