"""A response network as operations of fixed shapes, for accelerators."""

from __future__ import annotations

import torch
from torch import Tensor

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.embedding.static_field import FAR, places_of
from qmmlmm.embedding.static_step import ModelResult, StaticModel
from qmmlmm.errors import PotentialError
from qmmlmm.ml.conditions import find_condition
from qmmlmm.ml.near_moments import N_MOMENTS
from qmmlmm.ml.recorded_network import needed_operations, operations_of
from qmmlmm.ml.response_network import ResponseNetwork


class StaticNetwork(StaticModel):
    """A `ResponseNetwork` for one region and electronic state.

    Parameters
    ----------
    network : ResponseNetwork
        Network whose present weights are recorded; later changes have no effect.
    specification : RegionSpecification
        Region whose charge and multiplicity the network knows.
    state : int
        Electronic state.
    surrounded : bool
        Whether it is given a potential and a field.
    compiled : torch.nn.Module, optional
        What is called instead of the recorded operations, see `qmmlmm.ml.compiled_network`.
    """

    row: Tensor
    filler: Tensor
    no_moments: Tensor

    def __init__(
        self,
        network: ResponseNetwork,
        specification: RegionSpecification,
        state: int = 0,
        surrounded: bool = True,
        compiled: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        (name,) = needed_operations(network, surrounded, each_member=False)
        self.in_field = name == "surrounded"
        self.has_near = self.in_field and network.near_cutoff > 0.0
        self.near = network.near
        self.operations = operations_of(network, name) if compiled is None else compiled
        charge, multiplicity, electronic_state = (
            torch.tensor(float(value), dtype=torch.float64)
            for value in (specification.charge, specification.multiplicity, state)
        )
        # Found once here: to compare with the table would ask the device.
        row = find_condition(network.conditions.cpu(), charge, multiplicity, electronic_state)
        self.register_buffer("row", row.reshape(1))
        self.register_buffer("filler", torch.tensor([[FAR, 0.0, 0.0]], dtype=torch.float64))
        shape = (len(network.atomic_numbers), N_MOMENTS, network.near_functions)
        self.register_buffer("no_moments", torch.zeros(shape, dtype=network.centers.dtype))

    def evaluate(
        self,
        positions: Tensor,
        potential: Tensor,
        field: Tensor,
        near_positions: Tensor,
        near_charges: Tensor,
        capacity: int,
    ) -> ModelResult:
        """Return energy and derivatives, see `StaticModel.evaluate`."""
        by_near = torch.zeros_like(near_positions)
        found = torch.zeros((), dtype=torch.int64, device=positions.device)
        if not self.in_field:
            energies, by_positions = self.operations(self.row, positions)
            return ModelResult(
                energies.mean(),
                by_positions[0],
                torch.zeros_like(potential),
                torch.zeros_like(field),
                by_near,
                found,
            )
        moments = self.no_moments
        if self.has_near:
            nearest = torch.cdist(positions, near_positions).amin(0)
            places, found = places_of(nearest * self.near.angstrom < self.near.cutoff, capacity)
            chosen = torch.cat([near_positions, positions[:1] + self.filler])[places]
            charges = torch.cat([near_charges, torch.zeros_like(near_charges[:1])])[places]
            moments = self.near(positions, chosen, charges)
        results = self.operations(self.row, positions, potential, field, moments)
        energies, by_position, by_potential, by_field = results[0], results[1][0], results[2][0], results[3][0]
        if self.has_near:
            by_atoms, by_chosen = self.near.gradient(positions, chosen, charges, results[4][0])
            by_position = by_position + by_atoms
            by_near = torch.cat([by_near, by_near[:1]]).index_add_(0, places, by_chosen)[:-1]
        return ModelResult(energies.mean(), by_position, by_potential, by_field, by_near, found)


def check_static_network(network: ResponseNetwork | None, name: str) -> None:
    """Raise PotentialError if the potential of a term has no network."""
    if network is None:
        raise PotentialError(
            f"term {name!r}: only a ResponseNetwork has a static step; the operations of a module of your own are not "
            "known. Leave ml_step at its default"
        )
