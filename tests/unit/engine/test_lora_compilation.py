"""The Triton kernels compile for NVIDIA GPUs: code generation needs no card."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is for Linux")

# In a process of its own: where the interpreter is on, kernels cannot be compiled.
SCRIPT = """
import json
import sys
from loraland_engine import lora_triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

POINTERS = {"order_T": "*i32", "chunks_C3": "*i32", "rank_S": "*i64", "h_TR": "*bf16"}
KERNELS = {
    "_shrink": {"x_TD": "*bf16", "a_S": "*i64", "num_in": "i32", "x_stride": "i32"},
    "_expand": {"y_TO": "*bf16", "b_S": "*i64", "num_out": "i32", "y_stride": "i32"},
}
found = {}
for name, own in KERNELS.items():
    kernel = getattr(lora_triton, name)
    constants = {n: 64 if n in ("INS", "OUTS") else 16 for n in kernel.arg_names if n.isupper()}
    types = POINTERS | own | {"h_stride": "i32"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature={n: types[n] for n in kernel.arg_names}, constexprs=constants)
    done = compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32))
    found[name] = "mma" in done.asm["ptx"] and len(done.asm["cubin"]) > 0
print(json.dumps(found))
"""


@pytest.mark.parametrize("capability", [80, 90], ids=["A100", "H100"])
def test_kernels_compile_to_matrix_instructions(capability: int) -> None:
    """Both kernels become machine code of the card that multiplies on its matrix units."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(capability)],
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"_shrink": True, "_expand": True}
