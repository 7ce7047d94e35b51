"""What scans find: structures that are relaxed under restraints, along one variable and along two."""

from __future__ import annotations

import heapq
import os
from dataclasses import dataclass

import numpy as np
from openmm import unit

from qmmlmm.analysis.grid_figure import save_grid_figure
from qmmlmm.analysis.path_figure import save_path_figure
from qmmlmm.errors import SettingError
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.reactions.path import ENERGY, ReactionPath, write_table
from qmmlmm.reactions.structure import Structure
from qmmlmm.sampling.variable import Variable
from qmmlmm.units import FloatArray


@dataclass(frozen=True, eq=False)
class ScanPoint(Structure):
    """A structure that is relaxed under restraints.

    Parameters
    ----------
    centres, values : tuple of float
        Centre and value of each variable, in its unit.
    restraint_energy : Quantity, kJ/mol
        Energy of the restraints, which `energy` does not have.
    converged : bool
    evaluations : int
        Number of evaluations of the terms: QM calls.

    Notes
    -----
    The other parameters are those of `Structure`.
    """

    centres: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    restraint_energy: unit.Quantity = None
    converged: bool = True
    evaluations: int = 0


@dataclass(frozen=True, eq=False)
class Scan(ReactionPath):
    """A scan along one variable. Its path has at each centre the structure of the lower energy of both ways.

    Parameters
    ----------
    variable : Variable
    forth : tuple of ScanPoint
        Points in the order of the centres.
    back : tuple of ScanPoint
        Points of the way back, in the order of the centres too; empty without it.

    Notes
    -----
    The other parameters are those of `ReactionPath`; `progress` has the values of the variable.
    """

    variable: Variable = None  # type: ignore[assignment]
    forth: tuple[ScanPoint, ...] = ()
    back: tuple[ScanPoint, ...] = ()

    @property
    def hysteresis(self) -> unit.Quantity | None:
        """Largest difference of the energies of both ways at one centre, kJ/mol; None without a way back."""
        if not self.back:
            return None
        pairs = zip(self.forth, self.back, strict=True)
        return max(abs((a.energy - b.energy).value_in_unit(ENERGY)) for a, b in pairs) * ENERGY

    @property
    def all_points(self) -> tuple[ScanPoint, ...]:
        """Points of both ways."""
        return (*self.forth, *self.back)

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the terms: QM calls."""
        return sum(point.evaluations for point in self.all_points)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write centres, values, true and restraint energies of both ways with the header style of OpenMM."""
        lowest = min(point.energy.value_in_unit(ENERGY) for point in self.forth[:1])
        columns: dict[str, FloatArray] = {"Centre": np.array([point.centres[0] for point in self.forth])}
        for name, points in (("Forth", self.forth), ("Back", self.back)):
            if points:
                columns[f"Value {name}"] = np.array([point.values[0] for point in points])
                columns[f"Potential Energy {name} (kJ/mol)"] = np.array(
                    [point.energy.value_in_unit(ENERGY) - lowest for point in points]
                )
                columns[f"Restraint Energy {name} (kJ/mol)"] = np.array(
                    [point.restraint_energy.value_in_unit(ENERGY) for point in points]
                )
        write_table(path, columns)

    def save_figure(self, path: str | os.PathLike[str]) -> None:
        """Write a figure of the energies of both ways above the first point."""
        first = self.forth[0].energy.value_in_unit(ENERGY)
        ways = {"forth": self.forth} | ({"back": self.back} if self.back else {})
        energies = {
            way: np.array([point.energy.value_in_unit(ENERGY) - first for point in points])
            for way, points in ways.items()
        }
        centres = np.array([point.centres[0] for point in self.forth])
        save_path_figure(centres, energies, self.progress_label.replace("Value", "Centre"), path)


