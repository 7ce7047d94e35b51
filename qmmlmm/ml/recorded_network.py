"""A response network for simulations: its energy and gradient as one recorded list of operations.

For a few dozen atoms the tensors are so small that autograd spends most of the time on finding the derivative and not
on computing it. For a given region the operations are always the same and are recorded once.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Dict, Literal, Tuple, cast  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from qmmlmm.errors import PotentialError
from qmmlmm.ml.conditions import find_condition
from qmmlmm.ml.near_moments import N_MOMENTS
from qmmlmm.ml.response_network import ResponseNetwork

OperationsName = Literal["alone", "surrounded", "each_alone", "each_surrounded"]
"""A list of operations: in a vacuum or in a field; for the mean of a committee, or for each of its members."""

ALL_OPERATIONS: tuple[OperationsName, ...] = ("alone", "surrounded", "each_alone", "each_surrounded")


class _NotRecordedAlone(torch.nn.Module):
    """Stands for operations in a vacuum that nobody asked for."""

    def forward(self, row: Tensor, positions: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        raise RuntimeError("PotentialError: the network was not recorded for a region in a vacuum, or not for members")


class _NotRecordedSurrounded(torch.nn.Module):
    """Stands for operations in a field that nobody asked for."""

    def forward(
        self, row: Tensor, positions: Tensor, potential: Tensor, field: Tensor, moments: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        raise RuntimeError("PotentialError: the network was not recorded for a region in a field, or not for members")


class RecordedNetwork(torch.nn.Module):
    """A faster `ResponseNetwork` with the same energy and first derivatives.

    Only the mean ``energy`` has derivatives, or each of ``member_energies`` for inputs with the key ``each_member``,
    which costs more, in particular with derivatives for ``near_positions``. Second derivatives are NaN; the network
    itself has them.

    Parameters
    ----------
    network : ResponseNetwork
        Network whose present weights are recorded; later changes have no effect.
    names : collection of str
        Lists of operations that are asked for, of `ALL_OPERATIONS`. To record one takes a second or more.
    compiled : mapping of str to torch.nn.Module
        Modules that replace lists, with the same inputs and results.

    Notes
    -----
    The gradient enters autograd as an energy that is linear in the inputs. The number of near charges changes from step
    to step, so that the recorded part begins at their moments.
    """

    conditions: Tensor
    uncertainty_scale: Tensor
    separate_parts: Tensor

    def __init__(
        self,
        network: ResponseNetwork,
        names: Collection[OperationsName] = ALL_OPERATIONS,
        compiled: Mapping[OperationsName, torch.nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.response = network.response
        self.has_near = network.near_cutoff > 0.0
        self.near = network.near
        self.register_buffer("conditions", network.conditions.clone())
        self.register_buffer("uncertainty_scale", network.uncertainty_scale.clone())
        self.register_buffer("separate_parts", network.separate_parts.clone())
        recorded: dict[OperationsName, torch.nn.Module] = dict(compiled or {})
        for name in names:
            name = operations_name(network, name)
            if name not in recorded:
                recorded[name] = _recorded(network, name)
        missing = {
            name: _NotRecordedSurrounded() if _in_field(name) else _NotRecordedAlone() for name in ALL_OPERATIONS
        }
        self.alone, self.surrounded, self.each_alone, self.each_surrounded = (
            recorded.get(operations_name(network, name), missing[name]) for name in ALL_OPERATIONS
        )

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


def operations_name(network: ResponseNetwork, name: OperationsName) -> OperationsName:
    """Return the list of operations that a network uses under a name: one member needs none for each member."""
    return cast(OperationsName, name.removeprefix("each_")) if network.members == 1 else name


def needed_operations(network: ResponseNetwork, surrounded: bool, each_member: bool) -> tuple[OperationsName, ...]:
    """Return the lists of operations that a term needs.

    Parameters
    ----------
    network : ResponseNetwork
    surrounded : bool
        Whether the term is given a potential and a field.
    each_member : bool
        Whether it asks for the spread of the members instead of their mean.
    """
    in_field = surrounded and network.response
    if not each_member:
        return ("surrounded",) if in_field else ("alone",)
    found: list[OperationsName] = ["each_surrounded" if in_field else "each_alone"]
    if in_field and bool(network.separate_parts):  # the spread in a vacuum, too
        found.append("each_alone")
    return tuple(dict.fromkeys(operations_name(network, name) for name in found))


def operations_of(network: ResponseNetwork, name: OperationsName) -> torch.fx.GraphModule:
    """Return the list of operations for energies and gradient, see `RecordedNetwork`.

    Parameters
    ----------
    network : ResponseNetwork
    name : str
        Of `ALL_OPERATIONS`. The inputs are the row of the condition, (1,), positions and, in a field, potential, field
        and moments of near charges. The results are the energies of the members, (members,), and the derivatives with
        respect to the inputs but the first, (1, ...) of their mean or (members, ...) of each.
    """
    copies = network.members if name.startswith("each_") else 1
    function = _surrounded(network, copies) if _in_field(name) else _alone(network, copies)
    with _without_training(network):
        return _listed(function, example_inputs(network, name))


def example_inputs(network: ResponseNetwork, name: OperationsName) -> Tuple[Tensor, ...]:  # noqa: UP006
    """Return inputs of a list of operations; the operations depend only on the number of atoms."""
    n = len(network.atomic_numbers)
    device = network.conditions.device
    positions = torch.arange(3.0 * n, dtype=torch.float64, device=device).reshape(n, 3)
    row = torch.zeros(1, dtype=torch.int64, device=device)
    if not _in_field(name):
        return row, positions
    site = torch.zeros(n, dtype=torch.float64, device=device)
    moments = torch.zeros(n, N_MOMENTS, network.near_functions, dtype=network.centers.dtype, device=device)
    return row, positions, site, torch.zeros_like(positions), moments


def _in_field(name: str) -> bool:
    return name.endswith("surrounded")


def _recorded(network: ResponseNetwork, name: OperationsName) -> torch.jit.ScriptModule:
    """Return a list of operations as TorchScript."""
    operations, examples = operations_of(network, name), example_inputs(network, name)
    with torch.no_grad():
        return cast(torch.jit.ScriptModule, torch.jit.trace(operations, examples, check_trace=False))


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
