"""A response network for runs: its energy and gradient as one list of operations.

For a few dozen atoms the tensors are so small that most of the time goes into finding the derivative and not into
computing it. For a given region it is the same list of operations each time, so that it is recorded once.
"""

# Annotations stay objects here (no `from __future__ import annotations`): TorchScript cannot read strings.

from collections.abc import Callable
from typing import Dict, Tuple, cast  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from qmmlmm.ml.near_moments import N_MOMENTS
from qmmlmm.ml.response_network import ResponseNetwork, find_condition


class RecordedNetwork(torch.nn.Module):
    """The same energy and first derivatives as a `ResponseNetwork`, in less time.

    Otherwise only the mean ``energy`` has derivatives. Its second ones are not known and come out as NaN; the network
    itself has them.

    Parameters
    ----------
    network : ResponseNetwork
        Its weights as they are now are recorded; later changes have no effect. It is kept for inputs with the key
        ``each_member``, for which its own energies come out, of all members and with all derivatives.

    Notes
    -----
    The gradient enters autograd as an energy that is linear in the inputs around where they are. The number of near
    charges changes from step to step: the recorded part begins at their moments.
    """

    conditions: Tensor

    def __init__(self, network: ResponseNetwork) -> None:
        super().__init__()
        self.response = network.response
        self.has_near = network.near_cutoff > 0.0
        self.network = network
        self.near = network.near
        self.register_buffer("conditions", network.conditions.clone())
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            n = len(network.atomic_numbers)
            # Any geometry: the operations depend on nothing but the number of atoms.
            places = torch.arange(3.0 * n, dtype=torch.float64).reshape(n, 3)
            row = torch.zeros(1, dtype=torch.int64)
            site = torch.zeros(n, dtype=torch.float64)
            moments = torch.zeros(n, N_MOMENTS, network.near_functions, dtype=network.centers.dtype)
            self.alone = _recorded(_alone(network), (row, places))
            self.surrounded = _recorded(_surrounded(network), (row, places, site, torch.zeros_like(places), moments))
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        """Return the energy of one geometry, the mean of the members, as the contract of `qmmlmm.MLPotential` asks."""
        if "each_member" in inputs:
            return self.network(inputs)
        return self.mean_energy(inputs)

    def mean_energy(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        """Return the energies, of which the mean can be differentiated once."""
        state = inputs["state"] if "state" in inputs else torch.zeros_like(inputs["charge"])
        row = find_condition(self.conditions, inputs["charge"], inputs["multiplicity"], state).reshape(1)
        positions = inputs["positions"]
        with torch.no_grad():
            place = positions.clone()
        if self.response and "potential" in inputs:
            potential, field = inputs["potential"], inputs["field"]
            near, charges = positions[:0], potential[:0]
            if self.has_near:
                kept = self.near.select(positions, inputs["near_positions"])
                near = inputs["near_positions"].index_select(0, kept)
                charges = inputs["near_charges"].index_select(0, kept)
            with torch.no_grad():
                here, strength, spots = potential.clone(), field.clone(), near.clone()
                moments = self.near(place, spots, charges)
                energies, slope, by_potential, by_field, by_moments = self.surrounded(
                    row, place, here, strength, moments
                )
                by_atoms, by_near = self.near.gradient(place, spots, charges, by_moments)
                slope = slope + by_atoms
            energy = energies.mean() + _linear(slope, positions - place) + _linear(by_near, near - spots)
            energy = energy + _linear(by_potential, potential - here) + _linear(by_field, field - strength)
        else:
            with torch.no_grad():
                energies, slope = self.alone(row, place)
            energy = energies.mean() + _linear(slope, positions - place)
        return {"energy": energy, "member_energies": energies}


def _linear(slope: Tensor, step: Tensor) -> Tensor:
    """Return slope times step for a step of zero, with NaN in place of second derivatives of zero."""
    return (slope * step).sum() + step.abs().pow(1.5).sum()


def _alone(network: ResponseNetwork) -> Callable[..., Tuple[Tensor, ...]]:  # noqa: UP006
    def energy_and_gradient(row: Tensor, places: Tensor) -> Tuple[Tensor, ...]:  # noqa: UP006
        x = places.requires_grad_(True)
        every = x.unsqueeze(0).unsqueeze(0)
        energies = network.intrinsic_energy(every, network.properties(every, row), row)[:, 0]
        return energies.detach(), *torch.autograd.grad(energies.mean(), [x])

    return energy_and_gradient


def _surrounded(network: ResponseNetwork) -> Callable[..., Tuple[Tensor, ...]]:  # noqa: UP006
    def energy_and_gradient(
        row: Tensor,
        places: Tensor,
        potential: Tensor,
        field: Tensor,
        moments: Tensor,
    ) -> Tuple[Tensor, ...]:  # noqa: UP006
        leaves = [tensor.requires_grad_(True) for tensor in (places, potential, field, moments)]
        x, phi, strength = (leaf.unsqueeze(0).unsqueeze(0) for leaf in leaves[:3])
        properties = network.properties(x, row)
        energies = network.intrinsic_energy(x, properties, row) + network.field_energy(properties, phi, strength)
        if network.near_cutoff > 0.0:
            energies = energies + network.near_energy(properties, leaves[3].unsqueeze(0).unsqueeze(0))
        slopes = torch.autograd.grad(energies.mean(), leaves, allow_unused=True)
        return energies[:, 0].detach(), *(
            torch.zeros_like(leaf) if slope is None else slope for slope, leaf in zip(slopes, leaves, strict=True)
        )

    return energy_and_gradient


def _recorded(
    function: Callable[..., Tuple[Tensor, ...]],  # noqa: UP006
    examples: Tuple[Tensor, ...],  # noqa: UP006
) -> torch.jit.ScriptModule:
    """Return the operations of a function, derivatives among them, that runs on any device."""
    listed = make_fx(function)(*[example.clone() for example in examples])
    first = next(iter(listed.graph.nodes))
    for node in list(listed.graph.nodes):
        if "device" not in node.kwargs:
            continue
        # Recorded is the device of this moment. Without it that of the first argument holds, which is the inputs'.
        kept = {key: value for key, value in node.kwargs.items() if key not in ("device", "pin_memory")}
        if node.target is torch.ops.aten.zeros.default:
            with listed.graph.inserting_before(node):
                zeros = listed.graph.call_function(torch.ops.aten.new_zeros.default, (first, *node.args), kept)
            node.replace_all_uses_with(zeros)
            listed.graph.erase_node(node)
        elif node.all_input_nodes or node.target is torch.ops.aten.scalar_tensor.default:
            node.kwargs = kept
        else:
            raise RuntimeError(f"{node.target} would stay on one device; let the network use a buffer in its place")
    listed.graph.eliminate_dead_code()
    listed.recompile()
    with torch.no_grad():
        return cast(torch.jit.ScriptModule, torch.jit.trace(listed.eval(), examples, check_trace=False))
