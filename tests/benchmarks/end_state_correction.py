"""The correction of acetone in 200 waters from the force field to GFN2-xTB/MM: switching against an equilibrium ladder.

    python tests/benchmarks/end_state_correction.py DIRECTORY [--smoke] [--sampling 10] [--json FILE]

The correction from GFN2-xTB/MM to itself comes last. Writes ``results.json`` into the directory. It continues where it
was stopped; with a directory that is complete it only writes the record. Half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
from openmm import app, unit

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import ForceFieldPotential, Region, XTBPotential
from qmmlmm.free_energy import EndStateCorrection, EquilibriumLadder, Leg, LegResult, SwitchingSettings
from systems import solution
from systems.acetone_water import builder
from systems.options import SystemOptions

N_WATER, EDGE = 200, 1.88  # nm
LOWER, UPPER = ForceFieldPotential(), XTBPotential("gfn2-xtb")
WINDOWS = 0.0, 0.5, 1.0


def acetone_leg(picoseconds: float) -> Leg:
    """Return acetone in water, minimised and equilibrated with the force field."""
    solvent = solution.Solvent(n_water=N_WATER)
    acetone = np.array(builder.build().positions.value_in_unit(unit.nanometer))[:10]
    centred = acetone - acetone.mean(axis=0) + 0.5 * EDGE
    placed = solution.place_solvent(centred, np.eye(3) * EDGE, solvent, np.random.default_rng(1))
    topology = solution.join_topologies(builder.acetone_topology(), solvent, placed.box_quantity)
    options = SystemOptions(nonbonded_cutoff=0.8, switch_distance=0.7, constraints=None, remove_cm_motion=False)
    system = builder.force_field().createSystem(topology, **options.arguments())
    integrator = openmm.LangevinMiddleIntegrator(300, 5, 0.001)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatform("CPU"))
    simulation.context.setPositions(placed.positions_quantity)
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.step(round(picoseconds / 0.001))
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)
    return Leg(topology, system, positions, Region("acetone", builder.ACETONE))


def saved_leg(folder: Path, picoseconds: float) -> Leg:
    """Return the leg with the positions of the first session."""
    path = folder / "positions.npy"
    if path.exists():
        fresh = acetone_leg(0.0)
        return Leg(fresh.topology, fresh.system, np.load(path), fresh.region)
    leg = acetone_leg(picoseconds)
    np.save(path, leg.positions)
    return leg


def row(found: LegResult, settings: SwitchingSettings) -> dict[str, object]:
    """Return the numbers of a correction of one stage."""
    estimate = found.stages[0].estimate
    return {
        "free energy (kJ/mol)": kj(estimate.free_energy),
        "error (kJ/mol)": kj(estimate.error),
        "crossing (kJ/mol)": kj(estimate.crossing),
        "overlap": round(estimate.overlap, 4),
        "lost forward, reverse (kJ/mol)": [kj(estimate.lost_forward), kj(estimate.lost_reverse)],
        "works (kJ/mol)": {
            "forward": found.stages[0].forward.round(4).tolist(),
            "reverse": found.stages[0].reverse.round(4).tolist(),
        },
        "trajectories": estimate.n_forward,
        "switch (ps)": settings.switch_steps * settings.step_size,
        "equilibration (ps)": settings.equilibration_steps * settings.step_size,
        "between frames (ps)": settings.steps_between_frames * settings.step_size,
    }


def table_of(results: dict[str, dict[str, Any]]) -> Table:
    """Return the table of a page."""
    switching, ladder, itself = (results[key] for key in ("switching", "ladder", "GFN2 to itself"))
    energy, error = "free energy (kJ/mol)", "error (kJ/mol)"
    columns = (
        "from the force field to GFN2-xTB/MM",
        "free energy less that of the first row, kJ/mol",
        "overlap, the least",
        "lost forward, kJ/mol",
        "lost in reverse",
        "equilibration, ps",
        "frames",
    )
    rows = (
        (
            f"switching in {switching['switch (ps)']:g} ps",
            [0.0, switching[error]],
            switching["overlap"],
            *switching["lost forward, reverse (kJ/mol)"],
            switching["equilibration (ps)"],
            f"{switching['trajectories']} at each end, every {switching['between frames (ps)']:g} ps",
        ),
        (
            f"ladder of {len(ladder['values'])} windows",
            [ladder[energy] - switching[energy], ladder[error]],
            min(ladder["overlaps"]),
            None,
            None,
            ladder["equilibration (ps)"],
            f"{ladder['frames of each window']} in each window, every {ladder['between frames (ps)']:g} ps",
        ),
        ("from GFN2-xTB/MM to itself", [itself[energy], itself[error]], *[None] * 5),
    )
    return Table("", columns, rows)


def kj(quantity: unit.Quantity) -> float:
    return round(float(quantity.value_in_unit(unit.kilojoule_per_mole)), 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a minute, for numbers without meaning")
    parser.add_argument(
        "--sampling", type=int, default=10, help="times 0.2 ps of equilibration, 0.04 ps between frames"
    )
    parser.add_argument("--trajectories", type=int, default=10, help="switching trajectories in each direction")
    add_option(parser)
    options = parser.parse_args()
    scale = 20 if options.smoke else 1
    options.directory.mkdir(parents=True, exist_ok=True)
    leg = saved_leg(options.directory, 10.0 / scale)

    def settings(switch_steps: int, trajectories: int = 10, frames: int = 40) -> SwitchingSettings:
        return SwitchingSettings(
            trajectories=max(4, trajectories // scale),
            switch_steps=max(4, switch_steps // scale),
            equilibration_steps=200 * options.sampling // scale,
            steps_between_frames=max(2, frames * options.sampling // scale),
            checkpoint_steps=100,
            friction=5.0,
            platform="CPU",
        )

    legs = {"water": leg}
    results: dict[str, dict[str, Any]] = {}
    switching = settings(100, options.trajectories)
    correction = EndStateCorrection(options.directory / "direct", legs, LOWER, UPPER, settings=switching)
    results["switching"] = row(correction.run().legs["water"], switching)
    print("switching", results["switching"], flush=True)
    window, frames = settings(1, frames=10), max(10, 25 // scale)
    found = (
        EquilibriumLadder(
            options.directory / "ladder", legs, LOWER, UPPER, values=WINDOWS, frames=frames, settings=window
        )
        .run()
        .legs["water"]
    )
    results["ladder"] = {
        "free energy (kJ/mol)": kj(found.free_energy),
        "error (kJ/mol)": kj(found.error),
        "values": np.round(found.values, 6).tolist(),
        "overlaps": np.round(found.overlaps, 4).tolist(),
        "frames of each window": frames,
        "equilibration (ps)": window.equilibration_steps * window.step_size,
        "between frames (ps)": window.steps_between_frames * window.step_size,
    }
    print("ladder", results["ladder"], flush=True)
    # Zero without any sampling.
    short = replace(switching, trajectories=4, switch_steps=10, equilibration_steps=10, steps_between_frames=10)
    same = EndStateCorrection(options.directory / "itself", legs, UPPER, UPPER, settings=short).run()
    results["GFN2 to itself"] = {
        "free energy (kJ/mol)": float(same.legs["water"].free_energy.value_in_unit(unit.kilojoule_per_mole)),
        "error (kJ/mol)": float(same.legs["water"].error.value_in_unit(unit.kilojoule_per_mole)),
    }
    (options.directory / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = table_of(results)
    print_tables([table])
    notes = f"Acetone in {N_WATER} TIP3P waters, 300 K, steps of 1 fs, CPU platform; single run."
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
