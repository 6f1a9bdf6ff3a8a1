"""The Makefile: each target is there once, and does what its line says."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z-]+):.*## ", TEXT, re.MULTILINE)


def dry(target: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)


def test_every_target_is_there_once():
    phony = TEXT.replace("\\\n", " ").partition(".PHONY:")[2].partition("\n")[0].split()

    assert len(TARGETS) == len(set(TARGETS))
    assert set(TARGETS) <= set(phony)
    assert dry("help").stderr == ""


def test_what_quickstart_made_is_removed_by_its_script():
    assert dry("quickstart-clean").stdout.strip() == "scripts/quickstart-clean"
    assert "scripts/quickstart-clean" not in dry("clean").stdout
