"""What electrostatic embedding adds to an ML/MM step: T4 lysozyme with p-xylene, 23,817 atoms.

    python tests/benchmarks/ml_embedding.py [--rounds 15] [--seconds 60] [--platform CPU] [--json FILE]
    python tests/benchmarks/ml_embedding.py --parts 12 24 [--backend torchforce]
    python tests/benchmarks/ml_embedding.py --responses 25 [--processor-time]

Prints two tables, of bare evaluations of the forces and of steps of LangevinMiddleIntegrator. The levels are measured
in turn within one run, and the ratios are taken within each turn, so that they hold on a busy machine too. With --parts
it says instead what an evaluation with the default network consists of, for regions of so many atoms: the force field,
the mesh (a model of fixed charges costs nothing else), the network. With --responses the levels are one network in a
vacuum as the base of an `EmbeddedPotential`, by itself and with each kind of response. These networks are not trained.
"""

# Annotations stay objects here (no `from __future__ import annotations`): TorchScript cannot read strings.

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import openmm
import torch
from openmm import app, unit

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, quartiles, write_record

from qmmlmm import (
    EmbeddedPotential,
    Hamiltonian,
    MLPotential,
    Region,
    Term,
    create_mixed_system,
    select,
    suggest_charge,
)
from qmmlmm.ml import FixedResponse, ResponseModel, ResponseNetwork
from systems.t4_lysozyme import build

MECHANICAL = "ML/MM, mechanical"
STEPS = 2


def systems(backend: str, step: str) -> tuple[dict[str, openmm.System], np.ndarray]:
    """Return the levels to compare and the positions in nm."""
    structure = build()
    ligand = Region("ligand", select(structure.topology, "resname LIG"))
    model = MLPotential.load(ROOT / "examples" / "models" / "p_xylene.pt")
    found = {"MM": structure.system}
    for label, embedding, precision in (
        (MECHANICAL, "mechanical", "double"),
        ("ML/MM, electrostatic, double", "electrostatic", "double"),
        ("ML/MM, electrostatic, mixed", "electrostatic", "mixed"),
    ):
        hamiltonian = Hamiltonian([Term(model, ligand, embedding=embedding)])
        mixed = create_mixed_system(
            structure.topology, structure.system, hamiltonian, ml_precision=precision, ml_backend=backend, ml_step=step
        )
        found[label] = mixed.system
    return found, np.array(structure.positions.value_in_unit(unit.nanometer))


