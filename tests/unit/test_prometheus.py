"""What deploy/ has for Prometheus and Grafana: every metric that it names is ours, and the rules do what they say."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from app.inbox.measured import Measured, Series
from app.inbox.record import STATES, Stats
from app.ops.keys import Measured as MeasuredKey
from app.ops.metrics import Metrics
from tests.support.stack import ROOT

PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
RULES: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
NAME = re.compile(r"\bjobhook_[a-z_]+")


def exposed() -> set[str]:
    """The name of every sample that a scrape may have."""
    stats = Stats(dict.fromkeys(STATES, 1), 1.0, {}, 1.0, {"host:1": 1.0}, suspended=False)
    handlers = {name: Series() for name in ("book", "forward https://erp.internal/hooks")}
    metrics = Metrics(
        lambda: stats,
        lambda: [MeasuredKey("current", 1.0, 1.0)],
        lambda: True,
        lambda: Measured(handlers, {"ValueError": 1}, is_full={"runs": False}),
        ["unauthentic"],
        ["no key fits"],
        ["rate"],
    )
    families = text_string_to_metric_families(metrics.scrape().decode())
    return {sample.name for family in families for sample in family.samples}


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("promtool is not installed: it comes with Debian's package prometheus")
    return subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_a_rule_goes_by_metrics_that_there_are_and_leads_to_a_page(rule: dict[str, Any]) -> None:
    assert set(NAME.findall(rule["expr"])) <= exposed()
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert rule["labels"]["severity"] in {"warning", "critical"}


def test_the_rules_are_rules() -> None:
    checked = promtool("check", "rules", PROMETHEUS / "alerts.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_example_is_a_configuration() -> None:
    checked = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_rules_do_what_they_say() -> None:
    tested = promtool("test", "rules", PROMETHEUS / "alerts_test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_dashboard_shows_metrics_that_there_are_and_all_of_them() -> None:
    dashboard = orjson.loads((GRAFANA / "dashboard.json").read_bytes())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = set(NAME.findall("\n".join(expressions)))
    assert shown <= exposed()
    families = {re.sub(r"_(bucket|sum|count|created|total)$", "", name) for name in exposed()}
    assert {re.sub(r"_(bucket|total)$", "", name) for name in shown} == families
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_provisioning_is_yaml_for_the_dashboards_data_source() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/jobhook.yml").read_text())["providers"]
    variable = orjson.loads((GRAFANA / "dashboard.json").read_bytes())["templating"]["list"][0]
    assert source["uid"] == variable["current"]["value"]
    assert provider["type"] == "file"
