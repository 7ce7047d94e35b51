"""Where the singlet and the triplet of methylene cross, in vacuum and in water, and how likely the spin flips there.

Methylene, CH2, is a triplet in vacuum, and its bent singlet lies a little higher. The singlet has the larger dipole, so
that water pulls it down and the crossing moves. PySCF computes both spins in the periodic field of the water (PME); the
lowest crossing of each is located, and both energies are followed along the bend through it. The folder spin_run/ gets
spin_crossing.csv and spin_crossing.png.

    python examples/spin_crossing.py                                 # some minutes on two cores
    python examples/spin_crossing.py --method hf --basis 6-31g       # quicker; the triplet lies far too low

The water was at rest around the singlet and is held. How likely the spin flips follows from the spin-orbit coupling at
the crossing, CASSCF(2,2) with effective nuclear charges, by the formula of Landau and Zener.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from matplotlib.figure import Figure
from openmm import unit
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, MixedSystem, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.dynamics import CrossingPoint, crossing_point
from qmmlmm.dynamics.spin_crossing import landau_zener_flip
from qmmlmm.qm import CASSCF
from qmmlmm.qm.spin_orbit import spin_orbit_coupling
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL, HARTREE_IN_PER_CM, NM_IN_BOHR
from systems.solute_in_water import METHYLENE, build, relaxed
from systems.structure import Structure

SPINS = {"singlet": 1, "triplet": 3}
TERMS = {spin: f"CH2/{spin}" for spin in SPINS}
COLOURS = {"singlet": "#0072b2", "triplet": "#d55e00"}
N_SOLUTE = len(METHYLENE)
TEMPERATURE = 300 * unit.kelvin
BENDS = (80.0, 150.0)  # degrees


@dataclass(frozen=True)
class Bend:
    """Both energies along the bend through a crossing point, and that point.

    Parameters
    ----------
    surroundings : str
    point : CrossingPoint
    angle, length : float, degrees and angstrom
        At the crossing.
    s_squared : float
        Of the triplet there; a pure one has 2.
    spin_orbit : float, 1/cm
    flip : float
        Probability that the spin flips when the molecule passes the crossing at the mean thermal speed.
    angles : (n,) float array, degrees
    energies : dict of str to (n,) float array, kJ/mol
        Less the energy of the crossing.
    """

    surroundings: str
    point: CrossingPoint
    angle: float
    length: float
    s_squared: float
    spin_orbit: float
    flip: float
    angles: np.ndarray
    energies: dict[str, np.ndarray]


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("spin_run"))
    parser.add_argument("--method", default="b3lyp")
    parser.add_argument("--basis", default="6-31g*")
    parser.add_argument("--grid-level", type=int, default=1, help="of the functional, 0 to 9; 3 for results")
    parser.add_argument("--waters", type=int, default=240)
    parser.add_argument("--edge", type=float, default=2.0, help="of the box, nm")
    parser.add_argument("--picoseconds", type=float, default=5.0, help="dynamics of the water before it is held")
    parser.add_argument("--points", type=int, default=11, help="angles along the bend")
    return parser.parse_args(arguments)


def two_spins(structure: Structure, options: argparse.Namespace) -> MixedSystem:
    """Return a System whose parameter `triplet` switches between two terms of one region: QM singlet, QM triplet."""
    qm = PySCFPotential(options.method, options.basis, grid_level=options.grid_level, embedding_grid_level=1)
    region = Region("CH2", range(N_SOLUTE), charge=0, multiplicity=1)
    embedding = "electrostatic" if structure.topology.getPeriodicBoxVectors() is not None else "mechanical"
    terms = [
        Term(qm, region, embedding=embedding, coefficient="1-triplet", name=TERMS["singlet"]),
        Term(qm, region, embedding=embedding, coefficient="triplet", name=TERMS["triplet"], multiplicity=3),
    ]
    hamiltonian = Hamiltonian(terms, parameters={"triplet": 0.0})
    return create_mixed_system(structure.topology, structure.system, hamiltonian)


def contexts(mixed: MixedSystem, positions: np.ndarray) -> dict[str, openmm.Context]:
    """Return a Context for each spin."""
    found = {}
    for spin in SPINS:
        context = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001))
        context.setParameter("triplet", float(spin == "triplet"))
        context.setPositions(positions)
        found[spin] = context
    return found


def bent(positions: np.ndarray, angle: float) -> np.ndarray:
    """Return positions with another H-C-H angle, degrees: bond lengths, plane and bisector stay."""
    arms = positions[1:N_SOLUTE] - positions[0]
    lengths = np.linalg.norm(arms, axis=1)
    first, second = arms / lengths[:, None]
    along, across = first + second, first - second
    along, across = along / np.linalg.norm(along), across / np.linalg.norm(across)
    half = np.radians(0.5 * angle)
    moved = positions.copy()
    moved[1] = positions[0] + lengths[0] * (np.cos(half) * along + np.sin(half) * across)
    moved[2] = positions[0] + lengths[1] * (np.cos(half) * along - np.sin(half) * across)
    return moved


def angle_and_length(positions: np.ndarray) -> tuple[float, float]:
    """Return the H-C-H angle, degrees, and the mean length of the bonds, angstrom."""
    arms = positions[1:N_SOLUTE] - positions[0]
    lengths = np.linalg.norm(arms, axis=1)
    return float(np.degrees(np.arccos(arms[0] @ arms[1] / lengths.prod()))), float(10.0 * lengths.mean())


def energy(context: openmm.Context) -> float:
    """Return the potential energy, kJ/mol."""
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def crossing_rate(spins: dict[str, openmm.Context]) -> float:
    """Return how fast the energies of both spins cross at the mean thermal speed, kJ/(mol ps)."""
    forces = [c.getState(forces=True).getForces(asNumpy=True)._value[:N_SOLUTE] for c in spins.values()]
    masses = [spins["singlet"].getSystem().getParticleMass(k)._value for k in range(N_SOLUTE)]
    kt = (TEMPERATURE * unit.MOLAR_GAS_CONSTANT_R).value_in_unit(unit.kilojoule_per_mole)
    # Along the gradient of the gap the speed is that of one degree of freedom: mean |v| = sqrt(2 kT / (pi m)).
    square = float((np.square(forces[1] - forces[0]).sum(axis=1) / masses).sum())
    return np.sqrt(2.0 * kt / np.pi * square)


def spin_orbit(mixed: MixedSystem, positions: np.ndarray, options: argparse.Namespace) -> float:
    """Return the coupling of singlet and triplet, 1/cm: root of the sum of squares over the triplet's sublevels."""
    term = mixed.evaluated_term(TERMS["singlet"])
    box = mixed.system.getDefaultPeriodicBoxVectors()
    sites, field = positions[:N_SOLUTE] * NM_IN_BOHR, None
    if term.layout.surroundings is not None:
        cell = np.array([vector.value_in_unit(unit.nanometer) for vector in box])
        sites, field = term.external_field(positions * NM_IN_BOHR, cell * NM_IN_BOHR)
    qm = PySCFPotential("hf", options.basis, excited=CASSCF(2, 2, 2), embedding_grid_level=1)
    found = spin_orbit_coupling(qm, term.layout.specification, sites, field)
    return float(found.strengths[0, 0]) * HARTREE_IN_PER_CM


