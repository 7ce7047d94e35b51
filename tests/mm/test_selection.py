import io
import itertools
import time

import numpy as np
import openmm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openmm import app, unit

from qmmlmm.errors import QmmlmmWarning, SelectionError
from qmmlmm.mm.selection import select

ROUND_OFF = 1e-9  # nm: pairs that are nearer to the border than this may fall on either side


def build(residues, **options):
    """A Topology from (residue name, number, atoms), one chain per residue that ends in 'TER'."""
    topology = app.Topology()
    chain = topology.addChain("A")
    for name, number, atoms in residues:
        residue = topology.addResidue(name, chain, id=str(number))
        for atom in atoms.split():
            symbol = {"M": None}.get(atom, atom.strip("0123456789'*+-")[0])
            element = None if symbol is None else app.Element.getBySymbol(symbol)
            topology.addAtom(atom, element, residue)
    if options:
        topology.setPeriodicBoxVectors(**options)
    return topology


@pytest.fixture(scope="module")
def mixture():
    """0-9 ALA, 10-13 LIG, 14-17 and 18-21 TIP4P water, 22 sodium."""
    return build(
        [
            ("ALA", 57, "N H CA HA CB HB1 HB2 1HB3 C O"),
            ("LIG", 300, "C1 C2 O5' H1''"),
            ("HOH", 301, "O H1 H2 M"),
            ("HOH", 302, "O H1 H2 M"),
            ("Na+", 303, "N1"),
        ]
    )


@pytest.fixture(scope="module")
def line(mixture):
    """Atoms one angstrom apart on a line."""
    return 0.1 * np.arange(23)[:, None] * np.array([1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("resname LIG", (10, 11, 12, 13)),
        ("water", tuple(range(14, 22))),
        ("protein and name CA CB", (2, 4)),
        ("protein and (name CA or name CB)", (2, 4)),
        ("not water and not protein and not resname LIG", (22,)),
        ("resname LIG or water and name O", (10, 11, 12, 13, 14, 18)),
        ("(resname LIG or water) and element O", (12, 14, 18)),
        ("index 3 to 5", (3, 4, 5)),
        ("index < 2", (0, 1)),
        ("index lt 5 and name CA", (2,)),
        ("2 > index", (0, 1)),
        ("1 >= index", (0, 1)),
        ("index <= 1 or index > 20 and index == 22 and name != CA", (0, 1, 22)),
        ("not index >= 2", (0, 1)),
        ("resSeq 301 302 and name M", (17, 21)),
        ("resid 1", (10, 11, 12, 13)),
        ("name =~ 'HB.*'", (5, 6)),
        ("name != O and resname LIG", (10, 11, 12, 13)),
        ("protein && !name CA && index 1 to 3", (1, 3)),
        ("protein || resname LIG", tuple(range(14))),
        # Names that MDTraj alone would take apart or refuse.
        ("name 1HB3", (7,)),
        ("name O5'", (12,)),
        ("name H1''", (13,)),
        ('name "O5\'"', (12,)),
        ("resname Na+", (22,)),
        ("resname 'Na+'", (22,)),
        ("resname LIG 'HOH' and name O", (14, 18)),
        ("mass > 15.5 and element O", (9, 12, 14, 18)),
        ("mass 1.00 to 1.1 and water", (15, 16, 19, 20)),
        ("same residue as name C1", (10, 11, 12, 13)),
        ("same residue as (name C1 or index 22)", (10, 11, 12, 13, 22)),
        ("same residue as name C1 and element O", (12,)),
        ("not same residue as water and not protein", (10, 11, 12, 13, 22)),
        ("all", tuple(range(23))),
    ],
)
def test_selections_find_the_atoms_they_describe(mixture, selection, expected):
    found = select(mixture, selection)
    assert found == expected
    assert all(type(index) is int for index in found)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("within 1.5 angstrom of index 5", (4, 5, 6)),
        ("within 1.5 Å of index 5", (4, 5, 6)),
        ("within 1.5\u212b of index 5", (4, 5, 6)),
        ("within 0.15nm of index 5", (4, 5, 6)),
        ("within .15 nanometers of index 5", (4, 5, 6)),
        ("within 1 angstrom of index 5", (4, 5, 6)),
        ("within 0 angstrom of index 5", (5,)),
        ("within 1.5 angstroms of resname LIG and not resname LIG", (9, 14)),
        ("within 1.5 angstroms of (resname LIG and not name C1)", (10, 11, 12, 13, 14)),
        ("not resname LIG and within 1.5 angstroms of resname LIG", (9, 14)),
        ("water and not within 6.5 angstrom of resname LIG", (20, 21)),
        ("within 1.1 angstrom of index 0 or within 1.1 angstrom of index 22", (0, 1, 21, 22)),
        ("within 1.1 angstrom of within 1.1 angstrom of index 0", (0, 1, 2)),
        ("same residue as within 1.1 angstrom of resname LIG", tuple(range(18))),
        ("same residue as (within 1.1 angstrom of resname LIG) and water", (14, 15, 16, 17)),
        ("within 1.1 angstrom of not index 2 to 22", (0, 1, 2)),
    ],
)
def test_within_finds_neighbours_and_the_reference_itself(mixture, line, selection, expected):
    assert select(mixture, selection, positions=line) == expected
    assert select(mixture, selection, positions=line * 10 * unit.angstrom) == expected


