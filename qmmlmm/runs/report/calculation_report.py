"""The report of a calculation that is no run of dynamics: its Hamiltonian, results and figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qmmlmm.durable_files import replace_file
from qmmlmm.runs.provenance import package_versions
from qmmlmm.runs.report.citations import citations
from qmmlmm.runs.report.hamiltonian_picture import hamiltonian_picture, mappings
from qmmlmm.runs.report.harmless import harmless
from qmmlmm.runs.report.markdown_page import embedded_image
from qmmlmm.runs.report.page import code, figures, items, page, paragraph, section, wide_table
from qmmlmm.runs.report.run_report import REPORT_NAME


def write_calculation_report(
    folder: Path, title: str, results: Mapping[str, object], description: Mapping[str, object], command: str
) -> Path:
    """Write ``report.html`` with all figures (PNG) of a folder and return its path; a failure is a warning.

    Parameters
    ----------
    folder : Path
    title : str
    results : mapping of str to object
        Results by their names with units.
    description : mapping of str to object
        Result of `MixedSystem.describe`.
    command : str
        Command that shows the results again.
    """
    path = folder / REPORT_NAME
    with harmless(path):
        versions = package_versions()
        terms = mappings(description.get("terms"))
        levels = {str(term.get("level")) for term in terms}
        potentials = " ".join(str(term.get("potential")) for term in terms)
        drawn = [embedded_image(image, image.stem) for image in sorted(folder.glob("*.png"))]
        made = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        text = page(
            title,
            f"Folder {folder.resolve().name}.",
            [
                section("Results", wide_table(("", ""), list(results.items())), figures(drawn)),
                section("Hamiltonian", hamiltonian_picture(description)),
                section("How it was made", paragraph(f"Versions: {made}.", "note"), code(command)),
                section("How to cite", items(citations(versions["qmmlmm"], levels, potentials))),
            ],
        )
        replace_file(path, text.encode("utf-8"))
    return path
