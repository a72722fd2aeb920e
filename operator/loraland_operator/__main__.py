"""Entry of ``python -m loraland_operator``."""

import sys

from loraland_operator.main import main

sys.exit(main())
