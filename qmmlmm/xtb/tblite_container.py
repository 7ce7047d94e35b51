"""A potential inside the self-consistent field of tblite.

This is the only module that knows how the potential gets into the program. Its seam is small: `set` a potential with
gradient and curvature at the atoms, and read the `multipoles` of the converged density. Another program, or a container
that tblite itself may offer one day, can replace it.

Notes
-----
tblite has no public function for an external potential: its C interface knows a uniform electric field only. That field
is an object of a Fortran class, and the library exports the table of the procedures of this class, and the procedures
themselves, by name. This module copies the table, replaces energy, potential and gradient in the copy by functions of
its own, and gives the copy to each container that it makes. The places in the table are found by the addresses that
they hold. The arrays of charges, dipoles and quadrupoles in tblite's structures are found by their order and extents,
in the descriptors that gfortran writes. No offset inside a type of tblite is assumed.

What is assumed can change with another version or compiler. Therefore `qmmlmm.xtb.container_check` tests the installed
library in another process before this module is used for the first time.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import struct
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import tblite._libtblite as extension
from tblite import library as bindings
from tblite.interface import Calculator

from qmmlmm.errors import EvaluationError, PotentialError
from qmmlmm.units import FloatArray
from qmmlmm.xtb.multipoles import AtomicMultipoles, AtomicPotential

Address: TypeAlias = int
"""Address of an object of the library in this process."""

FIELD = "__tblite_external_field_MOD_"
BASE = "__tblite_container_type_MOD_"
POTENTIAL_TABLE = "__tblite_scf_potential_MOD___vtab_tblite_scf_potential_Potential_type"
WAVEFUNCTION_TABLE = "__tblite_wavefunction_type_MOD___vtab_tblite_wavefunction_type_Wavefunction_type"
TABLE_WORDS = 16
"""Length of the table of the class, in words of 8 bytes: 7 of every class, 9 procedures."""
PACKED = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))
"""Order of the components of tblite's quadrupoles."""

# Layout of gfortran's array descriptors (libgfortran.h, since version 9), bytes: address, offset, then the type of an
# element as length, version, rank and kind, then the span, then stride, lower and upper bound of each axis.
HEADER = struct.Struct("<QqqibbHq")
AXIS = struct.Struct("<qqq")
REAL = 3
"""Number of the kind of real numbers."""


@dataclass(frozen=True)
class _Array:
    """An array of double precision in memory of the library.

    Parameters
    ----------
    offset : int
        Place of its descriptor in the structure that has it.
    shape : tuple of int
    descriptor : bytes
        The descriptor without the address of the numbers.
    """

    offset: int
    shape: tuple[int, ...]
    descriptor: bytes

    @property
    def end(self) -> int:
        """Place behind the descriptor."""
        return self.offset + 8 + len(self.descriptor)


def _word(address: Address) -> int:
    return ctypes.c_uint64.from_address(address).value


def _view(address: Address, shape: tuple[int, ...]) -> FloatArray:
    """Return the numbers themselves, in the order of Fortran."""
    numbers = (ctypes.c_double * int(np.prod(shape))).from_address(address)
    return np.frombuffer(memoryview(numbers), dtype=np.float64).reshape(shape, order="F")


def _read_array(memory: bytes, offset: int) -> _Array | None:
    """Return the contiguous array that a descriptor describes, or None if there is no such descriptor."""
    if offset + HEADER.size + AXIS.size > len(memory):
        return None
    address, _, length, version, rank, kind, _, _ = HEADER.unpack_from(memory, offset)
    end = offset + HEADER.size + AXIS.size * rank
    if not address or length != 8 or version != 0 or kind != REAL or not 1 <= rank <= 4 or end > len(memory):
        return None
    axes = [AXIS.unpack_from(memory, offset + HEADER.size + AXIS.size * axis) for axis in range(rank)]
    shape = tuple(upper - lower + 1 for _, lower, upper in axes)
    if any(stride != step for (stride, _, _), step in zip(axes, np.cumprod([1, *shape[:-1]]), strict=True)):
        return None
    return _Array(offset, shape, memory[offset + 8 : end])


def _arrays_of(memory: bytes) -> list[_Array]:
    """Return the allocated arrays of a structure in their order."""
    found: list[_Array] = []
    offset = 0
    while offset < len(memory):
        array = _read_array(memory, offset)
        if array is not None:
            found.append(array)
        offset = offset + 8 if array is None else array.end
    return found


