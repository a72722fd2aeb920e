"""``python -m loraland_trainer``."""

import sys

from loraland_trainer.main import main

sys.exit(main(sys.argv[1:]))
