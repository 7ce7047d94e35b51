"""The contract of a potential: the energy function of a region.

A *potential* holds settings; it is immutable and picklable, and can serve many regions. Its `Capabilities` declare what
it can do. Its *evaluator* computes one region at one geometry after another and may keep what makes this faster (the
last density, a loaded model).

All quantities are in atomic units. `qmmlmm.coupling.potential_check.check_potential` tests a potential against this
contract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from qmmlmm.coupling.level_of_theory import Difference, LevelOfTheory
from qmmlmm.coupling.state_results import StateResults
from qmmlmm.errors import EvaluationError, PotentialError, RegionError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    check_flag,
    check_positive,
    check_text,
    check_whole_number,
    is_whole_number,
)
from qmmlmm.units import FloatArray, IntArray

EMBEDDINGS = ("mechanical", "electrostatic")

Memory: TypeAlias = Mapping[str, FloatArray]
"""Arrays in a checkpoint from which an evaluator continues at the next geometry."""


@dataclass(frozen=True)
class Capabilities:
    """What a potential can do.

    Parameters
    ----------
    embeddings : frozenset of {"mechanical", "electrostatic"}
        Embeddings that the potential supports.
    n_states : int
        Number of electronic states that its evaluators can switch between; 1 if there is one.
    state : int
        Electronic state with energy and forces until another one is selected.
    follows_state : bool
        Whether that state keeps its character when states cross, instead of its index in the order of energy.
    long_range : bool
        Whether the potential computes the interaction of the region with its own periodic images. Its evaluators
        then get geometries with a box. The images of other regions act through the force field's charges.
    smeared_charges : bool
        Whether its evaluators support `ExternalField.widths`.
    couplings : bool
        Whether its evaluations have derivative couplings between electronic states.
    charge_energies : bool
        Whether its evaluations have the interaction with each external charge.
    splitting : float or None, 1/bohr
        Ewald splitting parameter of the external field, for evaluators to which compact charges are expensive: a larger
        one than the force field's leaves fewer of them and moves the rest into the smooth part, through a finer mesh.
        None for the force field's.
    mesh_order : int
        Order of the B-splines on the force field's mesh. OpenMM's is 5. A higher order is for evaluators with an
        electron density, because nuclei and electrons feel the error of the mesh separately.

    Raises
    ------
    PotentialError
        If a value is out of range.
    """

    embeddings: frozenset[str]
    n_states: int = 1
    state: int = 0
    follows_state: bool = False
    long_range: bool = False
    smeared_charges: bool = False
    couplings: bool = False
    charge_energies: bool = False
    splitting: float | None = None
    mesh_order: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.embeddings, frozenset | set | tuple | list):
            raise PotentialError(f"embeddings are a set of {', '.join(EMBEDDINGS)}, got {self.embeddings!r}")
        unknown = [str(name) for name in self.embeddings if not isinstance(name, str) or name not in EMBEDDINGS]
        if unknown or not self.embeddings:
            raise PotentialError(f"embeddings are among {', '.join(EMBEDDINGS)}, got {listed(unknown) or 'none'}")
        check_whole_number("n_states", self.n_states, at_most=LARGEST_COUNT, error=PotentialError)
        check_whole_number("state", self.state, at_least=0, error=PotentialError)
        # A potential that cannot switch may compute any one state.
        if self.n_states > 1 and self.state >= self.n_states:
            raise PotentialError(f"state {self.state} does not exist: there are states 0 to {self.n_states - 1}")
        check_whole_number("mesh_order", self.mesh_order, at_least=3, at_most=LARGEST_COUNT, error=PotentialError)
        if self.splitting is not None:
            check_positive("splitting", self.splitting, "1/bohr", PotentialError)
        for name in ("follows_state", "long_range", "smeared_charges", "couplings", "charge_energies"):
            check_flag(name, vars(self)[name], PotentialError)
        if self.long_range and "mechanical" not in self.embeddings:
            raise PotentialError("long_range goes with mechanical embedding, which is not among the embeddings")


@dataclass(frozen=True)
class RegionSpecification:
    """The atoms of a region, then its link hydrogens, with charge and multiplicity.

    Parameters
    ----------
    name : str
        Name of the term, for messages.
    atomic_numbers : (n,) int array
    charge, multiplicity : int

    Raises
    ------
    RegionError
        If a value has another type.
    """

    name: str
    atomic_numbers: IntArray
    charge: int
    multiplicity: int

    def __post_init__(self) -> None:
        check_text("the name of a RegionSpecification", self.name, RegionError)
        numbers = np.asarray(self.atomic_numbers)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise RegionError(f"{self.name}: atomic_numbers are a list of integers, got {self.atomic_numbers!r}")
        for label, value in (("charge", self.charge), ("multiplicity", self.multiplicity)):
            if not is_whole_number(value):
                raise RegionError(f"{self.name}: {label} is an integer, got {value!r}")


@dataclass(frozen=True)
class ExternalField:
    """The potential of the surroundings of a region at one geometry.

    It is a sum of compact charges and a smooth rest:

        phi(r) = sum_k q_k erf(|r - r_k| / w_k) / |r - r_k| + sum_k g_k erf(a |r - r_k|) / |r - r_k| + smooth(r)

    The first sum is over points, 1/|r - r_k|, unless the charges have widths w_k; a width of zero means a point.
    Without a box there is only the first sum. In a box, g_k = -q_k for the charges of the surroundings inside the
    short-range cutoff, so that a point acts through erfc(a r)/r. The region's own reference charges are in the second
    sum only: it subtracts their nearest image, which is the region itself, from the smooth part.

    Parameters
    ----------
    positions : (k, 3) float array, bohr
    point_charges : (k,) float array, e
    gaussian_charges : (k,) float array, e
        Charges g_k of Gaussian distributions with exponent a^2; all zero without a box.
    splitting : float or None, 1/bohr
        The Ewald splitting parameter a; None without a box.
    smooth_potential : callable or None
        Maps points, (g, 3) bohr, to the smooth part, (g,) hartree/e, and its gradient, (g, 3)
        hartree/(e bohr). None without a box.
    widths : (k,) float array or None, bohr
        Widths w_k of the charges q_k; None if all are points. Only potentials whose `Capabilities` have
        `smeared_charges` get widths.
    """

    positions: FloatArray
    point_charges: FloatArray
    gaussian_charges: FloatArray
    splitting: float | None = None
    smooth_potential: Callable[[FloatArray], tuple[FloatArray, FloatArray]] | None = None
    widths: FloatArray | None = None


def _no_vectors() -> FloatArray:
    return np.zeros((0, 3))


@dataclass(frozen=True)
class Evaluation:
    """Energy of a region in its surroundings, with its derivatives.

    Parameters
    ----------
    energy : float, hartree
        Energy of the region's electrons and nuclei, including their interaction with the external field and not the
        energy of the external charges among themselves.
    gradient : (n, 3) float array, hartree/bohr
        Derivative with respect to the positions of the region's atoms and link atoms, at a fixed external
        field phi(r).
    charge_gradient : (k, 3) float array, hartree/bohr
        Derivative with respect to `ExternalField.positions`.
    smooth_points : (g, 3) float array, bohr
        Points at which the region feels the smooth part.
    smooth_charges : (g,) float array, e
        Charge of the region at these points: the energy depends on the smooth part as
        sum_g smooth_charges[g] * smooth(smooth_points[g]). From these the coupling derives the forces on the
        surroundings; the forces on the region's own atoms are in `gradient`.
    results : mapping of str to object
        Further results, such as dipole, SCF cycles or charges.
    states : StateResults or None
        All electronic states, if the potential has several.
    charge_energies : callable or None
        Function that returns the energy of the region's density in the potential of each entry of
        `ExternalField.positions`, point and Gaussian charge together, (k,) hartree. None if the evaluator has none.
    coupling : callable or None
        Function of two electronic states at this geometry, valid until the next geometry is computed. It returns two
        evaluations whose energies differ by E(second) - E(first) and whose derivatives differ by that times the
        derivative coupling <first | gradient of second>. None if the evaluator has no couplings.
    """

    energy: float
    gradient: FloatArray
    charge_gradient: FloatArray = field(default_factory=_no_vectors)
    smooth_points: FloatArray = field(default_factory=_no_vectors)
    smooth_charges: FloatArray = field(default_factory=lambda: np.zeros(0))
    results: Mapping[str, object] = field(default_factory=dict)
    states: StateResults | None = None
    charge_energies: Callable[[], FloatArray] | None = None
    coupling: Callable[[int, int], tuple[Evaluation, Evaluation]] | None = None

    def report(self) -> dict[str, object]:
        """Return `results` together with the fields of `states`."""
        return dict(self.results) | ({} if self.states is None else self.states.report())


class Evaluator(ABC):
    """Computes one region at one geometry after another. A subclass has to define only `evaluate`."""

    @abstractmethod
    def evaluate(self, geometry: Geometry, field: ExternalField | None) -> Evaluation:
        """Return energy and derivatives.

        Parameters
        ----------
        geometry : Geometry, bohr
            The region's atoms, then its link atoms, as one whole image. It has a box if the potential is
            `long_range`, which periodic Systems only accept, and none otherwise.
        field : ExternalField or None
            None with mechanical embedding.

        Raises
        ------
        EvaluationError
            If there is no valid result; old or zero forces are never returned instead.
        """

    def energy(self, geometry: Geometry, field: ExternalField | None) -> float:
        """Return only the energy, hartree; by default that of `evaluate`."""
        return self.evaluate(geometry, field).energy

    def excitations(self, geometry: Geometry, field: ExternalField | None) -> StateResults | None:
        """Return the electronic states in the order of energy; by default those of `evaluate`."""
        return self.evaluate(geometry, field).states

    def prepare(self) -> None:  # noqa: B027  (an evaluator that imports nothing late has nothing to do)
        """Import what the first evaluation would import."""

    def forget(self) -> None:  # noqa: B027  (an evaluator without memory has nothing to forget)
        """Reset: the next geometry is computed as by a new evaluator."""

    def summary(self) -> dict[str, object]:
        """Return counts since the evaluator was created, as JSON values."""
        return {}

    def memory(self) -> Memory:
        """Return the arrays from which `recall` continues; empty if there are none."""
        return {}

    def recall(self, memory: Memory) -> None:
        """Continue from what `memory` returned; like a new evaluator if it is empty."""
        self.forget()
        if memory:
            raise EvaluationError(f"{type(self).__name__} has no memory to restore, got {listed(memory)}")

    def select_state(self, state: int) -> None:
        """Select the electronic state that has energy and forces from the next evaluation on."""
        raise EvaluationError(f"{type(self).__name__} has one electronic state, and state {state} was selected")


class RegionPotential(ABC):
    """The energy function of a region: settings only."""

    @property
    @abstractmethod
    def level(self) -> str:
        """``"QM"``, ``"XTB"``, ``"ML"`` or ``"MM"``: the second part of a term's name."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """Declaration of what the potential can do."""

    @property
    def method_name(self) -> str:
        """Name of the method, for labels and reports."""
        return type(self).__name__

    @property
    def level_of_theory(self) -> LevelOfTheory:
        """The method with the settings on which energies depend, by which a learned difference knows its base.

        By default only the name of the method. Override it if there are such settings.
        """
        return LevelOfTheory(self.method_name)

    @property
    def difference(self) -> Difference | None:
        """The two levels whose difference the energy is; None for the energy of a level itself."""
        return None

    def check(self, specification: RegionSpecification) -> None:  # noqa: B027  (most potentials take any region)
        """Raise PotentialError or RegionError if the potential cannot treat this region."""


class EvaluatedPotential(RegionPotential):
    """A potential whose regions are computed by an `Evaluator` in Python, through `openmm.PythonForce`."""

    @abstractmethod
    def create_evaluator(self, specification: RegionSpecification) -> Evaluator:
        """Return a fresh evaluator for one region.

        Raises
        ------
        PotentialError, RegionError
            As `check`.
        """
