"""What thousands of objects cost the operator: `python benchmarks/operator.py`; see operator_scale."""

# Nothing else may be imported before the lines below: it might ask for the module ``operator``.
import sys

_HERE = __file__.rpartition("/")[0] or "."


def _standard() -> object:
    """Return the standard module of this name, which libraries mean when they ask for it."""
    before = list(sys.path)
    sys.path[:] = [entry for entry in before if entry != _HERE]
    sys.modules.pop("operator", None)
    try:
        import operator  # noqa: PLC0415
    finally:
        sys.path[:] = before
    return operator


# A library looks here first, because a script of this folder is running.
sys.modules["operator"] = _standard()  # type: ignore[assignment]

if __name__ == "__main__":
    import operator_scale

    sys.exit(operator_scale.main())
