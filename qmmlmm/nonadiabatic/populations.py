"""Populations of electronic states from many trajectories."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from qmmlmm.errors import OutputFileError
from qmmlmm.setting_checks import check_path
from qmmlmm.units import FloatArray, IntArray

CONFIDENCE = 1.959964
"""Standard deviations of a normal distribution that hold 95 %."""


@dataclass(frozen=True)
class Populations:
    """Fraction of the trajectories on each state.

    Parameters
    ----------
    times : (t,) float array, ps
    shares : (t, m) float array
        Fraction of the trajectories on each active state.
    lower, upper : (t, m) float arrays
        Confidence bands of 95 %.
    amplitudes : (t, m) float array
        Mean absolute squares of the electronic amplitudes: equal to the shares where surface hopping is consistent.
    n_trajectories : int
    """

    times: FloatArray
    shares: FloatArray
    lower: FloatArray
    upper: FloatArray
    amplitudes: FloatArray
    n_trajectories: int

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with a row for each time; the header names the units.

        Raises
        ------
        SettingError
            If it is no path.
        OutputFileError
            If the file cannot be written.
        """
        columns = ["Time (ps)"]
        for k in range(self.shares.shape[1]):
            columns += [f"Share {k}", f"Share {k} Lower", f"Share {k} Upper", f"Population {k}"]
        parts = np.stack([self.shares, self.lower, self.upper, self.amplitudes], axis=-1)
        write_table(path, columns, np.column_stack([self.times, parts.reshape(len(self.times), -1)]).tolist())


def write_table(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Sequence[float]]) -> None:
    """Write a CSV file with the header of OpenMM's reporters; numbers have ten digits.

    Parameters
    ----------
    path : str or path
    columns : sequence of str
        Names with units.
    rows : iterable of sequences of float
    """
    lines = ["#" + ",".join(f'"{column}"' for column in columns)]
    lines += [",".join(f"{value:.10g}" for value in row) for row in rows]
    file = check_path("path", path)
    try:
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputFileError(f"the table {file} cannot be written: {error}") from error


def wilson_band(counts: FloatArray, n: int, width: float = CONFIDENCE) -> tuple[FloatArray, FloatArray]:
    """Return the confidence band of the fraction `counts` of `n` independent trials.

    Notes
    -----
    It lies between 0 and 1, also where all trajectories agree. Source: Wilson, J. Am. Stat. Assoc. 22, 209 (1927).
    """
    share = counts / n
    middle = (share + width**2 / (2 * n)) / (1 + width**2 / n)
    half = width / (1 + width**2 / n) * np.sqrt(share * (1 - share) / n + width**2 / (4 * n**2))
    # Round-off must not put a fraction of zero or one outside.
    return np.clip(np.minimum(middle - half, share), 0.0, 1.0), np.clip(np.maximum(middle + half, share), 0.0, 1.0)


def populations(times: FloatArray, states: IntArray, squares: FloatArray) -> Populations:
    """Return the populations of trajectories that all have the same steps.

    Parameters
    ----------
    times : (t,) float array, ps
    states : (n, t) int array
        Active state of each trajectory.
    squares : (n, t, m) float array
        Absolute squares of the amplitudes.
    """
    count, _, n_states = squares.shape
    counts = np.array([(states == k).sum(axis=0) for k in range(n_states)], dtype=float).T
    lower, upper = wilson_band(counts, count)
    return Populations(times, counts / count, lower, upper, squares.mean(axis=0), count)
