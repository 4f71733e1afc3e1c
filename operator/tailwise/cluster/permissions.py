"""What operator, training Jobs and agent may ask of the API server: the one table behind roles and page.

A verb stands here because code uses it; the chart's rules and ``docs/reference/rbac.md`` are generated.
"""

from __future__ import annotations

from dataclasses import dataclass

from tailwise.api.labels import GROUP, LEASE_NAME, TRAINING_PROGRESS_NAME


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on resources of one API group, and what they are for. No name means all of them."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    purpose: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Role:
    """The rules of one role; ``cluster`` ones hold everywhere, others in the operator's own namespace."""

    name: str
    component: str
    cluster: bool
    rules: tuple[Rule, ...]


ROLES = (
    Role(
        "operator-cluster",
        "operator",
        True,
        (
            Rule(
                "",
                ("pods",),
                ("list", "watch", "patch", "delete"),
                "pods are watched, patched once (affinity, annotations, gate), and deleted where "
                "kube-scheduler refuses one that its controller makes again",
            ),
            Rule("", ("pods/binding",), ("create",), "binding pods whose schedulerName is tailwise"),
            Rule("", ("pods/eviction",), ("create",), "moving pods that run, where a workload asks for it"),
            Rule("", ("nodes",), ("list", "watch"), "candidates"),
            Rule(
                "",
                ("persistentvolumeclaims", "persistentvolumes"),
                ("list", "watch"),
                "from where a pod's volumes can be reached; read once a pod with a claim waits for its node",
            ),
            Rule(
                "storage.k8s.io",
                ("storageclasses",),
                ("list", "watch"),
                "for which nodes volumes can be made; read together with claims",
            ),
            Rule(GROUP, ("inferenceworkloads", "latencymodels"), ("list", "watch"), "the two kinds"),
            Rule(
                GROUP,
                ("inferenceworkloads/status", "latencymodels/status"),
                ("patch",),
                "status by server-side apply",
            ),
            Rule(
                "apps",
                ("deployments",),
                ("get", "list", "watch", "create", "patch"),
                "Deployments of workloads that come with a template",
            ),
            Rule(
                "batch",
                ("jobs",),
                ("get", "create", "delete"),
                "inspection Jobs, which read models under their workloads' own identity, and training Jobs",
            ),
            Rule(
                "events.k8s.io",
                ("events",),
                ("get", "create", "patch"),
                "an event is told once and counted afterwards",
            ),
        ),
    ),
    Role(
        "operator-namespace",
        "operator",
        False,
        (
            Rule(
                "",
                ("configmaps",),
                ("get", "list", "watch", "create", "delete"),
                "the agents' ConfigMaps; LatencyModels' versions, and what training Jobs are to do",
            ),
            Rule(
                "",
                ("configmaps",),
                ("patch",),
                "what ended training Jobs told is removed",
                (TRAINING_PROGRESS_NAME,),
            ),
            Rule("batch", ("jobs",), ("list", "watch"), "training Jobs"),
            Rule(
                "coordination.k8s.io",
                ("leases",),
                ("create",),
                "leader election; creation cannot be narrowed to a name",
            ),
            Rule("coordination.k8s.io", ("leases",), ("get", "update"), "leader election", (LEASE_NAME,)),
        ),
    ),
    Role(
        "training-namespace",
        "training",
        False,
        (
            Rule(
                "",
                ("configmaps",),
                ("get", "create"),
                "a training Job writes its version, which nobody can change, and reads the one that serves",
            ),
            Rule("", ("configmaps",), ("patch",), "how far it is", (TRAINING_PROGRESS_NAME,)),
        ),
    ),
    Role(
        "agent-cluster",
        "agent",
        True,
        (
            Rule(
                "", ("nodes",), ("get",), "the ConfigMap names its Node as its owner, so that it goes with it"
            ),
        ),
    ),
    Role(
        "agent-namespace",
        "agent",
        False,
        (
            Rule(
                "",
                ("configmaps",),
                ("create", "patch"),
                "its node's hardware; an admission policy holds an agent to its own node's ConfigMap",
            ),
        ),
    ),
)


def chart_rules() -> str:
    """The roles' rules as named templates of the chart, ``tailwise.rules.ROLE``."""
    return "".join(
        f'{{{{- define "tailwise.rules.{role.name}" -}}}}\n{_rules(role)}{{{{- end }}}}\n' for role in ROLES
    )


def _rules(role: Role) -> str:
    return "".join(_rule(rule) for rule in role.rules)


def _rule(rule: Rule) -> str:
    lines = [
        f"# {rule.purpose[0].upper()}{rule.purpose[1:]}.",
        f'- apiGroups: ["{rule.group}"]',
        f"  resources: [{', '.join(rule.resources)}]",
        *([f"  resourceNames: [{', '.join(rule.names)}]"] if rule.names else []),
        f"  verbs: [{', '.join(rule.verbs)}]",
    ]
    return "\n".join(lines) + "\n"


def permissions_reference() -> str:
    """The page of all rights in Markdown, ending in a newline."""
    lines = [
        "# Rights",
        "",
        "What operator, training Jobs and agent may ask of the API server, and why. None reads Secrets. "
        "This page and the chart's rules are generated from `tailwise/cluster/permissions.py`.",
        "",
        "| who | where | API group | resources | verbs | what for |",
        "|---|---|---|---|---|---|",
    ]
    for role in ROLES:
        where = "cluster" if role.cluster else "own namespace"
        for rule in role.rules:
            names = f" named {', '.join(rule.names)}" if rule.names else ""
            lines.append(
                f"| {role.component} | {where} | {rule.group or 'core'} | {', '.join(rule.resources)}{names} "
                f"| {', '.join(rule.verbs)} | {rule.purpose} |"
            )
    return "\n".join(lines) + "\n"
