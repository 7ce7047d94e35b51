"""Paths from a reactant to a product: structures in order with their energies."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import app, unit

from qmmlmm.coupling.potential import RegionPotential
from qmmlmm.durable_files import checksum
from qmmlmm.embedding.region_term import RegionTerm
from qmmlmm.errors import HamiltonianError, SettingError, listed, shown
from qmmlmm.geometry import Geometry
from qmmlmm.html_tables import html_table
from qmmlmm.mm.creation import create_region_term
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.progress_display import progress_bar
from qmmlmm.reactions.calculation_directory import identified_directory
from qmmlmm.reactions.calculation_files import read_arrays, write_arrays
from qmmlmm.reactions.structure import Structure, xyz_frame
from qmmlmm.runs.provenance import hash_system
from qmmlmm.setting_checks import check_path
from qmmlmm.units import FloatArray, in_unit

ENERGY = unit.kilojoule_per_mole


@dataclass(frozen=True, eq=False)
class ReactionPath:
    """Structures from a reactant to a product, of one mixed System.

    Parameters
    ----------
    mixed : MixedSystem
    structures : tuple of Structure
    progress : (n,) float array
        Place of each structure along the path.
    progress_label : str
        Name and unit of `progress`, for tables and figures.
    """

    mixed: MixedSystem
    structures: tuple[Structure, ...]
    progress: FloatArray
    progress_label: str

    def __len__(self) -> int:
        return len(self.structures)

    def _repr_html_(self) -> str:
        """Return a table of the energies along the path, which notebooks show."""
        rows = [
            (f"{place:.4g}", f"{energy:.2f}")
            for place, energy in zip(self.progress, self.relative_energies, strict=True)
        ]
        return html_table((self.progress_label, "potential energy above the first (kJ/mol)"), rows)

    @property
    def energies(self) -> unit.Quantity:
        """Potential energies, (n,) kJ/mol."""
        return np.array([structure.energy.value_in_unit(ENERGY) for structure in self.structures]) * ENERGY

    @property
    def relative_energies(self) -> FloatArray:
        """Potential energies above that of the first structure, (n,) kJ/mol."""
        found = in_unit(self.energies, ENERGY)
        return np.asarray(found - found[0])

    @property
    def highest(self) -> Structure:
        """Structure of the highest energy that is not an end, where a saddle search starts."""
        return self.structures[self.highest_index]

    @property
    def highest_index(self) -> int:
        """Place of `highest`.

        Raises
        ------
        SettingError
            If the path has fewer than three structures.
        """
        return highest_of(self.relative_energies)

    @property
    def has_barrier(self) -> bool:
        """Whether `highest` lies above both ends; else the path goes uphill or downhill to an end, or has a well."""
        return _has_barrier(self.relative_energies)

    @property
    def barrier(self) -> unit.Quantity:
        """Potential energy of `highest` above the lowest structure before it, kJ/mol.

        See `has_barrier`: a path that ends at its highest structure has one next to it as `highest`. The energy has
        no zero-point energy and is no free energy.
        """
        return barrier_of(self.relative_energies, self.highest_index) * ENERGY

    @property
    def reverse_barrier(self) -> unit.Quantity:
        """Potential energy of `highest` above the lowest structure after it, kJ/mol."""
        index = len(self) - 1 - self.highest_index
        return barrier_of(self.relative_energies[::-1], index) * ENERGY

    @property
    def reaction_energy(self) -> unit.Quantity:
        """Potential energy of the lowest structure after `highest` less that of the lowest before it, kJ/mol."""
        return self.barrier - self.reverse_barrier

    def single_points(
        self,
        potential: RegionPotential,
        term: str | None = None,
        *,
        directory: str | os.PathLike[str] | None = None,
    ) -> TwoLevels:
        """Return the energies of all structures with another potential for one term.

        Parameters
        ----------
        potential : RegionPotential
            Such as ``PySCFPotential("b3lyp", "6-31g*")``, with the region, surroundings and coefficient of the term.
        term : str, optional
            Name of the term; may be left out if there is only one.
        directory : path, optional
            Folder of the energies. A calculation that was killed continues there, and one along a path with other
            structures in it computes those only.

        Raises
        ------
        RunDirectoryError
            If the directory is in use, or has the energies of another potential, term or System.
        HamiltonianError
            If there is no such term, or it has to be named.
        PotentialError, RegionError
            If the potential does not fit the region.
        EvaluationError
            If it fails.
        """
        if not isinstance(potential, RegionPotential):
            raise SettingError(f"potential is a potential, such as PySCFPotential('b3lyp'), got {shown(potential)}")
        names = list(self.mixed.terms)
        if term is None and len(names) != 1:
            raise HamiltonianError(f"term names the term that the potential replaces, one of {listed(names)}")
        mixed_term = self.mixed.term(names[0] if term is None else term)
        potential.check(mixed_term.layout.specification)
        lower = mixed_term.runner.region_term
        upper = create_region_term(mixed_term.layout, potential)
        weight = mixed_term.term.weight
        factor = weight.value(self.mixed.hamiltonian.parameters) if weight.slopes else 1.0
        folder = None if directory is None else check_path("directory", directory)
        identity = {
            "kind": "single points",
            "term": mixed_term.name,
            "potential": repr(potential),
            "terms": self.mixed.describe()["terms"],
            "system": hash_system(self.mixed.system),
        }
        held = nullcontext() if folder is None else identified_directory(folder, identity)
        found = []
        with held, progress_bar(len(self), f"single points, {potential.method_name}", "structure") as bar:
            for structure in self.structures:
                found.append(_difference(lower, upper, structure, folder))
                bar.update()
        energies = in_unit(self.energies, ENERGY) + factor * np.array(found)
        return TwoLevels(self, potential.method_name, energies * ENERGY)

    def write_pdb(self, path: str | os.PathLike[str]) -> None:
        """Write all structures as models of one PDB file."""
        topology = self.structures[0].topology
        with check_path("path", path).open("w", encoding="utf-8") as file:
            app.PDBFile.writeHeader(topology, file)
            for number, structure in enumerate(self.structures, start=1):
                app.PDBFile.writeModel(topology, structure.positions, file, number, keepIds=True)
            app.PDBFile.writeFooter(topology, file)

    def write_xyz(self, path: str | os.PathLike[str], atoms: Sequence[int] | None = None) -> None:
        """Write atoms of all structures as extended XYZ; the moving atoms if none are given."""
        chosen = atoms
        frames = [xyz_frame(s, (s.atoms or None) if chosen is None else chosen) for s in self.structures]
        check_path("path", path).write_text("".join(frames), encoding="utf-8")

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write progress and energies with the header style of OpenMM."""
        write_table(path, {self.progress_label: self.progress, "Potential Energy (kJ/mol)": self.relative_energies})


