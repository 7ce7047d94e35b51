"""The free energy of a water molecule in a droplet from the force field to HF/6-31G*/MM: direct, and through a network.

    python tests/benchmarks/cycle_closure.py DIRECTORY [--smoke] [--trajectories 10] [--held] [--json FILE]

1. Switching from the force field to HF/6-31G* and back.
2. Switching from the force field to ``examples/models/water.pt``, which was trained on HF/6-31G*, and from there to
   HF/6-31G*, both ways.
3. The first stage of 2, and from the network to HF/6-31G* by HF energies of the frames that the network sampled.

All three are one free energy. Printed are their errors, how often HF/6-31G* is evaluated for each, and how often at
equal errors: variances fall as one over the number of evaluations. Writes ``results.json`` into the directory. It
continues where it was stopped; more `--trajectories` are added to those that are there, and with a directory that is
complete it only writes the record. A quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
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

from qmmlmm import ForceFieldPotential, MLPotential, PySCFPotential, Region
from qmmlmm.free_energy import EndStateCorrection, Leg, LegResult, SwitchingSettings, reweight
from qmmlmm.free_energy.trajectory_tasks import Stage, read_trajectory
from systems import solution
from systems.water import build

N_WATER = 64
TEMPERATURE, STEP, FRICTION = 300.0, 0.0005, 30.0  # K, ps, 1/ps
FEWEST_FRAMES = 10
"""Least number of frames that `reweight` takes."""

LABELS = 240
"""Labels that the network was trained on."""

NETWORK = MLPotential.load(ROOT / "examples" / "models" / "water.pt")
QM = PySCFPotential("hf", "6-31g*")
"""The level of the network's labels."""

ENERGY, ERROR = "free energy (kJ/mol)", "error (kJ/mol)"
STAGE_ERROR, CALLS = "error of the stage with QM (kJ/mol)", "QM evaluations: sampling, switching or frames"


