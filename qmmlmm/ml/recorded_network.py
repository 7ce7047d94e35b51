"""A response network for simulations: its energy and gradient as one recorded list of operations.

For a few dozen atoms the tensors are so small that autograd spends most of the time on finding the derivative and not
on computing it. For a given region the operations are always the same and are recorded once.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import contextlib
from collections.abc import Callable, Iterator
from typing import Dict, Tuple, cast  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from qmmlmm.errors import PotentialError
from qmmlmm.ml.near_moments import N_MOMENTS
from qmmlmm.ml.response_network import ResponseNetwork, find_condition


class RecordedNetwork(torch.nn.Module):
    """A faster `ResponseNetwork` with the same energy and first derivatives.

    Only the mean ``energy`` has derivatives, or each of ``member_energies`` for inputs with the key ``each_member``,
    which costs more, in particular with derivatives for ``near_positions``. Second derivatives are NaN; the network
    itself has them.

    Parameters
    ----------
    network : ResponseNetwork
        Network whose present weights are recorded; later changes have no effect.

    Notes
    -----
    The gradient enters autograd as an energy that is linear in the inputs. The number of near charges changes from step
    to step, so that the recorded part begins at their moments.
    """

    conditions: Tensor
    uncertainty_scale: Tensor
    separate_parts: Tensor

    def __init__(self, network: ResponseNetwork) -> None:
        super().__init__()
        self.response = network.response
        self.has_near = network.near_cutoff > 0.0
        self.near = network.near
        self.register_buffer("conditions", network.conditions.clone())
        self.register_buffer("uncertainty_scale", network.uncertainty_scale.clone())
        self.register_buffer("separate_parts", network.separate_parts.clone())
        alone, surrounded = _examples(network)
        with _without_training(network):
            self.alone = _recorded(_alone(network, 1), alone)
            self.surrounded = _recorded(_surrounded(network, 1), surrounded)
            self.each_alone, self.each_surrounded = self.alone, self.surrounded
            if network.members > 1:
                self.each_alone = _recorded(_alone(network, network.members), alone)
                self.each_surrounded = _recorded(_surrounded(network, network.members), surrounded)

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        """Return the energy of one geometry, the mean of the members, as the contract of `qmmlmm.MLPotential` asks."""
        each = "each_member" in inputs
        state = inputs["state"] if "state" in inputs else torch.zeros_like(inputs["charge"])
        row = find_condition(self.conditions, inputs["charge"], inputs["multiplicity"], state).reshape(1)
        positions = inputs["positions"]
        with torch.no_grad():
            fixed_positions = positions.clone()
        if self.response and "potential" in inputs:
            potential, field = inputs["potential"], inputs["field"]
            near, charges = positions[:0], potential[:0]
            if self.has_near:
                kept = self.near.select(positions, inputs["near_positions"])
                near = inputs["near_positions"].index_select(0, kept)
                charges = inputs["near_charges"].index_select(0, kept)
            with torch.no_grad():
                fixed_potential, fixed_field, fixed_near = potential.clone(), field.clone(), near.clone()
                fixed_charges = charges.clone()
                moments = self.near(fixed_positions, fixed_near, fixed_charges)
                if each:
                    energies, by_positions, by_potential, by_field, by_moments = self.each_surrounded(
                        row, fixed_positions, fixed_potential, fixed_field, moments
                    )
                else:
                    energies, by_positions, by_potential, by_field, by_moments = self.surrounded(
                        row, fixed_positions, fixed_potential, fixed_field, moments
                    )
                on_near = near.requires_grad or not each
                if on_near:
                    by_atoms, by_near = self.near.gradient(fixed_positions, fixed_near, fixed_charges, by_moments)
                else:
                    by_atoms = self.near.atom_gradient(fixed_positions, fixed_near, fixed_charges, by_moments)
                    by_near = fixed_near
                by_positions = by_positions + by_atoms
            rest = _linear(by_positions, positions - fixed_positions)
            rest = rest + _linear(by_potential, potential - fixed_potential) + _linear(by_field, field - fixed_field)
            if on_near:
                rest = rest + _linear(by_near, near - fixed_near)
            if self.has_near and charges.requires_grad:
                with torch.no_grad():
                    by_charges = self.near.charge_gradient(fixed_positions, fixed_near, by_moments)
                rest = rest + _linear(by_charges, charges - fixed_charges)
        else:
            with torch.no_grad():
                if each:
                    energies, by_positions = self.each_alone(row, fixed_positions)
                else:
                    energies, by_positions = self.alone(row, fixed_positions)
            rest = _linear(by_positions, positions - fixed_positions)
        if each:
            energies = energies + rest
            return {"energy": energies.mean(), "member_energies": energies}
        return {"energy": energies.mean() + rest[0], "member_energies": energies}


def _linear(gradients: Tensor, step: Tensor) -> Tensor:
    """Return each gradient times a step of zero, (members or 1,), with second derivatives of NaN instead of zero."""
    return (gradients * step).flatten(1).sum(1) + step.abs().pow(1.5).sum()


def _alone(network: ResponseNetwork, copies: int) -> Callable[..., Tuple[Tensor, ...]]:  # noqa: UP006
    """Return a function for energies and gradients, (copies, ...), of the mean for one copy and else of each member."""

    def energy_and_gradient(row: Tensor, positions: Tensor) -> Tuple[Tensor, ...]:  # noqa: UP006
        (x,) = _copied(copies, [positions])
        energies = network.intrinsic_energy(x, network.properties(x, row), row)[:, 0]
        return energies.detach(), *_gradients(energies, [x])

    return energy_and_gradient


def _surrounded(network: ResponseNetwork, copies: int) -> Callable[..., Tuple[Tensor, ...]]:  # noqa: UP006
    def energy_and_gradient(
        row: Tensor,
        positions: Tensor,
        potential: Tensor,
        field: Tensor,
        moments: Tensor,
    ) -> Tuple[Tensor, ...]:  # noqa: UP006
        leaves = _copied(copies, [positions, potential, field, moments])
        x, site_potential, site_field, near_moments = leaves
        properties = network.properties(x, row)
        energies = network.intrinsic_energy(x, properties, row)
        energies = energies + network.field_energy(properties, site_potential, site_field)
        if network.near_cutoff > 0.0:
            energies = energies + network.near_energy(properties, near_moments)
        return energies[:, 0].detach(), *_gradients(energies[:, 0], leaves)

    return energy_and_gradient


def _copied(copies: int, inputs: list[Tensor]) -> list[Tensor]:
    """Return the inputs as leaves, one for all members or one for each: (copies, 1, ...)."""
    return [tensor.expand(copies, 1, *tensor.shape).clone().requires_grad_(True) for tensor in inputs]


def _gradients(energies: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Return the derivatives with respect to the leaves, (copies, ...), of the mean if the members share them."""
    total = energies.mean() if len(leaves[0]) == 1 else energies.sum()
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    return [
        (torch.zeros_like(leaf) if gradient is None else gradient)[:, 0]
        for gradient, leaf in zip(gradients, leaves, strict=True)
    ]