@dataclass(frozen=True, eq=False)
class TwoLevels:
    """Energies along a path with the level of the path and with another one at the same structures.

    Parameters
    ----------
    path : ReactionPath
    method : str
        Name of the other level.
    energies : (n,) Quantity, kJ/mol
    """

    path: ReactionPath
    method: str
    energies: unit.Quantity

    @property
    def relative_energies(self) -> FloatArray:
        """Energies of the other level above that of the first structure, (n,) kJ/mol."""
        found = in_unit(self.energies, ENERGY)
        return np.asarray(found - found[0])

    @property
    def barrier(self) -> unit.Quantity:
        """Highest energy of the other level inside the path above the lowest before it, kJ/mol."""
        return barrier_of(self.relative_energies, highest_of(self.relative_energies)) * ENERGY

    @property
    def has_barrier(self) -> bool:
        """Whether the highest energy of the other level inside the path is above that of both ends."""
        return _has_barrier(self.relative_energies)

    @property
    def barrier_at_same_structures(self) -> unit.Quantity:
        """Energy of the other level at the path's own highest structure above that at its own reactant, kJ/mol."""
        first = self.path.relative_energies
        index = self.path.highest_index
        lowest = int(np.argmin(first[:index]))
        return (self.relative_energies[index] - self.relative_energies[lowest]) * ENERGY

    def __str__(self) -> str:
        own, other = _in_words(self.path.relative_energies), _in_words(self.relative_energies)
        return f"along the path {own}; with {self.method} {other}"

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write progress and the energies of both levels with the header style of OpenMM."""
        write_table(
            path,
            {
                self.path.progress_label: self.path.progress,
                "Potential Energy (kJ/mol)": self.path.relative_energies,
                f"{self.method} (kJ/mol)": self.relative_energies,
            },
        )


def highest_of(relative: FloatArray) -> int:
    """Return the place of the highest energy that is not at an end.

    Raises
    ------
    SettingError
        If there are fewer than three energies.
    """
    if len(relative) < 3:
        raise SettingError(f"a path with a barrier has three structures or more, got {len(relative)}")
    return 1 + int(np.argmax(relative[1:-1]))


def barrier_of(relative: FloatArray, highest: int) -> float:
    """Return the energy of a structure above the lowest one before it, kJ/mol."""
    return float(relative[highest] - relative[:highest].min())


def write_table(path: str | os.PathLike[str], columns: dict[str, FloatArray]) -> None:
    """Write columns as CSV with the header style of OpenMM."""
    with check_path("path", path).open("w", encoding="utf-8", newline="") as file:
        file.write("#" + ",".join(f'"{name}"' for name in columns) + "\n")
        writer = csv.writer(file, lineterminator="\n")
        for row in zip(*columns.values(), strict=True):
            writer.writerow([f"{value:.8g}" for value in row])


def _has_barrier(relative: FloatArray) -> bool:
    return len(relative) > 2 and bool(relative[highest_of(relative)] > max(relative[0], relative[-1]))


def _in_words(relative: FloatArray) -> str:
    if _has_barrier(relative):
        return f"the barrier is {barrier_of(relative, highest_of(relative)):.1f} kJ/mol"
    return f"there is no barrier, and {relative[-1]:.1f} kJ/mol from the first structure to the last"


def _difference(lower: RegionTerm, upper: RegionTerm, structure: Structure, folder: Path | None) -> float:
    """Return the energy of one level less that of another, kJ/mol, from its file in a folder or computed now."""
    geometry = Geometry.from_quantities(structure.positions, structure.box_vectors)
    path = None if folder is None else folder / f"{_name_of(geometry)}.npz"
    known = None if path is None else read_arrays(path)
    if known is None:
        known = {
            "lower": np.asarray(lower.compute(geometry)[0]),
            "upper": np.asarray(upper.compute(geometry)[0]),
        }
        if path is not None:
            write_arrays(path, known)
    return float(known["upper"] - known["lower"])


def _name_of(geometry: Geometry) -> str:
    box = b"" if geometry.box is None else np.ascontiguousarray(geometry.box).tobytes()
    return checksum(np.ascontiguousarray(geometry.positions).tobytes() + box)[:16]
