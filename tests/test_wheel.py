"""An installed wheel finds its configuration, from any working directory."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_wheel_carries_conf_and_composes_a_run_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    conf = {path.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yaml")}
    assert all((tmp_path / "site" / "crosstune" / path).is_file() for path in conf)
    grammars = "src/crosstune/data/synthetic/grammars"
    names = {path.name for path in (tmp_path / "site" / grammars.removeprefix("src/")).iterdir()}
    assert names == {path.name for path in (ROOT / grammars).iterdir()}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shown = "import crosstune.config.paths as c; print(c.__file__); print(c.find_conf())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", shown]
    done = subprocess.run(
        command, check=True, cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert all(line.startswith(str(tmp_path / "site")) for line in done.stdout.splitlines())
    options = ["data=demo_sentiment", "data.language=es", "--cfg", "job"]
    command = [sys.executable, "-m", "crosstune", "train", *options]
    done = subprocess.run(
        command, check=True, cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert "name: demo_sentiment" in done.stdout
