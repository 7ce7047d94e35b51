"""Files of failed calculations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TextIO

import numpy as np

from qmmlmm.coupling.potential import ExternalField
from qmmlmm.units import ANGSTROM_IN_BOHR, FloatArray


def write_failure(
    directory: str | Path | None,
    term: str,
    comment: str,
    symbols: list[str],
    positions: FloatArray,
    external_field: ExternalField | None,
) -> str:
    """Write the geometry and the external charges, and return a sentence with the paths.

    Parameters
    ----------
    directory : str, path or None
        Directory, created if it does not exist; the current one if None.
    term : str
        Name of the term and of the files, which never replace other files.
    comment : str
        Second line of the XYZ file.
    symbols : list of str
    positions : (n, 3) float array, bohr
    external_field : ExternalField or None

    Notes
    -----
    Lengths are in angstrom. The smooth part of the field is not written. If the files cannot be written, the sentence
    says so; there is no exception, because the failed calculation has one.
    """
    folder = Path(directory) if directory is not None else Path()
    stem = re.sub(r"[^A-Za-z0-9.+-]+", "_", term).strip("_") or "term"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        geometry, handle = _open_new(folder, stem)
        with handle:
            handle.write(f"{len(symbols)}\n{comment}\n")
            for symbol, (x, y, z) in zip(symbols, positions / ANGSTROM_IN_BOHR, strict=True):
                handle.write(f"{symbol:<2s} {x:18.10f} {y:18.10f} {z:18.10f}\n")
        if external_field is None or len(external_field.positions) == 0:
            return f"the geometry is in {geometry}"
        charges = geometry.with_suffix(".charges.txt")
        with charges.open("x") as handle:
            _write_charges(handle, external_field)
    except OSError as error:
        return f"the geometry could not be saved ({error})"
    return f"the geometry is in {geometry} and the external charges in {charges}"


def _open_new(folder: Path, stem: str) -> tuple[Path, TextIO]:
    number = 1
    while True:
        path = (folder / f"{stem}_failed_{number:03d}.xyz").resolve()
        if not path.with_suffix(".charges.txt").exists():
            try:
                return path, path.open("x")
            except FileExistsError:
                pass
        number += 1


def _write_charges(handle: TextIO, external_field: ExternalField) -> None:
    splitting = external_field.splitting
    text = "none" if splitting is None else f"{splitting:.10g} 1/bohr"
    smooth = "none" if external_field.smooth_potential is None else "present, not written"
    handle.write(f"# splitting of the gaussian charges: {text}; smooth part of the potential: {smooth}\n")
    width = "" if external_field.widths is None else ", width of the point charge (angstrom)"
    handle.write(f"# x (angstrom), y (angstrom), z (angstrom), point charge (e), gaussian charge (e){width}\n")
    columns = [
        external_field.positions / ANGSTROM_IN_BOHR,
        external_field.point_charges,
        external_field.gaussian_charges,
    ]
    if external_field.widths is not None:
        columns.append(external_field.widths / ANGSTROM_IN_BOHR)
    np.savetxt(handle, np.column_stack(columns), fmt="%18.10f")