def follow(surroundings: str, structure: Structure, positions: np.ndarray, options: argparse.Namespace) -> Bend:
    """Find the crossing and follow both spins along the bend through it."""
    mixed = two_spins(structure, options)
    spins = contexts(mixed, positions)
    print(f"{surroundings}: looking for the crossing", flush=True)
    point = crossing_point(*spins.values(), range(N_SOLUTE))
    angle, length = angle_and_length(point.positions)
    s_squared = float(mixed.results(TERMS["triplet"])["s_squared"])
    coupling = spin_orbit(mixed, point.positions, options)
    flip = landau_zener_flip(coupling / unit.centimeter, crossing_rate(spins))
    # The crossing is one of the angles, so that the curves meet there.
    angles = np.unique(np.append(np.linspace(*BENDS, options.points), angle))
    energies = {spin: np.empty(len(angles)) for spin in SPINS}
    # From the crossing outwards, so that densities follow.
    for k in tqdm(np.argsort(abs(angles - angle)), desc=f"{surroundings}: bend", disable=None):
        for spin, context in spins.items():
            context.setPositions(bent(point.positions, angles[k]))
            energies[spin][k] = energy(context) - np.mean(point.energies)
    return Bend(surroundings, point, angle, length, s_squared, coupling, flip, angles, energies)


