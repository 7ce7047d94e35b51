"""Regions with their own OpenMM System: a force field, or a potential of openmm-ml."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.coupling.level_of_theory import LevelOfTheory
from qmmlmm.coupling.potential import (
    Capabilities,
    EvaluatedPotential,
    Evaluation,
    Evaluator,
    ExternalField,
    RegionSpecification,
)
from qmmlmm.embedding.fixed_charges import charges_in_field
from qmmlmm.errors import EvaluationError, MissingDependencyError, PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.electrostatics import force_field_charges
from qmmlmm.mm.model_functions import FunctionEvaluator, created_functions, functions_of
from qmmlmm.setting_checks import check_choice, check_flag, check_mapping, check_path, check_text, check_whole_number
from qmmlmm.units import BOHR_IN_NM, FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, FloatArray

if TYPE_CHECKING:
    import openmmml

GRID_SPACING = 0.15
"""Distance of atoms at which a model is asked whether it depends on charge and multiplicity, nm."""

SAME_ENERGY = 1e-6
"""Relative difference of energies in single precision that means that they are the same."""

PLACEHOLDER_BOX = 10.0
"""Edge of the box with which a long-range model is created, nm."""


@dataclass(frozen=True)
class OpenMMPotential(EvaluatedPotential):
    """The energy of a small OpenMM System as the energy of a region.

    With electrostatic embedding the charges of its NonbondedForce feel the surroundings: a region of fixed charges. A
    region can so have another force field than the rest. With the same force field the result is the plain force field.

    Parameters
    ----------
    system : openmm.System
        System of the region's atoms in their order, then the link atoms; without a box.
    level : str
        Second part of the term's name.
    platform : str
        Name of the OpenMM platform that computes it.

    Raises
    ------
    PotentialError
        If the System is periodic, or a setting is invalid.
    """

    system: openmm.System
    level: str = "MM"
    platform: str = "Reference"

    def __post_init__(self) -> None:
        if not isinstance(self.system, openmm.System):
            raise PotentialError(f"an OpenMMPotential needs an openmm.System, got {type(self.system).__name__}")
        _check_level(self.level)
        _check_platform(self.platform)
        if self.system.usesPeriodicBoundaryConditions():
            raise PotentialError(
                "the System of an OpenMMPotential has a box; make it with nonbondedMethod=NoCutoff: the images of a "
                "region are part of the embedding"
            )

    @property
    def level_of_theory(self) -> LevelOfTheory:
        """The force field, by a hash of its System."""
        return LevelOfTheory(self.method_name, {"fingerprint": self._fingerprint()})

    @property
    def capabilities(self) -> Capabilities:
        """Electrostatic embedding needs charges, thus exactly one NonbondedForce."""
        forces = [f for f in self.system.getForces() if isinstance(f, openmm.NonbondedForce)]
        charged = len(forces) == 1
        return Capabilities(
            frozenset({"mechanical", "electrostatic"} if charged else {"mechanical"}),
            smeared_charges=charged,
            charge_energies=charged,
        )

    def check(self, specification: RegionSpecification) -> None:
        """Raise PotentialError if the number of particles is not that of the region."""
        n = len(specification.atomic_numbers)
        if self.system.getNumParticles() != n:
            raise PotentialError(
                f"term {specification.name!r}: the region has {n} atoms with its link atoms, the System of the "
                f"OpenMMPotential has {self.system.getNumParticles()} particles"
            )

    def create_evaluator(self, specification: RegionSpecification) -> OpenMMEvaluator:
        """Return a fresh evaluator for one region."""
        self.check(specification)
        electrostatic = "electrostatic" in self.capabilities.embeddings
        charges = force_field_charges(self.system) if electrostatic else None
        return OpenMMEvaluator(specification.name, self.system, self.platform, charges)

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (openmm.XmlSerializer.serialize(self.system), self.level, self.platform))

    def __repr__(self) -> str:
        return (
            f"OpenMMPotential({self.system.getNumParticles()} particles, platform={self.platform!r}, "
            f"fingerprint={self._fingerprint()!r})"
        )

    def _fingerprint(self) -> str:
        return hashlib.sha256(openmm.XmlSerializer.serialize(self.system).encode()).hexdigest()[:16]


def _check_level(level: object) -> None:
    """Raise PotentialError if the second part of a term's name is not a text."""
    if not isinstance(level, str) or not level.strip() or "/" in level or not level.isprintable():
        raise PotentialError(f"level is the second part of a term's name, such as 'MM', without '/', got {level!r}")