class FixedCharges(torch.nn.Module):
    """A region of charges that do not change: all that it costs is the potential of the surroundings and its forces."""

    charges: torch.Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("charges", torch.linspace(-0.3, 0.3, n, dtype=torch.float64))

    def forward(self, positions: torch.Tensor, potential: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        """Return the energy in the potential."""
        return (self.charges * potential).sum() + 0.0 * (field.sum() + positions.sum())


def region_of(topology: app.Topology, positions: np.ndarray, n: int) -> list[int]:
    """Return atoms of whole molecules: the ligand if it fits, waters nearest to it, and single ions for the rest."""
    ligand = [int(index) for index in select(topology, "resname LIG")]
    centre = positions[ligand].mean(axis=0)
    atoms = ligand if n >= len(ligand) else []

    def nearest(residues: list[app.topology.Residue]) -> list[list[app.topology.Atom]]:
        molecules = [list(residue.atoms()) for residue in residues]
        return sorted(molecules, key=lambda some: float(np.linalg.norm(positions[some[0].index] - centre)))

    waters = nearest([r for r in topology.residues() if r.name == "HOH"])
    ions = nearest([r for r in topology.residues() if r.name != "HOH" and len(list(r.atoms())) == 1])
    n_waters, n_ions = divmod(n - len(atoms), 3)
    return sorted(atoms + [atom.index for molecule in waters[:n_waters] + ions[:n_ions] for atom in molecule])


def parts(n: int, rounds: int, platform_name: str, backend: str, step: str) -> tuple[int | float, ...]:
    """Print and return what an evaluation of all forces consists of, for a region of n atoms."""
    structure = build()
    positions = np.array(structure.positions.value_in_unit(unit.nanometer))
    atoms = region_of(structure.topology, positions, n)
    elements = [atom.element.atomic_number for atom in structure.topology.atoms()]
    numbers = [elements[index] for index in atoms]
    charge = suggest_charge(structure.system, atoms)
    region = Region("region", atoms, charge=charge)
    torch.manual_seed(1)
    models: dict[str, torch.nn.Module] = {
        "mesh": FixedCharges(n),  # always by the default step
        "network": ResponseNetwork(numbers, conditions=[(charge, 1, 0)]),
        "committee of 4": ResponseNetwork(numbers, conditions=[(charge, 1, 0)], members=4),
    }
    systems = {"force field": structure.system}
    for name, module in models.items():
        model = MLPotential(module, atomic_numbers=numbers, embeddings=["electrostatic"], charge=charge)
        hamiltonian = Hamiltonian([Term(model, region, embedding="electrostatic")])
        systems[name] = create_mixed_system(
            structure.topology,
            structure.system,
            hamiltonian,
            ml_precision="mixed",
            ml_backend=backend,
            ml_step="default" if name == "mesh" else step,
        ).system
    platform = openmm.Platform.getPlatform(platform_name)
    clock = time.process_time if platform_name in ("CPU", "Reference") else time.perf_counter
    contexts = {
        name: openmm.Context(system, openmm.VerletIntegrator(0.001), platform) for name, system in systems.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    rng = np.random.default_rng(1)
    for turn in range(-3, rounds):  # the first ones warm up
        moved = positions + 2e-4 * rng.standard_normal(positions.shape)
        for name, context in contexts.items():
            context.setPositions(moved)
            start = clock()
            context.getState(forces=True)
            if turn >= 0:
                seconds[name].append(clock() - start)
    least = {name: 1000.0 * min(values) for name, values in seconds.items()}
    shares = {"force field": least["force field"], "mesh": least["mesh"] - least["force field"]}
    shares |= {name: least[name] - least["mesh"] for name in ("network", "committee of 4")}
    print(
        f"| {n} | " + " | ".join(f"{value:.1f}" for value in shares.values()) + f" | {least['network']:.1f} |",
        flush=True,
    )
    return n, *shares.values(), least["network"]


def response_systems(n: int, backend: str) -> tuple[dict[str, openmm.System], np.ndarray]:
    """Return a base for a region of n atoms, mechanical and embedded, and the positions in nm."""
    structure = build()
    positions = np.array(structure.positions.value_in_unit(unit.nanometer))
    atoms = region_of(structure.topology, positions, n)
    elements = [atom.element.atomic_number for atom in structure.topology.atoms()]
    numbers, place = [elements[index] for index in atoms], {index: k for k, index in enumerate(atoms)}
    pairs = ((bond[0].index, bond[1].index) for bond in structure.topology.bonds())
    bonds = [(place[one], place[other]) for one, other in pairs if one in place and other in place]
    # A response is of one molecule; here the bonds between its parts only cost time.
    residues = [atom.residue.index for atom in structure.topology.atoms() if atom.index in place]
    bonds += [(k - 1, k) for k in range(1, n) if residues[k] != residues[k - 1]]
    charge = suggest_charge(structure.system, atoms)
    conditions = [(charge, 1, 0)]
    torch.manual_seed(1)
    base = MLPotential(ResponseNetwork(numbers, bonds, conditions=conditions), atomic_numbers=numbers, charge=charge)
    empty = FixedResponse(numbers, bonds, charge)
    rng = np.random.default_rng(1)
    distances, coefficients = (0.01 * rng.normal(size=size) for size in (empty.n_classes, empty.n_coefficients))
    fixed = FixedResponse(numbers, bonds, charge, 2.0 + distances, coefficients)
    trained = ResponseModel(ResponseNetwork(numbers, bonds, conditions=conditions, response_only=True))
    region = Region("region", atoms, charge=charge)
    terms = {
        MECHANICAL: Term(base, region, embedding="mechanical"),
        "with FixedResponse": Term(EmbeddedPotential(base, fixed), region, embedding="electrostatic"),
        "with ResponseModel": Term(EmbeddedPotential(base, trained), region, embedding="electrostatic"),
    }
    found = {"MM": structure.system}
    for label, term in terms.items():
        for precision in ("double", "mixed") if term.embedding == "electrostatic" else ("double",):
            mixed = create_mixed_system(
                structure.topology,
                structure.system,
                Hamiltonian([term]),
                ml_backend=backend,
                ml_precision=precision,
            )
            found[label if precision == "double" else f"{label}, mixed"] = mixed.system
    return found, positions


def table(title: str, seconds: dict[str, list[float]]) -> Table:
    """Print and return medians and quartiles, and the ratios to mechanical embedding within the same turn."""
    print(f"\n{title}")
    print(f"{'level':<32}{'ms':>7}{'quartiles':>16}{'to mechanical':>15}{'quartiles':>14}{'n':>4}")
    rows = []
    for label, values in seconds.items():
        low, middle, high = (1000.0 * value for value in quartiles(values))
        ratio = quartiles(np.array(values) / np.array(seconds[MECHANICAL]))
        rows.append((label, [low, middle, high], ratio, len(values)))
        print(
            f"{label:<32}{middle:>7.1f}{f'{low:.1f} - {high:.1f}':>16}{ratio[1]:>15.2f}"
            f"{f'{ratio[0]:.2f} - {ratio[2]:.2f}':>14}{len(values):>4}"
        )
    return Table(title, ("level", "ms", "times mechanical embedding", "turns"), tuple(rows))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this time")
    parser.add_argument("--platform", default="CPU", help="OpenMM platform, with its own default precision")
    parser.add_argument("--backend", choices=["auto", "torchforce", "pythonforce"], default="auto", help="of ML terms")
    parser.add_argument("--step", choices=["default", "static"], default="default", help="kind of step of ML terms")
    parser.add_argument("--parts", type=int, nargs="+", default=[], help="atoms of the regions")
    parser.add_argument("--responses", type=int, help="atoms of the region of an embedded potential")
    parser.add_argument(
        "--processor-time", action="store_true", help="measure it instead of the time, for a busy machine"
    )
    add_option(parser)
    options = parser.parse_args()
    if options.parts:
        torch.set_num_threads(1)
        kind = "Processor time" if options.platform in ("CPU", "Reference") else "Time"
        print(f"{kind} of one evaluation of all forces, ms; the least of the repeats; 23,817 atoms, mixed mesh")
        columns = ("atoms of the region", "force field", "mesh", "network", "committee of 4", "all with one network")
        print(f"| {' | '.join(columns)} |\n|---|---|---|---|---|---|")
        rows = tuple(parts(n, options.rounds, options.platform, options.backend, options.step) for n in options.parts)
        title = f"{kind} of one evaluation of all forces, ms"
        write_record(options.json, [Table(title, columns, rows)], "23,817 atoms, mixed mesh; the least of the repeats.")
        return
    if options.responses is None:
        levels, positions = systems(options.backend, options.step)
    else:
        levels, positions = response_systems(options.responses, options.backend)
    clock = time.process_time if options.processor_time else time.perf_counter
    platform = openmm.Platform.getPlatform(options.platform)
    bare, moving = {}, {}
    for label, system in levels.items():
        bare[label] = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.001)
        moving[label] = openmm.Context(system, integrator, platform)
        moving[label].setPositions(positions)
        moving[label].setVelocitiesToTemperature(300 * unit.kelvin, 1)
    where = {name: platform.getPropertyValue(moving["MM"], name) for name in platform.getPropertyNames()}
    kept = {name: value for name, value in where.items() if name in ("Threads", "DeviceName", "Precision")}
    print(f"{len(positions)} atoms; {options.platform} {kept}; torch {torch.get_num_threads()} threads")
    rng = np.random.default_rng(1)
    evaluations: dict[str, list[float]] = {label: [] for label in levels}
    steps: dict[str, list[float]] = {label: [] for label in levels}
    begin = time.perf_counter()
    for turn in range(-3, options.rounds):  # the first ones warm up
        moved = positions + 2e-4 * rng.standard_normal(positions.shape)
        for label in levels:
            bare[label].setPositions(moved)
            start = clock()
            bare[label].getState(forces=True)
            middle = clock()
            if options.responses is None:  # the other networks are not trained
                moving[label].getIntegrator().step(STEPS)
            end = clock()
            if turn >= 0:
                evaluations[label].append(middle - start)
                steps[label].append((end - middle) / STEPS)
        if turn > 3 and time.perf_counter() - begin > options.seconds:
            break
    tables = [table("one evaluation of all forces", evaluations)]
    if options.responses is None:
        tables.append(table("one step of LangevinMiddleIntegrator, 1 fs", steps))
    where = ", ".join([options.platform, *(f"{name} {value}" for name, value in kept.items())])
    kind = "processor time" if options.processor_time else "wall time"
    notes = f"{len(positions):,} atoms; {kind}, ratios within each turn; {where}."
    write_record(options.json, tables, notes)


if __name__ == "__main__":
    main()
