"""Wrong Dockerfiles, built by the classic builder here and by Docker's: what each says, and the code it ends with, are the same."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from under_test import EngineUnderTest

pytestmark = pytest.mark.conformance
WRONG = [
    "", "\n\n", "# only a comment\n", "RUN true\n", "ENV A=1\nFROM busybox\n", "ARG A=1\n", "ARG A=1\nRUN true\n", "COPY f /\n", "LABEL a=b\n",
    "FROM\n", "FROM a b\n", "FROM busybox AS\n", "FROM busybox AS 1x\n", "FROM busybox AS a AS b\n", "FROM UPPER\n", "FROM busybox:\n",
    "FROM busybox\nFROBNICATE x\n", "FROM busybox\nRUN\n", "FROM busybox\nCOPY\n", "FROM busybox\nCOPY one\n", "FROM busybox\nADD one\n",
    "FROM busybox\nENV\n", "FROM busybox\nENV A\n", "FROM busybox\nENV =x\n", "FROM busybox\nLABEL\n", "FROM busybox\nLABEL a\n", "FROM busybox\nEXPOSE\n",
    "FROM busybox\nEXPOSE nonsense\n", "FROM busybox\nVOLUME\n", "FROM busybox\nVOLUME [\"\"]\n", "FROM busybox\nUSER\n", "FROM busybox\nUSER a b\n",
    "FROM busybox\nWORKDIR\n", "FROM busybox\nONBUILD\n", "FROM busybox\nONBUILD ONBUILD RUN x\n", "FROM busybox\nONBUILD FROM x\n",
    "FROM busybox\nONBUILD MAINTAINER x\n", "FROM busybox\nSTOPSIGNAL\n", "FROM busybox\nSTOPSIGNAL a b\n", "FROM busybox\nHEALTHCHECK\n",
    "FROM busybox\nHEALTHCHECK NONE x\n", "FROM busybox\nHEALTHCHECK WHAT x\n", "FROM busybox\nHEALTHCHECK CMD\n",
    "FROM busybox\nHEALTHCHECK --interval=x CMD true\n", "FROM busybox\nHEALTHCHECK --interval=1us CMD true\n", "FROM busybox\nHEALTHCHECK --retries=-1 CMD true\n",
    "FROM busybox\nHEALTHCHECK --nonsense=1 CMD true\n", "FROM busybox\nSHELL sh\n", "FROM busybox\nSHELL []\n", "FROM busybox\nARG\n", "FROM busybox\nMAINTAINER\n",
    "FROM busybox\nCOPY --from=nosuchstage:x /a /b\n", "FROM busybox\nCOPY --nonsense=1 a b\n", "FROM busybox\nCOPY --from=0 a b\n",
    "FROM busybox\nCOPY missing /\n", "FROM busybox\nCOPY ../up /\n", "FROM busybox\nCOPY f Dockerfile /to\n", "FROM busybox\nCOPY * /to\n", "FROM busybox\nCOPY no* /to/\n",
    "FROM busybox\nADD missing /\n", "FROM busybox\nRUN exit 7\n", "FROM busybox\nRUN [\"/no/such\"]\n", "FROM scratch\nRUN true\n", "FROM busybox\nUSER nosuch\nRUN true\n",
    "FROM busybox\nENV A=${B:x}\n", "FROM busybox\nENV A=${B\n", "FROM busybox\nENV A=\"x\n", "FROM ${A}\n", "ARG A\nFROM $A\n", "FROM 127.0.0.1:9/nosuchimage:1\n",
    "FROM busybox AS one\nFROM one AS one\n", "FROM --nonsense=1 busybox\n", "FROM --platform=nonsense/x/y/z busybox\n", "FROM busybox\nCMD [\"unclosed\n", "FROM scratch\n",
    "# escape=x\nFROM busybox\n", "# escape=`\n# escape=`\nFROM busybox\n",
]  # fmt: skip


NEWER = (
    ("parse error line", "parse error on line"), ("Removing intermediate", " ---> Removed intermediate"), ("Invalid containerPort", "invalid containerPort"),
    ("Invalid signal", "invalid signal"), ("Unknown flag: ", "unknown flag: --"), ("must be at least 1 (not -1)", "cannot be negative (-1)"),
    ("repository name must", "repository name (library/UPPER) must"), ("unsupported modifier (x)", "unsupported modifier (:x)"),
    ("missing ':' in substitution", "unsupported modifier (\N{REPLACEMENT CHARACTER}) in substitution"), (" on [0-9.:]+: dial .*", ": no such host"),
    ("failed to create shim task", "failed to create task for container: failed to create shim task"),
    ("container process: exec", "container process: error during container init: exec"), ("directory: unknown", "directory"),
)  # fmt: skip
"""How texts of the release beside us are worded by later ones."""
DIFFERENT = {
    # Docker's daemon fails inside.
    "ARG A=1\n": "No image was generated. Is your Dockerfile empty?\n",
    # An empty command is one, as for BuildKit.
    "FROM busybox\nRUN\n": "Successfully built ID\n",
    # It may be a folder without saying so, as for BuildKit.
    "FROM busybox\nCOPY * /to\n": "Successfully built ID\n",
}


def said(engine: Any, folder: Path) -> tuple[int, str]:
    """Return the code of a build by the classic builder and what it said, without what is never the same twice."""
    done = subprocess.run(["docker", "build", str(folder)], capture_output=True, text=True, timeout=60, env={**engine.environment, "DOCKER_BUILDKIT": "0"})
    # The client tells of its own future, and how much it sent.
    text = re.sub(r"(?s)DEPRECATED: .*?variable\.\n\n", "", done.stdout + done.stderr)
    return done.returncode, re.sub(r"\b[0-9a-f]{12,64}\b", "ID", re.sub(r"\d+\.\d+kB", "SIZE", text))


@pytest.mark.parametrize("text", WRONG, ids=lambda text: repr(text)[1:40])
def test_a_wrong_dockerfile_is_told_as_by_docker(text: str, engine: EngineUnderTest, dockerd: Any, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    (tmp_path / "f").write_text("f\n")
    ours = said(engine, tmp_path)
    code, theirs = said(dockerd, tmp_path)
    for older, newer in NEWER:
        theirs = re.sub(older if older.endswith(".*") else re.escape(older), lambda _, newer=newer: newer, theirs)  # type: ignore[misc]
    if text in DIFFERENT:
        assert ours != (code, theirs)
        assert ours[1].endswith(DIFFERENT[text])
    else:
        assert ours == (code, theirs)
