"""The manifests of deploy/kubernetes, held against the schemas of Kubernetes and against the code."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from app.cli.run import SHUTDOWN_SECONDS
from app.config.settings import HARD_ACK_LIMIT, Settings
from app.config.table import settings_rows
from app.inbox.inbox import LEASE_MARGIN_SECONDS
from app.ops.health import ANSWER_SECONDS
from app.receiver.endpoint import PATH
from app.units import parse_duration
from tests.support.stack import KEY, ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
SETTINGS = Settings(api_key=KEY)
NAMES = {name for name, *_ in settings_rows(SETTINGS)} | {"JOBHOOK_SECRETS_DIR"}
FILES = sorted(FOLDER.glob("*/*.yaml"))
Manifest = dict[str, Any]
OWN_RESOURCES = ("ScaledObject", "HTTPRoute")
"""Defined by KEDA and by the Gateway API, not by Kubernetes."""


def manifests(*kinds: str) -> Iterator[Manifest]:
    for file in FILES:
        if file.name != "kustomization.yaml":
            for manifest in yaml.safe_load_all(file.read_text("utf-8")):
                if not kinds or manifest["kind"] in kinds:
                    yield manifest


def pods() -> Iterator[Manifest]:
    for manifest in manifests("Deployment", "StatefulSet"):
        yield manifest["spec"]["template"]["spec"]


def named(name: str) -> Manifest:
    (found,) = (manifest for manifest in manifests("Deployment") if manifest["metadata"]["name"] == name)
    pod: Manifest = found["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize(
    "manifest",
    [manifest for manifest in manifests() if manifest["kind"] not in OWN_RESOURCES],
    ids=lambda manifest: f"{manifest['kind']} {manifest['metadata']['name']}",
)
def test_kubernetes_would_take_it(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=lambda folder: folder.name)
def test_a_folder_is_what_its_kustomization_lists(folder: Path) -> None:
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))["resources"]
    assert all((folder / name).exists() for name in listed)
    assert {name for name in listed if name.endswith(".yaml")} == {f.name for f in folder.glob("*.yaml")} - {
        "kustomization.yaml"
    }


@pytest.mark.parametrize("pod", list(pods()), ids=lambda pod: pod["containers"][0]["name"])
def test_a_pod_has_no_service_links_and_no_rights(pod: Manifest) -> None:
    """P10: links look like settings. The rest is what the restricted policy of Kubernetes asks for."""
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        assert "limits" in container["resources"]


def test_what_is_set_is_a_setting() -> None:
    """P10."""
    for name in ("jobhook-receiver", "jobhook-workers"):
        assert {entry["name"] for entry in named(name)["containers"][0]["env"]} <= NAMES
    for config in manifests("ConfigMap"):
        assert set(config["data"]) <= NAMES


def test_there_is_time_to_stop() -> None:
    """P6: for requests in hand and for handlers at work."""
    receiver, workers = named("jobhook-receiver"), named("jobhook-workers")
    until_nothing_comes = int(receiver["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert receiver["terminationGracePeriodSeconds"] > until_nothing_comes + SHUTDOWN_SECONDS
    assert workers["terminationGracePeriodSeconds"] > SETTINGS.handler_timeout + LEASE_MARGIN_SECONDS


def test_ports_paths_and_probes_are_those_of_the_code() -> None:
    """P9."""
    (receiver,) = named("jobhook-receiver")["containers"]
    (port,) = receiver["ports"]
    assert port == {"name": "http", "containerPort": SETTINGS.port}
    assert receiver["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert receiver["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert receiver["readinessProbe"]["timeoutSeconds"] > ANSWER_SECONDS
    (ingress,) = manifests("Ingress")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert (path["path"], path["pathType"]) == (PATH, "Prefix")  # with a slash at its end too
    services = {manifest["metadata"]["name"]: manifest["spec"]["ports"][0] for manifest in manifests("Service")}
    assert services["jobhook-receiver"] == {"name": "http", "port": 80, "targetPort": port["name"]}
    assert path["backend"]["service"] == {"name": "jobhook-receiver", "port": {"name": "http"}}
    (probe,) = (c["livenessProbe"]["exec"]["command"] for c in named("jobhook-workers")["containers"])
    assert probe == ["jobhook", "alive"]


def test_workers_are_never_none() -> None:
    """P2: their supervisors put what is due or lost back in line."""
    for kustomization in FOLDER.glob("*/kustomization.yaml"):
        for replicas in yaml.safe_load(kustomization.read_text("utf-8")).get("replicas", ()):
            assert replicas["count"] > 0
    assert all(deployment["spec"]["replicas"] > 1 for deployment in manifests("Deployment"))
    (scaled,) = manifests("ScaledObject")
    assert scaled["spec"]["scaleTargetRef"]["name"] == "jobhook-workers"
    assert scaled["spec"]["minReplicaCount"] > 1
    assert scaled["spec"]["fallback"]["replicas"] > 1
    assert "idleReplicaCount" not in scaled["spec"]


def test_keda_reads_what_a_receiver_tells() -> None:
    """The queue's length and the oldest open event, from metrics that are there."""
    (scaled,) = manifests("ScaledObject")
    source = (ROOT / "app" / "ops" / "metrics.py").read_text("utf-8")
    read = {trigger["metadata"]["valueLocation"] for trigger in scaled["spec"]["triggers"]}
    assert read == {'jobhook_inbox_events{state="queued"}', "jobhook_oldest_open_event_seconds"}
    assert all(f'"{name.partition("{")[0]}"' in source for name in read)
    assert {trigger["metadata"]["url"] for trigger in scaled["spec"]["triggers"]} == {"http://jobhook-receiver/metrics"}


def test_the_route_leads_to_the_webhook_alone() -> None:
    """P3, P6."""
    (route,) = manifests("HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert {match["path"]["value"] for match in rule["matches"]} == {PATH}
    assert {match["method"] for match in rule["matches"]} == {"POST", "GET", "HEAD"}
    assert rule["backendRefs"] == [{"name": "jobhook-receiver", "port": 80}]
    assert parse_duration(rule["timeouts"]["request"]) < HARD_ACK_LIMIT
    assert parse_duration(rule["timeouts"]["backendRequest"]) > SETTINGS.ack_budget