def droplet_leg(folder: Path, steps: int, *, held: bool = False) -> Leg:
    """Return a droplet of flexible water with the positions of the first session; its middle molecule is the region.

    If the surroundings are held, it alone moves.
    """
    box = build(rigid_water=False)
    positions = np.array(box.positions.value_in_unit(unit.nanometer)).reshape(-1, 3, 3)
    edges = np.diag(np.array(box.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer)))
    centres = positions[:, :1] - positions[0, 0]
    positions = positions - positions[0, 0] - edges * np.round(centres / edges)
    near = np.argsort(np.linalg.norm(positions[:, 0], axis=1))[:N_WATER]
    topology = solution.join_topologies(app.Topology(), solution.Solvent(N_WATER), box.topology.getPeriodicBoxVectors())
    topology.setPeriodicBoxVectors(None)
    forces = app.ForceField(solution.WATER_XML["tip3p"])
    system = forces.createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False, removeCMMotion=not held
    )
    path = folder / "positions.npy"
    if not path.exists():
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5, STEP)
        integrator.setRandomNumberSeed(1)
        simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatform("CPU"))
        simulation.context.setPositions(positions[near].reshape(-1, 3))
        simulation.minimizeEnergy(maxIterations=100)
        simulation.context.setVelocitiesToTemperature(TEMPERATURE, 1)
        simulation.step(steps)
        state = simulation.context.getState(positions=True)
        np.save(path, state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    if held:
        for atom in range(3, system.getNumParticles()):
            system.setParticleMass(atom, 0.0)
    return Leg(topology, system, np.load(path), Region("water", range(3)))


def sampling_steps(settings: SwitchingSettings) -> int:
    """Return the number of steps of one end of a stage."""
    return settings.equilibration_steps + settings.trajectories * settings.steps_between_frames


def row(leg: LegResult, settings: SwitchingSettings) -> dict[str, Any]:
    """Return the numbers of a leg whose last stage, with these settings, has QM."""
    return {
        ENERGY: kj(leg.free_energy),
        ERROR: kj(leg.error),
        STAGE_ERROR: kj(leg.stages[-1].estimate.error),
        "overlaps": [round(stage.estimate.overlap, 4) for stage in leg.stages],
        CALLS: [sampling_steps(settings), 2 * settings.trajectories * settings.switch_steps],
    }


def single_points(frames: Path, stage: Stage, count: int, results: Path) -> np.ndarray:
    """Return the energies of QM less those of the network in the network's frames, (count,) kJ/mol."""
    found = np.load(results).tolist() if results.exists() else []
    if len(found) < count:
        mixed = stage.create()
        context = openmm.Context(mixed.system, openmm.VerletIntegrator(STEP), openmm.Platform.getPlatform("CPU"))
        for k in range(len(found), count):
            frame = read_trajectory(frames / f"{k:04d}.npz").frame
            context.setPositions(frame.positions)
            found.append(kj(next(iter(mixed.parameter_derivatives(context).values()))))
            np.save(results, found)
    return np.array(found[:count])


def table_of(results: dict[str, dict[str, Any]]) -> Table:
    """Return the table of a page."""
    direct = results["direct"]
    rows = []
    for name in ("direct", "through the network", "through the network, single points"):
        one = results[name]
        difference = one[ENERGY] - direct[ENERGY]
        needed = [evaluations(x) for x in (direct, one)]
        other = one is not direct
        rows.append(
            (
                name,
                [difference, one[ERROR]],
                round(abs(difference) / math.hypot(direct[ERROR], one[ERROR]), 1) if other else None,
                ", ".join(f"{x:.2f}" for x in one["overlaps"]),
                round(one[STAGE_ERROR], 2),
                " + ".join(f"{x:,}" for x in one[CALLS]),
                round(needed[1]),
                needed[0] / needed[1] if other else None,
                needed[0] / (needed[1] + LABELS) if other else None,
            )
        )
    columns = (
        "from the force field to HF/6-31G\\*/MM",
        "free energy less that of the first row, kJ/mol",
        "less, in combined errors",
        "overlap of the stages",
        "error of the stage with QM, kJ/mol",
        "QM evaluations",
        "QM evaluations for 0.5 kJ/mol",
        "times fewer",
        f"times fewer, the network's {LABELS} labels counted in",
    )
    return Table("", columns, tuple(rows))


def evaluations(one: dict[str, Any]) -> float:
    """Return the number of QM evaluations for an error of 0.5 kJ/mol in all."""
    return max(FEWEST_FRAMES, sum(one[CALLS]) * (one[ERROR] / 0.5) ** 2)


def kj(quantity: unit.Quantity) -> float:
    return round(float(quantity.value_in_unit(unit.kilojoule_per_mole)), 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a minute, for numbers without meaning")
    parser.add_argument("--trajectories", type=int, default=10, help="with QM, in each direction")
    parser.add_argument("--held", action="store_true", help="hold the surroundings of the molecule")
    add_option(parser)
    options = parser.parse_args()
    scale = 20 if options.smoke else 1
    options.directory.mkdir(parents=True, exist_ok=True)
    leg = droplet_leg(options.directory, 10_000 // scale, held=options.held)

    def settings(trajectories: int, switch_steps: int, equilibration: int, between: int) -> SwitchingSettings:
        return SwitchingSettings(
            temperature=TEMPERATURE,
            trajectories=trajectories,
            switch_steps=max(2, switch_steps // scale),
            equilibration_steps=equilibration // scale,
            steps_between_frames=max(1, between // scale),
            checkpoint_steps=100,
            step_size=STEP,
            friction=FRICTION,
            platform="CPU",
        )

    with_qm = options.trajectories if not options.smoke else 4
    without = max(20, with_qm) if not options.smoke else 10
    first = settings(without, 20, 400, 80)
    second = settings(with_qm, 2, 250, 80)
    straight = settings(with_qm, 20, 250, 80)
    results: dict[str, dict[str, Any]] = {}
    legs, lower = {"water": leg}, ForceFieldPotential()
    correction = EndStateCorrection(
        options.directory / "through", legs, lower, QM, through=[NETWORK], settings=[first, second]
    )
    through = correction.run().legs["water"]
    results["through the network"] = row(through, second)
    print(results["through the network"], flush=True)
    differences = single_points(
        options.directory / "through" / "water" / correction.stages[0].name / "upper" / "replica0",
        correction.stages[1],
        without,
        options.directory / "single_points.npy",
    )
    last = reweight(differences, TEMPERATURE)
    start = through.stages[0].estimate
    results["through the network, single points"] = {
        ENERGY: kj(start.free_energy + last.free_energy),
        ERROR: round(math.hypot(kj(start.error), kj(last.free_energy_error)), 6),
        STAGE_ERROR: kj(last.free_energy_error),
        "overlaps": [round(start.overlap, 4)],
        "effective frames": round(last.effective_samples, 1),
        "standard deviation of QM - ML (kJ/mol)": round(float(differences.std(ddof=1)), 4),
        CALLS: [0, without],
    }
    print(results["through the network, single points"], flush=True)
    direct = EndStateCorrection(options.directory / "direct", legs, lower, QM, settings=straight).run()
    results["direct"] = row(direct.legs["water"], straight)
    print(results["direct"], flush=True)
    (options.directory / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = table_of(results)
    print_tables([table])
    notes = (
        f"The middle one of {N_WATER} flexible TIP3P waters in a droplet{', the others held' * options.held}, 300 K, "
        f"steps of 0.5 fs, CPU platform; {straight.equilibration_steps * STEP:g} ps of equilibration with QM and "
        f"frames every {straight.steps_between_frames * STEP:g} ps; switches from the force field of "
        f"{first.switch_steps * STEP:g} ps, from the network of {second.switch_steps * STEP:g} ps; single run."
    )
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
