"""An ASE calculator over a surface, for optimisers and dynamics of ASE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qmmlmm.errors import MissingDependencyError
from qmmlmm.reactions.surface import Surface
from qmmlmm.units import ANGSTROM_IN_BOHR, HARTREE_IN_EV

if TYPE_CHECKING:
    from ase import Atoms


def ase_atoms(surface: Surface, coordinates: np.ndarray) -> Atoms:
    """Return the moving atoms of a surface as Atoms of ASE with a calculator.

    Parameters
    ----------
    surface : Surface
        Such as an `EnergySurface`.
    coordinates : (n_atoms, 3) float array, bohr
        Start, such as `surface.coordinates`.

    Returns
    -------
    ase.Atoms
        In angstrom and eV; without a box, because the surface has the box of the whole System.

    Raises
    ------
    MissingDependencyError
        If ASE is not installed.
    """
    try:
        from ase import Atoms
        from ase.calculators.calculator import Calculator, all_changes
    except ImportError as error:
        raise MissingDependencyError("an ASE calculator needs ASE: pip install ase") from error

    class SurfaceCalculator(Calculator):
        """Energy, eV, and forces, eV/angstrom, of the moving atoms."""

        implemented_properties = ("energy", "forces")

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            """Evaluate the surface at the positions of the Atoms."""
            super().calculate(atoms, properties or ["energy"], system_changes)
            point = surface.evaluate(self.atoms.get_positions() * ANGSTROM_IN_BOHR)
            forces = -point.gradient * HARTREE_IN_EV * ANGSTROM_IN_BOHR
            self.results = {"energy": point.energy * HARTREE_IN_EV, "forces": forces}

    atoms = Atoms(surface.symbols, positions=np.asarray(coordinates) / ANGSTROM_IN_BOHR)
    atoms.calc = SurfaceCalculator()
    return atoms
