"""The controllers of the laptop's control plane; ordinary clients of the API.

Left out on purpose: a Job's ``backoffLimitPerIndex`` and ``successPolicy``, a Deployment's
proportional scaling in the middle of a rollout, preemption, eviction from silent nodes, Services
and endpoints, and the controllers of kinds that nothing here uses (StatefulSet, DaemonSet, CronJob,
HorizontalPodAutoscaler).
"""
