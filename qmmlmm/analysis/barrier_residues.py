"""Which residues make a barrier: interactions at one structure of a reaction less those at another."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openmm import unit

from qmmlmm.analysis.interaction import InteractionTable
from qmmlmm.analysis.model_quality import check_figure_path, checked_axes
from qmmlmm.errors import SettingError
from qmmlmm.html_tables import html_table
from qmmlmm.setting_checks import check_instance, check_names, check_path, check_whole_number
from qmmlmm.units import FloatArray, in_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENERGY = unit.kilojoule_per_mole
LOWERS = "#0072b2"
MOST_SHOWN = 12
RAISES = "#d55e00"


@dataclass(frozen=True, eq=False)
class BarrierTable:
    """The interaction of a region with each residue at the saddle point less that at the reactant.

    Parameters
    ----------
    reactant, saddle : InteractionTable
        Both with the same rows.
    names : tuple of (str, str)
        What the two structures are, for text, table and figure: those of another pair, such as two ends of a scan.

    Raises
    ------
    SettingError
        If the names are not two different texts.
    """

    reactant: InteractionTable
    saddle: InteractionTable
    names: tuple[str, str] = ("reactant", "saddle point")

    def __post_init__(self) -> None:
        names = check_names("names", self.names)
        if len(names) != 2:
            raise SettingError(f"names has two names, of the first structure and of the second, got {len(names)}")
        object.__setattr__(self, "names", names)

    @property
    def comparison(self) -> str:
        """What is subtracted from what, such as ``saddle point less reactant``."""
        first, second = self.names
        return f"{second} less {first}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each row."""
        return self.saddle.labels

    @property
    def electrostatic(self) -> unit.Quantity:
        """Difference of the electrostatic interaction, (n,) kJ/mol; negative where a residue favours the second."""
        return self.saddle.electrostatic - self.reactant.electrostatic

    @property
    def lennard_jones(self) -> unit.Quantity | None:
        """Difference of the Lennard-Jones interaction, (n,) kJ/mol; None if it was not computed."""
        if self.saddle.lennard_jones is None or self.reactant.lennard_jones is None:
            return None
        return self.saddle.lennard_jones - self.reactant.lennard_jones

    @property
    def total(self) -> unit.Quantity:
        """Sum of both differences, (n,) kJ/mol."""
        return self.saddle.total - self.reactant.total

    @property
    def polarisation(self) -> unit.Quantity:
        """Difference of the energy of polarising the region, kJ/mol."""
        return self.saddle.polarisation - self.reactant.polarisation

    def __len__(self) -> int:
        return len(self.saddle)

    def strongest(self, count: int) -> list[int]:
        """Return the rows with the largest differences, the one that favours the second structure most first."""
        check_whole_number("count", count)
        total = in_unit(self.total, ENERGY)
        chosen = sorted(range(len(self)), key=lambda k: -abs(total[k]))[:count]
        return sorted(chosen, key=lambda k: total[k])

    def __str__(self) -> str:
        total = in_unit(self.total, ENERGY)
        lines = [f"{self.labels[k]:<28}{total[k]:>10.1f} kJ/mol" for k in self.strongest(MOST_SHOWN)]
        return "\n".join([f"{self.comparison}; negative favours the {self.names[1]}", *lines])

    def _repr_html_(self) -> str:
        """Return a table of the residues with the largest differences, which notebooks show."""
        total = in_unit(self.total, ENERGY)
        rows = [(self.labels[k], f"{total[k]:+.1f}") for k in self.strongest(MOST_SHOWN)]
        return html_table(("residue", f"{self.comparison} (kJ/mol)"), rows)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write both interactions and their difference with the header style of OpenMM."""
        columns: dict[str, FloatArray] = {
            f"{self.names[0].title()} (kJ/mol)": in_unit(self.reactant.total, ENERGY),
            f"{self.names[1].title()} (kJ/mol)": in_unit(self.saddle.total, ENERGY),
            "Electrostatic Difference (kJ/mol)": in_unit(self.electrostatic, ENERGY),
            "Difference (kJ/mol)": in_unit(self.total, ENERGY),
        }
        with check_path("path", path).open("w", encoding="utf-8", newline="") as file:
            file.write("#" + ",".join(f'"{name}"' for name in ["Residue", *columns]) + "\n")
            writer = csv.writer(file, lineterminator="\n")
            for k, label in enumerate(self.labels):
                writer.writerow([label, *(f"{column[k]:.6f}" for column in columns.values())])


def plot_barrier_residues(table: BarrierTable, ax: Axes | None = None, *, count: int = 15) -> Axes:
    """Draw the residues with the largest differences as bars.

    Parameters
    ----------
    table : BarrierTable
    ax : matplotlib.axes.Axes, optional
    count : int
        Number of bars.
    """
    check_instance("table", table, BarrierTable)
    rows = table.strongest(count)
    axes = _new_axes() if ax is None else checked_axes(ax)
    total = in_unit(table.total, ENERGY)
    values = [float(total[k]) for k in rows]
    axes.barh(range(len(rows)), values, color=[LOWERS if value < 0.0 else RAISES for value in values])
    axes.set_yticks(range(len(rows)), [table.labels[k] for k in rows])
    axes.invert_yaxis()
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel(f"interaction, {table.comparison} (kJ/mol), single structures")
    return axes


def save_barrier_figure(table: BarrierTable, path: str | os.PathLike[str]) -> None:
    """Write the figure of `plot_barrier_residues` to a file."""
    target = check_figure_path(path)
    figure = plot_barrier_residues(table).get_figure(root=True)
    assert figure is not None
    figure.savefig(target, dpi=150)


def _new_axes() -> Axes:
    from matplotlib.figure import Figure

    return Figure(figsize=(7.0, 4.5), layout="constrained").add_subplot()
