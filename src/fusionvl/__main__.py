"""`python -m fusionvl` is `fusionvl`."""

import sys

from fusionvl.cli import main

sys.exit(main())
