"""Label acetone in water, among ions and in liquid acetone, with B3LYP/6-31G* in the field of its surroundings.

    python tests/benchmarks/label_acetone.py --environment water --frames 460 --output labels
    python tests/benchmarks/label_acetone.py --environment one_ion --frames 20 --output labels
    python tests/benchmarks/label_acetone.py --environment acetone --frames 30 --output labels
    python tests/benchmarks/label_acetone.py --environment water --temperature 800 --frames 20 --output labels

The force field moves everything at 400 K; frames are 0.5 ps apart. Frame 0 to 39 of the water are test frames, 2.5 ps
before the first of the others. A run that was stopped goes on behind the last label of its file, LABELS/water.xyz, or
LABELS/water_800K.xyz at another temperature.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
import torch
from openmm import app, unit
from scipy.spatial.transform import Rotation
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.geometry import Geometry
from qmmlmm.learning import Labeller, append_frames, read_frames
from systems import solution
from systems.acetone_water import builder
from systems.coordinates import Coordinates, load_coordinates

QM = PySCFPotential("b3lyp", "6-31g*", grid_level=2, conv_tol=1e-8, guess="fresh")
METHOD = "b3lyp/6-31g*, density fitting, grid level 2"
# Sodium and chloride that are held 3.5 to 6 angstrom from the carbonyl carbon.
IONS = {"water": (0, 0), "one_ion": (1, 0), "three_ions": (2, 1)}
ENVIRONMENTS = (*IONS, "acetone")
WATERS_WITH_IONS = 682
ACETONES, ACETONE_EDGE = 180, 2.82  # of the liquid; nm: 0.78 g/ml
TEMPERATURE = 400.0  # K
TEST_FRAMES = 40
STEPS = 250
STEPS_BETWEEN_TEST_AND_REST = 1250


class Environment:
    """Acetone in one environment: dynamics with the force field, and labels.

    Parameters
    ----------
    name : str
        Of `ENVIRONMENTS`.
    state : Path
        Where the state of the dynamics is kept.
    temperature : float
        K.
    """

    def __init__(self, name: str, state: Path, temperature: float) -> None:
        self.state = state
        self.temperature = temperature
        sodium, chloride = IONS.get(name, (0, 0))
        ions = sodium + chloride
        self.start = load_coordinates(builder.COORDINATES)
        solvent = builder.SOLVENT
        if ions:
            solvent = solution.Solvent(n_water=WATERS_WITH_IONS - ions, n_sodium=sodium, n_chloride=chloride)
            rng = np.random.default_rng(7 + list(IONS).index(name))
            molecule = self.start.positions[:10]
            self.start = solution.place_solvent(molecule, self.start.box_vectors, solvent, rng, ion_distance=0.45)
        if name == "acetone":
            topology, self.start = liquid_acetone(self.start.positions[:10])
        else:
            topology = solution.join_topologies(builder.acetone_topology(), solvent, self.start.box_quantity)
        labelled, moved = _system(topology, self.start), _system(topology, self.start)
        if ions:
            restraint = openmm.CustomBondForce("20000*(max(0, 0.35-r)^2 + max(0, r-0.60)^2)")
            restraint.setUsesPeriodicBoundaryConditions(True)
            for ion in range(ions):
                restraint.addBond(1, 10 + ion, [])
            moved.addForce(restraint)
        integrator = openmm.LangevinMiddleIntegrator(
            temperature * unit.kelvin, 2 / unit.picosecond, 2 * unit.femtosecond
        )
        platform = openmm.Platform.getPlatform("CPU")
        self.context = openmm.Context(moved, integrator, platform, {"Threads": "1"})
        region = Region("acetone", builder.ACETONE)
        mixed = create_mixed_system(topology, labelled, Hamiltonian([Term(QM, region, embedding="electrostatic")]))
        self.labeller = Labeller(mixed.evaluated_term("acetone/QM"), METHOD)
        self.next_frame = 0

    def go_to(self, frame: int) -> np.ndarray:
        """Run to a frame, from the state that is kept if there is one, and return its positions in nm."""
        integrator = self.context.getIntegrator()
        if self.state.exists():
            with np.load(self.state) as state:
                self.next_frame = int(state["frame"]) + 1
                self.context.setPositions(state["positions"])
                self.context.setVelocities(state["velocities"])
                if self.next_frame > frame:
                    return np.array(state["positions"])
        else:
            self.context.setPositions(self.start.positions_quantity)
            openmm.LocalEnergyMinimizer.minimize(self.context, maxIterations=200)
            self.context.setVelocitiesToTemperature(self.temperature * unit.kelvin, 1)
            integrator.setStepSize(0.5 * unit.femtosecond)
            integrator.step(2000)
            integrator.setStepSize(2 * unit.femtosecond)
            integrator.step(10_000)
        while self.next_frame <= frame:
            integrator.step(STEPS_BETWEEN_TEST_AND_REST if self.next_frame == TEST_FRAMES else STEPS)
            self.next_frame += 1
        state = self.context.getState(positions=True, velocities=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        velocities = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
        temporary = self.state.with_suffix(".part.npz")
        np.savez(temporary, frame=frame, positions=positions, velocities=velocities)
        temporary.replace(self.state)
        return np.asarray(positions)


def liquid_acetone(molecule: np.ndarray) -> tuple[app.Topology, Coordinates]:
    """Return molecules on a lattice, each turned at random; positions in nm, not equilibrated."""
    rng = np.random.default_rng(11)
    topology, molecules = app.Topology(), []
    chain = topology.addChain("A")
    single = list(builder.acetone_topology().atoms())
    bonds = [(bond.atom1.index, bond.atom2.index, bond.order) for bond in builder.acetone_topology().bonds()]
    cells = np.array(list(np.ndindex(6, 6, 5)))[:ACETONES]
    for centre in (cells + 0.5) * ACETONE_EDGE / np.array([6, 6, 5]):
        residue = topology.addResidue("ACN", chain)
        atoms = [topology.addAtom(atom.name, atom.element, residue) for atom in single]
        for a, b, order in bonds:
            topology.addBond(atoms[a], atoms[b], order=order)
        turn = Rotation.random(random_state=rng).as_matrix()
        molecules.append((molecule - molecule.mean(axis=0)) @ turn.T + centre)
    start = Coordinates(np.concatenate(molecules), ACETONE_EDGE * np.eye(3))
    topology.setPeriodicBoxVectors(start.box_quantity)
    return topology, start


def _system(topology: app.Topology, start: Coordinates) -> openmm.System:
    """Flexible acetone with heavy hydrogens in rigid water; a splitting that suits the QM integrals."""
    system = builder.force_field().createSystem(
        topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.9 * unit.nanometer,
        constraints=None,
        rigidWater=True,
        hydrogenMass=3 * unit.dalton,
    )
    system.setDefaultPeriodicBoxVectors(*start.box_quantity)
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setPMEParameters(4.2, 40, 40, 40)
    return system


def main() -> None:
    """Label up to the number of frames asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", choices=ENVIRONMENTS, default="water")
    parser.add_argument("--frames", type=int, default=460)
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, help="K")
    parser.add_argument("--output", type=Path, default=Path("acetone_labels_run"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    name = options.environment
    if options.temperature != TEMPERATURE:
        name += f"_{options.temperature:g}K"
    path = options.output / f"{name}.xyz"
    done = len(read_frames(path)) if path.exists() else 0
    environment = Environment(options.environment, options.output / f"{name}_state.npz", options.temperature)
    box = environment.start.box_vectors
    for frame in tqdm(range(done, options.frames), initial=done, total=options.frames, mininterval=10):
        positions = environment.go_to(frame)
        append_frames(path, [environment.labeller.label(Geometry(positions, box), f"{name}-{frame:04d}")])


if __name__ == "__main__":
    main()