class _MultipoleArrays:
    """Arrays of charges, dipoles and quadrupoles of the atoms in one type of structure of the library.

    Parameters
    ----------
    size : int
        Size of the structure, bytes.
    between : int
        Number of arrays between those of charges and of dipoles.
    n_atoms : int
    """

    def __init__(self, size: int, between: int, n_atoms: int) -> None:
        self._size, self._between = size, between
        self._shapes = [(n_atoms, 1), (3, n_atoms, 1), (6, n_atoms, 1)]
        self._arrays: list[_Array] = []
        self._addresses: list[Address] = []
        self._views: list[FloatArray] = []

    def views(self, structure: Address) -> list[FloatArray]:
        """Return the arrays, (n,), (3, n) and (6, n), of one structure."""
        memory = ctypes.string_at(structure, self._size)
        if not self._arrays:
            self._arrays = self._find(memory)
        for array in self._arrays:
            if memory[array.offset + 8 : array.end] != array.descriptor:
                raise EvaluationError("the arrays of tblite are not where they were")
        addresses = [HEADER.unpack_from(memory, array.offset)[0] for array in self._arrays]
        if addresses != self._addresses:
            pairs = zip(addresses, self._shapes, strict=True)
            self._addresses, self._views = addresses, [_view(address, shape)[..., 0] for address, shape in pairs]
        return self._views

    def _find(self, memory: bytes) -> list[_Array]:
        """Return the three arrays.

        Dipoles and quadrupoles are the first neighbours of their shapes; behind the allocated arrays, memory may hold
        remains of others. Extents alone do not tell the charges: if each atom has one orbital, orbital energies have
        the same shape.
        """
        arrays = _arrays_of(memory)
        shapes = [array.shape for array in arrays]
        pairs = [k for k in range(1, len(shapes)) if shapes[k - 1 : k + 1] == self._shapes[1:]]
        first = pairs[0] - 2 - self._between if pairs else -1
        if first < 0 or shapes[first] != self._shapes[0]:
            raise EvaluationError(f"the arrays of tblite are not in their expected order: {shapes}")
        block = arrays[first : pairs[0] + 1]
        if any(right.offset != left.end for left, right in itertools.pairwise(block)):
            raise EvaluationError(f"the arrays of tblite are not next to each other: {shapes}")
        return [block[0], block[-2], block[-1]]


class _Library:
    """The loaded library, with the changed table of the container's class. There is one, and it is never freed."""

    def __init__(self) -> None:
        self._loaded = ctypes.CDLL(extension.__file__)
        self.containers: weakref.WeakValueDictionary[Address, PotentialContainer] = weakref.WeakValueDictionary()
        # The second word of a class's table is the size of its objects.
        self.potential_size = _word(self._address(POTENTIAL_TABLE) + 8)
        self.wavefunction_size = _word(self._address(WAVEFUNCTION_TABLE) + 8)
        self.original = self._address(FIELD + "__vtab_tblite_external_field_Electric_field")
        five, six = (ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count) for count in (5, 6))
        # The arguments are those of tblite's abstract class `container_type`: self, molecule, cache, and so on.
        self._callbacks = {
            "get_energy": five(lambda own, _mol, _cache, wfn, out: self._call(own, lambda c: c.add_energy(wfn, out))),
            "get_potential": five(lambda own, _mol, _cache, _wfn, pot: self._call(own, lambda c: c.add_potential(pot))),
            "get_gradient": six(
                lambda own, _mol, _cache, wfn, _gradient, _sigma: self._call(own, lambda c: c.keep_multipoles(wfn))
            ),
        }
        replacements = {
            self._address(FIELD + name): _callback_address(callback) for name, callback in self._callbacks.items()
        }
        # The uniform field asks for the mixing of dipoles, which GFN1-xTB does not have.
        replacements[self._address(FIELD + "variable_info")] = self._address(BASE + "variable_info")
        words = struct.unpack(f"{TABLE_WORDS}Q", ctypes.string_at(self.original, 8 * TABLE_WORDS))
        found = [word for word in words if word in replacements]
        if sorted(found) != sorted(replacements):
            raise PotentialError(f"the table of tblite's electric field has {len(found)} of 4 procedures")
        self.table = (ctypes.c_uint64 * TABLE_WORDS)(*(replacements.get(word, word) for word in words))

    def _address(self, name: str) -> Address:
        try:
            return ctypes.addressof(ctypes.c_char.in_dll(self._loaded, name))
        except ValueError as error:
            raise PotentialError(f"the library of tblite does not export {name}") from error

    def _call(self, own: Address, what: Callable[[PotentialContainer], None]) -> None:
        """Do something with the container of a Fortran object; exceptions must not cross Fortran and are kept."""
        container = self.containers.get(_word(own))
        if container is not None:
            try:
                what(container)
            except BaseException as error:  # noqa: BLE001
                container.error = error

    @property
    def set_threads(self) -> Callable[[int], None]:
        """Function of the library's OpenMP that sets the number of threads of the calling thread."""
        return self._loaded.omp_set_num_threads

    @property
    def max_threads(self) -> int:
        """Number of OpenMP threads of the calling thread."""
        return int(self._loaded.omp_get_max_threads())


