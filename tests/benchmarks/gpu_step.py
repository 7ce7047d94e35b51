"""An ML step on a GPU beside the force field alone: T4 lysozyme with p-xylene, 23,817 atoms. Takes a few minutes.

    python tests/benchmarks/gpu_step.py [--sizes 10 25 50] [--steps default static graph] [--compile] [--seconds 20]
        [--json docs/results/data/gpu_step.json]

For regions of so many atoms, one network and a committee of four, with random weights: the time of a step of
LangevinMiddleIntegrator with each kind of ML step, medians and quartiles of turns, and the difference of energy and
forces from those of the default step on the Reference platform. With --compile networks are compiled for the GPU first,
a minute or more each. A kind of step that fails is reported, and the others are measured.

It was written without a GPU at hand and has not run on one; ``--platform CPU --steps default static`` runs anywhere.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from ml_embedding import region_of
from record import Table, add_option, print_tables, quartiles, write_record

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system, suggest_charge
from qmmlmm.ml.compiled_network import compile_network
from qmmlmm.ml.response_network import ResponseNetwork
from systems.t4_lysozyme import build

BLOCK = 10
"""Steps between two looks at the clock."""


def context_of(system: openmm.System, positions: np.ndarray, platform: str) -> openmm.Context:
    """Return a Context at 300 K."""
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.0005)
    properties = {"Precision": "mixed"} if platform == "CUDA" else {}
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    return context


def energy_and_forces(context: openmm.Context, positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the results at positions in nm."""
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return float(state.getPotentialEnergy()._value), np.array(state.getForces(asNumpy=True)._value)


def block(context: openmm.Context) -> float:
    """Return the time of a step, ms."""
    start = time.perf_counter()
    context.getIntegrator().step(BLOCK)
    context.getState(energy=True)  # waits for the device
    return 1000.0 * (time.perf_counter() - start) / BLOCK


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 25, 50])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--steps", nargs="+", choices=["default", "static", "graph"], default=None)
    parser.add_argument("--platform", default="CUDA")
    parser.add_argument("--seconds", type=float, default=20.0, help="for the turns of each size and number of members")
    parser.add_argument("--compile", action="store_true", help="compile the networks for the device first")
    add_option(parser)
    options = parser.parse_args()
    kinds = options.steps or ["default", "static", "graph"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    named = torch.cuda.get_device_name() if device == "cuda" else "no CUDA device"
    print(f"{options.platform}; {named}; torch {torch.__version__}, OpenMM {openmm.version.short_version}")
    folder = tempfile.TemporaryDirectory()
    os.environ["QMMLMM_CACHE"] = folder.name
    structure = build()
    positions = np.array(structure.positions.value_in_unit(unit.nanometer))
    elements = [atom.element.atomic_number for atom in structure.topology.atoms()]
    moved = positions + 2e-4 * np.random.default_rng(1).standard_normal(positions.shape)
    force_field = context_of(structure.system, positions, options.platform)
    rows: list[tuple[Any, ...]] = []
    for n in options.sizes:
        atoms = region_of(structure.topology, positions, n)
        numbers = [elements[index] for index in atoms]
        charge = suggest_charge(structure.system, atoms)
        region = Region("region", atoms, charge=charge)
        for members in options.members:
            torch.manual_seed(1)
            network = ResponseNetwork(numbers, conditions=[(charge, 1, 0)], members=members)
            model = MLPotential(network, atomic_numbers=numbers, embeddings=["electrostatic"], charge=charge)
            hamiltonian = Hamiltonian([Term(model, region, embedding="electrostatic")])
            if options.compile:
                assert model.network is not None
                compile_network(model.network, "surrounded", device)
            ordinary = create_mixed_system(
                structure.topology, structure.system, hamiltonian, ml_backend="pythonforce", ml_compiled=False
            )
            reference = energy_and_forces(context_of(ordinary.system, positions, "Reference"), moved)
            contexts = {"force field alone": force_field}
            differences = {}
            for kind in kinds:
                try:
                    mixed = create_mixed_system(
                        structure.topology,
                        structure.system,
                        hamiltonian,
                        ml_backend="pythonforce",
                        ml_precision="mixed",
                        ml_step=kind,
                    )
                    context = context_of(mixed.system, positions, options.platform)
                    energy, forces = energy_and_forces(context, moved)
                    context.setPositions(positions)
                    block(context)
                except Exception:  # noqa: BLE001  (the other kinds of step are measured all the same)
                    traceback.print_exc()
                    rows.append((n, members, kind, "failed", None, None))
                    print(*rows[-1], flush=True)
                    continue
                contexts[kind] = context
                largest = np.abs(reference[1]).max()
                worst = float(np.abs(forces - reference[1]).max() / largest)
                differences[kind] = abs(energy / reference[0] - 1.0), worst
            times: dict[str, list[float]] = {name: [] for name in contexts}
            begin = time.perf_counter()
            while time.perf_counter() - begin < options.seconds or len(times["force field alone"]) < 3:
                for name, context in contexts.items():
                    times[name].append(block(context))
            for name, values in times.items():
                rows.append((n, members, name, quartiles(values), *differences.get(name, (None, None))))
                print(*rows[-1], flush=True)
    folder.cleanup()
    columns = (
        "atoms",
        "members",
        "step",
        "ms a step",
        "energy, relative difference",
        "forces, difference of the largest",
    )
    table = Table("", columns, tuple(rows))
    print_tables([table])
    compiled = "compiled networks" if options.compile else "networks not compiled"
    write_record(options.json, [table], f"23,817 atoms; {options.platform}, {compiled}; medians with quartiles.")


if __name__ == "__main__":
    main()
