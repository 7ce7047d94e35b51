"""Commands that make the committed files of this folder."""

import sys

from systems import reference
from systems.acetone_water import builder


def write_parameters() -> None:
    """Fit the charges and write the force field."""
    # PySCF takes seconds to import and only this command needs it.
    from systems.acetone_water import parameters

    parameters.write_parameters()


reference.run_command(
    sys.argv,
    {
        "parameters": write_parameters,
        "equilibrate": builder.equilibrate,
        "reference": builder.write_reference,
    },
)
