"""`make demo` in a clean clone, as on a machine that has git, make and Python and nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_the_demo_of_a_clean_clone_does_the_main_job_and_leaves_no_process(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no git checkout: nothing to clone")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    kept = ("EASYREMOTE_", "VIRTUAL_ENV", "PYTHON", "JAVA", "MAKE", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
    # A machine without Java: only the tools that the README asks for are on the path.
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    for name in ("git", "make", "sh", "test", "touch"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    ran = subprocess.run(
        ["make", "demo"],
        cwd=clone,
        env=environment | {"XDG_DATA_HOME": str(tmp_path / "data"), "PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3_000:] + ran.stderr[-3_000:]
    for said in ("positive", "espresso", "2022-04-27 13:00", "all of it happened"):
        assert said in ran.stdout
    left = [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]
    assert left == []
