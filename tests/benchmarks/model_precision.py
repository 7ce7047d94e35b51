"""What single precision changes in a trained network: float32, as it runs, against the same weights in float64.

    qmmlmm train tests/benchmarks/data/acetone_water.xyz.gz --output model_run
    python tests/benchmarks/model_precision.py model_run/network.pt [--data FRAMES] [--frames 40] [--json FILE]

Energies and forces of labelled frames in their surroundings, forces on the near charges too. The first is the recorded
network that `qmmlmm.MLPotential` runs, the second the network itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm.learning import LabelledFrame, load_network, read_frames, region_potential
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL

DATA = Path(__file__).parent / "data" / "acetone_water.xyz.gz"


def evaluate(module: torch.nn.Module, frame: LabelledFrame) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the energy in kJ/mol, and in kJ/(mol nm) the derivatives by atoms in a fixed field and by near charges."""
    assert frame.near is not None
    assert frame.potential is not None
    assert frame.field is not None
    positions = torch.tensor(frame.positions, requires_grad=True)
    near = torch.tensor(frame.near.positions, requires_grad=True)
    potential = torch.tensor(frame.potential, requires_grad=True)
    field = torch.tensor(frame.field, requires_grad=True)
    inputs = {
        "charge": torch.tensor(float(frame.charge), dtype=torch.float64),
        "multiplicity": torch.tensor(float(frame.multiplicity), dtype=torch.float64),
        "state": torch.tensor(float(frame.electronic_state), dtype=torch.float64),
        "positions": positions,
        "potential": potential,
        "field": field,
        "near_positions": near,
        "near_charges": torch.tensor(frame.near.charges),
    }
    energy = module(inputs)["energy"]
    by_atoms, by_near, charges, dipoles = torch.autograd.grad([energy], [positions, near, potential, field])
    # What the charges and dipoles do in the field, as `qmmlmm.learning.training.prediction` has it.
    slope, curvature = -torch.tensor(frame.field), -torch.tensor(frame.field_gradient)
    by_atoms = by_atoms + charges[:, None] * slope - torch.matmul(curvature, dipoles[:, :, None])[:, :, 0]
    return energy.item() * HARTREE_IN_KJ_PER_MOL, *(g.numpy() * FORCE_AU_IN_OPENMM for g in (by_atoms, by_near))


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path, help="network.pt of a training")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--frames", type=int, default=40)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames = read_frames(options.data)[: options.frames]
    single = region_potential(load_network(options.network)).module
    double = load_network(options.network).double()
    kinds = ("energy, kJ/mol", "forces on atoms, kJ/(mol nm)", "derivatives by near charges, kJ/(mol nm)")
    differences: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
    sizes: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
    for frame in frames:
        for kind, low, high in zip(kinds, evaluate(single, frame), evaluate(double, frame), strict=True):
            differences[kind].append(np.ravel(low - high))
            sizes[kind].append(np.ravel(high))
    rows = []
    for kind in kinds:
        found, size = np.concatenate(differences[kind]), np.concatenate(sizes[kind])
        rows.append((kind, float(np.sqrt(np.mean(found**2))), float(np.abs(found).max()), float(size.std())))
    columns = ("float32 less float64", "root mean square", "largest", "standard deviation of the quantity")
    table = Table("", columns, tuple(rows))
    print_tables([table])
    write_record(options.json, [table], f"{len(frames)} labelled frames.")


if __name__ == "__main__":
    main()
