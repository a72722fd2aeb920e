"""The built-in kinds: one line each, as discovery, routing and storage need them. No I/O."""

from __future__ import annotations

import dataclasses
from typing import Any

FULL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CUSTOM = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")


@dataclasses.dataclass(frozen=True)
class CustomVersion:
    """What one version of a CustomResourceDefinition says beyond names."""

    schema: dict[str, Any]
    columns: tuple[dict[str, Any], ...]
    scale: dict[str, Any] | None
    selectable: tuple[str, ...]
    storage_version: str


@dataclasses.dataclass(frozen=True, eq=False)
class ResourceType:
    """One resource of one API version; ``custom`` is set for those of a definition."""

    group: str
    version: str
    plural: str
    kind: str
    singular: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = FULL
    generation: bool = False
    list_kind: str = ""
    custom: CustomVersion | None = None

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def storage_key(self) -> tuple[str, str]:
        return (STORED_AS.get((self.group, self.plural), self.group), self.plural)

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources


# Where two groups show the same stored objects, the group that stores them.
STORED_AS = {("events.k8s.io", "events"): ""}

# group/version plural Kind scope short,names categories subresources flags
# flags: g = has a generation, v = virtual (create only, never stored), r = read only
_TABLE = """
v1 bindings Binding ns - - - v
v1 componentstatuses ComponentStatus cluster cs - - r
v1 configmaps ConfigMap ns cm - - -
v1 endpoints Endpoints ns ep - - -
v1 events Event ns ev - - -
v1 limitranges LimitRange ns limits - - -
v1 namespaces Namespace cluster ns - finalize,status -
v1 nodes Node cluster no - proxy,status -
v1 persistentvolumeclaims PersistentVolumeClaim ns pvc - status -
v1 persistentvolumes PersistentVolume cluster pv - status -
v1 pods Pod ns po all binding,eviction,log,status g
v1 podtemplates PodTemplate ns - - - g
v1 replicationcontrollers ReplicationController ns rc all scale,status g
v1 resourcequotas ResourceQuota ns quota - status -
v1 secrets Secret ns - - - -
v1 serviceaccounts ServiceAccount ns sa - token -
v1 services Service ns svc all status -
admissionregistration.k8s.io/v1 mutatingadmissionpolicies MutatingAdmissionPolicy cluster - api-extensions - g
admissionregistration.k8s.io/v1 mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding cluster - api-extensions - g
admissionregistration.k8s.io/v1 mutatingwebhookconfigurations MutatingWebhookConfiguration cluster - api-extensions - g
admissionregistration.k8s.io/v1 validatingadmissionpolicies ValidatingAdmissionPolicy cluster - api-extensions status g
admissionregistration.k8s.io/v1 validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding cluster - api-extensions - g
admissionregistration.k8s.io/v1 validatingwebhookconfigurations ValidatingWebhookConfiguration cluster - api-extensions - g
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition cluster crd,crds api-extensions status g
apiregistration.k8s.io/v1 apiservices APIService cluster - api-extensions status -
apps/v1 controllerrevisions ControllerRevision ns - - - -
apps/v1 daemonsets DaemonSet ns ds all status g
apps/v1 deployments Deployment ns deploy all scale,status g
apps/v1 replicasets ReplicaSet ns rs all scale,status g
apps/v1 statefulsets StatefulSet ns sts all scale,status g
authentication.k8s.io/v1 selfsubjectreviews SelfSubjectReview cluster - - - v
authentication.k8s.io/v1 tokenreviews TokenReview cluster - - - v
authorization.k8s.io/v1 localsubjectaccessreviews LocalSubjectAccessReview ns - - - v
authorization.k8s.io/v1 selfsubjectaccessreviews SelfSubjectAccessReview cluster - - - v
authorization.k8s.io/v1 selfsubjectrulesreviews SelfSubjectRulesReview cluster - - - v
authorization.k8s.io/v1 subjectaccessreviews SubjectAccessReview cluster - - - v
autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler ns hpa all status -
batch/v1 cronjobs CronJob ns cj all status g
batch/v1 jobs Job ns - all status g
certificates.k8s.io/v1 certificatesigningrequests CertificateSigningRequest cluster csr - approval,status -
coordination.k8s.io/v1 leases Lease ns - - - -
discovery.k8s.io/v1 endpointslices EndpointSlice ns - - - g
events.k8s.io/v1 events Event ns ev - - -
flowcontrol.apiserver.k8s.io/v1 flowschemas FlowSchema cluster - - status g
flowcontrol.apiserver.k8s.io/v1 prioritylevelconfigurations PriorityLevelConfiguration cluster - - status g
networking.k8s.io/v1 ingressclasses IngressClass cluster - - - g
networking.k8s.io/v1 ingresses Ingress ns ing - status g
networking.k8s.io/v1 ipaddresses IPAddress cluster ip - - -
networking.k8s.io/v1 networkpolicies NetworkPolicy ns netpol - - g
networking.k8s.io/v1 servicecidrs ServiceCIDR cluster - - status -
node.k8s.io/v1 runtimeclasses RuntimeClass cluster - - - -
policy/v1 poddisruptionbudgets PodDisruptionBudget ns pdb - status g
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding cluster - - - -
rbac.authorization.k8s.io/v1 clusterroles ClusterRole cluster - - - -
rbac.authorization.k8s.io/v1 rolebindings RoleBinding ns - - - -
rbac.authorization.k8s.io/v1 roles Role ns - - - -
scheduling.k8s.io/v1 priorityclasses PriorityClass cluster pc - - g
storage.k8s.io/v1 csidrivers CSIDriver cluster - - - -
storage.k8s.io/v1 csinodes CSINode cluster - - - -
storage.k8s.io/v1 csistoragecapacities CSIStorageCapacity ns - - - -
storage.k8s.io/v1 storageclasses StorageClass cluster sc - - -
storage.k8s.io/v1 volumeattachments VolumeAttachment cluster - - status -
storage.k8s.io/v1 volumeattributesclasses VolumeAttributesClass cluster vac - - -
"""