def test_whole_residues_completes_what_was_found(mixture, line):
    assert select(mixture, "name C1", whole_residues=True) == (10, 11, 12, 13)
    near = "within 1.1 angstrom of resname LIG and not protein"
    assert select(mixture, near, positions=line) == (10, 11, 12, 13, 14)
    assert select(mixture, near, positions=line, whole_residues=True) == tuple(range(10, 18))


def test_the_box_of_the_topology_is_the_default(line):
    residues = [("LIG", 1, " ".join(f"C{k}" for k in range(23)))]
    topology = build(residues)
    assert select(topology, "within 1.1 angstrom of index 0", positions=line) == (0, 1)
    box = np.diag([2.3, 3.0, 3.0])
    expected = (0, 1, 22)
    found = select(topology, "within 1.1 angstrom of index 0", positions=line, box_vectors=box)
    assert found == expected
    topology.setPeriodicBoxVectors([openmm.Vec3(*v) for v in box] * unit.nanometer)
    assert select(topology, "within 1.1 angstrom of index 0", positions=line) == expected


def brute_force(positions, reference, distance, box):
    """Smallest distance over many images; which pairs are too close to the border to tell."""
    reach = range(-6, 7)
    shifts = np.array(list(itertools.product(reach, repeat=3))) @ box if box is not None else np.zeros((1, 3))
    difference = positions[:, None, :] - positions[None, reference, :]
    if box is not None:  # so that six images on each side are more than enough
        difference -= np.round(difference @ np.linalg.inv(box)) @ box
    nearest = np.linalg.norm(difference[:, :, None, :] + shifts, axis=-1).min(axis=(1, 2))
    return nearest <= distance, np.abs(nearest - distance) < ROUND_OFF


@st.composite
def skewed_boxes(draw):
    """Boxes in OpenMM's reduced form, and others that are skewed up to twice as much."""
    ax, by, cz = (draw(st.floats(0.7, 2.0)) for _ in range(3))
    skew = st.one_of(st.sampled_from([-1.0, -0.5, 0.5, 1.0]), st.floats(-1.0, 1.0))
    return np.array([[ax, 0, 0], [draw(skew) * ax, by, 0], [draw(skew) * ax, draw(skew) * by, cz]], dtype=np.float64)


@settings(max_examples=60, deadline=None)
@given(
    box=st.one_of(st.none(), skewed_boxes()),
    seed=st.integers(0, 2**32 - 1),
    distance=st.floats(0.0, 1.2),
    n_atoms=st.integers(2, 40),
    spread=st.sampled_from([1.0, 3.0]),
)
def test_within_agrees_with_all_images_in_any_box(box, seed, distance, n_atoms, spread):
    rng = np.random.default_rng(seed)
    positions = spread * rng.uniform(-1.0, 1.0, (n_atoms, 3))
    topology = build([("LIG", 1, " ".join(f"C{k}" for k in range(n_atoms)))])
    expected, unsure = brute_force(positions, [0, 1], distance, box)
    found = select(topology, f"within {distance:.17g} nm of index 0 1", positions=positions, box_vectors=box)
    assert {0, 1} <= set(found)
    wrong = set(found) ^ set(np.flatnonzero(expected))
    assert wrong <= set(np.flatnonzero(unsure)) | {0, 1}


@pytest.mark.parametrize("skew", [0.5, 1.0, -1.0])
def test_within_misses_no_image_in_a_skewed_box(skew):
    rng = np.random.default_rng(8)
    box = np.array([[1.0, 0, 0], [skew, 1.0, 0], [skew, skew, 1.0]])
    topology = build([("LIG", 1, " ".join(f"C{k}" for k in range(500)))])
    for corner in ((0.01, 0.01, 0.01), (0.99, 0.99, 0.01), (0.01, 0.99, 0.99), (0.01, 0.99, 0.01)):
        positions = rng.uniform(0.0, 1.0, (500, 3)) @ box
        positions[0] = np.array(corner) @ box
        expected, _ = brute_force(positions, [0], 0.5, box)
        found = select(topology, "within 0.5 nm of index 0", positions=positions, box_vectors=box)
        assert found == tuple(np.flatnonzero(expected).tolist())


