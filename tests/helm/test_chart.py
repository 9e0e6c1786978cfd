"""The chart renders what topology.yaml says, refuses what cannot work, and asks for no rights that it does not need."""

from __future__ import annotations

import re
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner

import encoders.cli
from streamproc.cli import commands
from streamproc.settings import PREFIX, Settings, read_settings
from streamproc.topology.model import load
from tests.helm.helm_process import CHART, HelmRefused, chart, linted, packaged
from tests.helm.rendered import Manifest, containers, environment, of_kind, pods, render
from tests.helm.values_table import leaves, rewritten, rows

TOPOLOGY = load()
WAYS = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
STORE = {"url": "s3://objects"}
EVERYTHING = ("production", "gpu")  # together they switch on everything that is off by default


def values_of(way: str) -> dict[str, Any]:
    return yaml.safe_load(WAYS[way].read_text()) or {}


@pytest.fixture(params=WAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """Each supported way to install."""
    return render(**values_of(request.param))


def workload(agent: str, **values: object) -> Manifest:
    """The one container of an agent's pods."""
    found: Manifest = of_kind(render(**values), "StatefulSet")[f"demo-streamproc-{agent}"]["spec"]["template"]["spec"]
    return found


def sweep(**values: object) -> Manifest:
    """The pod that sweeps evidence frames."""
    found: Manifest = of_kind(render(**values), "CronJob")["demo-streamproc-sweep"]["spec"]["jobTemplate"]["spec"][
        "template"
    ]["spec"]
    return found


def refusal(**values: object) -> str:
    with pytest.raises(HelmRefused) as refused:
        render(**values)
    return str(refused.value)


# --- what the topology says ---------------------------------------------------------------------------------------


def test_it_should_render_one_workload_per_agent_of_the_topology(manifests: list[Manifest]) -> None:
    sets = of_kind(manifests, "StatefulSet")

    assert {f"demo-streamproc-{agent}" for agent in TOPOLOGY.agents} == set(sets)
    assert {agent: ["streamproc", "run", agent] for agent in TOPOLOGY.agents} == {
        name.removeprefix("demo-streamproc-"): one["spec"]["template"]["spec"]["containers"][0]["command"]
        for name, one in sets.items()
    }


def test_it_should_hold_the_topology_as_a_file_once_packaged(tmp_path: Path) -> None:
    with tarfile.open(packaged(tmp_path)) as archive:
        inside = archive.extractfile("streamproc/files/topology.yaml")
        assert inside is not None

        assert (CHART.parents[1] / "topology.yaml").read_bytes() == inside.read()


def test_it_should_tell_each_agent_only_of_what_it_needs() -> None:
    needs = {
        "STREAMPROC_MILVUS_URI": {name for name, agent in TOPOLOGY.agents.items() if "index" in agent.needs},
        "STREAMPROC_OBJECT_STORE": {name for name, agent in TOPOLOGY.agents.items() if "objects" in agent.needs},
        "STREAMPROC_MEDIA_PREFIXES": {name for name, agent in TOPOLOGY.agents.items() if "objects" in agent.needs},
    }
    told = {
        name.removeprefix("StatefulSet/demo-streamproc-"): set(environment(container))
        for name, container in containers(render(**values_of("production")))
        if name.startswith("StatefulSet")
    }

    assert needs == {variable: {agent for agent, names in told.items() if variable in names} for variable in needs}


def test_it_should_refuse_an_agent_that_the_topology_does_not_have() -> None:
    assert "recap" in refusal(agents={"recap": {}})


def test_its_schema_should_know_exactly_the_agents_of_the_topology() -> None:
    schema = chart().schema or {}

    assert set(TOPOLOGY.agents) == set(schema["properties"]["agents"]["properties"])
    assert set(TOPOLOGY.agents) == set(chart().values["agents"])


# --- replicas and partitions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", TOPOLOGY.agents)
def test_it_should_refuse_more_replicas_than_partitions(agent: str) -> None:
    assert f"agents.{agent}: replicas 65 is more than the 64 partitions" in refusal(agents={agent: {"replicas": 65}})

    render(agents={agent: {"replicas": 64}})


def test_it_should_count_the_partitions_that_the_topics_are_made_with() -> None:
    assert "replicas 5 is more than the 4 partitions" in refusal(
        topics={"partitions": 4}, agents={"match": {"replicas": 5}}
    )

    render(topics={"partitions": 128}, agents={"match": {"replicas": 128}})


def test_it_should_refuse_scaling_beyond_the_partitions() -> None:
    scaling = {"enabled": True, "maxReplicas": 65}

    assert "agents.perceive: autoscaling.maxReplicas 65 is more than the 64" in refusal(
        agents={"perceive": {"autoscaling": scaling}}
    )


def test_it_should_refuse_scaling_bounds_that_cross() -> None:
    scaling = {"enabled": True, "minReplicas": 9, "maxReplicas": 8}

    assert "agents.spot: autoscaling.minReplicas 9 is more than maxReplicas 8" in refusal(
        agents={"spot": {"autoscaling": scaling}}
    )


def test_it_should_refuse_a_fallback_beyond_the_most_workers() -> None:
    scaling = {"enabled": True, "maxReplicas": 2, "fallback": {"replicas": 3}}

    assert "agents.spot: autoscaling.fallback.replicas 3 is more than maxReplicas 2" in refusal(
        agents={"spot": {"autoscaling": scaling}}
    )


def test_it_should_leave_the_number_of_workers_to_the_scaler_where_there_is_one() -> None:
    manifests = render(agents={"perceive": {"autoscaling": {"enabled": True}}})
    sets, scalers = of_kind(manifests, "StatefulSet"), of_kind(manifests, "ScaledObject")

    assert "replicas" not in sets["demo-streamproc-perceive"]["spec"]
    assert 1 == sets["demo-streamproc-match"]["spec"]["replicas"]
    assert ["demo-streamproc-perceive"] == list(scalers)


def test_it_should_scale_on_the_lag_of_every_topic_that_the_agent_reads() -> None:
    manifests = render(agents={"index": {"autoscaling": {"enabled": True}}})
    spec = of_kind(manifests, "ScaledObject")["demo-streamproc-index"]["spec"]
    told = environment(
        of_kind(manifests, "StatefulSet")["demo-streamproc-index"]["spec"]["template"]["spec"]["containers"][0]
    )

    assert list(TOPOLOGY.agents["index"].reads) == [trigger["metadata"]["topic"] for trigger in spec["triggers"]]
    assert {told["STREAMPROC_GROUP_PREFIX"] + "index"} == {
        trigger["metadata"]["consumerGroup"] for trigger in spec["triggers"]
    }
    assert {("true", "true")} == {
        (trigger["metadata"]["limitToPartitionsWithLag"], trigger["metadata"]["excludePersistentLag"])
        for trigger in spec["triggers"]
    }
    assert {"kafka:9092"} == {trigger["metadata"]["bootstrapServers"] for trigger in spec["triggers"]}
    assert 1 == spec["minReplicaCount"]
    assert {"failureThreshold": 4, "replicas": 2} == spec["fallback"]


# --- settings -----------------------------------------------------------------------------------------------------


def test_it_should_set_only_settings_that_a_worker_knows(manifests: list[Manifest]) -> None:
    known = {PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)}
    named = {
        variable["name"]
        for _, container in containers(manifests)
        for variable in container["env"]
        if variable["name"].startswith(PREFIX)
    }

    assert set() == named - known
    for _, container in containers(manifests):
        read_settings(environment(container))


