"""The demo: the whole loop on this machine, with a comparison that can fail."""
