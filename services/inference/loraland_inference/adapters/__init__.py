"""Where adapters are: the registry, the disk, the slots of the engine, and who moves them."""
