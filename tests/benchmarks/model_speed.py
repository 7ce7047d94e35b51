"""What one evaluation of a response network costs against the number of atoms: energy and all forces, one thread.

    python tests/benchmarks/model_speed.py [--mace] [--device cpu] [--json FILE]

The atoms are carbon and hydrogen at the density of a molecule, among charges at the density of water. The models are
TorchScript as OpenMM runs them, and are measured in turn. The least processor time of the repeats counts, so that a
busy machine changes little. With --mace also a MACE model of similar size, if the package mace-torch is installed; its
neighbour list is not counted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm.ml.recorded_network import RecordedNetwork
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.units import ANGSTROM_IN_BOHR

SPACING = 1.5  # angstrom
CHARGES_PER_VOLUME = 0.1  # per cubic angstrom: water's atoms
REACH = 12.0  # angstrom from the atoms, a usual cutoff
DIFFERENTIATED = ("positions", "potential", "field", "near_positions")
DEFAULT = ResponseSettings()


@dataclass(frozen=True)
class Row:
    """A model to measure."""

    settings: ResponseSettings = DEFAULT
    members: int = 1
    dtype: torch.dtype = torch.float32
    recorded: bool = True
    forces_of_members: bool = False


ROWS = {
    "default": Row(),
    "float64": Row(dtype=torch.float64),
    "without second rank": Row(ResponseSettings(tensor_features=0)),
    "without near charges": Row(ResponseSettings(near_cutoff=0.0)),
    "no long range, no response": Row(ResponseSettings(long_range=False, response=False)),
    "gradient not recorded": Row(recorded=False),
    "committee of 4": Row(members=4),
    "committee of 4, forces of each": Row(members=4, forces_of_members=True),
}


def case(n: int, rng: np.random.Generator) -> tuple[list[int], dict[str, torch.Tensor]]:
    """Return atomic numbers and inputs of a lump of atoms in a field."""
    edge = int(np.ceil(n ** (1 / 3)))
    lattice = np.array([[a, b, c] for a in range(edge) for b in range(edge) for c in range(edge)], dtype=float)[:n]
    positions = SPACING * (lattice + 0.1 * rng.normal(size=(n, 3)))
    low, high = positions.min(0) - REACH, positions.max(0) + REACH
    near = rng.uniform(low, high, size=(int(CHARGES_PER_VOLUME * np.prod(high - low)), 3))
    distance = np.linalg.norm(near[:, None] - positions[None], axis=-1).min(axis=1)
    near = near[(distance > 2.0) & (distance < REACH)]
    inputs = {
        "charge": torch.tensor(0.0, dtype=torch.float64),
        "multiplicity": torch.tensor(1.0, dtype=torch.float64),
        "positions": torch.tensor(positions * ANGSTROM_IN_BOHR),
        "potential": torch.tensor(0.05 * rng.normal(size=n)),
        "field": torch.tensor(0.01 * rng.normal(size=(n, 3))),
        "near_positions": torch.tensor(near * ANGSTROM_IN_BOHR),
        "near_charges": torch.tensor(rng.normal(size=len(near))),
    }
    return [6 if k % 3 == 0 else 1 for k in range(n)], inputs


def evaluation(row: Row, n: int, device: str) -> Callable[[], None]:
    """Return a call that evaluates energy and gradient once."""
    numbers, inputs = case(n, np.random.default_rng(n))
    inputs = {key: value.to(device) for key, value in inputs.items()}
    torch.manual_seed(1)
    network = ResponseNetwork(
        numbers, [(k, k + 1) for k in range(n - 1)], row.settings, members=row.members, dtype=row.dtype
    ).eval()
    network = network.to(device)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    module = torch.jit.freeze(torch.jit.script(RecordedNetwork(network).eval() if row.recorded else network))
    leaves = [inputs[key].requires_grad_(True) for key in DIFFERENTIATED]

    def evaluate() -> None:
        torch.autograd.grad([module(inputs)["energy"]], leaves, allow_unused=True)

    # The uncertainty needs the forces on the region in its surroundings and in a vacuum, none on the charges around.
    of_members = {**inputs, "near_positions": inputs["near_positions"].detach(), "each_member": torch.ones(())}
    in_vacuum = {key: of_members[key] for key in ("charge", "multiplicity", "positions", "each_member")}

    def evaluate_members() -> None:
        for asked, wanted in ((of_members, leaves[:3]), (in_vacuum, leaves[:1])):
            for energy in module(asked)["member_energies"]:
                torch.autograd.grad([energy], wanted, retain_graph=True)

    return evaluate_members if row.forces_of_members else evaluate


def mace_evaluation(n: int) -> Callable[[], None]:
    """Return the same of a MACE model of two layers, 32 scalars and 32 vectors, with random weights."""
    torch.serialization.add_safe_globals([slice])  # in the constants of e3nn 0.4
    from e3nn import o3
    from mace import data, modules, tools

    numbers, inputs = case(n, np.random.default_rng(n))
    table = tools.AtomicNumberTable([1, 6])
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    torch.manual_seed(1)
    model = modules.ScaleShiftMACE(
        r_max=5.0,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=2,
        interaction_cls=interaction,
        interaction_cls_first=interaction,
        num_interactions=2,
        num_elements=2,
        hidden_irreps=o3.Irreps("32x0e + 32x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(2),
        avg_num_neighbors=float(n - 1),
        atomic_numbers=table.zs,
        correlation=2,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    ).float()
    configuration = data.Configuration(
        atomic_numbers=np.array(numbers),
        positions=inputs["positions"].numpy() / ANGSTROM_IN_BOHR,
        properties={},
        property_weights={},
    )
    graph = data.AtomicData.from_config(configuration, z_table=table, cutoff=5.0)
    loader = tools.torch_geometric.dataloader.DataLoader([graph], batch_size=1)
    batch = {
        key: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
        for key, value in next(iter(loader)).to_dict().items()
    }
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return lambda: model(batch, compute_force=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 25, 50, 100])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=8, help="of three evaluations of each model")
    parser.add_argument("--device", default="cpu", help="of torch; cuda measures elapsed time")
    parser.add_argument("--mace", action="store_true", help="also MACE, 32 scalars and 32 vectors, two layers")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)

    def now() -> float:
        if options.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    names = [*options.rows, *(["MACE, 32x0e + 32x1o"] if options.mace else [])]
    found: dict[str, list[float]] = {name: [] for name in names}
    for n in options.sizes:
        calls = {
            name: evaluation(ROWS[name], n, options.device) if name in ROWS else mace_evaluation(n) for name in names
        }
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(-4, options.rounds):  # the first ones warm up
            for name, call in calls.items():
                for _ in range(3):
                    start = now()
                    call()
                    if turn >= 0:
                        times[name].append(1e3 * (now() - start))
        for name in names:
            found[name].append(min(times[name]))
    columns = ("energy and all forces, ms", *(f"{n} atoms" for n in options.sizes))
    table = Table("", columns, tuple((name, *found[name]) for name in names))
    print_tables([table])
    clock = "processor time of one thread" if options.device == "cpu" else "elapsed time"
    write_record(options.json, [table], f"Least {clock} of {3 * options.rounds} evaluations.")


if __name__ == "__main__":
    main()
