"""Commands that make the committed files of this folder."""

import sys

from systems import reference
from systems.ketosteroid_isomerase import builder

reference.run_command(sys.argv, {"relax": builder.relax, "reference": builder.write_reference})
