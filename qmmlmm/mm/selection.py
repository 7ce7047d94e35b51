"""Selections of atoms in MDTraj's language, extended by distances, whole residues, chains and insertion codes."""

from __future__ import annotations

import re
import unicodedata
import warnings

import mdtraj
import numpy as np
import numpy.typing as npt
from openmm import app, unit
from scipy.spatial import cKDTree

from qmmlmm.errors import QmmlmmWarning, SelectionError, listed, nearest
from qmmlmm.setting_checks import check_array, check_flag, check_instance
from qmmlmm.units import FloatArray, Vectors, in_unit

Mask = npt.NDArray[np.bool_]

_EXAMPLES = (
    "examples: 'resname LIG', 'protein and not element H', 'resSeq 10 to 20 or name CA', "
    "'same residue as within 4 angstrom of resname LIG', 'water and within 0.4 nm of (resSeq 57 102)'"
)
_TOKEN = re.compile(
    r"""(?P<quoted>'[^']*'(?=[\s()]|$) | "[^"]*"(?=[\s()]|$))
      | (?P<parenthesis>[()])
      | (?P<logic>&& | \|\| | !(?!=))
      | (?P<comparison>== | != | <= | >= | =~ | < | > | =)
      | (?P<word>[^\s()&|!<>='"][^\s()&|!<>=]*)""",
    re.VERBOSE,
)
_AND, _OR, _NOT = ("and", "&&"), ("or", "||"), ("not", "!")
# MDTraj's parser fails for '>=' because it searches for '>' first; each of these is also a word.
_COMPARISONS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_COMPARISON_WORDS = frozenset({*_COMPARISONS.values(), "to"})
_WORD_FIELDS = frozenset({"name", "resname", "resn", "code", "rescode", "resc", "type", "element", "symbol"})
# MDTraj knows none of these for a Topology of OpenMM, in which the segments of CHARMM files are chains.
_CHAIN_FIELDS = frozenset({"chain", "chainname", "segid", "segname", "segment_id"})
_CODE_FIELDS = frozenset({"icode", "insertion"})
_NUMBER_FIELDS = frozenset(
    {"index", "n_bonds", "residue", "resSeq", "resid", "resi", "chainid", "mass"},
)
_FLAGS = frozenset(
    {"all", "everything", "none", "nothing", "backbone", "is_backbone", "sidechain", "is_sidechain"}
    | {"protein", "is_protein", "nucleic", "is_nucleic", "water", "waters", "is_water"}
)
_RESERVED = _WORD_FIELDS | _CHAIN_FIELDS | _CODE_FIELDS | _NUMBER_FIELDS | _FLAGS | {"within", "same"}
_UNITS = {"angstrom": 0.1, "angstroms": 0.1, "å": 0.1, "nm": 1.0, "nanometer": 1.0, "nanometers": 1.0}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

DEEPEST = 50
"""Largest number of parentheses inside each other; Python's and MDTraj's parsers end at some hundreds."""


