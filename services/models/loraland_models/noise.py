"""Keeps progress bars and the advice of libraries out of a process's log. No torch.

Call ``hush`` before anything imports torch: some of it is said during the import.
"""

import logging
import os
import warnings


def hush() -> None:
    """Silence what nobody can act on; real warnings stay."""
    # Bars drawn for a terminal; in a pod's log each is a line of a thousand characters.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # Recommends a kernel that computes in bf16; see ``weights.keep_compute_dtype``.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # PEFT 0.21 reads an attribute that Transformers 5.20 renamed; fixed in neither yet.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