def test_it_should_keep_service_variables_out_of_the_settings(manifests: list[Manifest]) -> None:
    # a Service called streamproc would set STREAMPROC_PORT, and a worker refuses a setting that it does not know
    assert {False} == {pod["enableServiceLinks"] for _, pod in pods(manifests)}


def test_it_should_give_every_worker_its_pods_name_in_the_group() -> None:
    for agent in TOPOLOGY.agents:
        variables = {each["name"]: each for each in workload(agent)["containers"][0]["env"]}

        assert {"fieldRef": {"fieldPath": "metadata.name"}} == variables["STREAMPROC_WORKER_ID"]["valueFrom"]


def test_it_should_put_two_installs_into_different_groups_unless_told_otherwise() -> None:
    def prefix(**values: object) -> str:
        return environment(workload("spot", **values)["containers"][0])["STREAMPROC_GROUP_PREFIX"]

    assert ("demo-streamproc-", "room.") == (prefix(), prefix(groupPrefix="room."))


def test_it_should_listen_where_probes_can_reach_it() -> None:
    container = workload("spot", healthPort=9000)["containers"][0]

    assert ("0.0.0.0", "9000") == tuple(environment(container)[f"STREAMPROC_HEALTH_{key}"] for key in ("HOST", "PORT"))
    assert [{"name": "health", "containerPort": 9000}] == container["ports"]
    assert ("/startup", "/ready", "/live") == tuple(
        container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")
    )


