"""Which kernels are let go of, and that it is early enough in a process that Ray starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distsgd.base.runnable_kernel import let_go_of_foreign

AVX2 = "processor : 0\nflags\t\t: fpu sse2 fma avx avx2 bmi2\nbugs : none\n"
AVX512 = AVX2.replace("bmi2", "avx512f avx512bw avx512vl")


@pytest.mark.parametrize(
    ("kernel", "cpuinfo", "stays"),
    [
        ("SkylakeX", AVX512, True),
        ("SkylakeX", AVX2, False),
        ("SKYLAKEX", AVX2, False),
        ("Cooperlake", AVX512, False),
        ("Haswell", AVX2, True),
        ("Haswell", "flags : sse2", False),
        ("Nehalem", "flags : sse2", True),
        ("SkylakeX", "Features : fp asimd", True),
        ("SkylakeX", "", True),
    ],
)
def test_kernel_stays_where_the_processor_has_its_instructions(
    kernel: str,
    cpuinfo: str,
    stays: bool,  # noqa: FBT001 -- of the table.
) -> None:
    variables = {"OPENBLAS_CORETYPE": kernel, "OTHER": "stays"}
    let_go_of_foreign(variables, cpuinfo)
    assert ("OPENBLAS_CORETYPE" in variables) is stays
    assert variables["OTHER"] == "stays"


def test_without_a_kernel_nothing_is_changed() -> None:
    variables: dict[str, str] = {}
    let_go_of_foreign(variables, AVX2)
    assert not variables


def test_what_ray_loads_in_a_process_looks_before_numpy_is_imported() -> None:
    code = (
        "import sys\n"
        "class Order:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('numpy', 'distsgd.base.runnable_kernel'): print(name)\n"
        "sys.meta_path.insert(0, Order())\n"
        "import distsgd.parallel.launch.actors.processes\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["distsgd.base.runnable_kernel", "numpy"]
