"""What may be said to the chart, and what it answers to what may not."""

import copy
import importlib.util
from collections.abc import Iterator
from typing import Any

import charts
import helm_python as helm
import pytest
import yaml

SCHEMA = charts.CHART / "values.schema.json"
VALUES = yaml.safe_load((charts.CHART / "values.yaml").read_text())


def load_generator() -> Any:
    spec = importlib.util.spec_from_file_location("schema", charts.CHART.parent / "schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(values: charts.Object, path: str = "") -> Iterator[str]:
    for key, value in values.items():
        inner = f"{path}.{key}" if path else key
        yield inner
        if isinstance(value, dict):
            yield from leaves(value, inner)


def test_schema_is_the_one_of_the_values() -> None:
    """`make gen` has been run since the values were changed."""
    assert SCHEMA.read_text() == load_generator().write(charts.CHART)


def test_every_value_is_described() -> None:
    """Each value has a comment, or lies in a map that has one."""
    told = set(load_generator().descriptions((charts.CHART / "values.yaml").read_text()))

    def is_told(path: str) -> bool:
        parts = path.split(".")
        return any(".".join(parts[:n]) in told for n in range(1, len(parts) + 1))

    missing = [
        path
        for path in leaves(VALUES)
        if not is_told(path) and not any(p.startswith(path + ".") for p in told)
    ]
    assert missing == []


def closed_maps() -> list[str]:
    """Return the maps in which Kubernetes does not decide what may stand."""

    def walk(schema: charts.Object, path: str) -> Iterator[str]:
        for key, inner in schema.get("properties", {}).items():
            where = f"{path}.{key}" if path else key
            if inner.get("additionalProperties") is False:
                yield where
            yield from walk(inner, where)

    return list(walk(load_generator().build((charts.CHART / "values.yaml").read_text()), ""))


@pytest.mark.parametrize("path", ["", *closed_maps()])
def test_misspelt_value_is_refused_by_name(path: str) -> None:
    """A typo never installs the default in silence."""
    values = copy.deepcopy(charts.NEEDED)
    place = values
    for part in filter(None, path.split(".")):
        place = place.setdefault(part, {})
    place["mispelt"] = 1

    with pytest.raises(helm.HelmValuesError, match="'mispelt' not allowed"):
        charts.render(values)


def test_misspelt_value_of_one_deployment_is_refused() -> None:
    """What holds for all deployments holds for one."""
    deployments = [{"baseModel": "smollm2-135m-instruct", "numSlot": 4}]

    with pytest.raises(helm.HelmValuesError, match="'numSlot' not allowed"):
        charts.render({**charts.NEEDED, "inference": {"deployments": deployments}})


WRONG: dict[str, tuple[charts.Object, str]] = {
    "number-as-text": ({"inference": {"numSlots": "8"}}, "numSlots"),
    "no-slots": ({"inference": {"numSlots": 0}}, "numSlots"),
    "latest": ({"images": {"operator": {"repository": "a", "tag": "latest"}}}, "tag"),
    "digest": ({"images": {"operator": {"repository": "a", "digest": "abc"}}}, "digest"),
    "password-in-url": ({"redis": {"url": "redis://user:secret@host"}}, "redis/url"),
    "cache-kind": ({"inference": {"cache": {"kind": "nfs"}}}, "cache/kind"),
    "log-level": ({"logs": {"level": "LOUD"}}, "logs/level"),
    "no-limits": ({"operator": {"resources": {"limits": None}}}, "limits"),
    "root": ({"podSecurity": {"runAsUser": 0}}, "runAsUser"),
    "two-sources": (
        {"catalogue": {"baseModels": {"a": {"source": {"directory": "/w", "s3": "s3://b/p"}}}}},
        "source",
    ),
    "token-in-clear": (
        {"tokens": {"tokens": [{"sha256": "secret", "tenant": "a", "roles": ["inference"]}]}},
        "sha256",
    ),
}


@pytest.mark.parametrize(("values", "named"), WRONG.values(), ids=WRONG)
def test_wrong_value_is_refused_where_it_stands(values: charts.Object, named: str) -> None:
    """The message leads to the value."""
    with pytest.raises(helm.HelmValuesError, match=named):
        charts.render({**charts.NEEDED, **values})


def one(**settings: Any) -> charts.Object:
    return {"inference": settings}


TOGETHER: dict[str, tuple[charts.Object, str]] = {
    "no-bucket": ({"store": {"bucket": ""}}, "store.bucket: name the bucket"),
    "no-redis": ({"redis": {"url": "", "existingSecret": ""}}, "redis: set redis.url"),
    "two-autoscalers": (
        one(autoscaling={"hpa": {"enabled": True}, "keda": {"enabled": True}}),
        "exclude each other",
    ),
    "bounds": (
        one(autoscaling={"hpa": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}),
        "minReplicas 5 is more than maxReplicas 2",
    ),
    "no-certificate": (one(tls={"enabled": True}), "wants tls.existingSecret or"),
    "no-issuer": (
        one(tls={"enabled": True, "certManager": {"enabled": True}}),
        "issuerRef.name: name the issuer",
    ),
    "prefetch-into-nothing": (one(prefetch={"enabled": True}), "a cache that outlives its pod"),
    "killed-while-draining": (
        one(drainGraceS=60, terminationGracePeriodSeconds=30),
        "must exceed drainGraceS",
    ),
    "killed-after-a-long-pause": (
        one(preStopSleepS=20, drainGraceS=25, terminationGracePeriodSeconds=45),
        "must exceed drainGraceS 25 and preStopSleepS 20 together",
    ),
    "unknown-base-model": (
        one(deployments=[{"baseModel": "large"}]),
        "large is not in catalogue.baseModels, which has: smollm2-135m-instruct",
    ),
    "twice": (
        one(deployments=[{"baseModel": "smollm2-135m-instruct"}] * 2),
        "has a deployment already",
    ),
    "no-way-out": ({"networkPolicy": {"egress": {"enabled": True}}}, "networkPolicy.egress.to"),
}


@pytest.mark.parametrize(("values", "expected"), TOGETHER.values(), ids=TOGETHER)
def test_values_that_do_not_go_together_are_refused(values: charts.Object, expected: str) -> None:
    """What only shows together is said in a sentence, before anything is installed."""
    with pytest.raises(helm.HelmRenderError, match=expected):
        charts.render({**charts.NEEDED, **values})