def test_atoms_on_the_faces_of_a_box_find_their_images():
    topology = build([("LIG", 1, "C1 C2 C3 C4")])
    positions = np.array([[0.0, 0, 0], [2.0, 2.0, 2.0], [-1e-18, 0, 0], [1.0, 1.0, 1.0]])
    found = select(topology, "within 0 nm of index 0", positions=positions, box_vectors=2.0 * np.eye(3))
    assert found == (0, 1, 2)


def test_sixty_thousand_atoms_take_seconds():
    topology = build([("HOH", k, "O H1 H2") for k in range(20_000)])
    positions = np.random.default_rng(3).uniform(0.0, 8.5, (60_000, 3))
    started = time.perf_counter()
    found = select(
        topology,
        "same residue as within 4 angstrom of resid 0 to 50",
        positions=positions,
        box_vectors=8.5 * np.eye(3),
    )
    assert 1000 < len(found) < 30_000
    assert time.perf_counter() - started < 20.0  # about two seconds on an idle core


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("", "it is empty"),
        ("   ", "it is empty"),
        ("(resname LIG", "a parenthesis is not closed"),
        ("resname LIG)", r"'\)' is not expected there"),
        ("resname LIG and", "a condition is expected.*it ends too early"),
        ("and resname LIG", "a condition is expected.*got 'and'"),
        ("resname LIG AND name C1", "write 'and' for 'AND'"),
        ("resname LIG name C1", "is 'and' or 'or' missing before 'name'"),
        ("protein water", "is 'and' or 'or' missing before 'water'"),
        ("protein CA", "'protein' takes no value"),
        ("(resname LIG) (name C1)", r"'\(' is not expected there; is 'and' or 'or' missing"),
        ("((resname LIG) (name C1))", r"'\(' is not expected there; is 'and' or 'or' missing"),
        ("name not CA", "'not' is not expected there"),
        ("resnam LIG", "'resnam' is not a keyword. Nearest names: .*resname"),
        ("LIG", "'LIG' is not a keyword"),
        ("resname 'LIG", "a quote is not closed"),
        ("resid 5-10", "'resid' takes numbers, got '5-10'; a range is written 'resid 5 to 10'"),
        ("index = 5", "MDTraj rejects the part 'index = 5'"),
        ("name =~ '('", "MDTraj rejects"),
        ("same residues as water", "'same' is followed by 'residue as'"),
        ("within 4 of resname LIG", "the distance 4 needs a unit, 'angstrom' or 'nm'"),
        ("within 4 bohr of resname LIG", "the unit 'bohr' is not known; valid ones are angstrom"),
        ("within four angstrom of resname LIG", "'within' is followed by a distance"),
        ("within 4 angstrom resname LIG", "'within' is followed by a distance"),
        ("within -4 angstrom of resname LIG", "a distance is finite and not negative"),
        ("within 4 angstrom of", "a condition is expected.*it ends too early"),
        ("name within 4", "is 'and' or 'or' missing before 'within'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_examples(mixture, line, selection, message):
    with pytest.raises(SelectionError, match=f"{message}(.|\n)*examples: 'resname LIG'"):
        select(mixture, selection, positions=line)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("resname LIH", r"matches none of the 23 atoms. No residue is named 'LIH'.*Nearest names: .*LIG"),
        ("protein and name CX", r"No atom is named 'CX' in the Topology. Nearest names: .*C"),
        ("element Zn", "No element is named 'Zn'"),
        ("resname QQQQ", r"No residue is named 'QQQQ' in the Topology. It has: ALA, HOH, LIG, Na\+"),
        ("protein and water", "Each name occurs; use 'or'"),
        ("none", "matches none of the 23 atoms"),
        ("same residue as resname LIG and resname ALA", r"write .within 8 angstrom of \(A and B\)."),
        ("within 4 angstrom of resname LIH", r"asks for 'within 0.4 nm of' 'resname LIH', which matches no"),
        (
            "protein or same residue as name CX",
            r"'same residue as' 'name CX', which matches no atom. No atom",
        ),
    ],
)
def test_an_empty_result_is_refused_with_the_nearest_names(mixture, line, selection, message):
    with pytest.raises(SelectionError, match=message):
        select(mixture, selection, positions=line)


