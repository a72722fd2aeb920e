"""The front process as a whole: what it must never do."""

import subprocess
import sys


def test_front_never_imports_torch() -> None:
    """All of the front's modules load without torch and Transformers, and so start fast."""
    code = (
        "import sys, loraland_inference.main\n"
        "bad = {'torch', 'transformers', 'loraland_engine', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(sorted(bad)) if bad else 0)"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")


def test_front_says_in_a_sentence_what_is_not_set() -> None:
    """A missing setting is a sentence and exit code 1, not a traceback."""
    result = subprocess.run(
        [sys.executable, "-m", "loraland_inference"],
        capture_output=True, text=True, timeout=60, check=False, env={},
    )  # fmt: skip

    expected = "loraland-inference: LORALAND_BASE_MODEL: must be set\n"
    assert (result.returncode, result.stderr) == (1, expected)