def _names(text: str) -> tuple[str, ...]:
    return () if text == "-" else tuple(text.split(","))


def _row(line: str) -> ResourceType:
    api, plural, kind, scope, short, categories, subresources, flags = line.split()
    group, _, version = api.rpartition("/")
    verbs: tuple[str, ...] = FULL
    if "v" in flags:
        verbs = ("create",)
    elif "r" in flags:
        verbs = ("get", "list")
    elif plural == "namespaces":
        verbs = tuple(verb for verb in FULL if verb != "deletecollection")
    return ResourceType(
        group=group,
        version=version,
        plural=plural,
        kind=kind,
        singular=kind.lower(),
        namespaced=scope == "ns",
        short_names=_names(short),
        categories=_names(categories),
        subresources=_names(subresources),
        verbs=verbs,
        generation="g" in flags,
        list_kind=f"{kind}List",
    )


BUILTIN: tuple[ResourceType, ...] = tuple(_row(line) for line in _TABLE.strip().splitlines())
BY_PLURAL: dict[tuple[str, str, str], ResourceType] = {
    (resource.group, resource.version, resource.plural): resource for resource in BUILTIN
}


def builtin(plural: str, group: str = "", version: str = "v1") -> ResourceType:
    """Return a built-in kind that is known to exist."""
    return BY_PLURAL[group, version, plural]


NAMESPACES = builtin("namespaces")
PODS = builtin("pods")
NODES = builtin("nodes")
SECRETS = builtin("secrets")
CONFIG_MAPS = builtin("configmaps")
SERVICE_ACCOUNTS = builtin("serviceaccounts")
DEFINITIONS = builtin("customresourcedefinitions", "apiextensions.k8s.io")
PRIORITY_CLASSES = builtin("priorityclasses", "scheduling.k8s.io")
RBAC_GROUP = "rbac.authorization.k8s.io"
ROLES = builtin("roles", RBAC_GROUP)
CLUSTER_ROLES = builtin("clusterroles", RBAC_GROUP)
ROLE_BINDINGS = builtin("rolebindings", RBAC_GROUP)
CLUSTER_ROLE_BINDINGS = builtin("clusterrolebindings", RBAC_GROUP)
