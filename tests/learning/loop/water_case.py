"""A small loop whose labels are a formula: a flexible water, which QM would treat, among three fixed-charge waters.

Usage: water_case.py DIRECTORY [--log FILE] [--base METHOD]; runs the loop, taking up what is in the directory. With a
method of xTB as base it is a shorter loop.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openmm
from openmm import app

from qmmlmm import Hamiltonian, OpenMMPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.learning import Labeller, TrainingSettings
from qmmlmm.learning.loop import (
    Distance,
    HillVariable,
    LabelSettings,
    LabelSource,
    LearningLoop,
    LoopSettings,
    Metadynamics,
    Walker,
)
from qmmlmm.ml.response_settings import ResponseSettings
from tests.quick_torch import quick_torch

NETWORK = ResponseSettings(
    features=6, layers=1, radial_functions=6, near_cutoff=0.0, tensor_features=0, long_range=False
)
TRAINING = TrainingSettings(steps=16, batch_size=8, validations=2, learning_rate=1e-2)
SETTINGS = LoopSettings(
    force_error=1.0,  # never reached, so that all rounds are run
    fresh_labels=4,
    labels_per_round=4,
    max_rounds=2,
    start_labels=10,
    start_steps=20,
    steps_per_round=60,
    check_interval=10,
    uncertain_above=5.0,
    stop_above=20_000.0,
    members=2,
    seed=7,
)
SHORT = {
    "max_rounds": 1,
    "start_labels": 8,
    "start_steps": 10,
    "steps_per_round": 20,
    "fresh_labels": 2,
    "labels_per_round": 2,
}
WALKERS = [Walker({"hh_centre": centre, "hh_k": 2000.0}) for centre in (0.15, 0.16)]
HILLS = Metadynamics(
    HillVariable(Distance(1, 2), 0.005, 0.1, 0.25), height=0.5, bias_factor=5.0, interval=20, shared=True
)


def waters() -> tuple[app.Topology, openmm.System, np.ndarray]:
    """Return four rigid waters without a box."""
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(4):
        residue = topology.addResidue("HOH", chain)
        atoms = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2")]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
    system = app.ForceField("amber14/tip3p.xml").createSystem(topology, nonbondedMethod=app.NoCutoff)
    one = np.array([[0.0, 0.0, 0.0], [0.09572, 0.0, 0.0], [-0.023999, 0.092663, 0.0]])
    corners = np.array([[0.0, 0.0, 0.0], [0.29, 0.03, 0.02], [-0.12, 0.27, 0.04], [-0.1, -0.12, 0.27]])
    turns = [np.linalg.qr(np.random.default_rng(k).normal(size=(3, 3)))[0] for k in range(4)]
    return topology, system, np.vstack([one @ turn + corner for turn, corner in zip(turns, corners, strict=True)])


def springs() -> OpenMMPotential:
    """Return a flexible water with charges: what the loop is to learn."""
    system = openmm.System()
    bonds, charges = openmm.CustomBondForce("k*(1-exp(-a*(r-r0)))^2; a=20"), openmm.NonbondedForce()
    bonds.addPerBondParameter("k")
    bonds.addPerBondParameter("r0")
    for charge in (-0.834, 0.417, 0.417):
        system.addParticle(1.0)
        charges.addParticle(charge, 0.1, 0.0)
    for pair, strength, length in (((0, 1), 450.0, 0.0965), ((0, 2), 450.0, 0.0965), ((1, 2), 120.0, 0.153)):
        bonds.addBond(*pair, [strength, length])
        charges.addException(*pair, 0.0, 0.1, 0.0)
    system.addForce(bonds)
    system.addForce(charges)
    return OpenMMPotential(system)


class LoggedLabeller(LabelSource):
    """Writes down every label that it finishes, and may wait or fail.

    Parameters
    ----------
    labeller : Labeller
    log : str
        File.
    seconds : float
        That a label takes besides.
    faults : dict of str to str
        Name of a frame to "raise", "hang" or "memory".
    """

    def __init__(self, labeller, log="", seconds=0.0, faults=None) -> None:
        self.labeller, self.log, self.seconds, self.faults = labeller, log, seconds, dict(faults or {})

    def forget(self) -> None:
        self.labeller.forget()

    def label(self, geometry, name="frame"):
        fault = self.faults.get(name)
        if fault == "raise":
            raise ArithmeticError("a planted fault")
        if fault == "hang":
            time.sleep(1000)
        if fault == "memory":
            bytearray(2_000_000_000)
        time.sleep(self.seconds)
        frame = self.labeller.label(geometry, name)
        if self.log:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, f"{name}\n".encode())
            os.close(descriptor)
        return frame


class Announced(LabelSource):
    """Writes down that a label begins, and in which process.

    Parameters
    ----------
    source : LabelSource
    log : str
        File.
    """

    def __init__(self, source, log) -> None:
        self.source, self.log = source, log

    def forget(self) -> None:
        self.source.forget()

    def label(self, geometry, name="frame"):
        with open(self.log, "a") as file:
            file.write(f"{name} {os.getpid()}\n")
        return self.source.label(geometry, name)


def umbrella() -> openmm.Force:
    return Distance(1, 2).umbrella("hh")


def make_source(topology, system, term, log="", seconds=0.0, faults=None) -> LoggedLabeller:
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    return LoggedLabeller(Labeller(mixed.evaluated_term("water/MM"), "springs"), log, seconds, faults)


def make_loop(directory, *, log="", seconds=0.0, faults=None, workers=2, executor="threads", **changes) -> LearningLoop:
    topology, system, positions = waters()
    term = Term(springs(), Region("water", [0, 1, 2]), embedding="electrostatic")
    options = {
        "settings": SETTINGS,
        "walkers": WALKERS,
        "biases": [umbrella()],
        "variables": {"H-H, nm": Distance(1, 2)},
        "network": NETWORK,
        "training": TRAINING,
        "labelling": LabelSettings(workers=workers, isolated=False),
        "executor": (lambda: ThreadPoolExecutor(workers)) if executor == "threads" else executor,
        "method": "springs",
        "source": make_source(topology, system, term, log, seconds, faults),
        "platform": "Reference",
    }
    if isinstance(changes.get("settings"), dict):
        changes["settings"] = dataclasses.replace(SETTINGS, **changes["settings"])
    options.update(changes)
    return LearningLoop(directory, topology, system, term, positions, **options)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--log", default="")
    parser.add_argument("--base")
    options = parser.parse_args()
    changes = {}
    if options.base:
        changes = {"base": XTBPotential(options.base), "settings": SHORT, "walkers": WALKERS[:1]}
    print(make_loop(options.directory, log=options.log, **changes).run())


if __name__ == "__main__":
    with quick_torch():
        main()
