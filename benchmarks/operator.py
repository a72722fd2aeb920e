"""What thousands of objects cost the operator: `python benchmarks/operator.py`; see operator_scale.

Python also finds this file where a library asks for the standard module ``operator`` while a script of
this folder runs. So whoever imports it gets the standard one, read from where Python keeps its own.
"""

# Nothing that might ask for ``operator`` itself may be imported before it is there.
import sys
from _frozen_importlib_external import SourceFileLoader

_standard = type(sys)("operator")
sys.modules["operator"] = _standard
_loader = SourceFileLoader("operator", f"{sys._stdlib_dir}/operator.py")  # type: ignore[attr-defined]
exec(_loader.get_code("operator"), _standard.__dict__)  # noqa: S102 (Python's own file)

if __name__ == "__main__":
    import operator_scale

    sys.exit(operator_scale.main())
