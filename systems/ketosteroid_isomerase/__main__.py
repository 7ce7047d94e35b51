"""Command that makes the committed file of this folder."""

import sys

from systems import reference
from systems.ketosteroid_isomerase import builder

reference.run_command(sys.argv, {"reference": builder.write_reference})
