"""Corrections of acetone in 200 waters from the force field to GFN2-xTB/MM: two methods, two ways, and their costs.

    python tests/benchmarks/end_state_correction.py DIRECTORY [--smoke] [--sampling 10] [--update PAGE]

1. Switching against an equilibrium ladder, from the force field to GFN2-xTB/MM.
2. The same through GFN1-xTB/MM: the two ways around the cycle, and how many evaluations of GFN2-xTB each takes. Here
   GFN2-xTB stands for an expensive level, and GFN1-xTB for a cheap one that resembles it, such as a learned potential.
3. The correction from GFN2-xTB/MM to itself.

Writes ``results.json`` into the directory; `--update FILE` replaces the tables between the markers in a page. It
continues where it was stopped. Half an hour on one core.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import warnings
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
from openmm import app, unit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from qmmlmm import ForceFieldPotential, Region, XTBPotential
from qmmlmm.free_energy import EndStateCorrection, EquilibriumLadder, Leg, LegResult, SwitchingSettings
from systems import solution
from systems.acetone_water import builder
from systems.options import SystemOptions

MARKERS = "<!-- end_state_correction: begin -->", "<!-- end_state_correction: end -->"
N_WATER, EDGE = 200, 1.88  # nm
LOWER, CHEAP, UPPER = ForceFieldPotential(), XTBPotential("gfn1-xtb"), XTBPotential("gfn2-xtb")


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


def row(leg: LegResult, settings: list[SwitchingSettings], expensive: int) -> dict[str, object]:
    """Return the numbers of a correction; GFN2-xTB is evaluated in the stage of index `expensive`."""
    one = settings[expensive]
    sampling = one.equilibration_steps + -(-one.trajectories // one.replicas) * one.steps_between_frames
    return {
        "free energy (kJ/mol)": kj(leg.free_energy),
        "error (kJ/mol)": kj(leg.error),
        "stages": [
            {
                "name": stage.name,
                "free energy (kJ/mol)": kj(stage.estimate.free_energy),
                "error (kJ/mol)": kj(stage.estimate.error),
                "crossing (kJ/mol)": kj(stage.estimate.crossing),
                "overlap": stage.estimate.overlap,
                "lost forward, reverse (kJ/mol)": [kj(stage.estimate.lost_forward), kj(stage.estimate.lost_reverse)],
                "trajectories": stage.estimate.n_forward,
                "switch (ps)": setting.switch_steps * setting.step_size,
            }
            for stage, setting in zip(leg.stages, settings, strict=True)
        ],
        "GFN2 evaluations of sampling": sampling * one.replicas,
        "GFN2 evaluations of switching": 2 * one.trajectories * one.switch_steps,
    }


def tables(results: dict[str, dict[str, object]]) -> str:
    """Return the tables of a page."""
    direct, through, ladder, itself = (results[k] for k in ("direct", "through GFN1", "ladder", "GFN2 to itself"))

    def value(one: dict[str, object]) -> str:
        return f"{one['free energy (kJ/mol)'] - direct['free energy (kJ/mol)']:.2f} ± {one['error (kJ/mol)']:.2f}"

    def stages(one: dict[str, object], key: str) -> str:
        return ", ".join(f"{stage[key]:.2g}" for stage in one["stages"])

    def calls(one: dict[str, object]) -> str:
        return f"{one['GFN2 evaluations of switching']:,} + {one['GFN2 evaluations of sampling']:,}"

    ratio = direct["GFN2 evaluations of switching"] / through["GFN2 evaluations of switching"]
    total = [one["GFN2 evaluations of switching"] + one["GFN2 evaluations of sampling"] for one in (direct, through)]
    at_equal_error = (direct["error (kJ/mol)"] / through["error (kJ/mol)"]) ** 2
    machine = f"single run, {results['machine']}: {results['system']}"
    lowest = f"{min(ladder['overlaps']):.2g} or more"
    same, same_error = (itself[key] for key in ("free energy (kJ/mol)", "error (kJ/mol)"))
    return "\n".join(
        [
            f"Written on {results['date']} by `{results['command']}`, {machine}.",
            "",
            "Free energies less that of the first row, kJ/mol:",
            "",
            "| from the force field to GFN2-xTB/MM | free energy | overlap | GFN2 evaluations, switching + sampling |",
            "|---|---|---|---|",
            f"| switching, direct | {value(direct)} | {stages(direct, 'overlap')} | {calls(direct)} |",
            f"| switching through GFN1-xTB | {value(through)} | {stages(through, 'overlap')} | {calls(through)} |",
            f"| ladder of {len(ladder['values'])} windows | {value(ladder)} | {lowest} | |",
            "",
            f"From GFN2-xTB/MM to itself: {same:.1e} ± {same_error:.1e} kJ/mol. Through GFN1-xTB the expensive level "
            f"is evaluated {ratio:.3g} times less often in switching, and {total[0] / total[1]:.3g} times less often "
            "in all; scaled to equal errors (variance times evaluations) these factors are "
            f"{ratio * at_equal_error:.3g} and {total[0] / total[1] * at_equal_error:.3g}.",
        ]
    )


def update(path: Path, text: str) -> None:
    """Replace what stands between the markers of a page."""
    page = path.read_text(encoding="utf-8")
    before, _, rest = page.partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    path.write_text(f"{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{after}", encoding="utf-8")


def kj(quantity: unit.Quantity) -> float:
    return round(float(quantity.value_in_unit(unit.kilojoule_per_mole)), 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a minute, for numbers without meaning")
    parser.add_argument(
        "--sampling", type=int, default=10, help="times 0.2 ps of equilibration, 0.04 ps between frames"
    )
    parser.add_argument("--update", type=Path, help="page whose tables are replaced")
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
    runs = {
        "direct": ([], [settings(100)], 0),
        "through GFN1": ([CHEAP], [settings(100), settings(5)], 1),
    }
    results: dict[str, object] = {
        "command": f"python tests/benchmarks/end_state_correction.py DIRECTORY --sampling {options.sampling}"
        + " --smoke" * options.smoke,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, one core, shared",
        "system": f"acetone in {N_WATER} TIP3P waters, 300 K, steps of 1 fs, CPU platform",
    }
    for name, (through, given, expensive) in runs.items():
        correction = EndStateCorrection(
            options.directory / name.replace(" ", "-"), legs, LOWER, UPPER, through, settings=given
        )
        results[name] = row(correction.run().legs["water"], given, expensive)
        print(name, results[name], flush=True)
    window = settings(1, frames=15)
    ladder = EquilibriumLadder(
        options.directory / "ladder", legs, LOWER, UPPER, frames=max(10, 30 // scale), settings=window
    ).run()
    found = ladder.legs["water"]
    results["ladder"] = {
        "free energy (kJ/mol)": kj(found.free_energy),
        "error (kJ/mol)": kj(found.error),
        "values": np.round(found.values, 6).tolist(),
        "overlaps": np.round(found.overlaps, 4).tolist(),
        "frames of each window": max(10, 30 // scale),
    }
    same = EndStateCorrection(
        options.directory / "itself", legs, UPPER, UPPER, settings=settings(20, trajectories=4, frames=20)
    ).run()
    results["GFN2 to itself"] = {
        "free energy (kJ/mol)": float(same.legs["water"].free_energy.value_in_unit(unit.kilojoule_per_mole)),
        "error (kJ/mol)": float(same.legs["water"].error.value_in_unit(unit.kilojoule_per_mole)),
    }
    (options.directory / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(tables(results))
    if options.update:
        update(options.update, tables(results))


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
