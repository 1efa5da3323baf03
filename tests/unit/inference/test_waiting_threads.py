"""What the models' libraries do with the cores between two passes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import sys, os
import easyremote.inference.models
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.mark.parametrize(("given", "stands"), [(None, "passive"), ("active", "active")])
def test_openmp_is_told_not_to_spin_before_torch_is_imported_unless_the_operator_says_otherwise(
    given: str | None, stands: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    told = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.split() == [stands, "False"]
