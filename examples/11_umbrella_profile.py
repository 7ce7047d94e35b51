"""The free energy along the torsion of butane from umbrella windows: the barrier with its error, a table, a figure.

`create` is where a QM/MM, ML/MM or xTB/MM Hamiltonian goes. A run that was killed continues when it is started again.
"""

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm import ForceFieldSystem
from qmmlmm.free_energy import UmbrellaSampling
from qmmlmm.sampling import Torsion

# Butane of four united atoms, whose free energy along the torsion is the energy of the torsion: Jorgensen, Madura and
# Swenson, J. Am. Chem. Soc. 106, 6638 (1984), kJ/mol.
OPLS = (8.3973, 16.7862, 1.1339, -26.3174, 0.0, 0.0)
TRANS = np.array([[0.0, 0.0, 0.0], [0.126, 0.088, 0.0], [0.252, 0.0, 0.0], [0.378, 0.088, 0.0]])  # nm


def create(umbrella):
    """Return the System of one window, with the umbrella in it, and its Simulation."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("BUT", topology.addChain())
    for k, mass in enumerate((15.0, 14.0, 14.0, 15.0)):
        topology.addAtom(f"C{k + 1}", app.element.carbon, residue)
        system.addParticle(mass)
    bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.RBTorsionForce()
    for k in range(3):
        bonds.addBond(k, k + 1, 0.154, 2e5)
    for k in range(2):
        angles.addAngle(k, k + 1, k + 2, np.radians(112.0), 520.0)
    torsions.addTorsion(0, 1, 2, 3, *OPLS)
    for force in (bonds, angles, torsions, umbrella):
        system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 0.002 * unit.picoseconds)
    platform = openmm.Platform.getPlatform("Reference")
    return ForceFieldSystem(topology, system), app.Simulation(topology, system, integrator, platform)


sampling = UmbrellaSampling(
    "butane_umbrella",
    create,
    variable=Torsion(0, 1, 2, 3),
    centres=np.arange(-180, 180, 20) * unit.degrees,
    force_constants=60.0,  # kJ/(mol rad^2)
    starts=TRANS,  # pulled from here to all other windows
    temperature=300 * unit.kelvin,
    steps=20000,
    equilibration=1000,
    interval=20,
    frame_interval=1000,
    checkpoint_interval=7000,
    name="torsion",
)
barrier = sampling.run().barrier(reactant=np.radians(175), product=np.radians(65))
for way, height, error in (
    ("trans to gauche", barrier.height, barrier.error),
    ("gauche to trans", barrier.reverse_height, barrier.reverse_error),
):
    print(f"{way}: {height._value:.2f} +- {error._value:.2f} kJ/mol")