def _check_platform(platform: object) -> None:
    """Raise PotentialError if OpenMM has no platform of a name."""
    count = openmm.Platform.getNumPlatforms()
    names = [openmm.Platform.getPlatform(index).getName() for index in range(count)]
    check_choice("platform", platform, names, PotentialError)


def _restore(xml: str, level: str, platform: str) -> OpenMMPotential:
    return OpenMMPotential(openmm.XmlSerializer.deserialize(xml), level, platform)


class OpenMMEvaluator(Evaluator):
    """Computes a region in a separate Context.

    Parameters
    ----------
    name : str
        Name of the term, for messages.
    system : openmm.System
    platform : str
    charges : (n,) float array or None, e
        Charges that feel an external field.
    """

    def __init__(self, name: str, system: openmm.System, platform: str, charges: FloatArray | None) -> None:
        self._name = name
        self._charges = charges
        # The Context keeps the System alive, but the integrator has to be kept here.
        self._integrator = openmm.VerletIntegrator(0.001)
        self._context = openmm.Context(system, self._integrator, openmm.Platform.getPlatform(platform))

    def evaluate(self, geometry: Geometry, field: ExternalField | None) -> Evaluation:
        """Return energy and derivatives, see `qmmlmm.coupling.potential.Evaluator`."""
        positions = geometry.positions
        try:
            if geometry.box is not None:
                self._context.setPeriodicBoxVectors(*(geometry.box * BOHR_IN_NM))
            self._context.setPositions(positions * BOHR_IN_NM)
            state = self._context.getState(energy=True, forces=True)
        except openmm.OpenMMException as error:
            raise EvaluationError(f"term {self._name!r}: the inner OpenMM Context failed: {error}") from error
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / HARTREE_IN_KJ_PER_MOL
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        gradient = -np.asarray(forces) / FORCE_AU_IN_OPENMM
        if field is None:
            return Evaluation(energy, gradient)
        assert self._charges is not None
        in_field = charges_in_field(positions, self._charges, field)
        return Evaluation(
            energy + in_field.energy,
            gradient + in_field.gradient,
            in_field.charge_gradient,
            in_field.smooth_points,
            in_field.smooth_charges,
            charge_energies=in_field.charge_energies,
        )


