"""Surface hopping in Tully's three models against exactly propagated wave packets.

    python tests/benchmarks/tully_models.py [--trajectories 2000] [--models simple dual extended]
        [--momenta K ...] [--decoherence none|energy]

Packets of width 20/k on the lower state. Fewest switches by local diabatisation: without decoherence in the first two
models, where the packets on both states go on together, and with it in the third, where they part. Prints shares
reflected and transmitted on both states, and the largest deviation in standard errors.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm.nonadiabatic import FewestSwitches
from tests.nonadiabatic.tully import DUAL, EXTENDED, SIMPLE, Packet, exact, surface_hopping

CASES = {
    "simple": (SIMPLE, "none", (10, 20, 30, 40)),
    "dual": (DUAL, "none", (20, 25, 30, 35, 40, 50)),
    "extended": (EXTENDED, "energy", (8, 10, 12, 15, 20, 30, 40)),
}
RESOLUTION = 0.2  # bohr in a step
SUBSTEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=2000)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--momenta", nargs="+", type=float, help="in place of those of the table")
    parser.add_argument("--decoherence", choices=("none", "energy"), help="in place of that of the table")
    arguments = parser.parse_args()
    n = arguments.trajectories
    print("model, k: exact R0 R1 T0 T1; surface hopping; largest deviation in standard errors")
    for name in arguments.models:
        model, decoherence, momenta = CASES[name]
        decoherence = arguments.decoherence or decoherence
        for k in arguments.momenta or momenta:
            start = time.perf_counter()
            expected = exact(model, Packet(k)).ravel()
            method = FewestSwitches(substeps=SUBSTEPS, decoherence=decoherence)
            found = surface_hopping(model, Packet(k), n, method=method, resolution=RESOLUTION).ravel()
            # At least one count's worth, where nothing is expected.
            errors = np.sqrt(np.clip(expected * (1 - expected), 1 / n, None) / n)
            deviations = np.abs(found - expected) / errors
            print(
                f"{name} {k:3g}, decoherence {decoherence}: "
                f"{np.array2string(expected, precision=3, floatmode='fixed')} "
                f"{np.array2string(found, precision=3, floatmode='fixed')} {deviations.max():.1f} "
                f"({n} trajectories, {time.perf_counter() - start:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
