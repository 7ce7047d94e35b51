"""Where umbrella windows start: at structures that are given, pulled to the centres from which they are far away."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.durable_files import replace_file
from qmmlmm.errors import EvaluationError, SettingError
from qmmlmm.free_energy.umbrella_window import NAME, Window, place, set_seeds
from qmmlmm.geometry import Geometry
from qmmlmm.progress_display import progress_bar
from qmmlmm.units import GAS_CONSTANT, FloatArray

FARTHEST = 6.0
"""Standard deviations of an umbrella within which the start of a window has to be."""

MOST_PARTS = 50
"""Largest number of steps in which the centre of an umbrella goes to the next window."""


@dataclass(frozen=True, eq=False)
class PulledStarts:
    """Writes the file of the start of each window that has none.

    Parameters
    ----------
    windows : tuple of Window
    starts : (n, 3) or (k, n, 3) float array, nm
        One structure, which is pulled from the nearest window outwards, or one for each window.
    boxes : (3, 3) or (k, 3, 3) float array or None, nm
        Boxes of the starts; that of the Context if None.
    pull_steps : int
        Number of steps from one window to the next.
    """

    windows: tuple[Window, ...]
    starts: FloatArray
    boxes: FloatArray | None
    pull_steps: int

    def write(self, simulation: app.Simulation) -> None:
        """Write the files, with dynamics of a Simulation where a structure is pulled.

        Parameters
        ----------
        simulation : app.Simulation
            Simulation of a window.

        Raises
        ------
        SettingError
            If there are boxes, and the System has none or OpenMM refuses one.
        EvaluationError
            If pulling does not arrive.
        """
        boxes = self._boxes(simulation.context)
        if self.starts.ndim == 3:
            for window, start, box in zip(self.windows, self.starts, boxes, strict=True):
                if not window.start_path.exists():
                    self._write_given(simulation, window, start, box)
            return
        place(simulation.context, self.starts, boxes[0])
        first = self.windows[0].variable(Geometry.from_context(simulation.context))
        away = self.windows[0].variable.difference(np.array([window.centre for window in self.windows]), first)
        order = np.argsort(away)
        nearest = int(np.argmin(np.abs(away[order])))
        with progress_bar(len(self.windows), "pulling", "window") as bar:
            for way in (order[nearest:], order[: nearest + 1][::-1]):
                positions, box, value = self.starts, boxes[0], first
                for index in way:
                    window = self.windows[index]
                    if not window.start_path.exists():
                        self._pull(simulation, window, positions, box, value)
                        bar.update()
                    positions, box = _read(window.start_path)
                    value = window.centre

    def _boxes(self, context: openmm.Context) -> list[FloatArray | None]:
        """Return the box of each window's start, None without one."""
        present = Geometry.from_context(context).box
        if self.boxes is None:
            return [present] * len(self.windows)
        if present is None:
            raise SettingError("box_vectors are given, and the System that create makes has no box; leave them out")
        return list(np.broadcast_to(self.boxes, (len(self.windows), 3, 3)))

    def _write_given(
        self, simulation: app.Simulation, window: Window, start: FloatArray, box: FloatArray | None
    ) -> None:
        """Write a start that was given, pulled to the centre of its window if it is far away."""
        place(simulation.context, start, box)
        value = window.variable(Geometry.from_context(simulation.context))
        if _is_near(value, window):
            _write(window.start_path, start, box)
        else:
            self._pull(simulation, window, start, box, value)

    def _pull(
        self, simulation: app.Simulation, window: Window, positions: FloatArray, box: FloatArray | None, value: float
    ) -> None:
        """Move the centre from a value to that of a window, and write where the particles are."""
        context = simulation.context
        set_seeds(simulation, window.seed)
        place(context, positions, box)
        context.setVelocitiesToTemperature(window.temperature * unit.kelvin, window.seed)
        context.setParameter(f"{NAME}_k", window.constant)
        way = float(window.variable.difference(window.centre, value))
        parts = min(self.pull_steps, MOST_PARTS)
        for part in range(1, parts + 1):
            context.setParameter(f"{NAME}_centre", window.centre - way * (1.0 - part / parts))
            simulation.integrator.step(max(1, self.pull_steps // parts))
        geometry = Geometry.from_context(context)
        reached = window.variable(geometry)
        if not _is_near(reached, window):
            raise EvaluationError(
                f"pulling to the window at {window.centre:.4g} ended at {reached:.4g}; pull more slowly (pull_steps), "
                "take a larger force constant, or give a start for each window"
            )
        _write(window.start_path, geometry.positions, geometry.box)


def _is_near(value: float, window: Window) -> bool:
    """Return whether a value is within `FARTHEST` standard deviations of an umbrella."""
    away = abs(float(window.variable.difference(value, window.centre)))
    return away < FARTHEST * float(np.sqrt(GAS_CONSTANT * window.temperature / window.constant))


def _write(path: Path, positions: FloatArray, box: FloatArray | None) -> None:
    buffer = io.BytesIO()
    if box is None:
        np.savez(buffer, positions=positions)
    else:
        np.savez(buffer, positions=positions, box=box)
    replace_file(path, buffer.getvalue())


def _read(path: Path) -> tuple[FloatArray, FloatArray | None]:
    with np.load(path, allow_pickle=False) as file:
        return file["positions"], file["box"] if "box" in file.files else None