def select(
    topology: app.Topology,
    selection: str,
    *,
    positions: Vectors | None = None,
    box_vectors: Vectors | None = None,
    whole_residues: bool = False,
) -> tuple[int, ...]:
    """Return the atoms of a selection in words.

    Parameters
    ----------
    topology : openmm.app.Topology
    selection : str
        Selection in MDTraj's atom selection language, with the additions below.
    positions : (n_atoms, 3) Quantity or float array, nm, optional
        Positions, needed for ``within``.
    box_vectors : (3, 3) Quantity or float array, nm, optional
        Box vectors; those of the Topology if not given. With a box, ``within`` means the nearest image.
    whole_residues : bool
        Whether to select all atoms of each residue with a selected atom.

    Returns
    -------
    tuple of int
        Sorted indices, at least one.

    Raises
    ------
    SelectionError
        If nothing is selected, the selection cannot be read, or positions are missing or not finite.

    Warns
    -----
    QmmlmmWarning
        If something is selected, and one side of an ``or`` matches no atom.

    Notes
    -----
    Additions to MDTraj's language:

    - ``within 4 angstrom of X``, or ``nm``: all atoms within this distance of any atom of X, and X itself, as in VMD.
    - ``same residue as X``: all atoms of the residues with an atom of X.
    - ``chain A B``: all atoms of the chains with these names; also ``segid``, because a segment of CHARMM files is a
      chain in OpenMM. ``chainid`` counts from zero.
    - ``icode A``: all atoms of the residues with this insertion code: residue 52A is ``resSeq 52 and icode A``.

    X is an expression in parentheses, or reaches to the next ``and`` or ``or``:
    ``within 4 angstrom of resname LIG and water`` means ``(within 4 angstrom of resname LIG) and water``.
    ``not`` binds most tightly, then ``and``, then ``or``. Names may hold any character but blanks,
    parentheses and ``&|!<>=``, and those too in quotes. ``resSeq`` is the number of a residue in the file,
    ``resid`` and ``index`` count from zero.

    Examples
    --------
    >>> from openmm import app
    >>> topology = app.Topology()
    >>> residue = topology.addResidue("HOH", topology.addChain())
    >>> for name, symbol in (("O", "O"), ("H1", "H"), ("H2", "H")):
    ...     atom = topology.addAtom(name, app.Element.getBySymbol(symbol), residue)
    >>> select(topology, "water and element H")
    (1, 2)
    """
    check_instance("topology", topology, app.Topology, "an openmm.app.Topology", SelectionError)
    check_flag("whole_residues", whole_residues, SelectionError)
    if not isinstance(selection, str):
        raise SelectionError(f"a selection is a string, got {selection!r}; {_EXAMPLES}")
    coordinates = box = None
    if positions is not None:
        shape = topology.getNumAtoms(), 3
        coordinates = check_array("positions", positions, shape, unit.nanometer, SelectionError)
    if box_vectors is not None:
        box = check_array("box_vectors", box_vectors, (3, 3), unit.nanometer, SelectionError)
    search = _Search(topology, selection, coordinates, box)
    mask = search.run()
    if whole_residues:
        mask = search.whole_residues(mask)
    if not mask.any():
        raise SelectionError(
            f"the selection {selection!r} matches none of the {len(mask)} atoms.{search.absent_names()}"
        )
    if search.without_match:
        warnings.warn(
            f"in the selection {selection!r} no atom matches {listed(map(repr, search.without_match))}."
            f"{search.absent_names()}",
            QmmlmmWarning,
            stacklevel=2,
        )
    return tuple(int(index) for index in np.flatnonzero(mask))