@dataclass(frozen=True, eq=False)
class GridScan:
    """A scan along two variables.

    Parameters
    ----------
    mixed : MixedSystem
    variables : tuple of Variable
    centres : tuple of float arrays
        Centres of each variable.
    points : tuple of tuple of ScanPoint
        The point of the lowest energy at each pair of centres: ``points[i][j]``.
    hysteresis : Quantity or None, kJ/mol
        Largest difference of the energies of both ways at one pair of centres.
    """

    mixed: MixedSystem
    variables: tuple[Variable, ...]
    centres: tuple[FloatArray, ...]
    points: tuple[tuple[ScanPoint, ...], ...]
    hysteresis: unit.Quantity | None

    @property
    def energies(self) -> unit.Quantity:
        """Potential energies, (n_first, n_second) kJ/mol."""
        return np.array([[point.energy.value_in_unit(ENERGY) for point in row] for row in self.points]) * ENERGY

    @property
    def all_points(self) -> tuple[ScanPoint, ...]:
        """Points of all pairs of centres, row by row."""
        return tuple(point for row in self.points for point in row)

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the terms, QM calls, for the points that are kept."""
        return sum(point.evaluations for point in self.all_points)

    @property
    def last_place(self) -> tuple[int, int]:
        """Place of the last centres of both variables."""
        return len(self.centres[0]) - 1, len(self.centres[1]) - 1

    def minima(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the places of the minima that one reaches by going down from the first centres and from the last.

        Of a grid whose centres begin at the reactant and end at the product, these are reactant and product.
        """
        energies = self.energies.value_in_unit(ENERGY)
        return _downhill(energies, (0, 0)), _downhill(energies, self.last_place)

    def path(self, first: tuple[int, int] | None = None, last: tuple[int, int] | None = None) -> ReactionPath:
        """Return the path between two points of the grid whose highest point is lowest.

        Parameters
        ----------
        first, last : tuple of (int, int), optional
            Places of the points; those of `minima` if not given.

        Raises
        ------
        SettingError
            If there is no such point, or both are the same.
        """
        energies = self.energies.value_in_unit(ENERGY)
        reactant, product = self.minima()
        if first is None and last is None and reactant == product:
            raise SettingError(
                f"the grid goes down to one minimum from both of its ends, at place {reactant}: order the centres from "
                "the reactant to the product of both variables, or give first and last"
            )
        first = reactant if first is None else first
        last = product if last is None else last
        for place in (first, last):
            if len(place) != 2 or not all(0 <= k < n for k, n in zip(place, energies.shape, strict=True)):
                raise SettingError(f"a point of the grid has two indices below {energies.shape}, got {place!r}")
        if tuple(first) == tuple(last):
            raise SettingError("a path joins two different points of the grid, and these are the same")
        places = _lowest_pass(energies, tuple(first), tuple(last))
        structures = tuple(self.points[i][j] for i, j in places)
        return ReactionPath(self.mixed, structures, np.arange(len(places), dtype=float), "Step on the Grid")

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a row for each pair of centres: centres, values, true and restraint energies."""
        points = self.all_points
        lowest = points[0].energy.value_in_unit(ENERGY)
        columns = {f"Centre {k + 1}": np.array([point.centres[k] for point in points]) for k in range(2)}
        columns |= {f"Value {k + 1}": np.array([point.values[k] for point in points]) for k in range(2)}
        for name, energies in (
            ("Potential Energy (kJ/mol)", [point.energy.value_in_unit(ENERGY) - lowest for point in points]),
            ("Restraint Energy (kJ/mol)", [point.restraint_energy.value_in_unit(ENERGY) for point in points]),
        ):
            columns[name] = np.array(energies)
        write_table(path, columns)

    def save_figure(self, path: str | os.PathLike[str]) -> None:
        """Write a map of the energies above the first point, with the lowest pass between the two `minima`."""
        energies = self.energies.value_in_unit(ENERGY)
        reactant, product = self.minima()
        way = None
        if reactant != product:
            way = np.array(
                [[self.centres[0][i], self.centres[1][j]] for i, j in _lowest_pass(energies, reactant, product)]
            )
        labels = [f"variable {k + 1}{_in_units(variable)}" for k, variable in enumerate(self.variables)]
        save_grid_figure(self.centres[0], self.centres[1], energies - energies[0, 0], labels, way, path)


def _in_units(variable: Variable) -> str:
    return "" if variable.unit is None else f" ({variable.unit.get_symbol()})"


def _downhill(energies: FloatArray, place: tuple[int, int]) -> tuple[int, int]:
    """Return the place of the minimum that one reaches from a place by going to the lowest neighbour."""
    while True:
        near = [
            (i, j)
            for i in range(max(place[0] - 1, 0), min(place[0] + 2, energies.shape[0]))
            for j in range(max(place[1] - 1, 0), min(place[1] + 2, energies.shape[1]))
        ]
        best = min(near, key=lambda other: float(energies[other]))
        if not energies[best] < energies[place]:
            return place
        place = best


def _lowest_pass(energies: FloatArray, first: tuple[int, ...], last: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the places between two points of a grid so that the highest energy on the way is lowest."""
    heap = [(float(energies[first]), 0, first)]
    before: dict[tuple[int, ...], tuple[int, ...] | None] = {first: None}
    while heap:
        height, steps, place = heapq.heappop(heap)
        if place == last:
            break
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                other = (place[0] + i, place[1] + j)
                if other in before or not all(0 <= k < n for k, n in zip(other, energies.shape, strict=True)):
                    continue
                before[other] = place
                heapq.heappush(heap, (max(height, float(energies[other])), steps + 1, other))
    way: list[tuple[int, int]] = []
    at: tuple[int, ...] | None = last
    while at is not None:
        way.append((at[0], at[1]))
        at = before[at]
    return way[::-1]