def test_it_should_keep_secrets_out_of_the_manifests() -> None:
    container = workload("index", **values_of("production"))["containers"][0]
    token = next(each for each in container["env"] if each["name"] == "STREAMPROC_MILVUS_TOKEN")

    assert {"secretKeyRef": {"name": "milvus", "key": "token"}} == token["valueFrom"]
    assert [{"secretRef": {"name": "object-store"}}] == container["envFrom"]


def test_an_agent_should_override_the_defaults_also_with_nothing() -> None:
    quiet = {"replicas": 0, "topologySpread": False, "podDisruptionBudget": {"enabled": False}}
    manifests = render(agentDefaults={"replicas": 3}, agents={"spot": quiet})
    sets = of_kind(manifests, "StatefulSet")

    assert (0, 3) == tuple(sets[f"demo-streamproc-{agent}"]["spec"]["replicas"] for agent in ("spot", "match"))
    assert "topologySpreadConstraints" not in sets["demo-streamproc-spot"]["spec"]["template"]["spec"]
    assert "demo-streamproc-spot" not in of_kind(manifests, "PodDisruptionBudget")
    assert "demo-streamproc-match" in of_kind(manifests, "PodDisruptionBudget")


def test_an_agent_on_a_gpu_should_ask_for_it_and_use_it() -> None:
    pod = workload("perceive", **values_of("gpu"))
    container = pod["containers"][0]

    assert {"nvidia.com/gpu": 1, "memory": "8Gi"} == container["resources"]["limits"]
    assert ("cuda", "nvidia") == (environment(container)["STREAMPROC_DEVICE"], pod["runtimeClassName"])
    assert "cpu" == environment(workload("match", **values_of("gpu"))["containers"][0])["STREAMPROC_DEVICE"]


# --- jobs ---------------------------------------------------------------------------------------------------------


def test_it_should_make_the_topics_before_anything_else_with_nothing_that_is_not_there_yet() -> None:
    job = of_kind(render(topics={"partitions": 4, "replication": 1}), "Job")["demo-streamproc-topics"]
    pod = job["spec"]["template"]["spec"]

    assert "pre-install,pre-upgrade" == job["metadata"]["annotations"]["helm.sh/hook"]
    assert "serviceAccountName" not in pod
    assert ["streamproc", "topics", "apply"] == pod["containers"][0]["command"]
    assert ["--partitions", "4", "--replication", "1"] == pod["containers"][0]["args"]
    assert {} == of_kind(render(topics={"apply": {"enabled": False}}), "Job")


def test_it_should_test_an_install_by_comparing_the_topics() -> None:
    pod = of_kind(render(), "Pod")["demo-streamproc-test"]

    assert "test" == pod["metadata"]["annotations"]["helm.sh/hook"]
    assert ["streamproc", "topics", "diff"] == pod["spec"]["containers"][0]["command"]


def test_it_should_retrain_on_a_schedule_where_that_is_switched_on() -> None:
    cron = of_kind(render(**values_of("gpu")), "CronJob")["demo-streamproc-train"]
    container = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]

    assert ["python", "-m", "encoders", "train"] == container["command"]
    assert {"nvidia.com/mig-1g.10gb": 1} == container["resources"]["limits"]
    assert "Forbid" == cron["spec"]["concurrencyPolicy"]
    assert {} == of_kind(render(), "CronJob")


def test_it_should_give_train_arguments_that_it_takes() -> None:
    cron = of_kind(render(**values_of("gpu")), "CronJob")["demo-streamproc-train"]
    container = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    asked = encoders.cli._parser().parse_args(["train", *container["args"]])

    assert (Path("/data/grocery"), Path("/data/runs/$(RUN)")) == (asked.data, asked.out)
    assert "RUN" in {variable["name"] for variable in container["env"]}


