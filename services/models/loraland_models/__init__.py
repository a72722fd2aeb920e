"""Base models and tokenizers by catalogue entry, and the metrics. The only place that loads weights.

Importing the package, ``encoding`` or ``metrics`` does not import torch; ``weights`` does.
"""
