"""What the chart comes to: goldens of what people install, and what differs between them."""

import charts
import helm_python as helm
import pytest
import yaml

BASE_MODEL = "smollm2-135m-instruct"


@pytest.mark.parametrize("case", charts.CASES)
def test_rendering_equals_its_golden_file(case: str) -> None:
    """A change of the chart shows as a change of objects: `make gen` writes the files again."""
    assert charts.golden_file(case).read_text() == charts.golden_text(case)


@pytest.mark.parametrize("case", charts.CASES)
def test_linter_finds_nothing(case: str) -> None:
    """Helm's own linter, warnings included; that the chart has no icon is only told."""
    report = helm.lint(str(charts.CHART), charts.CASES[case], strict=True)

    assert [m["error"] for m in report["messages"] if m["severity"] > 1] == []


def test_definitions_equal_the_generated_ones() -> None:
    """Nothing is lost between the generated files and the release but what Helm adds."""
    rendered = charts.render(charts.NEEDED)

    for path in sorted((charts.CHART / "files" / "crds").glob("*.yaml")):
        generated = yaml.safe_load(path.read_text())
        found = charts.find(rendered, generated["kind"], generated["metadata"]["name"])
        assert generated["spec"] == found["spec"]
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize(
    ("crds", "expected"),
    [
        ({"enabled": False}, []),
        ({"keep": False}, [None, None]),
        ({"keep": True}, ["keep", "keep"]),
    ],
    ids=["somebody-else's", "gone-with-the-release", "kept"],
)
def test_definitions_are_kept_or_left_out(crds: charts.Object, expected: list[str | None]) -> None:
    """Whoever removes a definition removes all its objects: that is asked for, never implied."""
    rendered = charts.render({**charts.NEEDED, "crds": crds})

    found = [
        (obj["metadata"].get("annotations") or {}).get("helm.sh/resource-policy")
        for obj in rendered
        if obj["kind"] == "CustomResourceDefinition"
    ]
    assert expected == found


def test_roles_hold_the_rules_of_the_files() -> None:
    """The rules that the tests run under are the ones that are installed."""
    rendered = charts.render(charts.NEEDED)
    rbac = charts.CHART / "files" / "rbac"

    for kind, name, file in (
        ("ClusterRole", "loraland-operator", "operator.yaml"),
        ("Role", "loraland-operator-lease", "operator-lease.yaml"),
    ):
        expected = yaml.safe_load((rbac / file).read_text())["rules"]
        assert expected == charts.find(rendered, kind, name)["rules"]


def test_confined_operator_has_no_right_outside_its_namespaces() -> None:
    """With a list of namespaces there are Roles in these, and nothing for the whole cluster."""
    values = {
        **charts.NEEDED,
        "operator": {"watchNamespaces": ["team-a", "team-b"]},
        "rbac": {"aggregate": False},
    }

    rendered = charts.render(values)

    assert not [obj for obj in rendered if obj["kind"].startswith("ClusterRole")]
    roles = {o["metadata"]["namespace"] for o in rendered if o["kind"] == "Role"}
    assert {"team-a", "team-b", charts.NAMESPACE} == roles
    operator = charts.find(rendered, "Deployment", "loraland-operator")
    env = charts.environment(operator["spec"]["template"]["spec"]["containers"][0])
    assert env["LORALAND_WATCH_NAMESPACES"] == "team-a,team-b"


def test_each_base_model_has_a_deployment_of_its_own() -> None:
    """An entry says for itself what differs, and has the rest in common."""
    rendered = charts.render(charts.EVERYTHING)

    slots = {
        obj["metadata"]["labels"]["loraland.dev/base-model"]: charts.environment(
            obj["spec"]["template"]["spec"]["containers"][0]
        )["LORALAND_NUM_SLOTS"]
        for obj in rendered
        if obj["kind"] == "Deployment" and "inference" in obj["metadata"]["name"]
    }
    assert slots == {BASE_MODEL: "8", "second": "4"}


def test_selectors_of_two_base_models_do_not_overlap() -> None:
    """A Service of one never sends to a pod of the other, nor to a test or prefetch pod."""
    rendered = charts.render(charts.EVERYTHING)
    pods = {
        f"{obj['kind']}/{obj['metadata']['name']}": obj["spec"]["template"]["metadata"]["labels"]
        for obj in rendered
        if obj["kind"] in {"Deployment", "Job", "DaemonSet"}
    }

    for service in (obj for obj in rendered if obj["kind"] == "Service"):
        selector = service["spec"]["selector"].items()
        found = [name for name, labels in pods.items() if selector <= labels.items()]
        assert [f"Deployment/{service['metadata']['name'].removesuffix('-headless')}"] == found


def test_scaled_deployment_has_no_number_of_replicas() -> None:
    """A number would undo at every upgrade what the autoscaler did."""
    scaled = charts.find(
        charts.render(charts.EVERYTHING), "Deployment", f"loraland-inference-{BASE_MODEL}"
    )

    assert "replicas" not in scaled["spec"]


def test_long_names_stay_within_what_a_service_may_have() -> None:
    """Two long names that begin alike stay two."""
    names = ["a" * 49 + letter for letter in "xy"]
    values = {
        **charts.NEEDED,
        "catalogue": {"baseModels": {n: {"source": {"directory": "/w"}} for n in names}},
        "inference": {"deployments": [{"baseModel": n} for n in names]},
    }

    rendered = charts.render(values, name="a-release-with-quite-a-long-name")

    services = [o["metadata"]["name"] for o in rendered if o["kind"] == "Service"]
    assert len(services) == len(set(services)) == 5
    assert all(len(name) <= 63 for name in services)


def test_passwords_of_the_evaluation_redis_reach_its_users() -> None:
    """The access list of the Redis and the Secret of the pods say the same."""
    rendered = charts.render(charts.EVALUATION)

    secret = charts.find(rendered, "Secret", "loraland-redis")["stringData"]
    assert "REPLACE" not in secret["users.acl"]
    for user in ("operator", "replica", "registry"):
        assert f"user {user} on >{secret[f'{user}-password']} " in secret["users.acl"]


def test_laptop_differs_from_the_defaults_only_where_its_values_say() -> None:
    """Images and arguments are those of the default values but for the keys of values-local."""
    store_and_redis = {key: charts.CASES["local"][key] for key in ("store", "redis")}
    default = charts.render({**charts.NEEDED, **store_and_redis, "image": {"registry": ""}})
    local = charts.render(charts.CASES["local"])
    allowed = {"LORALAND_DRAIN_GRACE_S"}

    for name in ("loraland-operator", f"loraland-inference-{BASE_MODEL}"):
        here, there = (
            charts.find(objects, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
            for objects in (local, default)
        )
        for key in ("image", "command", "args", "ports", "securityContext", "volumeMounts"):
            assert there.get(key) == here.get(key)
        differing = {
            variable
            for variable, value in charts.environment(here).items()
            if charts.environment(there).get(variable) != value
        }
        assert differing <= allowed


def test_notes_tell_the_next_command_and_what_is_missing() -> None:
    """Somebody who has just installed it knows what to type, and why nobody gets in yet."""
    told = charts.notes(charts.NEEDED)

    assert "kubectl apply -f examples/quickstart/job.yaml" in told
    assert f"dns:///loraland-inference-{BASE_MODEL}-headless.{charts.NAMESPACE}.svc:8500" in told
    assert "Nobody may call yet" in told
    assert "EVALUATION ONLY" not in told