def test_it_should_refuse_to_retrain_without_data() -> None:
    assert "training.existingClaim" in refusal(training={"enabled": True})


def test_it_should_sweep_evidence_daily_where_a_shared_store_holds_it() -> None:
    cron = of_kind(render(objectStore=STORE), "CronJob")["demo-streamproc-sweep"]
    schedule, time_zone, concurrency = (cron["spec"][key] for key in ("schedule", "timeZone", "concurrencyPolicy"))

    assert ("30 0 * * *", "Etc/UTC", "Forbid") == (schedule, time_zone, concurrency)
    assert (3, 21_600) == tuple(
        cron["spec"]["jobTemplate"]["spec"][key] for key in ("backoffLimit", "activeDeadlineSeconds")
    )
    assert {} == of_kind(render(), "CronJob")
    assert {} == of_kind(render(objectStore=STORE, evidence={"sweep": {"enabled": False}}), "CronJob")


def test_it_should_sweep_as_often_and_as_long_as_it_is_told() -> None:
    spec = of_kind(render(**values_of("production")), "CronJob")["demo-streamproc-sweep"]["spec"]
    job = spec["jobTemplate"]["spec"]

    assert ("10 1 * * *", 5, 43_200) == (spec["schedule"], job["backoffLimit"], job["activeDeadlineSeconds"])
    assert {"memory": "1Gi"} == job["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_it_should_sweep_by_a_command_that_there_is() -> None:
    program, *arguments = sweep(objectStore=STORE)["containers"][0]["command"]
    helped = CliRunner().invoke(commands, [*arguments, "--help"], prog_name=program, catch_exceptions=False)

    assert (0, "Usage: streamproc evidence sweep [OPTIONS]") == (helped.exit_code, helped.output.splitlines()[0])


def test_a_sweep_should_reach_broker_and_store_as_the_workers_do() -> None:
    values = values_of("production")
    values["agentDefaults"]["extraEnv"] = {"AWS_ENDPOINT_URL": "https://store.example"}
    swept, worker = sweep(**values), workload("perceive", **values)
    told, workers = environment(swept["containers"][0]), environment(worker["containers"][0])

    assert {"STREAMPROC_BROKER", "STREAMPROC_OBJECT_STORE", "AWS_ENDPOINT_URL"} <= told.keys()
    assert told.items() <= workers.items()
    assert worker["containers"][0]["envFrom"] == swept["containers"][0]["envFrom"]
    assert worker["serviceAccountName"] == swept["serviceAccountName"]


def test_network_policy_should_let_a_sweep_out_to_broker_and_store() -> None:
    manifests = render(**values_of("production"))
    labels = of_kind(manifests, "CronJob")["demo-streamproc-sweep"]["spec"]["jobTemplate"]["spec"]["template"][
        "metadata"
    ]["labels"]
    policies = of_kind(manifests, "NetworkPolicy")
    broker, store = (policies[f"demo-streamproc-{name}"]["spec"] for name in ("broker", "sweep"))

    assert broker["podSelector"]["matchLabels"].items() <= labels.items()
    assert labels["app.kubernetes.io/component"] not in broker["podSelector"]["matchExpressions"][0]["values"]
    assert store["podSelector"]["matchLabels"] == labels
    assert policies["demo-streamproc-perceive"]["spec"]["egress"] == store["egress"]
    assert "demo-streamproc-sweep" not in of_kind(render(), "NetworkPolicy")


# --- security -----------------------------------------------------------------------------------------------------


def test_every_container_should_be_locked_down(manifests: list[Manifest]) -> None:
    for name, container in containers(manifests):
        context = container["securityContext"]

        assert (False, False, True, {"drop": ["ALL"]}) == (
            context["allowPrivilegeEscalation"],
            context["privileged"],
            context["readOnlyRootFilesystem"],
            context["capabilities"],
        ), name


def test_every_pod_should_run_as_nobody_without_a_token(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert {"type": "RuntimeDefault"} == pod["securityContext"]["seccompProfile"], name
        assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(pod), name


def test_a_large_number_should_be_written_as_the_integer_that_it_is() -> None:
    """Helm holds numbers as floats and prints those from a million on as 1e+06, which a cluster refuses."""
    values: dict[str, object] = {
        "security": {"runAsUser": 1000660001, "fsGroup": 1000660001},  # as OpenShift hands them out
        "topics": {"apply": {"activeDeadlineSeconds": 2_000_000}},
    }
    manifests = render(**values)

    for name, pod in pods(manifests):
        context = pod["securityContext"]
        assert ["1000660001"] * 3 == [str(context[key]) for key in ("runAsUser", "runAsGroup", "fsGroup")], name
    assert 2_000_000 == of_kind(manifests, "Job")["demo-streamproc-topics"]["spec"]["activeDeadlineSeconds"]


def test_every_mount_should_resolve_to_a_volume_and_every_volume_be_mounted(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests):
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}

        assert mounted == {volume["name"] for volume in pod["volumes"]}, name


def test_what_a_container_writes_to_should_be_a_volume(manifests: list[Manifest]) -> None:
    for name, container in containers(manifests):
        mounts = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}

        assert "/tmp" in mounts, name
        assert {environment(container)["HOME"]} <= mounts, name
        if name.startswith("StatefulSet"):
            assert environment(container)["STREAMPROC_CACHE"] in mounts, name


