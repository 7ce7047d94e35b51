"""Train a learned potential on labels from PySCF.

Molecular dynamics with the force field gives geometries of a water molecule among others. PySCF labels them with energy
and forces of the molecule in the field of all other water, and with its response to that field. A small network learns
from these labels. MLPotential.load reads the saved file. More labels and steps give a better model. The following
command made the file models/water.pt, which the other examples use:

    python examples/09_train_a_potential.py 240 4000 examples/models/water.pt
"""

import sys
from pathlib import Path

import openmm
from openmm import app, unit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.geometry import Geometry
from qmmlmm.learning import Labeller, ResponseSettings, TrainingSettings, region_potential, train
from systems.water import build

frames, steps, path = sys.argv[1:] or ("40", "300", "water_model_run/water.pt")
structure = build(rigid_water=False)

# The Hamiltonian that labels the geometries: QM for the first molecule, in the field of all others.
qm = PySCFPotential("hf", "6-31g*", guess="fresh", embedding_grid_level=1)
hamiltonian = Hamiltonian([Term(qm, Region("water", range(3)), embedding="electrostatic")])
mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
labeller = Labeller(mixed.evaluated_term("water/QM"), "hf/6-31g*")

# Geometries from the force field, hotter than the later simulations.
integrator = openmm.LangevinMiddleIntegrator(400 * unit.kelvin, 5 / unit.picosecond, 0.5 * unit.femtosecond)
integrator.setRandomNumberSeed(1)
simulation = app.Simulation(structure.topology, structure.system, integrator)
simulation.context.setPositions(structure.positions)
simulation.context.setVelocitiesToTemperature(400 * unit.kelvin, 1)
labels = []
for frame in range(int(frames)):
    simulation.step(40)
    labels.append(labeller.label(Geometry.from_context(simulation.context), f"water-{frame}"))

network = ResponseSettings(features=16, layers=1, near_features=8, tensor_features=8)
trained = train(labels, network=network, training=TrainingSettings(steps=int(steps)), validation=0.2)
errors = trained.validation
print(f"mean errors on validation frames: energy {errors.energy:.3f} kJ/mol, forces {errors.forces:.1f} kJ/(mol nm)")

Path(path).parent.mkdir(exist_ok=True)
region_potential(trained.model).save(path)
print(f"{len(labels)} labels, {steps} steps: wrote {path}, {Path(path).stat().st_size // 1024} KiB")