class _Search:
    """Parses one selection from left to right and finds the atoms of each part."""

    def __init__(
        self, topology: app.Topology, text: str, positions: FloatArray | None, box_vectors: FloatArray | None
    ) -> None:
        self._text = text
        self._positions = positions
        self._box = topology.getPeriodicBoxVectors() if box_vectors is None else box_vectors
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MDTraj, about residue numbers and elements
            self._topology = mdtraj.Topology.from_openmm(topology)
        self._n_atoms = topology.getNumAtoms()
        if [atom.index for atom in topology.atoms()] != list(range(self._n_atoms)):
            raise SelectionError(
                "the atoms of the Topology are not numbered in the order of its chains and residues, so that "
                "MDTraj would number them otherwise; build it chain by chain, or pass it through app.Modeller"
            )
        self._chain_of = np.array([str(atom.residue.chain.id).strip() for atom in topology.atoms()])
        self._code_of = np.array([str(atom.residue.insertionCode).strip() for atom in topology.atoms()])
        self._residue_of = np.array([atom.residue.index for atom in topology.atoms()], dtype=np.int64)
        self._tokens: list[tuple[str, str]] = []
        self._next = 0
        self._depth = 0
        self._wanted: list[tuple[str, str]] = []
        self.without_match: list[str] = []

    def run(self) -> Mask:
        self._tokens = self._split()
        if not self._tokens:
            raise self._error("it is empty")
        mask = self._any_of()
        if self._peek():
            raise self._error(f"{self._peek()!r} is not expected there; is 'and' or 'or' missing before it?")
        return mask

    def whole_residues(self, mask: Mask) -> Mask:
        return np.isin(self._residue_of, np.unique(self._residue_of[mask]))

    def absent_names(self) -> str:
        """Return a sentence with the names in the selection that the Topology lacks, and the nearest ones that it
        has."""
        known = {
            "residue": sorted({residue.name for residue in self._topology.residues}),
            "atom": sorted({atom.name for atom in self._topology.atoms}),
            "element": sorted({atom.element.symbol for atom in self._topology.atoms}),
            "chain": sorted(set(self._chain_of.tolist()) - {""}),
            "insertion code": sorted(set(self._code_of.tolist()) - {""}),
        }
        kinds = {"resname": "residue", "resn": "residue", "name": "atom"}
        kinds |= dict.fromkeys(_CHAIN_FIELDS, "chain") | dict.fromkeys(_CODE_FIELDS, "insertion code")
        text = ""
        for field, value in dict.fromkeys(self._wanted):
            kind = kinds.get(field, "element")
            if value not in known[kind]:
                near = nearest(value, known[kind]) or f" It has: {listed(known[kind]) or 'none'}."
                text += f" No {kind} is named {value!r} in the Topology.{near}"
        if text:
            return text
        if re.search(r"\b(of|as)\s+[^(]*\s(and|&&)\s", self._text):
            return (
                " Each name occurs; 'within 8 angstrom of A and B' means '(within 8 angstrom of A) and B': write "
                "'within 8 angstrom of (A and B)' for the surroundings of what is both."
            )
        return " Each name occurs; use 'or' where one of several conditions is enough."

    def _error(self, reason: str) -> SelectionError:
        return SelectionError(f"the selection {self._text!r} cannot be read: {reason}; {_EXAMPLES}")

    def _split(self) -> list[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(self._text):
            if self._text[position].isspace():
                position += 1
                continue
            found = _TOKEN.match(self._text, position)
            if found is None:
                raise self._error(
                    f"{self._text[position:].split()[0]!r} is no word of the language, or a quote is not closed"
                )
            kind, word = str(found.lastgroup), found.group()
            if kind == "word" and word in (*_AND, *_OR, *_NOT):
                kind = "logic"
            elif word in ("AND", "OR", "NOT"):
                raise self._error(f"write {word.lower()!r} for {word!r}, or quote it if it is a name")
            tokens.append((kind, word))
            position = found.end()
        return tokens

    def _peek(self) -> str:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else ""

    def _kind(self) -> str:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else "end"

    def _take(self, *expected: str) -> bool:
        if self._kind() in ("logic", "parenthesis", "word") and self._peek() in expected:
            self._next += 1
            return True
        return False

    def _any_of(self) -> Mask:
        mask = np.zeros(self._n_atoms, dtype=np.bool_)
        branches: list[tuple[str, Mask]] = []
        while not branches or self._take(*_OR):
            start = self._next
            branch = self._all_of()
            branches.append((" ".join(word for _, word in self._tokens[start : self._next]), branch))
            mask = mask | branch
        if len(branches) > 1:
            self.without_match += [text for text, branch in branches if not branch.any()]
        return mask

    def _all_of(self) -> Mask:
        mask = self._one()
        while self._take(*_AND):
            mask = mask & self._one()
        return mask

    def _one(self) -> Mask:
        if self._depth == DEEPEST:
            raise self._error(f"parentheses and 'not' are nested more than {DEEPEST} times")
        self._depth += 1
        mask = self._condition()
        self._depth -= 1
        return mask

    def _condition(self) -> Mask:
        if self._take(*_NOT):
            return ~self._one()
        if self._take("("):
            mask = self._any_of()
            if not self._take(")"):
                raise self._error(
                    f"{self._peek()!r} is not expected there; is 'and' or 'or' missing before it?"
                    if self._peek()
                    else "a parenthesis is not closed"
                )
            return mask
        if self._take("within"):
            distance = self._distance()
            return self._near(self._reference(f"within {distance:g} nm of"), distance)
        if self._take("same"):
            if not (self._take("residue") and self._take("as")):
                raise self._error("'same' is followed by 'residue as'")
            return self.whole_residues(self._reference("same residue as"))
        return self._plain()

    def _reference(self, words: str) -> Mask:
        start = self._next
        mask = self._one()
        if not mask.any():
            asked = " ".join(word for _, word in self._tokens[start : self._next])
            raise SelectionError(
                f"the selection {self._text!r} asks for {words!r} {asked!r}, which matches no atom."
                f"{self.absent_names()}"
            )
        return mask

    def _distance(self) -> float:
        """Read a number, a unit and 'of'; return nm."""
        given = ""
        while self._kind() == "word" and self._peek() != "of":
            given += unicodedata.normalize("NFKC", self._peek())
            self._next += 1
        found = _NUMBER.match(given)
        if found is None or not self._take("of"):
            raise self._error("'within' is followed by a distance with its unit and 'of'")
        name = given[found.end() :].lower()
        if name not in _UNITS:
            raise self._error(
                f"the distance {found.group()} needs a unit, 'angstrom' or 'nm'"
                if not name
                else f"the unit {name!r} is not known; valid ones are {', '.join(_UNITS)}"
            )
        distance = float(found.group()) * _UNITS[name]
        if not 0.0 <= distance < np.inf:
            raise self._error(f"a distance is finite and not negative, got {found.group()}")
        return distance

    def _plain(self) -> Mask:
        """Pass the words up to the next 'and', 'or' or parenthesis to MDTraj."""
        run: list[tuple[str, str]] = []
        while self._kind() in ("word", "quoted", "comparison"):
            run.append(self._tokens[self._next])
            self._next += 1
        if not run:
            found = f"got {self._peek()!r}" if self._peek() else "it ends too early"
            raise self._error(f"a condition is expected, such as 'protein' or 'resname LIG': {found}")
        field = run[0][1]
        words = [field] + [self._value(field, kind, word) for kind, word in run[1:]]
        if field in _FLAGS and len(words) > 1:
            raise self._error(f"{field!r} takes no value; is 'and' or 'or' missing before {run[1][1]!r}?")
        if field not in _RESERVED and run[0][0] == "word" and not _NUMBER.fullmatch(field):
            raise self._error(f"{field!r} is not a keyword.{nearest(field, sorted(_RESERVED))}")
        if field in _CHAIN_FIELDS | _CODE_FIELDS:
            return self._named(field, run[1:])
        text = " ".join(words)
        try:
            return self._matches(text)
        except (ValueError, TypeError, SyntaxError, AttributeError, re.error) as error:
            raise self._error(f"MDTraj rejects the part {text!r}") from error

    def _matches(self, text: str) -> Mask:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self._topology.select(text)
        mask = np.zeros(self._n_atoms, dtype=np.bool_)
        mask[np.asarray(found, dtype=np.int64)] = True
        return mask

    def _named(self, field: str, given: list[tuple[str, str]]) -> Mask:
        """Return the atoms whose chain, or whose residue's insertion code, has one of some names."""
        compared = given[0] if given and given[0][0] == "comparison" else None
        names = [word[1:-1] if kind == "quoted" else word for kind, word in given[1 if compared else 0 :]]
        a_range = any(kind == "word" and word in _COMPARISON_WORDS for kind, word in given)
        wrong_comparison = compared is not None and (compared[1] not in ("==", "!=") or len(names) > 1)
        if not names or a_range or wrong_comparison:
            raise self._error(f"{field!r} is followed by names, such as '{field} A B', or by '==' or '!=' and one name")
        found = np.isin(self._chain_of if field in _CHAIN_FIELDS else self._code_of, names)
        return ~found if compared is not None and compared[1] == "!=" else found

    def _value(self, field: str, kind: str, word: str) -> str:
        """Quote a name that MDTraj would split, such as 1HB, Na+ or H5'."""
        if kind == "comparison" or (kind == "word" and word in _COMPARISON_WORDS):
            return _COMPARISONS.get(word, word)
        if kind == "word" and word in _RESERVED:
            if _NUMBER.fullmatch(field):  # as in '5 < index'
                return word
            raise self._error(f"is 'and' or 'or' missing before {word!r}? Quote it if it is a name")
        name = word[1:-1] if kind == "quoted" else word
        if field in ("name", "resname", "resn", "type", "element", "symbol") or field in _CHAIN_FIELDS | _CODE_FIELDS:
            self._wanted.append((field, name))
        if field in _NUMBER_FIELDS and not _NUMBER.fullmatch(word):
            raise self._error(f"{field!r} takes numbers, got {word!r}; a range is written '{field} 5 to 10'")
        return repr(name) if kind == "quoted" or field in _WORD_FIELDS else word

    def _near(self, reference: Mask, distance: float) -> Mask:
        """Return the atoms that have an atom of the reference, or an image of it, within a distance."""
        if self._positions is None:
            raise SelectionError(
                f"the selection {self._text!r} asks for distances: give positions=, for example those of "
                "app.PDBFile(...).positions"
            )
        positions = self._positions
        box = None
        if self._box is not None:
            box = np.asarray(in_unit(self._box, unit.nanometer), dtype=np.float64)
            if box.shape != (3, 3) or not np.linalg.det(box) > 0.0:
                raise SelectionError(f"box_vectors are three vectors that span a right-handed box, got {box.tolist()}")
        return near_particles(positions, box, reference, distance)


def near_particles(positions: FloatArray, box: FloatArray | None, reference: Mask, distance: float) -> Mask:
    """Return the particles that have one of the reference, or an image of it, within a distance.

    Parameters
    ----------
    positions : (n, 3) float array, nm
    box : (3, 3) float array or None, nm
    reference : (n,) bool array
    distance : float, nm
    """
    points, targets = positions, positions[reference]
    if box is not None:
        if distance >= np.linalg.norm(box, axis=1).sum():  # no point of a box is as far from the nearest image
            return np.ones(len(positions), dtype=np.bool_)
        points, targets = _images_near_box(positions, reference, box, distance)
    # The tree finds only smaller distances, and equal ones are included here.
    bound = np.nextafter(distance, np.inf) + 1e-12
    found, _ = cKDTree(targets).query(points, distance_upper_bound=bound)
    return np.asarray(np.isfinite(found) | reference)


def _images_near_box(
    positions: FloatArray, reference: Mask, box: FloatArray, distance: float
) -> tuple[FloatArray, FloatArray]:
    """Return all atoms inside the box, and the images of the reference within reach of it."""
    inverse = np.linalg.inv(box)
    fractional = positions @ inverse
    fractional -= np.floor(fractional)
    reach = distance * np.linalg.norm(inverse, axis=0)  # in fractions of the box, along each vector
    targets = fractional[reference]
    for axis in range(3):
        count = int(np.floor(reach[axis])) + 1
        shifted = []
        for shift in range(-count, count + 1):
            image = targets + shift * np.eye(3)[axis]
            near = (image[:, axis] >= -reach[axis] - 1e-9) & (image[:, axis] <= 1.0 + reach[axis] + 1e-9)
            shifted.append(image[near])
        targets = np.concatenate(shifted)
    return fractional @ box, targets @ box