def print_table(bends: list[Bend], options: argparse.Namespace) -> None:
    """Print where the spins cross."""
    print(f"\nCH2, {options.method}/{options.basis}: lowest crossing of singlet and triplet")
    rows = [
        ("angle (degrees)", lambda b: f"{b.angle:.1f}"),
        ("C-H (angstrom)", lambda b: f"{b.length:.3f}"),
        ("both energies (hartree)", lambda b: f"{np.mean(b.point.energies) / HARTREE_IN_KJ_PER_MOL:.6f}"),
        ("gap (kJ/mol)", lambda b: f"{b.point.gap:.4f}"),
        ("projected gradient (hartree/bohr)", lambda b: f"{b.point.projection:.1e}"),
        ("<S2> of the triplet", lambda b: f"{b.s_squared:.4f}"),
        ("lowest singlet on the curve (kJ/mol)", lambda b: f"{b.energies['singlet'].min():.1f}"),
        ("lowest triplet on the curve (kJ/mol)", lambda b: f"{b.energies['triplet'].min():.1f}"),
        ("spin-orbit coupling (1/cm)", lambda b: f"{b.spin_orbit:.2f}"),
        ("spin flip at one passage, 300 K", lambda b: f"{b.flip:.1e}"),
        ("QM evaluations", lambda b: f"{b.point.evaluations}"),
    ]
    print(f"{'':<36}" + "".join(f"{b.surroundings:>16}" for b in bends))
    for name, value in rows:
        print(f"{name:<36}" + "".join(f"{value(b):>16}" for b in bends))


def write_csv(bends: list[Bend], path: Path) -> None:
    """Write the energies along the bend."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["surroundings", "angle (degrees)", *(f"{spin} - crossing (kJ/mol)" for spin in SPINS)])
        for bend in bends:
            for k, angle in enumerate(bend.angles):
                values = (f"{bend.energies[spin][k]:.4f}" for spin in SPINS)
                writer.writerow([bend.surroundings, f"{angle:.3f}", *values])


def save_figure(bends: list[Bend], path: Path, title: str) -> None:
    """Draw both spins along the bend, with their crossings."""
    figure = Figure(figsize=(8.0, 4.2), layout="constrained")
    panels = figure.subplots(1, len(bends), sharex=True, sharey=True, squeeze=False)[0]
    for ax, bend in zip(panels, bends, strict=True):
        for spin in SPINS:
            ax.plot(bend.angles, bend.energies[spin], color=COLOURS[spin], marker="o", markersize=3.0, label=spin)
        ax.axvline(bend.angle, color="#8c8c8c", linewidth=0.8, linestyle=":", zorder=0)
        ax.plot([bend.angle], [0.0], marker="*", markersize=15, color="black", linestyle="none", label="crossing point")
        where = f"{bend.angle:.1f}°, {bend.length:.3f} Å"
        ax.text(bend.angle + 2.0, 0.62, where, transform=ax.get_xaxis_transform())
        ax.set_title(bend.surroundings, loc="left")
        ax.set_xlabel("H-C-H angle (degrees)")
    panels[0].set_ylabel("energy less that of the crossing (kJ/mol)")
    panels[-1].legend(frameon=False, loc="upper center")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    figure.savefig(path, dpi=120)


def run(options: argparse.Namespace) -> list[Bend]:
    """Do all that the script does."""
    begin = time.perf_counter()
    options.directory.mkdir(parents=True, exist_ok=True)
    alone = build(METHYLENE, n_water=0)
    start = np.array(alone.positions.value_in_unit(unit.nanometer))
    bends = [follow("vacuum", alone, start, options)]
    in_water = build(METHYLENE, edge=options.edge, n_water=options.waters)
    start = relaxed(in_water, N_SOLUTE, picoseconds=options.picoseconds)
    bends.append(follow(f"{options.waters} waters", in_water, start, options))
    print_table(bends, options)
    write_csv(bends, options.directory / "spin_crossing.csv")
    title = (
        f"Singlet and triplet of CH$_2$ along the bend, {options.method}/{options.basis}, one arrangement of the water"
    )
    save_figure(bends, options.directory / "spin_crossing.png", title)
    print(f"everything is in {options.directory}; {time.perf_counter() - begin:.0f} s in all")
    return bends


if __name__ == "__main__":
    run(parse_options())
