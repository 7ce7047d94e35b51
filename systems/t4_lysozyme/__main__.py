"""Commands that make the committed files of this folder."""

import sys

from systems import reference
from systems.t4_lysozyme import builder

reference.run_command(sys.argv, {"equilibrate": builder.equilibrate, "reference": builder.write_reference})
