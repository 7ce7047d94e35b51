from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm.analysis.tables import read_energies
from qmmlmm.errors import TableError
from qmmlmm.runs.reporters import TermEnergyReporter
from tests.html_pages import Page

HEADER = (
    '#"Step","Time (ps)","MM (kJ/mol)","site, left/ML (kJ/mol)","site, left/QM (kJ/mol)",'
    '"site, left/-ML (kJ/mol)","Potential Energy (kJ/mol)","Kinetic Energy (kJ/mol)","Temperature (K)"'
)
ROWS = [
    "10,0.01,-300.5,-8000.25,-8010.5,8000.25,-8311.0,50.0,300.0",
    "20,0.02,-301,-8001,-8011.5,8001,-8312.5,51,301",
]


def write(path, lines, end="\n"):
    path.write_text("\n".join(lines) + end)
    return path


def test_each_column_comes_back_with_its_unit(tmp_path):
    table = read_energies(write(tmp_path / "energies.csv", [HEADER, *ROWS]))
    assert len(table) == 2
    assert table.steps.tolist() == [10, 20]
    assert table.time.value_in_unit(unit.femtosecond) == pytest.approx([10, 20])
    assert list(table.terms) == ["MM", "site, left/ML", "site, left/QM", "site, left/-ML"]
    np.testing.assert_array_equal(table.terms["MM"].value_in_unit(unit.kilojoule_per_mole), np.array([-300.5, -301.0]))
    assert table.potential_energy.value_in_unit(unit.kilojoule_per_mole).tolist() == [-8311.0, -8312.5]
    assert table.temperature.value_in_unit(unit.kelvin).tolist() == [300.0, 301.0]
    assert table.volume is None


def test_the_volume_is_read_where_there_is_a_box(tmp_path):
    lines = [HEADER + ',"Box Volume (nm^3)"', *(row + ",27.5" for row in ROWS)]
    table = read_energies(write(tmp_path / "energies.csv", lines))
    assert table.volume.value_in_unit(unit.nanometer**3).tolist() == [27.5, 27.5]


def test_a_run_directory_stands_for_its_table(tmp_path):
    write(tmp_path / "energies.csv", [HEADER, *ROWS])
    assert len(read_energies(tmp_path)) == 2


def test_the_difference_is_qm_minus_ml(tmp_path):
    table = read_energies(write(tmp_path / "energies.csv", [HEADER, *ROWS]))
    assert table.corrected_regions() == ["site, left"]
    difference = table.difference("site, left").value_in_unit(unit.kilojoule_per_mole)
    np.testing.assert_array_equal(difference, [-10.25, -10.5])


def test_a_region_without_a_correction_is_named(tmp_path):
    table = read_energies(write(tmp_path / "energies.csv", [HEADER, *ROWS]))
    with pytest.raises(TableError, match=r"'site' has no QM - ML correction.*with one: site, left"):
        table.difference("site")


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    assert len(read_energies(write(tmp_path / "energies.csv", [HEADER, ROWS[0], ROWS[1][:20]], end=""))) == 1


@pytest.mark.parametrize("row", ["30,0.03,1,2", "30,x,1,2,3,4,5,6,7", ""])
def test_a_damaged_row_is_named(tmp_path, row):
    with pytest.raises(TableError, match=r"line 3 of .* is no row of 9 numbers"):
        read_energies(write(tmp_path / "energies.csv", [HEADER, ROWS[0], row, ROWS[1]]))


@pytest.mark.parametrize("first", ["Step,Time", '#"Step","Temperature (K)"', HEADER.replace("MM (kJ/mol)", "MM")])
def test_another_table_is_refused(tmp_path, first):
    with pytest.raises(TableError, match="no table of term energies"):
        read_energies(write(tmp_path / "other.csv", [first, "1,2"]))


def test_an_empty_file_and_a_table_without_rows_are_refused(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(TableError, match="no table of term energies"):
        read_energies(tmp_path / "empty.csv")
    with pytest.raises(TableError, match="no rows yet"):
        read_energies(write(tmp_path / "new.csv", [HEADER]))


def test_the_table_of_a_real_run_is_read(tmp_path):
    class Mixed:
        def term_energies(self, context, *, check_charges=True):
            return {"MM": context.getState(energy=True).getPotentialEnergy()}

    system = openmm.System()
    system.addParticle(1.0)
    topology = app.Topology()
    topology.addAtom("H", None, topology.addResidue("X", topology.addChain()))
    simulation = app.Simulation(
        topology, system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    )
    simulation.context.setPositions([[0, 0, 0]])
    reporter = TermEnergyReporter(tmp_path / "energies.csv", 2, Mixed())
    simulation.reporters.append(reporter)
    simulation.step(4)
    reporter.close()
    assert read_energies(tmp_path).steps.tolist() == [2, 4]


def test_a_notebook_shows_means_and_last_values_with_names_escaped(tmp_path):
    header = HEADER.replace("site, left", "a<b").replace('Temperature (K)"', 'Temperature (K)","Box Volume (nm^3)"')
    table = read_energies(write(tmp_path / "energies.csv", [header, *(row + ",27.5" for row in ROWS)]))
    page = Page(table._repr_html_())
    assert "a<b" not in table._repr_html_()
    assert "2 rows from 0.01 to 0.02 ps" in page.text
    assert "a<b/QM (kJ/mol) -8,011.00 0.50 -8,011.50" in page.text
    assert "temperature (K) 300.50 0.50 301.00 volume (nm^3) 27.50 0.00 27.50" in page.text