def _examples(network: ResponseNetwork) -> Tuple[Tuple[Tensor, ...], Tuple[Tensor, ...]]:  # noqa: UP006
    """Return inputs of `_alone` and `_surrounded`; the operations depend only on the number of atoms."""
    n = len(network.atomic_numbers)
    device = network.conditions.device
    positions = torch.arange(3.0 * n, dtype=torch.float64, device=device).reshape(n, 3)
    row = torch.zeros(1, dtype=torch.int64, device=device)
    site = torch.zeros(n, dtype=torch.float64, device=device)
    moments = torch.zeros(n, N_MOMENTS, network.near_functions, dtype=network.centers.dtype, device=device)
    return (row, positions), (row, positions, site, torch.zeros_like(positions), moments)


@contextlib.contextmanager
def _without_training(network: ResponseNetwork) -> Iterator[None]:
    """Let the weights be constants."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def operations_of(network: ResponseNetwork, surrounded: bool) -> torch.fx.GraphModule:
    """Return the list of operations for energy and gradient of the mean of the members, see `RecordedNetwork`.

    Parameters
    ----------
    network : ResponseNetwork
    surrounded : bool
        Whether in the field of surroundings: the inputs are the row of the condition, (1,), positions and, if True,
        potential, field and moments of near charges. The results are the energies of the members, (members,), and the
        derivatives with respect to the inputs but the first, (1, ...).
    """
    alone, inputs = _examples(network)
    with _without_training(network):
        return _listed(_surrounded(network, 1), inputs) if surrounded else _listed(_alone(network, 1), alone)


def _recorded(
    function: Callable[..., Tuple[Tensor, ...]],  # noqa: UP006
    examples: Tuple[Tensor, ...],  # noqa: UP006
) -> torch.jit.ScriptModule:
    """Return the operations of a function as TorchScript."""
    listed = _listed(function, examples)
    with torch.no_grad():
        return cast(torch.jit.ScriptModule, torch.jit.trace(listed, examples, check_trace=False))


def _listed(
    function: Callable[..., Tuple[Tensor, ...]],  # noqa: UP006
    examples: Tuple[Tensor, ...],  # noqa: UP006
) -> torch.fx.GraphModule:
    """Return the operations of a function, including derivatives, for any device."""
    listed = make_fx(function)(*[example.clone() for example in examples])
    first = next(iter(listed.graph.nodes))
    for node in list(listed.graph.nodes):
        if "device" not in node.kwargs:
            continue
        # The device of the recording; without it the device of the first argument is used, which is the inputs'.
        kept = {key: value for key, value in node.kwargs.items() if key not in ("device", "pin_memory")}
        if node.target is torch.ops.aten.zeros.default:
            _replace(listed.graph, node, torch.ops.aten.new_zeros.default, (first, *node.args), kept)
        elif node.target is torch.ops.aten.scalar_tensor.default:
            _replace(listed.graph, node, torch.ops.aten.new_full.default, (first, [], *node.args), kept)
        elif node.all_input_nodes:
            node.kwargs = kept
        else:
            raise PotentialError(f"{node.target} would always run on one device; use a buffer of the network instead")
    listed.graph.eliminate_dead_code()
    listed.recompile()
    return listed.eval()


def _replace(
    graph: torch.fx.Graph,
    node: torch.fx.Node,
    operation: Callable[..., Tensor],
    arguments: Tuple[object, ...],  # noqa: UP006
    options: Dict[str, object],  # noqa: UP006
) -> None:
    with graph.inserting_before(node):
        found = graph.call_function(operation, arguments, options)  # type: ignore[arg-type]
    node.replace_all_uses_with(found)
    graph.erase_node(node)
