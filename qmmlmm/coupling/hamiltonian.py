"""The signed energy expression: a list of terms, each a potential on a region with a coefficient."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from qmmlmm.coupling.boundary_charges import check_scheme
from qmmlmm.coupling.coefficient import Coefficient, parse_coefficient
from qmmlmm.coupling.corrections import check_corrections, check_kind
from qmmlmm.coupling.potential import EMBEDDINGS, RegionPotential
from qmmlmm.coupling.region import MOST_UNPAIRED, Region
from qmmlmm.coupling.smeared_charges import Widths, widths_in_bohr
from qmmlmm.errors import HamiltonianError, listed, nearest
from qmmlmm.setting_checks import as_float, check_flag, check_text, is_number, is_whole_number

COEFFICIENT_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Term:
    """A potential on a region, with a coefficient and an embedding.

    Parameters
    ----------
    potential : PySCFPotential, XTBPotential, MLPotential, OpenMMPotential
        Potential of the package, or of a subclass of `qmmlmm.coupling.potential.EvaluatedPotential`.
    region : Region
    coefficient : float or str
        Weight in the Hamiltonian, with its sign. A text is a sum of global parameters of the Context, such as
        ``"1-lambda_qm"``; `Context.setParameter` changes them during a simulation.
    embedding : {"electrostatic", "mechanical"}
        ``electrostatic``: the potential feels the field of all charges around the region and acts back on them;
        the region has no charges in the force field. ``mechanical``: the potential depends on the region only; the
        region keeps its force field charges for its interaction with the rest.
    boundary_charges : {"rcd", "rc", "shift", "zero"}
        Scheme for the charge of the outside atom on a cut bond, see
        `qmmlmm.coupling.boundary_charges.redistribute`. The default keeps total charge and bond dipoles and
        leaves no charge next to the link atom.
    smeared_charges : Quantity, nm, or mapping of int to Quantity, nm, optional
        Width w of the charges around the region. The region then feels them as Gaussian distributions, through
        erf(r/w)/r instead of 1/r, which avoids over-polarisation by close charges. One width of all charges only
        matters within approximately 3 w of the region; a mapping {particle index: width} is for single charges, for
        example next to a cut bond. A boundary charge between two atoms has the larger one of their widths. Only with
        electrostatic embedding; the force field is unchanged. See `qmmlmm.coupling.smeared_charges`.
    force_group : int, optional
        OpenMM force group, 0 to 31. By default each term gets its own.
    name : str, optional
        Key in `term_energies`; by default the region's name and the level, for example ``"ligand/ML"``, or
        ``"ligand/correction"``.
    multiplicity : int, optional
        Multiplicity of this term, if it is not that of the region. Terms of several multiplicities are surfaces of
        one region in the same surroundings, between which parameters switch
        (`qmmlmm.nonadiabatic.CoefficientSurfaces`).
    correction : bool
        Whether the potential is a difference between two levels, such as B3LYP - GFN2-xTB, which is added to a term of
        the lower one. It does not count in the sum of the coefficients. See ``docs/delta_learning.md``.

    Raises
    ------
    HamiltonianError
        If an argument is invalid.
    """

    potential: RegionPotential
    region: Region
    coefficient: float | str = field(default=1.0, kw_only=True)
    embedding: str = field(kw_only=True)
    boundary_charges: str = field(default="rcd", kw_only=True)
    smeared_charges: Widths | None = field(default=None, kw_only=True, hash=False)
    force_group: int | None = field(default=None, kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    multiplicity: int | None = field(default=None, kw_only=True)
    correction: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.region, Region):
            raise HamiltonianError(
                f"a term needs a Region, got {_kind(self.region)}; write "
                'Region("ligand", select(topology, "resname LIG"), charge=0, multiplicity=1)'
            )
        if not isinstance(self.potential, RegionPotential):
            raise HamiltonianError(
                f"a term needs a potential such as PySCFPotential or MLPotential, got {_kind(self.potential)}; "
                "your own potential is a subclass of qmmlmm.coupling.potential.EvaluatedPotential"
            )
        check_flag("correction", self.correction, HamiltonianError)
        check_kind(self.potential, self.correction)
        parse_coefficient(self.coefficient)
        if not isinstance(self.embedding, str) or self.embedding not in EMBEDDINGS:
            raise HamiltonianError(
                f"unknown embedding {self.embedding!r}; the embeddings are {', '.join(EMBEDDINGS)}."
                f"{nearest(str(self.embedding), EMBEDDINGS)}"
            )
        known = self.potential.capabilities.embeddings
        if self.embedding not in known:
            raise HamiltonianError(
                f"this {self.potential.level} potential has no {self.embedding} embedding; it can do: "
                f"{listed(sorted(known))}"
            )
        check_scheme(self.boundary_charges)
        self._check_smeared_charges()
        group = self.force_group
        if group is not None and not (is_whole_number(group) and 0 <= group < 32):
            raise HamiltonianError(f"force groups are 0 to 31, got {group!r}")
        if self.name is not None:
            check_text("the name of a term", self.name, HamiltonianError)
        given, most = self.multiplicity, MOST_UNPAIRED * len(self.region) + 1
        if given is not None and (not is_whole_number(given) or not 1 <= given <= most):
            raise HamiltonianError(
                f"the multiplicity of a term is 2S + 1, an integer of at least 1 and here at most {most}, or None for "
                f"that of its region; got {given!r}"
            )

    @property
    def spin_multiplicity(self) -> int:
        """2S + 1 of this term."""
        return self.region.multiplicity if self.multiplicity is None else self.multiplicity

    @property
    def weight(self) -> Coefficient:
        """The coefficient as a sum of a constant and parameters."""
        return parse_coefficient(self.coefficient)

    @property
    def widths(self) -> float | dict[int, float] | None:
        """`smeared_charges` in bohr."""
        return widths_in_bohr(self.smeared_charges)

    def _check_smeared_charges(self) -> None:
        if self.widths is None:
            return
        if self.embedding != "electrostatic":
            raise HamiltonianError(
                f"smeared_charges={self.smeared_charges!r} goes with electrostatic embedding; with {self.embedding} "
                "embedding the region feels no charges: leave it out"
            )
        if not self.potential.capabilities.smeared_charges:
            raise HamiltonianError(
                f"{type(self.potential).__name__} does not declare smeared_charges among its Capabilities; leave "
                "smeared_charges out"
            )


@dataclass(frozen=True, init=False)
class Hamiltonian:
    """A sum of terms, checked to be one energy.

    Atoms outside all regions are described by the force field only. Regions either do not overlap, or one
    lies inside another as a correction. The coefficients of an outermost region add up to one, because its force
    field energy is replaced. Those of a region inside another add up to zero: the inner terms correct each other
    in identical surroundings. A term with ``correction=True`` is a difference between two levels and does not count; a
    term of the lower level is beside it.

    Parameters
    ----------
    terms : iterable of Term
    parameters : mapping of str to float, optional
        Initial value of each global parameter in the coefficients.

    Raises
    ------
    HamiltonianError
        If regions overlap in part, the coefficients do not add up, a correction has no base, terms of one region differ
        in embedding, or a parameter has no value.

    Examples
    --------
    QM/MM, ML/MM and QM/ML/MM::

        Hamiltonian([Term(qm, site, embedding="electrostatic")])
        Hamiltonian([Term(ml, site, embedding="electrostatic")])
        Hamiltonian([
            Term(ml, site, embedding="electrostatic"),
            Term(qm, core, embedding="electrostatic"),
            Term(ml, core, embedding="electrostatic", coefficient=-1.0),
        ])

    A semiempirical level with a learned correction::

        Hamiltonian([
            Term(xtb, site, embedding="electrostatic"),
            Term(MLPotential.load("delta.pt"), site, embedding="electrostatic", correction=True),
        ])

    From the force field to QM/MM, driven by a global parameter::

        Hamiltonian([
            Term(ForceFieldPotential(), site, embedding="electrostatic", coefficient="1-lambda_qm"),
            Term(qm, site, embedding="electrostatic", coefficient="lambda_qm"),
        ], parameters={"lambda_qm": 0.0})
    """

    terms: tuple[Term, ...]
    parameters: Mapping[str, float] = field(hash=False)

    def __init__(self, terms: Iterable[Term], *, parameters: Mapping[str, float] | None = None) -> None:
        if not isinstance(terms, Iterable) or isinstance(terms, str | bytes | Mapping):
            raise HamiltonianError(
                f"a Hamiltonian is a list of Term objects, got {_kind(terms)}; write Hamiltonian([Term(...), ...])"
            )
        given = tuple(terms)
        if not given:
            raise HamiltonianError("a Hamiltonian needs at least one Term")
        wrong = [_kind(t) for t in given if not isinstance(t, Term)]
        if wrong:
            raise HamiltonianError(f"a Hamiltonian is a list of Term objects, got {listed(wrong)}")
        object.__setattr__(self, "terms", given)
        object.__setattr__(self, "parameters", _checked_parameters(given, {} if parameters is None else parameters))
        self._check_names()
        self._check_regions()
        self._check_sums()

    @property
    def regions(self) -> tuple[Region, ...]:
        """The different regions, in the order of the terms."""
        return tuple(dict.fromkeys(term.region for term in self.terms))

    @property
    def outermost(self) -> tuple[Region, ...]:
        """The regions that lie in no other one, which are removed from the force field."""
        return tuple(region for region in self.regions if self.parent(region) is None)

    def parent(self, region: Region) -> Region | None:
        """Return the smallest other region that holds all atoms of this one, if any.

        Raises
        ------
        HamiltonianError
            If the Hamiltonian has no such region.
        """
        self._check_region(region)
        atoms = set(region.atoms)
        around = [r for r in self.regions if r is not region and atoms < set(r.atoms)]
        return min(around, key=len, default=None)

    def embedding(self, region: Region) -> str:
        """Return the embedding of a region's terms.

        Raises
        ------
        HamiltonianError
            If the Hamiltonian has no such region.
        """
        self._check_region(region)
        return next(term.embedding for term in self.terms if term.region == region)

    def long_range(self, region: Region) -> bool:
        """Return whether the terms of a region compute the interaction with its own periodic images.

        Raises
        ------
        HamiltonianError
            If the Hamiltonian has no such region.
        """
        self._check_region(region)
        return any(term.potential.capabilities.long_range for term in self.terms if term.region == region)

    def term_names(self) -> tuple[str, ...]:
        """Return the names of the terms in order; all are different."""
        given = {term.name for term in self.terms if term.name}
        names: list[str] = []
        for term in self.terms:
            level = "correction" if term.correction else term.potential.level
            name = f"{term.region.name}/{_signed(term.coefficient)}{level}"
            count = 2
            unique = name
            while unique in names or unique in given:
                unique = f"{name}#{count}"
                count += 1
            names.append(term.name or unique)
        return tuple(names)

    def __str__(self) -> str:
        names = self.term_names()
        width = max(map(len, names))
        lines = [f"E = force field without {', '.join(region.name for region in self.outermost)}"]
        for name, term in zip(names, self.terms, strict=True):
            potential = term.potential
            what = str(potential.difference or potential.method_name)
            kind = "a correction, which counts in no sum" if term.correction else potential.level
            lines.append(f"  + ({term.coefficient}) {name:{width}}  {what}: {kind}, {term.embedding} embedding")
        return "\n".join(lines)

    def _check_region(self, region: Region) -> None:
        if not isinstance(region, Region) or region not in self.regions:
            raise HamiltonianError(
                f"this Hamiltonian has no region {region!r}; it has {listed(known.name for known in self.regions)}"
            )

    def _check_names(self) -> None:
        given = Counter(term.name for term in self.terms if term.name is not None)
        twice = [name for name, count in given.items() if count > 1]
        if twice or "MM" in given:
            raise HamiltonianError(
                f"names of terms are different from each other and from 'MM', got {listed(twice or ['MM'])}"
            )
        regions = Counter(region.name for region in self.regions)
        twice = [name for name, count in regions.items() if count > 1]
        if twice:
            raise HamiltonianError(f"different regions have the same name: {listed(twice)}")

    def _check_regions(self) -> None:
        regions = self.regions
        for k, first in enumerate(regions):
            for second in regions[k + 1 :]:
                a, b = set(first.atoms), set(second.atoms)
                if a == b:
                    raise HamiltonianError(
                        f"regions {first.name!r} and {second.name!r} have the same atoms but differ in name, charge, "
                        "multiplicity or link ratios; use one Region object for both terms. Another multiplicity is "
                        "an argument of Term"
                    )
                if a & b and not (a < b or b < a):
                    raise HamiltonianError(
                        f"regions {first.name!r} and {second.name!r} overlap in part, on atoms "
                        f"{listed(sorted(a & b))}; regions do not overlap, or one lies inside the other"
                    )

    def _check_sums(self) -> None:
        for region in self.regions:
            terms = [term for term in self.terms if term.region == region]
            for label, values in (
                ("embedding", {term.embedding for term in terms}),
                ("boundary_charges", {term.boundary_charges for term in terms}),
            ):
                if len(values) > 1:
                    raise HamiltonianError(
                        f"the terms of region {region.name!r} differ in {label}: {listed(sorted(values))}; all terms "
                        "of a region have the same surroundings"
                    )
            if any(term.widths != terms[0].widths for term in terms):
                raise HamiltonianError(
                    f"the terms of region {region.name!r} differ in smeared_charges: "
                    f"{listed(term.smeared_charges for term in terms)}; all terms of a region have the same "
                    "surroundings"
                )
            if self.long_range(region):
                self._check_long_range(region, terms)
            counted = [term for term in terms if not term.correction]
            corrections = [(t.potential.difference, t.weight) for t in terms if t.potential.difference is not None]
            if corrections:
                levels = [(term.potential.level_of_theory, term.weight) for term in counted]
                check_corrections(region.name, corrections, levels)
            total = sum(term.weight.constant for term in counted)
            parent = self.parent(region)
            self._check_parameters(region, counted)
            if parent is None and abs(total - 1.0) > COEFFICIENT_TOLERANCE:
                raise HamiltonianError(
                    f"the coefficients of region {region.name!r} add up to {total:g}; they must add up to 1, because "
                    "the region's energy in the force field is replaced by these terms"
                )
            if parent is not None and abs(total) > COEFFICIENT_TOLERANCE:
                raise HamiltonianError(
                    f"region {region.name!r} lies inside region {parent.name!r}, but its coefficients add up to "
                    f"{total:g}; a correction such as QM - ML adds up to 0"
                )

    def _check_parameters(self, region: Region, terms: list[Term]) -> None:
        sums: Counter[str] = Counter()
        for term in terms:
            for name, factor in term.weight.slopes:
                sums[name] += factor  # type: ignore[assignment]
        for name, total in sums.items():
            if abs(total) > COEFFICIENT_TOLERANCE:
                raise HamiltonianError(
                    f"the coefficients of region {region.name!r} add up to {total:+g} times {name!r}; what a parameter "
                    f"switches on in one term it switches off in another, such as '1-{name}' and '{name}'"
                )

    def _check_long_range(self, region: Region, terms: list[Term]) -> None:
        if self.parent(region) is not None or not all(term.potential.capabilities.long_range for term in terms):
            raise HamiltonianError(
                f"region {region.name!r} has a potential with long_range=True, which computes the region's periodic "
                "images; then all terms of the region do, and it lies inside no other region. Use long_range=False "
                "for corrections"
            )
        if terms[0].embedding != "mechanical":
            raise HamiltonianError(
                f"region {region.name!r} has a potential with long_range=True, which goes with mechanical embedding; "
                "with electrostatic embedding the region's images are part of its field"
            )


def _checked_parameters(terms: tuple[Term, ...], given: Mapping[str, float]) -> dict[str, float]:
    """Return the initial value of each parameter, in the order of the terms."""
    if not isinstance(given, Mapping):
        raise HamiltonianError(
            f"parameters map names to initial values, got {given!r}; write parameters={{'lambda_qm': 0.0}}"
        )
    names = dict.fromkeys(name for term in terms for name in term.weight.parameters)
    missing, unused = [n for n in names if n not in given], [n for n in given if n not in names]
    if missing or unused:
        raise HamiltonianError(
            f"parameters are those that coefficients name, {listed(names) or 'none'}, each with its initial value; "
            + (f"no value for {listed(missing)}" if missing else f"no coefficient names {listed(unused)}")
            + ": write parameters={'lambda_qm': 0.0}"
        )
    for name in names:
        if not is_number(given[name]) or not math.isfinite(as_float(given[name])):
            raise HamiltonianError(f"the value of parameter {name!r} is a finite number, got {given[name]!r}")
    return {name: float(given[name]) for name in names}


def _kind(value: object) -> str:
    """Return the class of an object for a message, or that it is a class itself."""
    return f"the class {value.__name__} itself" if isinstance(value, type) else type(value).__name__


def _signed(coefficient: float | str) -> str:
    if isinstance(coefficient, str):
        return "-" if coefficient.lstrip().startswith("-") else ""
    if coefficient == 1.0:
        return ""
    if coefficient == -1.0:
        return "-"
    return f"{coefficient:g}*"
