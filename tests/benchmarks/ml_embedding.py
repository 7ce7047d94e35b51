"""What electrostatic embedding adds to an ML/MM step: T4 lysozyme with p-xylene, 23,817 atoms, CPU platform.

    python tests/benchmarks/ml_embedding.py [--rounds 15] [--seconds 60]

Prints two tables, of bare evaluations of the forces and of steps of LangevinMiddleIntegrator. The levels are measured
in turn within one run, and the ratios are taken within each turn, so that they hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import openmm
import torch
from openmm import unit

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system, select
from systems.t4_lysozyme import build

MECHANICAL = "ML/MM, mechanical"
STEPS = 2


def systems() -> tuple[dict[str, openmm.System], np.ndarray]:
    """Return the levels to compare and the positions in nm."""
    structure = build()
    ligand = Region("ligand", select(structure.topology, "resname LIG"))
    model = MLPotential.load(ROOT / "examples" / "models" / "p_xylene.pt")
    found = {"MM": structure.system}
    for label, embedding, precision in (
        (MECHANICAL, "mechanical", "double"),
        ("ML/MM, electrostatic, double", "electrostatic", "double"),
        ("ML/MM, electrostatic, mixed", "electrostatic", "mixed"),
    ):
        hamiltonian = Hamiltonian([Term(model, ligand, embedding=embedding)])
        mixed = create_mixed_system(structure.topology, structure.system, hamiltonian, ml_precision=precision)
        found[label] = mixed.system
    return found, np.array(structure.positions.value_in_unit(unit.nanometer))


def table(title: str, seconds: dict[str, list[float]]) -> None:
    """Print medians and quartiles, and the ratios to mechanical embedding within the same turn."""
    print(f"\n{title}")
    print(f"{'level':<32}{'ms':>7}{'quartiles':>16}{'to mechanical':>15}{'quartiles':>14}{'n':>4}")
    for label, values in seconds.items():
        low, middle, high = 1000.0 * np.percentile(values, [25, 50, 75])
        ratio = np.percentile(np.array(values) / np.array(seconds[MECHANICAL]), [25, 50, 75])
        print(
            f"{label:<32}{middle:>7.1f}{f'{low:.1f} - {high:.1f}':>16}{ratio[1]:>15.2f}"
            f"{f'{ratio[0]:.2f} - {ratio[2]:.2f}':>14}{len(values):>4}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this time")
    options = parser.parse_args()
    levels, positions = systems()
    platform = openmm.Platform.getPlatform("CPU")
    bare, moving = {}, {}
    for label, system in levels.items():
        bare[label] = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.001)
        moving[label] = openmm.Context(system, integrator, platform)
        moving[label].setPositions(positions)
        moving[label].setVelocitiesToTemperature(300 * unit.kelvin, 1)
    threads = platform.getPropertyValue(moving["MM"], "Threads")
    print(f"{len(positions)} atoms; threads: OpenMM {threads}, torch {torch.get_num_threads()}")
    rng = np.random.default_rng(1)
    evaluations: dict[str, list[float]] = {label: [] for label in levels}
    steps: dict[str, list[float]] = {label: [] for label in levels}
    begin = time.perf_counter()
    for turn in range(-3, options.rounds):  # the first ones warm up
        moved = positions + 2e-4 * rng.standard_normal(positions.shape)
        for label in levels:
            bare[label].setPositions(moved)
            start = time.perf_counter()
            bare[label].getState(forces=True)
            middle = time.perf_counter()
            moving[label].getIntegrator().step(STEPS)
            end = time.perf_counter()
            if turn >= 0:
                evaluations[label].append(middle - start)
                steps[label].append((end - middle) / STEPS)
        if turn > 3 and time.perf_counter() - begin > options.seconds:
            break
    table("one evaluation of all forces", evaluations)
    table("one step of LangevinMiddleIntegrator, 1 fs", steps)


if __name__ == "__main__":
    main()
