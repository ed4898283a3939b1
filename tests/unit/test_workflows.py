"""GitHub's workflows: pinned, with the least rights, and running what every change has to pass."""

import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.stack import ROOT

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
MAY_WRITE = {("Attest", "attestations"), ("Attest", "id-token"), ("Publish", "id-token")}


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))
    return loaded


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_used_is_pinned_and_may_as_little_as_it_can(file: Any) -> None:
    text = file.read_text("utf-8")
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert all(map(PINNED.fullmatch, used))
    assert len({use.partition("@")[0] for use in used}) == len(set(used))  # one version of each
    loaded = workflow(file.name)
    assert loaded["permissions"] == {}
    for job in loaded["jobs"].values():
        writes = {(job["name"], what) for what, right in job["permissions"].items() if right == "write"}
        assert writes <= MAY_WRITE
        assert "secrets." not in str(job)
        assert job["timeout-minutes"]
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")  # what stands there would be run
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_ci_runs_on_all_that_is_supported() -> None:
    jobs = workflow("ci.yml")["jobs"]
    pythons = jobs["python"]["strategy"]["matrix"]["python"]
    assert pythons == ["3.11", "3.12", "3.13", "3.14"]
    assert f'requires-python = ">={pythons[0]}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert jobs["server"]["strategy"]["matrix"]["server"] == [
        "redis:7.0",
        "redis:7.2",
        "redis:8",
        "valkey/valkey:8",
        "valkey/valkey:9",
    ]
    for name in ("python", "server"):
        assert [step["run"] for step in jobs[name]["steps"] if "run" in step][-1] == "bash .ci/run"
    assert "tests/system/test_compose.py" in jobs["compose"]["steps"][-1]["run"]


def test_a_release_is_built_from_what_has_passed_and_published_without_a_password() -> None:
    jobs = workflow("release.yml")["jobs"]
    assert "bash .ci/run" in [step.get("run") for step in jobs["build"]["steps"]]
    assert "make sbom" in str(jobs["build"]["steps"])
    assert (jobs["attest"]["needs"], jobs["publish"]["needs"]) == ("build", "attest")
    assert jobs["publish"]["environment"] == "release"
