"""GFN1-xTB and GFN2-xTB as the potential of a region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qmmlmm.coupling.electrons import check_electrons
from qmmlmm.coupling.level_of_theory import LevelOfTheory
from qmmlmm.coupling.potential import Capabilities, EvaluatedPotential, RegionSpecification
from qmmlmm.errors import RegionError, listed
from qmmlmm.xtb.container_check import require_tblite
from qmmlmm.xtb.settings import XTBSettings

if TYPE_CHECKING:
    from qmmlmm.xtb.evaluator import XTBEvaluator

HEAVIEST = 86
"""Radon, the last element of GFN1-xTB and GFN2-xTB."""

MESH_ORDER = 6
"""Order of the force field's mesh, that of PySCF, so that both terms of a correction feel the same mesh. With the
meshes of OpenMM's default tolerance, a splitting that is 1.6 times larger changes the energy of acetone in water by
4e-7 hartree rms, at OpenMM's order of 5 by 2e-6, and at 7 by 6e-8. Net forces are 1e-6, 6e-6 and 3e-7 hartree/bohr."""


@dataclass(frozen=True)
class XTBPotential(XTBSettings, EvaluatedPotential):
    """Semiempirical quantum chemistry with tblite, in the field of the surroundings.

    Parameters
    ----------
    method : {"gfn2-xtb", "gfn1-xtb"}
        Parametrisation of xTB.
    multipoles : {0, 1, 2}, optional
        Highest rank of the atomic multipoles that feel the field: charges, dipoles or quadrupoles. By default dipoles
        with GFN2-xTB and charges with GFN1-xTB, which agree best with B3LYP in the same charges.
    accuracy : float
        Accuracy of tblite's self-consistent field: the energy changes by less than 1e-6 hartree times this number in
        the last cycle. The error of forces is approximately 2e-6 hartree/bohr times this number.
    electronic_temperature : Quantity or float, K
        Temperature of the Fermi distribution of the electrons. The energy is the free energy of the electrons, and
        forces are its derivatives.
    damping : float
        Fraction of the change of charges and multipoles that goes into the next cycle of the self-consistent field.
        With a smaller number, regions with small gaps converge, such as a dinucleotide with its charges, but in more
        cycles.
    threads : int
        Number of OpenMP threads of a calculation. With one thread, results are reproducible bit by bit.

    Raises
    ------
    PotentialError
        If a name is unknown, a setting is invalid, or tblite is a build that does not work with qmmlmm.
    MissingDependencyError
        If tblite is not installed, or is another version.

    Notes
    -----
    The energy is that of xTB plus sum_A (q_A phi + d_A . grad phi + 1/3 Theta_A : grad grad phi) at the atoms,
    minimised together, with the multipoles of GFN2-xTB's own electrostatics (Bannwarth, Ehlert and Grimme, J. Chem.
    Theory Comput. 15, 1652 (2019)).

    Multiplicity sets the occupation of orbitals and not the energy functional: xTB without spin polarisation has no
    exchange energy between electrons of parallel spin, so that different multiplicities cannot be compared.

    tblite has no public function for such a potential. `qmmlmm.xtb.tblite_container` says how it gets there, and
    `qmmlmm.xtb.container_check` how the installed tblite is tested before its first use.
    """

    def __post_init__(self) -> None:
        require_tblite()
        super().__post_init__()

    @property
    def level(self) -> str:
        """``"XTB"``."""
        return "XTB"

    @property
    def method_name(self) -> str:
        """Name of the method, such as ``"gfn2-xtb"``."""
        return self.method

    @property
    def level_of_theory(self) -> LevelOfTheory:
        """The method with its multipoles and temperature; accuracy, damping and threads do not count."""
        settings = {"multipoles": self.rank, "electronic_temperature": self.electronic_temperature}
        return LevelOfTheory(self.method, settings)

    @property
    def capabilities(self) -> Capabilities:
        """Both embeddings, smeared charges, and energies with single charges."""
        return Capabilities(
            frozenset({"mechanical", "electrostatic"}),
            smeared_charges=True,
            charge_energies=True,
            mesh_order=MESH_ORDER,
        )

    def check(self, specification: RegionSpecification) -> None:
        """Raise if the potential cannot treat this region.

        Raises
        ------
        RegionError
            If the region has no atoms or an element without parameters, or charge and multiplicity do not fit the
            number of electrons.
        PotentialError, MissingDependencyError
            If tblite cannot be used.
        """
        require_tblite()
        term, numbers = f"term {specification.name!r}", specification.atomic_numbers
        if len(numbers) == 0:
            raise RegionError(f"{term}: the region has no atoms")
        wrong = np.flatnonzero((numbers < 1) | (numbers > HEAVIEST))
        if len(wrong):
            raise RegionError(
                f"{term}: {self.method} has parameters of elements 1 to {HEAVIEST}, and atoms {listed(wrong)} of the "
                f"region have atomic numbers {listed(numbers[wrong])}"
            )
        check_electrons(specification)

    def create_evaluator(self, specification: RegionSpecification) -> XTBEvaluator:
        """Return a fresh evaluator for one region.

        Raises
        ------
        RegionError, PotentialError, MissingDependencyError
            As `check`.
        """
        self.check(specification)
        from qmmlmm.xtb.evaluator import XTBEvaluator

        return XTBEvaluator(self, specification)