def test_within_needs_finite_positions_for_all_atoms(mixture, line):
    near = "within 4 angstrom of resname LIG"
    with pytest.raises(SelectionError, match="asks for distances: give positions="):
        select(mixture, near)
    with pytest.raises(SelectionError, match=r"positions has the shape \(23, 3\), got \(22, 3\)"):
        select(mixture, near, positions=line[1:])
    wrong = line.copy()
    wrong[7, 1] = np.nan
    with pytest.raises(SelectionError, match=r"positions is finite, but is not at \(7, 1\)"):
        select(mixture, near, positions=wrong)
    with pytest.raises(SelectionError, match=r"box_vectors has the shape \(3, 3\), got \(3,\)"):
        select(mixture, near, positions=line, box_vectors=np.ones(3))
    for box in (np.zeros((3, 3)), np.diag([1.0, 1.0, -1.0])):
        with pytest.raises(SelectionError, match="three vectors that span a right-handed box"):
            select(mixture, near, positions=line, box_vectors=box)


def test_a_selection_is_a_string(mixture):
    with pytest.raises(SelectionError, match=r"a selection is a string, got \[1, 2\]"):
        select(mixture, [1, 2])


def test_atoms_out_of_order_are_refused():
    topology = app.Topology()
    chain = topology.addChain()
    first, second = topology.addResidue("A", chain), topology.addResidue("B", chain)
    for residue in (second, first):
        topology.addAtom("C", app.Element.getBySymbol("C"), residue)
    with pytest.raises(SelectionError, match="not numbered in the order of its chains"):
        select(topology, "all")


def test_a_file_with_insertion_codes_and_hexadecimal_numbers_can_be_read():
    lines = [
        "ATOM      1  CA  ALA A  57A      0.000   0.000   0.000  1.00  0.00           C",
        "ATOM      2  CA  GLY B   1       1.000   0.000   0.000  1.00  0.00           C",
        "END",
    ]
    pdb = app.PDBFile(io.StringIO("\n".join(lines)))
    assert select(pdb.topology, "name CA") == (0, 1)
    topology = build([("HOH", "A000", "O H1 H2"), ("HOH", "A001", "O H1 H2")])
    assert select(topology, "name O") == (0, 3)


# --- chains, segments, insertion codes, and sides of 'or' that match nothing ---


@pytest.fixture(scope="module")
def chains():
    """Residue 52 with two insertion codes and 301 in the chains A, B and AA, of two atoms each."""
    topology = app.Topology()
    for name in ("A", "B", "AA"):
        chain = topology.addChain(name)
        for number, code in (("52", ""), ("52", "A"), ("301", "")):
            residue = topology.addResidue("LIG", chain, number, code)
            topology.addAtom("C1", app.element.carbon, residue)
            topology.addAtom("O1", app.element.oxygen, residue)
    return topology


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("chain A and resSeq 301", (4, 5)),
        ("chain AA and resSeq 301", (16, 17)),
        ("chain A B and resSeq 301 and name C1", (4, 10)),
        ("segid B and name O1", (7, 9, 11)),
        ("chainname == 'AA' and name C1", (12, 14, 16)),
        ("chain != A and chain != AA and name C1", (6, 8, 10)),
        ("chain B and resSeq 52 and icode A", (8, 9)),
        ("chain B and resSeq 52 and not icode A", (6, 7)),
        ("chainid 1 and resSeq 301", (10, 11)),
    ],
)
def test_chains_and_insertion_codes_are_selected_by_their_names(chains, selection, expected):
    assert select(chains, selection) == expected


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("chain C", r"matches none of the 18 atoms. No chain is named 'C' in the Topology. It has: A, AA, B"),
        ("icode B", r"No insertion code is named 'B' in the Topology. It has: A"),
        ("chain", "'chain' is followed by names, such as 'chain A B'"),
        ("chain < A", "'chain' is followed by names"),
        ("chain == A B", "and one name"),
        ("chain A to B", "is followed by names"),
    ],
)
def test_a_chain_that_is_not_there_is_named(chains, selection, message):
    with pytest.raises(SelectionError, match=message):
        select(chains, selection)


@pytest.mark.parametrize(
    ("selection", "branch", "advice"),
    [
        ("resSeq 301 or resname LIQ", "'resname LIQ'", "No residue is named 'LIQ'.*Nearest names: LIG"),
        ("(chain A or chain C) and name C1", "'chain C'", "No chain is named 'C'"),
        ("chain A and name N1 or name C1", "'chain A and name N1'", "No atom is named 'N1'"),
    ],
)
def test_a_side_of_or_that_matches_nothing_is_a_warning_that_names_it(chains, selection, branch, advice):
    with pytest.warns(QmmlmmWarning, match=f"no atom matches {branch}.*{advice}") as record:
        assert select(chains, selection)
    assert record[0].filename == __file__


def test_sides_of_or_that_all_match_give_no_warning(chains):
    assert len(select(chains, "chain A or chain B or (resSeq 301 and chain AA)")) == 14
