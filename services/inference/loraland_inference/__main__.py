"""``python -m loraland_inference``."""

from loraland_inference.main import main

main()