def test_it_should_deny_all_traffic_but_what_the_topology_needs() -> None:
    policies = of_kind(render(**values_of("production")), "NetworkPolicy")
    default = policies["demo-streamproc-default"]["spec"]
    ports = {
        name.removeprefix("demo-streamproc-"): sorted(
            {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
        )
        for name, policy in policies.items()
    }

    assert ["Ingress", "Egress"] == default["policyTypes"]
    assert {"app.kubernetes.io/name": "streamproc", "app.kubernetes.io/instance": "demo"} == default["podSelector"][
        "matchLabels"
    ]
    assert {
        "default": [53],
        "broker": [9092],
        "perceive": [443],
        "match": [443],
        "index": [443],
        "sweep": [443],
    } == ports
    assert [{"podSelector": {"matchLabels": {"app": "kafka"}}}] == policies["demo-streamproc-broker"]["spec"]["egress"][
        0
    ]["to"]


def test_it_should_open_the_port_that_milvus_is_at() -> None:
    def port(uri: str) -> int:
        policies = of_kind(render(milvus={"uri": uri}), "NetworkPolicy")
        found: int = policies["demo-streamproc-match"]["spec"]["egress"][0]["ports"][0]["port"]
        return found

    assert (19530, 443, 80) == (port("http://milvus:19530"), port("https://milvus/path"), port("http://milvus"))


def test_nobody_should_come_in_unless_named() -> None:
    assert "ingress" not in of_kind(render(), "NetworkPolicy")["demo-streamproc-default"]["spec"]


# --- what a cluster needs to have ---------------------------------------------------------------------------------


def test_it_should_by_default_need_nothing_that_a_plain_cluster_lacks() -> None:
    plain = {"v1", "apps/v1", "batch/v1", "policy/v1", "networking.k8s.io/v1"}

    assert plain >= {manifest["apiVersion"] for manifest in render()}


def test_nothing_should_select_by_what_changes_with_every_version(manifests: list[Manifest]) -> None:
    for selector in _found(manifests, ("matchLabels", "selector")):
        assert "helm.sh/chart" not in selector
        assert "app.kubernetes.io/version" not in selector


def test_every_selector_of_an_agent_should_find_its_pods(manifests: list[Manifest]) -> None:
    for kind in ("Service", "StatefulSet", "PodDisruptionBudget"):
        for name, manifest in of_kind(manifests, kind).items():
            selector = manifest["spec"]["selector"]
            labels = of_kind(manifests, "StatefulSet")[name]["spec"]["template"]["metadata"]["labels"]

            assert selector.get("matchLabels", selector).items() <= labels.items(), name


def test_resources_should_be_unset_by_default() -> None:
    assert [] == [name for name, container in containers(render()) if "resources" in container]


def test_alerts_should_name_the_pods_of_this_install() -> None:
    rules = of_kind(render(**values_of("production")), "PrometheusRule")["demo-streamproc"]["spec"]["groups"][0][
        "rules"
    ]
    pattern = re.search(r'pod=~"([^"]+)"', rules[1]["expr"])

    assert pattern is not None
    assert all(re.fullmatch(pattern[1], f"demo-streamproc-{agent}-0") for agent in TOPOLOGY.agents)
    assert not re.fullmatch(pattern[1], "demo-streamproc-sweep-29389470-24569")  # ended, hence not ready
    assert "{{ $labels.pod }} has not answered for 5 minutes" == rules[0]["annotations"]["summary"]


def _found(value: object, keys: tuple[str, ...]) -> Iterator[dict[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in keys and isinstance(inner, dict):
                yield inner
            yield from _found(inner, keys)
    elif isinstance(value, list):
        for inner in value:
            yield from _found(inner, keys)


KNOWN = {  # fields of the operators' own resources, as their definitions have them: no schema comes with Helm
    "ScaledObject": {
        "scaleTargetRef": {"apiVersion", "kind", "name"},
        "minReplicaCount": set(),
        "maxReplicaCount": set(),
        "pollingInterval": set(),
        "fallback": {"failureThreshold", "replicas"},
        "advanced": {"horizontalPodAutoscalerConfig"},
        "triggers": {"type", "metadata", "authenticationRef"},
    },
    "PodMonitor": {
        "selector": {"matchLabels"},
        "podTargetLabels": set(),
        "podMetricsEndpoints": {"port", "path", "interval"},
    },
    "PrometheusRule": {"groups": {"name", "rules"}},
}
TRIGGER = {  # of KEDA's kafka scaler; values are text
    "bootstrapServers",
    "consumerGroup",
    "topic",
    "lagThreshold",
    "offsetResetPolicy",
    "limitToPartitionsWithLag",
    "excludePersistentLag",
}


@pytest.mark.parametrize("kind", KNOWN)
def test_an_operators_resource_should_have_only_fields_that_it_knows(kind: str) -> None:
    for manifest in of_kind(render(**values_of("production")), kind).values():
        assert KNOWN[kind].keys() >= manifest["spec"].keys()
        for field, known in KNOWN[kind].items():
            for part in (
                manifest["spec"][field] if isinstance(manifest["spec"][field], list) else [manifest["spec"][field]]
            ):
                assert known >= (part.keys() if isinstance(part, dict) else set())


def test_every_trigger_should_have_only_fields_that_the_scaler_knows_and_as_text() -> None:
    for scaler in of_kind(render(**values_of("production")), "ScaledObject").values():
        for trigger in scaler["spec"]["triggers"]:
            assert TRIGGER == trigger["metadata"].keys()
            assert {str} == {type(value) for value in trigger["metadata"].values()}


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_it_should_pass_a_strict_lint_however_it_is_installed(way: str) -> None:
    report = linted(values_of(way), kube_version="v1.31.0")

    assert [] == report["errors"]
    assert [] == [message for message in report["messages"] if message["severity"] > 1]


@pytest.mark.parametrize(
    "path",
    [
        "imagee",
        "image.tagg",
        "broker.address",
        "milvus.host",
        "objectStore.bucket",
        "evidence.sweeping",
        "evidence.sweep.keepDays",
        "evidence.sweep.resources.request",
        "media.prefix",
        "release.claim",
        "topics.replicas",
        "topics.apply.enable",
        "agentDefaults.replica",
        "agents.perceive.replica",
        "agents.perceive.gpu.enable",
        "agents.perceive.probes.liveness.path",
        "agents.perceive.autoscaling.maxReplica",
        "agents.perceive.autoscaling.fallback.replica",
        "agents.perceive.podDisruptionBudget.minAvailable",
        "agents.perceive.resources.request",
        "agents.perceive.affinity.nodes",
        "serviceAccount.make",
        "security.privileged",
        "networkPolicy.enable",
        "networkPolicy.egress.web",
        "monitoring.serviceMonitor",
        "monitoring.podMonitor.every",
        "training.cron",
        "global.anything",
    ],
)
def test_it_should_refuse_a_key_that_it_does_not_know(path: str) -> None:
    *above, key = path.split(".")
    values: dict[str, Any] = {key: "x"}
    for name in reversed(above):
        values = {name: values}

    assert key in refusal(**values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"broker": {"addresses": []}}, "addresses"),
        ({"broker": {"addresses": ["kafka"]}}, "addresses"),
        ({"broker": {"addresses": "kafka:9092"}}, "addresses"),
        ({"milvus": {"uri": "milvus:19530"}}, "uri"),
        ({"objectStore": {"url": "bucket"}}, "url"),
        ({"evidence": {"sweep": {"schedule": "daily"}}}, "schedule"),
        ({"evidence": {"sweep": {"schedule": "30 0 * *"}}}, "schedule"),
        ({"evidence": {"sweep": {"backoffLimit": -1}}}, "backoffLimit"),
        ({"evidence": {"sweep": {"activeDeadlineSeconds": 0}}}, "activeDeadlineSeconds"),
        ({"media": {"prefixes": ["/local"]}}, "prefixes"),
        ({"release": {"path": "../up"}}, "path"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"logLevel": "loud"}, "logLevel"),
        ({"healthPort": 80}, "healthPort"),  # a container without capabilities cannot bind it
        ({"groupPrefix": "a b"}, "groupPrefix"),
        ({"topics": {"partitions": -1}}, "partitions"),
        ({"topics": {"partitions": 5000}}, "partitions"),  # more than `topics apply` takes
        ({"agents": {"spot": {"replicas": "two"}}}, "replicas"),
        ({"agents": {"spot": {"replicas": -1}}}, "replicas"),
        ({"agents": {"spot": {"terminationGracePeriodSeconds": 5}}}, "terminationGracePeriodSeconds"),
        ({"agents": {"spot": {"autoscaling": {"minReplicas": 0}}}}, "minReplicas"),
        ({"agents": {"spot": {"extraEnv": {"A": 1}}}}, "extraEnv"),
        ({"agents": {"spot": {"extraEnv": {"A B": "c"}}}}, "A B"),
        ({"agents": {"spot": {"tmpSize": "much"}}}, "tmpSize"),
        ({"agents": {"spot": {"gpu": {"resource": "gpu"}}}}, "resource"),
        ({"security": {"runAsUser": 0}}, "runAsUser"),
        ({"networkPolicy": {"egress": {"broker": [{}]}}}, "broker"),
        ({"networkPolicy": {"egress": {"broker": ["kafka"]}}}, "broker"),
        ({"monitoring": {"podMonitor": {"interval": "often"}}}, "interval"),
        ({"training": {"args": "--data x"}}, "args"),
        ({"training": {"schedule": "weekly"}}, "schedule"),
    ],
)
def test_it_should_refuse_a_value_that_cannot_be_right(values: dict[str, object], named: str) -> None:
    assert named in refusal(**values)


