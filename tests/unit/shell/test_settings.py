"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.shell.settings import InvalidSettings, load

IMAGE = {"PENSTOCK_RUNTIME_IMAGE": "penstock.local/runtime:dev"}


def test_defaults_need_only_the_image() -> None:
    settings = load(IMAGE)
    assert settings.runtime_image == "penstock.local/runtime:dev"
    assert (settings.namespaces, settings.prometheus, settings.http_port) == ((), None, 8080)
    assert (settings.rules.agent_image, settings.rules.scrape_seconds) == ("penstock.local/runtime:dev", 15.0)


def test_everything_can_be_set() -> None:
    settings = load(
        {
            **IMAGE,
            "PENSTOCK_NAMESPACES": "ml, fraud,",
            "PENSTOCK_PROMETHEUS_URL": "https://prometheus.example:9090/prefix/",
            "PENSTOCK_PROMETHEUS_TOKEN_FILE": "/secrets/token",
            "PENSTOCK_PROMETHEUS_MATCHERS": 'cluster=eu1, tenant="a"',
            "PENSTOCK_SCRAPE_INTERVAL": "5",
            "PENSTOCK_LOG_FORMAT": "TEXT",
            "PENSTOCK_HTTP_PORT": "9999",
            "PENSTOCK_LEASE_NAMESPACE": "ops",
            "PENSTOCK_WORKERS": "3",
        }
    )
    assert settings.namespaces == ("ml", "fraud")
    assert settings.prometheus is not None
    assert settings.prometheus.url == "https://prometheus.example:9090/prefix/"
    assert settings.prometheus.token_file == Path("/secrets/token")
    assert settings.prometheus.matchers == {"cluster": "eu1", "tenant": "a"}
    assert (settings.rules.scrape_seconds, settings.log_format, settings.workers) == (5.0, "text", 3)
    assert (settings.http_port, settings.lease_namespace) == (9999, "ops")


def test_an_empty_variable_is_an_unset_one() -> None:
    assert load({**IMAGE, "PENSTOCK_PROMETHEUS_URL": "", "PENSTOCK_SCRAPE_INTERVAL": " "}).prometheus is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("RUNTIME_IMAGE", "", "image of the model runtime"),
        ("NAMESPACES", "ml,ML", "'ML' is no name of a namespace"),
        ("PROMETHEUS_URL", "prometheus:9090", "http://prometheus.monitoring.svc:9090"),
        ("PROMETHEUS_URL", "http://user:secret@prometheus:9090", "PASSWORD_FILE"),
        ("PROMETHEUS_URL", "http://prometheus/?x=1", r"without \?"),
        ("PROMETHEUS_TOKEN_FILE", "token", "absolute path"),
        ("PROMETHEUS_MATCHERS", "cluster", "cluster=eu1,tenant=a"),
        ("SCRAPE_INTERVAL", "15s", "number from 1 to 600"),
        ("SCRAPE_INTERVAL", "nan", "number from 1 to 600"),
        ("LOG_FORMAT", "xml", "json, text"),
        ("HTTP_PORT", "70000", "0 to 65535"),
        ("LEASE_NAMESPACE", "a/b", "no name of a namespace"),
        ("WORKERS", "0", "1 to 256"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_must_be(name: str, value: str, says: str) -> None:
    with pytest.raises(InvalidSettings, match=f"PENSTOCK_{name}=.*{says}"):
        load({**IMAGE, f"PENSTOCK_{name}": value})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InvalidSettings) as error:
        load({"PENSTOCK_LOG_FORMAT": "xml", "PENSTOCK_WORKERS": "many"})
    assert [line.split("=")[0] for line in str(error.value).splitlines()[1:]] == [
        "PENSTOCK_RUNTIME_IMAGE",
        "PENSTOCK_LOG_FORMAT",
        "PENSTOCK_WORKERS",
    ]
