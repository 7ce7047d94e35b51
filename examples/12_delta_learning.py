"""Learn the difference between B3LYP and GFN2-xTB, and simulate with GFN2-xTB plus this difference.

The labels are B3LYP/6-31G* of acetone in the field of water, from the benchmarks. GFN2-xTB is evaluated on the same
geometries in the same field, and a small network learns what is left. In a Hamiltonian the network is a correction
beside the term of GFN2-xTB. Arguments: number of labels, steps of the training. More give a better model.
"""

import sys
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.learning import (
    ResponseSettings,
    TrainingSettings,
    difference_labels,
    read_frames,
    region_potential,
    train,
)
from qmmlmm.units import FORCE_AU_IN_OPENMM
from systems.acetone_water import build

labels, steps = (int(text) for text in sys.argv[1:] or ("40", "200"))
frames = read_frames(ROOT / "tests" / "benchmarks" / "data" / "acetone_water.xyz.gz")[:: max(1, 450 // labels)]
xtb = XTBPotential("gfn2-xtb")

left = difference_labels(frames, xtb).frames
forces = [np.sqrt(np.mean([frame.forces**2 for frame in part])) * FORCE_AU_IN_OPENMM for part in (frames, left)]
print(f"rms force of the labels {forces[0]:.1f} kJ/(mol nm), of what is left after GFN2-xTB {forces[1]:.1f}")

network = ResponseSettings(features=16, layers=1, near_features=8, tensor_features=8)
trained = train(frames, network=network, training=TrainingSettings(steps=steps), base=xtb, validation=0.2)
errors = trained.validation
print(f"mean errors on validation frames: energy {errors.energy:.2f} kJ/mol, forces {errors.forces:.1f} kJ/(mol nm)")
correction = region_potential(trained.model)

structure, acetone = build(), Region("acetone", range(10))
hamiltonian = Hamiltonian([
    Term(xtb, acetone, embedding="electrostatic"),
    Term(correction, acetone, embedding="electrostatic", correction=True),
])  # fmt: skip
print(hamiltonian)
mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 0.5 * unit.femtosecond)
simulation = app.Simulation(structure.topology, mixed.system, integrator, openmm.Platform.getPlatform("CPU"))
simulation.context.setPositions(structure.positions)
simulation.step(20)
for name, energy in mixed.term_energies(simulation.context).items():
    print(f"{name:20s} {energy.value_in_unit(unit.kilojoule_per_mole):16.3f} kJ/mol")