def test_its_schema_should_be_closed_everywhere() -> None:
    schema = chart().schema
    open_ones = [where for where, each in _objects(schema, "") if each.get("additionalProperties", True) is True]

    assert ["/$defs/kubernetes"] == open_ones  # an affinity term, which is Kubernetes' to check


def _objects(schema: object, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield where, schema
        for key, inner in schema.items():
            yield from _objects(inner, f"{where}/{key}")
    elif isinstance(schema, list):
        for place, inner in enumerate(schema):
            yield from _objects(inner, f"{where}/{place}")


def test_every_value_should_be_explained() -> None:
    explained = {row.key for row in rows((CHART / "values.yaml").read_text())}

    assert set() == set(leaves(chart().values)) - explained


def test_the_table_in_its_readme_should_be_fresh() -> None:
    readme = (CHART / "README.md").read_text()

    assert readme == rewritten(readme, (CHART / "values.yaml").read_text()), "run python -m tests.helm.values_table"


def test_its_ci_files_should_together_switch_on_everything() -> None:
    kinds = {manifest["kind"] for way in EVERYTHING for manifest in render(**values_of(way))}

    assert {"CronJob", "ScaledObject", "PodMonitor", "PrometheusRule", "NetworkPolicy", "PodDisruptionBudget"} <= kinds


def test_it_should_follow_the_version_of_the_package() -> None:
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text())["project"]

    assert project["version"] == chart().metadata["appVersion"]
    assert f"image: streamproc:{project['version']}" in chart().metadata["annotations"]["artifacthub.io/images"]
