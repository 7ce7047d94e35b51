"""Correct the binding free energy of a host and its guest, from the force field to GFN2-xTB/MM.

The host is cucurbit[7]uril, the guest B2 (bicyclo[2.2.2]octane-1,4-dimethanol), both in water. The guest is the region.
In each of two legs, the complex and the guest in water, trajectories sample the force field and GFN2-xTB/MM, and switch
from each to the other. The free energy of the switching in the complex less that in water is what a binding free energy
of the force field has to be corrected by.

    python examples/binding_correction.py
    python examples/binding_correction.py --trajectories 60 --switch 2000 --equilibration 20000 --between 2000 \\
        --workers 8

The first takes some minutes on one core, and its switches are too short for a result; the second takes a night on eight
cores. With --qm METHOD, GFN2-xTB/MM is the guide to QM/MM. The same command continues a run that was stopped, and the
directory has report.md, a figure, and tables of all works.
"""

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qmmlmm import ForceFieldPotential, PySCFPotential, Region, XTBPotential
from qmmlmm.free_energy import EndStateCorrection, Leg, SwitchingSettings
from systems import cucurbituril


def read_arguments() -> argparse.Namespace:
    """Return the options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", default="binding_correction_run", help="directory of all files")
    parser.add_argument("--trajectories", type=int, default=6, help="switching trajectories in each direction")
    parser.add_argument("--switch", type=int, default=40, help="steps of 1 fs of each of them")
    parser.add_argument("--equilibration", type=int, default=60, help="steps before the first frame")
    parser.add_argument("--between", type=int, default=20, help="steps between frames")
    parser.add_argument("--relax", type=int, default=500, help="steps with the force field before all")
    parser.add_argument("--qm", help="method of PySCF for the upper level, such as b3lyp-d3bj")
    parser.add_argument("--basis", default="6-31g*", help="basis set of --qm")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    return parser.parse_args()


def leg(name: str, directory: Path, relax: int) -> Leg:
    """Return the complex or the guest in water; its positions are kept, so that a run that was stopped continues."""
    structure = cucurbituril.build(name, relax_steps=relax, positions_file=directory / f"{name}_positions.npy")
    return Leg(
        structure.topology,
        structure.system,
        structure.positions,
        Region("guest", structure.select(cucurbituril.GUEST)),
    )


def main() -> None:
    """Run the correction, and print what it found."""
    arguments = read_arguments()
    directory = Path(arguments.directory)
    directory.mkdir(parents=True, exist_ok=True)
    xtb = XTBPotential("gfn2-xtb")
    correction = EndStateCorrection(
        directory,
        legs={name: leg(name, directory, arguments.relax) for name in ("complex", "solvent")},
        lower=ForceFieldPotential(),
        through=[xtb] if arguments.qm else [],
        upper=PySCFPotential(arguments.qm, arguments.basis) if arguments.qm else xtb,
        settings=SwitchingSettings(
            trajectories=arguments.trajectories,
            switch_steps=arguments.switch,
            equilibration_steps=arguments.equilibration,
            steps_between_frames=arguments.between,
            platform="CPU",
        ),
    )
    if arguments.workers == 1:
        found = correction.run()
    else:
        with ProcessPoolExecutor(arguments.workers, mp_context=multiprocessing.get_context("spawn")) as executor:
            found = correction.run(executor)
    print(found)
    print(f"report: {directory / 'report.md'}")


if __name__ == "__main__":
    main()
