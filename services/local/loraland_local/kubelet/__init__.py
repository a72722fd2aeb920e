"""The kubelet of the laptop: pods as local processes.

Left out on purpose: a container has no file system, network or user of its own (``securityContext``
is ignored, mounts lie below ``LORALAND_ROOT``), CPU limits are not enforced, memory limits are
checked every few seconds, and there is no exec, attach or port-forward.
"""
