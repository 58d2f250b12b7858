"""The operator's own pods, as the chart makes them."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from penstock.shell.settings import load
from tests.unit.chart.rendering import ChartRefused, Render


def test_it_needs_no_values(render: Render) -> None:
    env = render().env()

    assert env["PENSTOCK_PROMETHEUS_URL"] == ""
    assert env["PENSTOCK_NAMESPACES"] == ""
    assert env["PENSTOCK_SCRAPE_INTERVAL"] == "15"
    assert env["PENSTOCK_RUNTIME_IMAGE"] == "penstock.local/runtime:dev"
    assert env["PENSTOCK_LEASE_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_values_reach_the_environment(render: Render) -> None:
    env = render(
        prometheus={"url": "http://prometheus.monitoring:9090"},
        watchNamespaces=["ml", "fraud"],
        scrapeInterval=5,
        logFormat="text",
        extraEnv=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    ).env()

    assert env["PENSTOCK_PROMETHEUS_URL"] == "http://prometheus.monitoring:9090"
    assert env["PENSTOCK_NAMESPACES"] == "ml,fraud"
    assert env["PENSTOCK_SCRAPE_INTERVAL"] == "5"
    assert env["PENSTOCK_LOG_FORMAT"] == "text"
    assert env["HTTPS_PROXY"] == "http://proxy:3128"


def test_the_operators_own_settings_take_what_the_chart_gives(render: Render) -> None:
    env = render(
        prometheus={
            "url": "https://prometheus.monitoring:9090",
            "matchers": {"cluster": "eu1", "tenant": "a"},
            "auth": {"secretName": "prometheus", "username": "penstock", "passwordKey": "password", "caKey": "ca.crt"},
        },
        watchNamespaces=["ml"],
        scrapeInterval=5,
    ).env()

    settings = load({name: value for name, value in env.items() if isinstance(value, str)})

    assert settings.prometheus_matchers == {"cluster": "eu1", "tenant": "a"}
    assert str(settings.prometheus_ca_file) == "/etc/penstock/prometheus/ca.crt"
    assert str(settings.prometheus_password_file) == "/etc/penstock/prometheus/password"
    assert settings.prometheus_token_file is None
    assert settings.namespaces == ("ml",)
    assert settings.scrape_seconds == 5
    assert {name for name in env if name.startswith("PENSTOCK_")} <= known_variables()


def known_variables() -> set[str]:
    """The variables that the operator reads."""
    return {f"PENSTOCK_{name}" for name in re.findall(r'(?:get|require)\("([A-Z_]+)"', inspect.getsource(load))}


def test_prometheus_credentials_are_mounted(render: Render) -> None:
    pod = render(prometheus={"auth": {"secretName": "prometheus", "tokenKey": "token"}}).pod()

    assert {"name": "prometheus", "secret": {"secretName": "prometheus"}} in pod["volumes"]
    mounts = {m["name"]: m for m in pod["containers"][0]["volumeMounts"]}
    assert mounts["prometheus"] == {"name": "prometheus", "mountPath": "/etc/penstock/prometheus", "readOnly": True}
    assert "prometheus" not in {v["name"] for v in render().pod()["volumes"]}


def test_every_container_is_locked_down(render: Render) -> None:
    pod = render().pod()

    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert container["resources"]["requests"]["memory"] == "128Mi"
        assert container["resources"]["limits"]["memory"] == "512Mi"


def test_probes_ask_the_port_that_the_operator_is_told(render: Render) -> None:
    rendered = render()
    operator = rendered.pod()["containers"][0]

    assert {p["name"]: p["containerPort"] for p in operator["ports"]} == {"http": 8080}
    assert rendered.env()["PENSTOCK_HTTP_PORT"] == "8080"
    assert operator["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert operator["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


def test_services_select_the_operators_pods(render: Render) -> None:
    rendered = render(replicas=2)
    labels = rendered.one("Deployment")["spec"]["template"]["metadata"]["labels"]

    for selector in (
        rendered.one("Service", "penstock-metrics")["spec"]["selector"],
        rendered.one("Deployment")["spec"]["selector"]["matchLabels"],
        rendered.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


def test_a_single_replica_blocks_no_drain(render: Render) -> None:
    assert "PodDisruptionBudget" not in render(replicas=1).kinds()
    assert render(replicas=2).one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_an_image_can_be_pinned_by_digest(render: Render) -> None:
    digest = "sha256:" + "a" * 64
    rendered = render(image={"operator": {"repository": "example.com/operator", "tag": digest}})

    assert rendered.pod()["containers"][0]["image"] == f"example.com/operator@{digest}"


def test_monitors_are_made_where_they_are_asked_for(render: Render) -> None:
    assert not {"PodMonitor", "ServiceMonitor"} & render().kinds()

    on = {"enabled": True, "labels": {"release": "kube-prometheus-stack"}}
    rendered = render(metrics={"podMonitor": on, "serviceMonitor": on}, scrapeInterval=5)
    pods = rendered.one("PodMonitor", "penstock-models")

    assert pods["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    (selected,) = pods["spec"]["selector"]["matchExpressions"]
    assert selected == {"key": "penstock.dev/model", "operator": "Exists"}
    assert pods["spec"]["namespaceSelector"] == {"any": True}
    assert pods["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "5s"}]
    assert rendered.one("ServiceMonitor")["spec"]["endpoints"][0]["port"] == "http"


def test_models_are_monitored_in_the_watched_namespaces_only(render: Render) -> None:
    rendered = render(watchNamespaces=["ml"], metrics={"podMonitor": {"enabled": True}})
    monitor = rendered.one("PodMonitor", "penstock-models")

    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["ml"]}


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replica": 2}, "replica"),
        ({"scrapeInterval": "15s"}, "scrapeInterval"),
        ({"logFormat": "xml"}, "logFormat"),
        ({"prometheus": {"url": "prometheus:9090"}}, "url"),
        ({"prometheus": {"url": "http://user:secret@prometheus:9090"}}, "url"),
        ({"watchNamespaces": "ml"}, "watchNamespaces"),
        ({"image": {"operator": {"tag": ""}}}, "tag"),
        ({"prometheus": {"auth": {"tokenKey": "token"}}}, "prometheus.auth.secretName"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name is needed"),
    ],
)
def test_wrong_values_are_refused_by_name(render: Render, values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ChartRefused, match=complaint):
        render(**values)
