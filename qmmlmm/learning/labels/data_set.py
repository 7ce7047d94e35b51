"""Data sets as extended XYZ files, readable by ASE and by the trainers that use it.

Notes
-----
A frame is the number of atoms, a line of ``key=value`` pairs, and one line per atom. Lengths are in angstrom,
energies in eV and charges in e, as in ASE; the key ``units`` names them in every frame. The key ``near_charges`` has
the near charges of the surroundings: for each its position (3), charge (1) and force (3); ``near_widths`` has the
widths of Gaussian charges. Format: https://github.com/libAtoms/extxyz.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm.app import Element

from qmmlmm.errors import DataSetError, QmmlmmWarning, listed
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, NearCharges, check_together
from qmmlmm.setting_checks import check_items, check_path
from qmmlmm.units import ANGSTROM_IN_BOHR, HARTREE_IN_EV, FloatArray

UNITS = "angstrom eV e"
VERSION = 1

_LENGTH = 1.0 / ANGSTROM_IN_BOHR
_FORCE = HARTREE_IN_EV * ANGSTROM_IN_BOHR


@dataclass(frozen=True)
class _Quantity:
    """A label in the file: its atomic unit in units of the file, its shape for each atom, and its number of digits."""

    unit: float
    shape: tuple[int, ...]
    digits: int

    @property
    def columns(self) -> int:
        return int(np.prod(self.shape, dtype=int))


# The names of the attributes of LabelledFrame, except pos.
_COLUMNS = {
    "pos": _Quantity(_LENGTH, (3,), 8),
    "forces": _Quantity(_FORCE, (3,), 6),
    "vacuum_forces": _Quantity(_FORCE, (3,), 6),
    "charges": _Quantity(1.0, (), 5),
    "potential": _Quantity(HARTREE_IN_EV, (), 6),
    "field": _Quantity(_FORCE, (3,), 6),
    "field_gradient": _Quantity(_FORCE * ANGSTROM_IN_BOHR, (3, 3), 6),
}
_KEYS = {
    "energy": _Quantity(HARTREE_IN_EV, (), 7),
    "vacuum_energy": _Quantity(HARTREE_IN_EV, (), 7),
    "dipole": _Quantity(_LENGTH, (3,), 6),
    "vacuum_dipole": _Quantity(_LENGTH, (3,), 6),
}
_NEAR = {"positions": (_LENGTH, 3, 5), "charges": (1.0, 1, 5), "forces": (_FORCE, 3, 5)}
_INTEGERS = ("charge", "multiplicity", "electronic_state")
_OTHER_KEYS = ("near_charges", "near_widths", "Properties", "method", "units", "qmmlmm_format", "name", "pbc")
_PAIR = re.compile(r'([A-Za-z_][\w-]*)=("([^"]*)"|\S+)')


def append_frames(path: str | os.PathLike[str], frames: Iterable[LabelledFrame]) -> None:
    """Add frames to a data set; create the file if necessary.

    A frame is in the file as a whole or not at all, also if the process is killed: the rest of an incomplete frame is
    removed before new frames are written, with a warning.

    Parameters
    ----------
    path : path
        File whose name ends in ``.xyz`` or ``.extxyz``. Frames cannot be added to compressed files.
    frames : iterable of LabelledFrame

    Raises
    ------
    DataSetError
        If there are no frames, or they are not of one region and one method with those in the file.
    """
    target = check_path("path", path, DataSetError)
    new = list(check_items("frames", frames, LabelledFrame, empty=True, error=DataSetError))
    if target.suffix not in (".xyz", ".extxyz"):
        raise DataSetError(f"the name of a data set to write ends in .xyz or .extxyz, got {str(target)!r}")
    check_together(new)
    text = "".join(format_frame(frame) for frame in new).encode("ascii")
    with open(target, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        old = file.read()
        kept, lost = _complete(old.decode("ascii", errors="replace"), str(target))
        if kept:
            check_together([_parse(kept[0], str(target)), *new])
        length = sum(len("".join(block.lines)) for block in kept)
        if lost:
            _warn_truncated(target, len(kept))
            file.truncate(length)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_frames(path: str | os.PathLike[str]) -> list[LabelledFrame]:
    """Return the frames of a data set.

    Parameters
    ----------
    path : path
        Path of the file; a name that ends in ``.gz`` is of a file compressed with gzip.

    Returns
    -------
    list of LabelledFrame
        Complete frames, with a warning if the file ends inside a frame because its writer was killed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataSetError
        If a frame cannot be read, or the frames are not of one region and one method.
    """
    source = check_path("path", path, DataSetError)
    if not source.is_file():
        raise FileNotFoundError(f"no data set {str(source)!r}; the working directory is {os.getcwd()!r}")
    data = _unpacked(source)
    try:
        text = data.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataSetError(
            f"{str(source)!r}, line {line}: byte {error.start} of the file is no ASCII character; save it as plain text"
        ) from error
    kept, lost = _complete(text, str(source))
    if lost:
        _warn_truncated(source, len(kept))
    frames = [_parse(block, str(source)) for block in kept]
    if not frames:
        raise DataSetError(f"{str(source)!r} has no complete frame")
    try:
        check_together(frames)
    except DataSetError as error:
        raise DataSetError(f"{str(source)!r}: {error}") from error
    return frames


def _unpacked(path: Path) -> bytes:
    """Return the content of a file, which gzip compressed if its name ends in .gz."""
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataSetError(
            f"{str(path)!r} is cut or damaged, or was not compressed with gzip ({error}); copy it again from its source"
        ) from error


def parse_frame(text: str, where: str) -> LabelledFrame:
    """Return the frame of a text from `format_frame`.

    Parameters
    ----------
    text : str
    where : str
        Name of the text in messages.

    Raises
    ------
    DataSetError
        If the text is not one complete frame.
    """
    blocks, lost = _complete(text, where)
    if lost or len(blocks) != 1:
        raise DataSetError(f"{where} is not one complete frame")
    return _parse(blocks[0], where)


def _warn_truncated(path: Path, n_kept: int) -> None:
    warnings.warn(
        f"{str(path)!r} ends inside frame {n_kept}, whose writer was killed; the {n_kept} complete frames are kept",
        QmmlmmWarning,
        stacklevel=3,
    )


@dataclass(frozen=True)
class _Block:
    """The lines of a frame, and the number of the first line, counted from one."""

    lines: list[str]
    start: int


def _complete(text: str, path: str) -> tuple[list[_Block], bool]:
    """Return the complete frames, and whether an incomplete one follows them."""
    lines = text.splitlines(keepends=True)
    blocks: list[_Block] = []
    at = 0
    while at < len(lines):
        count = lines[at].strip()
        if not count and all(not line.strip() for line in lines[at:]):
            return blocks, False
        last = at + 1 == len(lines) and not lines[at].endswith("\n")
        if not last and (not count.isdigit() or len(count) > 9 or int(count) == 0):
            raise DataSetError(f"{path!r}, line {at + 1}: expected a number of atoms, got {count[:40]!r}")
        end = at + int(count) + 2 if count.isdigit() and len(count) < 10 else len(lines) + 1
        if end > len(lines) or not lines[end - 1].endswith("\n"):
            return blocks, True
        blocks.append(_Block(lines[at:end], at + 1))
        at = end
    return blocks, False


def format_frame(frame: LabelledFrame) -> str:
    """Return the text of a frame in a data set."""
    columns: list[FloatArray] = []
    properties = "species:S:1"
    formats = ["%-2s"]
    for name, quantity in _COLUMNS.items():
        value = vars(frame)["positions" if name == "pos" else name]
        if value is not None:
            properties += f":{name}:R:{quantity.columns}"
            columns.append((np.asarray(value) * quantity.unit).reshape(len(frame.atomic_numbers), -1))
            formats += [f"%.{quantity.digits}f"] * quantity.columns
    header = [f"Properties={properties}", f'units="{UNITS}"', f"qmmlmm_format={VERSION}", f'method="{frame.method}"']
    header += [f"{name}={vars(frame)[name]}" for name in _INTEGERS]
    for name, quantity in _KEYS.items():
        value = vars(frame)[name]
        if value is not None:
            numbers = " ".join(f"{x:.{quantity.digits}f}" for x in np.atleast_1d(np.asarray(value) * quantity.unit))
            header.append(f'{name}="{numbers}"' if quantity.shape else f"{name}={numbers}")
    if frame.near is not None:
        near = frame.near
        table = np.column_stack([vars(near)[key] * unit for key, (unit, _, _) in _NEAR.items()])
        digits = [d for _, width, d in _NEAR.values() for _ in range(width)]
        rows = (" ".join(f"{x:.{d}f}" for x, d in zip(row, digits, strict=True)) for row in table)
        header.append(f'near_charges="{" ".join(rows)}"')
        if near.widths is not None:
            header.append(f'near_widths="{" ".join(f"{w * _LENGTH:.5f}" for w in near.widths)}"')
    header += [f"name={frame.name}", 'pbc="F F F"']
    symbols = [Element.getByAtomicNumber(int(z)).symbol for z in frame.atomic_numbers]
    body = [
        " ".join(f % x for f, x in zip(formats, [symbol, *row], strict=True))
        for symbol, row in zip(symbols, np.hstack(columns), strict=True)
    ]
    return "\n".join([str(len(symbols)), " ".join(header), *body]) + "\n"


def _parse(block: _Block, path: str) -> LabelledFrame:
    where = f"{path!r}, frame at line {block.start}"
    header = _header(block.lines[1], f"{path!r}, line {block.start + 1}")
    if header.get("units") != UNITS:
        found = f'has units="{header["units"]}"' if "units" in header else "has no units"
        raise DataSetError(f'{where} {found}; convert the numbers and write units="{UNITS}" into each frame')
    version = header.get("qmmlmm_format", str(VERSION))
    if version != str(VERSION):
        raise DataSetError(f"{where} has the format {version}, this version reads {VERSION}; label it again")
    missing = [key for key in ("Properties", "method", "energy", "charge", "multiplicity") if key not in header]
    if missing:
        raise DataSetError(f"{where} lacks {listed(missing)} in its second line")
    known = {
        *_KEYS,
        *_INTEGERS,
        "near_charges",
        "near_widths",
        "Properties",
        "method",
        "units",
        "qmmlmm_format",
        "name",
        "pbc",
    }
    unknown = sorted(set(header) - known)
    if unknown:
        raise DataSetError(f"{where} has keys that are not known: {listed(unknown)}; known are {listed(known, 30)}")
    symbols, columns = _columns(block, header["Properties"], where)
    for name in ("pos", "forces"):
        if name not in columns:
            raise DataSetError(f"{where} has no column {name!r}")
    try:
        numbers = np.array([Element.getBySymbol(symbol).atomic_number for symbol in symbols])
    except KeyError as error:
        raise DataSetError(f"{where}: {error} is no element") from error
    integers = {name: _integer(header[name], name, where) for name in _INTEGERS if name in header}
    keys = {
        name: _numbers(header[name], quantity.columns, name, where).reshape(quantity.shape) / quantity.unit
        for name, quantity in _KEYS.items()
        if name in header
    }
    energies = {name: float(keys.pop(name)) for name in ("energy", "vacuum_energy") if name in keys}
    positions = columns.pop("pos")
    forces = columns.pop("forces")
    near = _near(header, where)
    try:
        return LabelledFrame(
            atomic_numbers=numbers,
            positions=positions,
            energy=energies["energy"],
            forces=forces,
            method=header["method"],
            vacuum_energy=energies.get("vacuum_energy"),
            near=near,
            name=header.get("name", "frame"),
            **integers,  # type: ignore[arg-type]
            **columns,  # type: ignore[arg-type]
            **keys,  # type: ignore[arg-type]
        )
    except DataSetError as error:
        raise DataSetError(f"{where}: {error}") from error


def _header(line: str, where: str) -> dict[str, str]:
    """Return the pairs of the second line of a frame."""
    rest = _PAIR.sub(" ", line).strip()
    if rest:
        raise DataSetError(f"{where}: expected key=value pairs without blanks around the equal sign, got {rest[:40]!r}")
    header: dict[str, str] = {}
    for pair in _PAIR.finditer(line):
        if pair[1] in header:
            raise DataSetError(f"{where} has the key {pair[1]!r} twice; leave one out")
        header[pair[1]] = pair[3] if pair[3] is not None else pair[2]
    return header


def _columns(block: _Block, properties: str, where: str) -> tuple[list[str], dict[str, FloatArray]]:
    """Return the symbols and the columns of numbers in atomic units."""
    parts = properties.split(":")
    layout = list(zip(parts[::3], parts[1::3], parts[2::3], strict=False))
    if len(parts) % 3 or not layout or layout[0][:2] != ("species", "S"):
        raise DataSetError(f"{where}: Properties starts with species:S:1 and consists of triples, got {properties!r}")
    names = [name for name, _, _ in layout]
    if len(set(names)) < len(names):
        raise DataSetError(f"{where}: Properties has a column twice, got {properties!r}")
    for name, _, width in layout[1:]:
        if name not in _COLUMNS:
            raise DataSetError(f"{where}: unknown column {name!r}; known are {listed(_COLUMNS, 30)}")
        if width != str(_COLUMNS[name].columns):
            raise DataSetError(f"{where}: {name} has {_COLUMNS[name].columns} columns, Properties says {width}")
    n_columns = 1 + sum(_COLUMNS[name].columns for name, _, _ in layout[1:])
    symbols: list[str] = []
    rows: list[list[float]] = []
    for k, line in enumerate(block.lines[2:]):
        words = line.split()
        if len(words) != n_columns:
            raise DataSetError(
                f"{where}: line {block.start + 2 + k} has {len(words)} columns, Properties asks for {n_columns}"
            )
        symbols.append(words[0])
        try:
            rows.append([float(word) for word in words[1:]])
        except ValueError as error:
            raise DataSetError(f"{where}: line {block.start + 2 + k}: {error}") from error
    table = np.array(rows, dtype=float)
    columns: dict[str, FloatArray] = {}
    at = 0
    for name, _, _ in layout[1:]:
        quantity = _COLUMNS[name]
        columns[name] = table[:, at : at + quantity.columns].reshape(len(symbols), *quantity.shape) / quantity.unit
        at += quantity.columns
    return symbols, columns


def _near(header: dict[str, str], where: str) -> NearCharges | None:
    if "near_charges" not in header:
        return None
    width = sum(w for _, w, _ in _NEAR.values())
    table = _numbers(header["near_charges"], None, "near_charges", where)
    if len(table) % width:
        raise DataSetError(f"{where}: near_charges has {width} numbers for each charge, got {len(table)} numbers")
    table = table.reshape(-1, width)
    widths = None
    if "near_widths" in header:
        widths = _numbers(header["near_widths"], len(table), "near_widths", where) / _LENGTH
    return NearCharges(table[:, :3] / _LENGTH, table[:, 3], table[:, 4:] / _FORCE, widths)


def _numbers(text: str, count: int | None, name: str, where: str) -> FloatArray:
    try:
        numbers = np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise DataSetError(f"{where}: {name}: {error}") from error
    if count is not None and len(numbers) != count:
        raise DataSetError(f"{where}: {name} has {count} numbers, got {len(numbers)}")
    return numbers


def _integer(text: str, name: str, where: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise DataSetError(f"{where}: {name} is an integer, got {text!r}") from error