@functools.cache
def loaded_library() -> _Library:
    """Return the library with its changed table.

    Raises
    ------
    PotentialError
        If the library lacks what the container needs.
    """
    return _Library()


class PotentialContainer:
    """A potential at the atoms of one calculator of tblite.

    Parameters
    ----------
    calculator : tblite.interface.Calculator
        Calculator that feels the potential from now on. It and the container have to be kept together.
    n_atoms : int

    Raises
    ------
    PotentialError
        If tblite is not as expected.
    """

    def __init__(self, calculator: Calculator, n_atoms: int) -> None:
        self._n_atoms = n_atoms
        self._potential = _packed(AtomicPotential.zero(n_atoms))
        self._multipoles: AtomicMultipoles | None = None
        self.error: BaseException | None = None
        self.cycles = 0
        library = loaded_library()
        # In the order of tblite: multipoles of atoms with those of shells between; potentials also those of orbitals.
        self._in_wavefunction = _MultipoleArrays(library.wavefunction_size, 1, n_atoms)
        self._in_potential = _MultipoleArrays(library.potential_size, 2, n_atoms)
        container = bindings.lib.tblite_new_electric_field(bindings.ffi.new("double[3]"))
        # A reference to an object of a class is the address of the object, then that of the table.
        reference = int(bindings.ffi.cast("uintptr_t", container))
        if _word(reference + 8) != library.original:
            raise PotentialError("the electric field of tblite is not an object of the expected class")
        ctypes.c_uint64.from_address(reference + 8).value = ctypes.addressof(library.table)
        library.containers[_word(reference)] = self
        bindings.calculator_push_back(calculator._ctx, calculator._calc, container)

    def set(self, potential: AtomicPotential) -> None:
        """Set the potential of the next calculation and forget the last one."""
        self._potential = _packed(potential)
        self._multipoles, self.error, self.cycles = None, None, 0

    @property
    def multipoles(self) -> AtomicMultipoles:
        """Multipoles of the converged density of the last calculation.

        Raises
        ------
        EvaluationError
            If tblite did not ask for the potential, or its arrays are not as expected.
        """
        if self.error is not None:
            raise self.error
        if self._multipoles is None or self.cycles == 0:
            raise EvaluationError("tblite has ended without a look at the potential of the surroundings")
        return self._multipoles

    # What the library calls.

    def add_energy(self, wavefunction: Address, energies: Address) -> None:
        """Add the energy of each atom in the potential."""
        charges, dipoles, quadrupoles = self._in_wavefunction.views(wavefunction)
        out = _read_array(ctypes.string_at(energies, HEADER.size + AXIS.size), 0)
        if out is None or out.shape != (self._n_atoms,):
            raise EvaluationError("tblite asks for energies in an unexpected array")
        value, gradient, curvature = self._potential
        numbers = _view(_word(energies), out.shape)
        numbers += value * charges + (gradient * dipoles).sum(axis=0) + (curvature * quadrupoles).sum(axis=0)

    def add_potential(self, potential: Address) -> None:
        """Add the potential to that in the self-consistent field."""
        self.cycles += 1
        for array, part in zip(self._in_potential.views(potential), self._potential, strict=True):
            array += part

    def keep_multipoles(self, wavefunction: Address) -> None:
        """Keep the multipoles of the converged density."""
        charges, dipoles, packed = self._in_wavefunction.views(wavefunction)
        quadrupoles = np.zeros((self._n_atoms, 3, 3))
        for component, (i, j) in zip(packed, PACKED, strict=True):
            quadrupoles[:, i, j] = quadrupoles[:, j, i] = component
        self._multipoles = AtomicMultipoles(charges.copy(), dipoles.T.copy(), quadrupoles)


def _packed(potential: AtomicPotential) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return potential (n,), gradient (3, n) and curvature (6, n) that act on tblite's packed multipoles."""
    curvature = np.array([potential.curvature[:, i, j] * (1.0 if i == j else 2.0) / 3.0 for i, j in PACKED])
    return potential.value.copy(), potential.gradient.T.copy(), curvature


def _callback_address(callback: object) -> Address:
    return int(ctypes.cast(callback, ctypes.c_void_p).value or 0)  # type: ignore[arg-type]