@dataclass(frozen=True)
class OpenMMMLPotential(EvaluatedPotential):
    """A potential of the package openmm-ml (MACE, AIMNet2, ANI, ...) as the energy of a region.

    It depends only on the region with its link atoms: mechanical embedding. In a box the region's own images act
    through the force field's charges, unless the model computes them. openmm-ml reads the model's file; if it is a
    pickle, as for MACE, it can run code: use files that you trust.

    A model that openmm-ml evaluates by a Python function or a torch module, as all of its own but DeePMD, is called
    directly with the atoms of the region. Any other force runs in an inner Context.

    Parameters
    ----------
    potential : openmmml.MLPotential
        Potential, for example ``openmmml.MLPotential("mace", modelPath="site.model")``.
    options : mapping of str to object
        Keyword arguments of `openmmml.MLPotential.createSystem`.
    platform : str
        Name of the OpenMM platform of an inner Context, if there is one. A model that is called directly runs on the
        device that openmm-ml chooses: the first GPU that torch finds, or ``options={"device": "cpu"}``.
    long_range : bool
        Whether the model has its own Ewald electrostatics: in a box it then gets the box, and the interaction of the
        region with its own images is subtracted from the force field.
    charge, multiplicity : int, optional
        Charge and multiplicity of the region for which the model was trained, if it does not take them as inputs.

    Raises
    ------
    MissingDependencyError
        If openmm-ml is not installed.
    PotentialError
        If `potential` is something else, or a setting is invalid.

    Notes
    -----
    Charge and multiplicity of the region are given to openmm-ml. ASE calculators find them as ``info["charge"]`` and
    ``info["spin"]``, the multiplicity, and as initial charges and magnetic moments of the atoms.

    If the region is charged or no singlet, and the energy of the model is the same for a neutral singlet, the region is
    refused unless `charge` and `multiplicity` say that the model was trained for it. An ASE calculator is not tested in
    this way, because it may have the charge as a setting of its own.
    """

    potential: openmmml.MLPotential
    options: Mapping[str, object] = field(default_factory=dict)
    platform: str = "Reference"
    long_range: bool = False
    charge: int | None = None
    multiplicity: int | None = None
    level: str = field(default="ML", init=False)

    def __post_init__(self) -> None:
        try:
            import openmmml
        except ImportError as error:
            raise MissingDependencyError(
                f"a potential of openmm-ml needs the package openmmml: {error}; pip install openmmml"
            ) from error
        if not isinstance(self.potential, openmmml.MLPotential):
            raise PotentialError(
                f"OpenMMMLPotential takes an openmmml.MLPotential, got {type(self.potential).__name__}; write "
                'OpenMMMLPotential(openmmml.MLPotential("mace", modelPath="site.model"))'
            )
        check_mapping("options", self.options, PotentialError)
        check_flag("long_range", self.long_range, PotentialError)
        if self.charge is not None:
            check_whole_number("charge", self.charge, at_least=-1000, error=PotentialError)
        if self.multiplicity is not None:
            check_whole_number("multiplicity", self.multiplicity, error=PotentialError)
        _check_platform(self.platform)

    @classmethod
    def pretrained(
        cls,
        name: str,
        file: str | os.PathLike[str] | None = None,
        *,
        options: Mapping[str, object] | None = None,
        long_range: bool = False,
        charge: int | None = None,
        multiplicity: int | None = None,
    ) -> OpenMMMLPotential:
        """Return a potential of openmm-ml by its name.

        Parameters
        ----------
        name : str
            Name of openmm-ml, such as ``"mace-off23-small"``.
        file : path, optional
            Model file, for names that need one, such as ``"mace"``.
        options, long_range, charge, multiplicity
            As of the class.

        Raises
        ------
        MissingDependencyError
            If openmm-ml is not installed.
        PotentialError
            If it has no such potential, or cannot make it.
        """
        try:
            import openmmml
        except ImportError as error:
            raise MissingDependencyError(
                f"the potential {name!r} needs the package openmmml: {error}; pip install openmmml"
            ) from error
        arguments = {} if file is None else {"modelPath": str(check_path("file", file, PotentialError))}
        try:
            potential = openmmml.MLPotential(check_text("name", name, PotentialError), **arguments)
        except PotentialError:
            raise
        # openmm-ml raises plain exceptions of several classes.
        except Exception as error:
            raise PotentialError(f"openmm-ml cannot make {name!r}: {type(error).__name__}: {error}") from error
        return cls(
            potential,
            {} if options is None else options,
            long_range=long_range,
            charge=charge,
            multiplicity=multiplicity,
        )

    def __repr__(self) -> str:
        implementation = type(self.potential._impl).__name__
        return (
            f"OpenMMMLPotential({implementation}, options={dict(self.options)!r}, platform={self.platform!r}, "
            f"long_range={self.long_range})"
        )

    @property
    def level_of_theory(self) -> LevelOfTheory:
        """The class of the model in openmm-ml with its options; two files of one class are not told apart."""
        return LevelOfTheory(type(self.potential._impl).__name__, {"options": repr(dict(self.options))})

    @property
    def capabilities(self) -> Capabilities:
        """Mechanical embedding only; openmm-ml checks elements."""
        return Capabilities(frozenset({"mechanical"}), long_range=self.long_range)

    def create_evaluator(self, specification: RegionSpecification) -> Evaluator:
        """Return a fresh evaluator for one region.

        Raises
        ------
        PotentialError
            If openmm-ml cannot treat the region, or the model does not depend on its charge or multiplicity, needs a
            box that the region does not have, or has no images that it should have.
        """
        for label, mine, asked in (
            ("charge", self.charge, specification.charge),
            ("multiplicity", self.multiplicity, specification.multiplicity),
        ):
            if mine is not None and mine != asked:
                raise PotentialError(
                    f"term {specification.name!r}: the model is for {label} {mine}, the region has {label} {asked}"
                )
        evaluator = self._evaluator(specification)
        if not self._is_of_ase():
            self._check_reads(specification, evaluator)
        return evaluator

    def _evaluator(self, specification: RegionSpecification) -> Evaluator:
        """Return an evaluator that calls the model directly, or in a Context if its forces cannot be called."""
        where = f"term {specification.name!r}:"
        with created_functions() as created:
            system = self._system(specification)
        if system.getNumParticles() != len(specification.atomic_numbers):
            raise PotentialError(
                f"{where} openmm-ml made a System of {system.getNumParticles()} particles, and the region has "
                f"{len(specification.atomic_numbers)} atoms with its link atoms"
            )
        if system.usesPeriodicBoundaryConditions() and not self.long_range:
            raise PotentialError(
                f"{where} the model needs a periodic box, and a region is computed without one; take its settings for "
                "molecules, or, if it has Ewald electrostatics, OpenMMMLPotential(..., long_range=True)"
            )
        if self.long_range and not system.usesPeriodicBoundaryConditions():
            raise PotentialError(f"{where} long_range=True, but the model has no periodic images; leave it at False")
        functions = functions_of(system, created)
        if functions is None:
            return OpenMMEvaluator(specification.name, system, self.platform, None)
        return FunctionEvaluator(specification.name, *functions)

    def _is_of_ase(self) -> bool:
        from openmmml.models.asepotential import ASEPotentialImpl

        return isinstance(self.potential._impl, ASEPotentialImpl)

    def _check_reads(self, specification: RegionSpecification, evaluator: Evaluator) -> None:
        """Raise PotentialError if the energy does not depend on the charge of an ion or on a higher multiplicity."""
        for label, mine, asked, usual, other in (
            ("charge", self.charge, specification.charge, 0, replace(specification, charge=0)),
            ("multiplicity", self.multiplicity, specification.multiplicity, 1, replace(specification, multiplicity=1)),
        ):
            if asked == usual or mine is not None:
                continue
            count = len(specification.atomic_numbers)
            energies = [self._energy_on_a_grid(found, count) for found in (evaluator, self._evaluator(other))]
            if abs(energies[0] - energies[1]) <= SAME_ENERGY * max(1.0, abs(energies[0])):
                raise PotentialError(
                    f"term {specification.name!r}: the model does not depend on the {label}, and the region has "
                    f"{label} {asked}; take a model that has it as an input, or, if this one was trained for this "
                    f"region, give OpenMMMLPotential(..., {label}={asked})"
                )

    def _energy_on_a_grid(self, evaluator: Evaluator, count: int) -> float:
        """Return the energy with the atoms on a grid, kJ/mol."""
        side = math.ceil(count ** (1.0 / 3.0))
        places = np.array([(k % side, k // side % side, k // side**2) for k in range(count)], dtype=float)
        box = PLACEHOLDER_BOX * np.eye(3) / BOHR_IN_NM if self.long_range else None
        return evaluator.energy(Geometry(GRID_SPACING * places / BOHR_IN_NM, box), None) * HARTREE_IN_KJ_PER_MOL

    def _ase_atoms(self, specification: RegionSpecification, calculator: object) -> object:
        """Return the atoms of a region for ASE, with its charge and unpaired electrons spread evenly.

        Some calculators take both from there, and ASE sees by them that results of another charge do not count.
        """
        import ase

        count = len(specification.atomic_numbers)
        return ase.Atoms(
            numbers=specification.atomic_numbers,
            pbc=self.long_range,
            charges=np.full(count, specification.charge / count),
            magmoms=np.full(count, (specification.multiplicity - 1) / count),
            calculator=calculator,
        )

    def _system(self, specification: RegionSpecification) -> openmm.System:
        """Return the System that openmm-ml makes of a region."""
        topology = app.Topology()
        residue = topology.addResidue("REG", topology.addChain())
        for k, number in enumerate(specification.atomic_numbers):
            element = app.Element.getByAtomicNumber(int(number))
            topology.addAtom(f"{element.symbol}{k + 1}", element, residue)
        if self.long_range:
            # Shows openmm-ml that there is a box; each geometry has the real one.
            topology.setPeriodicBoxVectors(PLACEHOLDER_BOX * np.eye(3) * unit.nanometer)
        options = {"charge": specification.charge, "multiplicity": specification.multiplicity, **self.options}
        if self._is_of_ase():
            told = {"charge": specification.charge, "spin": specification.multiplicity}
            options["info"] = told | dict(self.options.get("info", {}))  # type: ignore[call-overload]
            if "calculator" in options and "aseAtoms" not in options:
                options["aseAtoms"] = self._ase_atoms(specification, options["calculator"])
        try:
            return self.potential.createSystem(topology, removeCMMotion=False, **options)
        except Exception as error:
            raise PotentialError(
                f"term {specification.name!r}: openmm-ml cannot treat this region: {type(error).__name__}: {error}"
            ) from error
