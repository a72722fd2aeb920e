"""Sets how torch's threads wait, as a replica does; imported for that, before anything imports torch."""

import os

from loraland_core import threads

threads.set_spinning(os.environ)
