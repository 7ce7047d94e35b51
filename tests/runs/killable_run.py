"""Runs argon until it is done, taking up what is in the directory; a test kills it at random times.

Usage: killable_run.py DIRECTORY FORMAT
"""

from __future__ import annotations

import sys

from qmmlmm.runs.run_directory import RunDirectory
from tests.runs.argon import Argon

TOTAL_STEPS = 600
TRAJECTORY_INTERVAL, ENERGY_INTERVAL, CHECKPOINT_INTERVAL = 6, 2, 30


def main(path: str, trajectory_format: str) -> None:
    argon = Argon()
    resume = RunDirectory.holds_run(path)
    simulation = argon.simulation(ready=not resume)
    with RunDirectory(path, argon, seed=5, resume=resume) as run:
        done = run.resume(simulation) if resume else 0
        run.attach(
            simulation,
            trajectory_interval=TRAJECTORY_INTERVAL,
            energy_interval=ENERGY_INTERVAL,
            checkpoint_interval=CHECKPOINT_INTERVAL,
            total_steps=TOTAL_STEPS,
            trajectory_format=trajectory_format,
        )
        print("running", flush=True)
        run.run(simulation, TOTAL_STEPS - done)


if __name__ == "__main__":
    main(*sys.argv[1:])
