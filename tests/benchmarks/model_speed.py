"""What one evaluation of a response network costs against the number of atoms: energy and all forces, one thread.

    python tests/benchmarks/model_speed.py

The atoms are carbon and hydrogen at the density of a molecule. The median of the repeats counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from qmmlmm.ml.response_network import ResponseNetwork, ResponseSettings
from qmmlmm.units import ANGSTROM_IN_BOHR

N_NEAR = 2000
SPACING = 1.5  # angstrom


def case(n: int, rng: np.random.Generator) -> tuple[list[int], dict[str, torch.Tensor]]:
    """Return atomic numbers and inputs of a lump of atoms in a field."""
    edge = int(np.ceil(n ** (1 / 3)))
    lattice = np.array([[a, b, c] for a in range(edge) for b in range(edge) for c in range(edge)], dtype=float)[:n]
    positions = SPACING * ANGSTROM_IN_BOHR * (lattice + 0.1 * rng.normal(size=(n, 3)))
    near = 25.0 * rng.normal(size=(N_NEAR, 3))
    near += 12.0 * near / np.linalg.norm(near, axis=1, keepdims=True)
    inputs = {
        "charge": torch.tensor(0.0, dtype=torch.float64),
        "multiplicity": torch.tensor(1.0, dtype=torch.float64),
        "positions": torch.tensor(positions),
        "potential": torch.tensor(0.05 * rng.normal(size=n)),
        "field": torch.tensor(0.01 * rng.normal(size=(n, 3))),
        "near_positions": torch.tensor(near),
        "near_charges": torch.tensor(rng.normal(size=N_NEAR)),
    }
    return [6 if k % 3 == 0 else 1 for k in range(n)], inputs


def milliseconds(module: torch.jit.ScriptModule, inputs: dict[str, torch.Tensor], repeats: int) -> float:
    """Return the median time of energy and gradient."""
    leaves = [inputs[key].requires_grad_(True) for key in ("positions", "potential", "field", "near_positions")]
    times = []
    for _ in range(repeats + 5):
        start = time.perf_counter()
        energy = module(inputs)["energy"]
        torch.autograd.grad([energy], leaves, allow_unused=True)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[5:]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 25, 50, 100])
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {
        "float32": (ResponseSettings(near_cutoff=0.0), 1, torch.float32),
        "float64": (ResponseSettings(near_cutoff=0.0), 1, torch.float64),
        "float32 with near charges": (ResponseSettings(), 1, torch.float32),
        "float32, committee of 4": (ResponseSettings(near_cutoff=0.0), 4, torch.float32),
        "float32, no long range, no response": (
            ResponseSettings(long_range=False, response=False, near_cutoff=0.0), 1, torch.float32,
        ),
    }  # fmt: skip
    print("| ms | " + " | ".join(f"{n} atoms" for n in options.sizes) + " |")
    print("|---|" + "---|" * len(options.sizes))
    for name, (settings, members, dtype) in rows.items():
        found = []
        for n in options.sizes:
            numbers, inputs = case(n, np.random.default_rng(n))
            torch.manual_seed(1)
            model = ResponseNetwork(numbers, [], settings, members=members, dtype=dtype)
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            found.append(milliseconds(torch.jit.script(model.eval()), inputs, options.repeats))
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in found) + " |", flush=True)


if __name__ == "__main__":
    main()
