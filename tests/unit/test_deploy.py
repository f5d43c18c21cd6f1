"""Files that need a Docker engine or a Kubernetes cluster fit their schemas, and the names in them exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from typer.testing import CliRunner

from frontend.routes.openapi import document
from frontend.routes.schemas import SCHEMAS
from lifecycle.cli.main import app
from lifecycle.settings import PREFIX, Settings
from tests import metrics_doc

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
NGINX = (ROOT / "deploy" / "nginx.conf").read_text()
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)

KUBERNETES = ROOT / "deploy" / "kubernetes"
CUSTOM = ("autoscaling.yaml", "autoscaling-by-http.yaml", "monitoring.yaml")  # kinds that operators bring
OBJECTS: list[dict[str, Any]] = [
    document
    for path in sorted(KUBERNETES.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text())
]
DEPLOYMENTS = [found for found in OBJECTS if found["kind"] == "Deployment"]
WORKLOADS = [found for found in OBJECTS if found["kind"] in ("Deployment", "StatefulSet")]

# Of the process rather than of what it does.
OF_THE_PROCESS = {"LIFECYCLE_LOG_FORMAT", "LIFECYCLE_ALIVE_FILE"}
_MARGIN_SECS = 10  # engines that have to be ended, last words, last spans


def named(objects: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("found", objects, ids=[f"{o['kind']} {o['metadata']['name']}" for o in objects])


def understood(variable: str) -> bool:
    return (
        not variable.startswith(PREFIX)
        or variable.removeprefix(PREFIX).lower() in Settings.model_fields
        or variable in OF_THE_PROCESS
    )


def check_command(command: list[str]) -> None:
    answer = CliRunner().invoke(app, [*command, "--help"])
    assert answer.exit_code == 0
    assert all(word in answer.output for word in command if word.startswith("--"))


# Compose


def test_compose_has_everything_and_is_valid() -> None:
    assert OURS == ["frontend-1", "frontend-2", "worker-1", "worker-2"]
    assert set(SERVICES) == {"redis", "nginx", "prometheus", "grafana", *OURS}
    schema = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    schema.PyCompose.from_json(json.dumps(COMPOSE)).validate()


@pytest.mark.parametrize("name", OURS)
def test_every_setting_exists_and_every_command_is_understood(name: str) -> None:
    assert all(map(understood, SERVICES[name]["environment"]))
    check_command(SERVICES[name]["command"])


@pytest.mark.parametrize("name", OURS)
def test_a_drain_is_not_cut_short(name: str) -> None:
    service = SERVICES[name]
    grace_secs = int(service["stop_grace_period"].removesuffix("s"))
    assert grace_secs >= int(service["environment"]["LIFECYCLE_DRAIN_TIMEOUT_SECS"]) + _MARGIN_SECS


@pytest.mark.parametrize("name", OURS)
def test_a_container_may_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["tmpfs"] == ["/tmp"]  # where the sign of life is


def test_ports_are_published_to_this_machine_alone_as_long_as_nobody_needs_a_key() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_balancer_knows_the_frontends_and_buffers_nothing() -> None:
    frontends = [name for name in OURS if name.startswith("frontend")]
    upstreams = re.findall(r"upstream \w+ \{(.*?)\n  \}", NGINX, re.DOTALL)
    assert [re.findall(r"server ([\w-]+):8000", upstream) for upstream in upstreams] == [frontends, frontends]
    assert "proxy_buffering off;" in NGINX
    published = {port.split(":")[-1] for port in SERVICES["nginx"]["ports"]}
    assert set(re.findall(r"listen (\d+);", NGINX)) == published


def test_a_post_is_sent_twice_only_after_a_503_and_under_the_same_id() -> None:
    before, again = NGINX.split("location @again {")
    assert "non_idempotent;" not in before
    assert "http_503 non_idempotent;" in again
    assert "proxy_set_header X-Request-Id $id;" in before
    assert "proxy_set_header" not in again, "one in a location would undo those of the server"


def test_prometheus_scrapes_the_frontends_and_grafana_finds_it() -> None:
    [job] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert job["job_name"] == "lifecycle"
    assert job["static_configs"][0]["targets"] == [f"{name}:8000" for name in OURS if name.startswith("frontend")]
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "lifecycle.yml").read_text())["providers"]
    targets = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/lifecycle.json" in targets


def test_what_is_mounted_exists() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_dependencies_exist_and_can_become_healthy() -> None:
    for service in SERVICES.values():
        for name, needed in service.get("depends_on", {}).items():
            assert needed["condition"] == "service_healthy"
            assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_redis_never_evicts() -> None:
    [in_kubernetes] = [found for found in OBJECTS if found["kind"] == "StatefulSet"]
    for command in (SERVICES["redis"]["command"], containers(in_kubernetes)[0]["args"]):
        assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
        assert command[command.index("--appendonly") + 1] == "yes"


# systemd


@pytest.mark.parametrize("role", ["frontend", "worker"])
def test_a_unit_starts_what_there_is_and_lets_it_drain(role: str) -> None:
    lines = (ROOT / "deploy" / "systemd" / f"lifecycle-{role}@.service").read_text().splitlines()
    unit = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    executable, *command = unit["ExecStart"].split()
    assert Path(executable).name == "lifecycle"
    check_command(command)
    assert int(unit["TimeoutStopSec"]) >= Settings.model_fields["drain_timeout_secs"].default + _MARGIN_SECS


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("role", ["frontend", "worker"])
def test_systemd_finds_nothing_wrong_with_a_unit(role: str, tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "systemd" / f"lifecycle-{role}@.service").read_text()
    unit = tmp_path / f"lifecycle-{role}@x.service"
    unit.write_text(text.replace("/opt/lifecycle/bin/lifecycle", "/bin/true"))
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=30, check=False
    )
    complaints = [line for line in (run.stdout + run.stderr).splitlines() if unit.name in line]
    assert not complaints


# The image


def test_the_image_copies_what_is_there_and_is_given_it() -> None:
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)]
    names = {name for names in copied for name in names}
    assert all((ROOT / name).exists() for name in names)
    assert {"lifecycle", "frontend", "worker"} <= names
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "**"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == names


def test_the_image_runs_as_nobody_special() -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users[-1].isdigit(), "a name would not tell Kubernetes that it is not root"
    assert int(users[-1]) > 0
    assert all(map(understood, re.findall(r"LIFECYCLE_\w+", DOCKERFILE)))


def test_the_sign_of_life_is_looked_for_as_it_is_given(tmp_path: Path) -> None:
    [in_image] = re.findall(r"CMD (test -n .*)$", DOCKERFILE, re.MULTILINE)
    [worker] = [found for found in DEPLOYMENTS if found["metadata"]["name"] == "worker"]
    shell, flag, in_kubernetes = containers(worker)[0]["livenessProbe"]["exec"]["command"]
    assert (shell, flag) == ("sh", "-c")
    assert containers(worker)[0]["startupProbe"]["exec"] == containers(worker)[0]["livenessProbe"]["exec"]
    alive = tmp_path / "alive"
    for probe in (in_image, in_kubernetes):
        assert _probe(probe, alive) != 0
        alive.touch()
        assert _probe(probe, alive) == 0
        subprocess.run(["touch", "-d", "1 minute ago", alive], check=True)
        assert _probe(probe, alive) != 0
        alive.unlink()


def _probe(command: str, alive: Path) -> int:
    environment = {"LIFECYCLE_ALIVE_FILE": str(alive), "PATH": "/usr/bin:/bin"}
    return subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False).returncode


# Kubernetes


def containers(found: dict[str, Any]) -> list[dict[str, Any]]:
    spec: list[dict[str, Any]] = found["spec"]["template"]["spec"]["containers"]
    return spec


@named([found for found in OBJECTS if "." not in found["apiVersion"].split("/")[0] or "k8s.io" in found["apiVersion"]])
def test_every_object_fits_the_schema_of_kubernetes(found: dict[str, Any]) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    schemas.validate(found, schemas.latest_version(), strict=True)


def test_the_kustomization_lists_every_file_but_those_that_need_an_operator() -> None:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", *CUSTOM}
    assert set(kustomization["resources"]) == files


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl_builds_it() -> None:
    run = subprocess.run(["kubectl", "kustomize", str(KUBERNETES)], capture_output=True, timeout=60, check=True)
    built = list(yaml.safe_load_all(run.stdout))
    assert {o["metadata"].get("namespace") for o in built if o["kind"] != "Namespace"} == {"lifecycle"}
    images = {c["image"] for o in built if o["kind"] == "Deployment" for c in containers(o)}
    assert images == {"registry.example.com/lifecycle:0.1.0"}


@named(DEPLOYMENTS)
def test_a_pod_has_the_time_to_drain(found: dict[str, Any]) -> None:
    [config] = [o["data"] for o in OBJECTS if o["kind"] == "ConfigMap"]
    pod = found["spec"]["template"]["spec"]
    hook = containers(found)[0].get("lifecycle", {}).get("preStop", {})
    before_secs = int(hook["exec"]["command"][1]) if hook else 0
    drain_secs = int(config["LIFECYCLE_DRAIN_TIMEOUT_SECS"])
    assert pod["terminationGracePeriodSeconds"] >= before_secs + drain_secs + _MARGIN_SECS
    assert bool(hook) is (found["metadata"]["name"] == "frontend"), "load balancers send to frontends alone"


@named(DEPLOYMENTS)
def test_what_a_pod_is_told_is_understood_and_there(found: dict[str, Any]) -> None:
    [container] = containers(found)
    check_command(container["args"])
    known = {(o["kind"], o["metadata"]["name"]): o for o in OBJECTS}
    for source in container["envFrom"]:
        assert all(map(understood, known["ConfigMap", source["configMapRef"]["name"]]["data"]))
    assert all(understood(variable["name"]) for variable in container.get("env", []))
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in found["spec"]["template"]["spec"]["volumes"]}


@named(WORKLOADS)
def test_a_pod_may_do_no_more_than_it_must_and_says_what_it_needs(found: dict[str, Any]) -> None:
    pod = found["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    for container in containers(found):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert "livenessProbe" in container


def test_redis_away_restarts_nobody() -> None:
    for found in DEPLOYMENTS:
        liveness = containers(found)[0]["livenessProbe"]
        assert liveness.get("httpGet", {}).get("path", "/live") == "/live"
    [frontend] = [found for found in DEPLOYMENTS if found["metadata"]["name"] == "frontend"]
    assert containers(frontend)[0]["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_selectors_find_their_pods() -> None:
    labels = {o["metadata"]["name"]: o["spec"]["template"]["metadata"]["labels"] for o in WORKLOADS}
    for found in OBJECTS:
        name, spec = found["metadata"]["name"], found.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector:
            assert selector.get("matchLabels", selector).items() <= labels[name].items()
        target = spec.get("scaleTargetRef")
        if target:
            assert target["name"] in labels
    budgets = {o["metadata"]["name"] for o in OBJECTS if o["kind"] == "PodDisruptionBudget"}
    assert budgets == {o["metadata"]["name"] for o in DEPLOYMENTS}


def test_workers_are_scaled_by_series_that_exist() -> None:
    triggers = [trigger for trigger in _triggers() if trigger["type"] == "prometheus"]
    assert len(triggers) == 2
    for trigger in triggers:
        assert metrics_doc.used(trigger["metadata"]["query"]) <= metrics_doc.series()
        assert trigger["metadata"]["ignoreNullValues"] == "false", "no answer would read as no load"
        assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_workers_are_scaled_by_an_answer_that_a_frontend_gives() -> None:
    [trigger] = [trigger for trigger in _triggers() if trigger["type"] == "metrics-api"]
    url = urlsplit(trigger["metadata"]["url"])
    assert (url.scheme, url.hostname, url.port) == ("http", "frontend.lifecycle", None), "the service has port 80"
    operation = document()["paths"][url.path]["get"]
    assert set(parse_qs(url.query)) <= {parameter["name"] for parameter in operation["parameters"]}
    assert SCHEMAS["Inflight"]["properties"][trigger["metadata"]["valueLocation"]]["type"] == "integer"
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    [authentication] = [found for found in OBJECTS if found["kind"] == "TriggerAuthentication"]
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    assert (trigger["metadata"]["authMode"], authentication["spec"]["secretTargetRef"][0]["parameter"]) == (
        "bearer",
        "token",
    )


def _triggers() -> list[dict[str, Any]]:
    scaled = [found for found in OBJECTS if found["kind"] == "ScaledObject"]
    for found in scaled:
        assert found["spec"]["scaleTargetRef"]["name"] in {deployment["metadata"]["name"] for deployment in DEPLOYMENTS}
    return [trigger for found in scaled for trigger in found["spec"]["triggers"]]
