"""What one step costs at each level: T4 lysozyme with p-xylene, 23,817 atoms.

    python tests/benchmarks/time_per_step.py [--qm hf] [--repeats 10] [--platform CPU] [--json FILE]

Prints a table; the levels are measured in turn within one run, so that their ratios hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, quartiles, write_record

from qmmlmm import Hamiltonian, MLPotential, PySCFPotential, Region, Term, create_mixed_system, select
from systems.t4_lysozyme import build


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qm", default="hf", help="method of the QM row, in 6-31g*")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--platform", default="CPU", help="OpenMM platform, with its own default precision")
    add_option(parser)
    options = parser.parse_args()
    structure = build()
    ligand = Region("ligand", select(structure.topology, "resname LIG"))
    ml = MLPotential.load(ROOT / "examples" / "models" / "p_xylene.pt")
    qm = PySCFPotential(options.qm, "6-31g*")
    systems = {"MM": structure.system}
    for label, potential, embedding in (
        ("ML/MM, mechanical", ml, "mechanical"),
        ("ML/MM, electrostatic", ml, "electrostatic"),
        (f"QM/MM, {options.qm}/6-31g*, electrostatic", qm, "electrostatic"),
    ):
        hamiltonian = Hamiltonian([Term(potential, ligand, embedding=embedding)])
        systems[label] = create_mixed_system(structure.topology, structure.system, hamiltonian).system
    positions = structure.positions.value_in_unit(unit.nanometer)
    rng = np.random.default_rng(1)
    contexts = {}
    for label, system in systems.items():
        contexts[label] = openmm.Context(
            system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(options.platform)
        )
    seconds: dict[str, list[float]] = {label: [] for label in systems}
    for repeat in range(options.repeats + 1):  # the first round warms up
        moved = positions + 2e-4 * rng.standard_normal(positions.shape)
        for label, context in contexts.items():
            if label.startswith("QM") and repeat > max(3, options.repeats // 4):
                continue
            context.setPositions(moved)
            start = time.perf_counter()
            context.getState(forces=True)
            if repeat > 0:
                seconds[label].append(time.perf_counter() - start)
    reference = np.median(seconds["MM"])
    print(f"{'level':<44}{'ms (median)':>12}{'quartiles':>20}{'times MM':>10}{'n':>4}")
    rows = []
    for label, values in seconds.items():
        low, middle, high = (1000.0 * value for value in quartiles(values))
        span = f"{low:.0f} - {high:.0f}"
        ratio = middle / (1000.0 * float(reference))
        print(f"{label:<44}{middle:>12.0f}{span:>20}{ratio:>10.2f}{len(values):>4}")
        rows.append((label, [low, middle, high], ratio, len(values)))
    table = Table("Evaluation of all forces", ("level", "ms", "times MM", "evaluations"), tuple(rows))
    write_record(
        options.json, [table], f"{len(positions):,} atoms; wall time, medians with quartiles; {options.platform}."
    )


if __name__ == "__main__":
    main()
