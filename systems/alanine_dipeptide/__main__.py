"""Commands that make the committed files of this folder."""

import sys

from systems import reference
from systems.alanine_dipeptide import builder

reference.run_command(sys.argv, {"equilibrate": builder.equilibrate, "reference": builder.write_reference})
