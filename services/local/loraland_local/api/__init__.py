"""An embedded Kubernetes API for one machine: kubectl, kopf and Helm talk to it unchanged.

For trying and testing only. Pure modules (`kinds`, `patches`, `schemas`, `fields`, ...) decide;
`storage` is the only one that touches the disk, `server` and `watching` the only HTTP ones.
"""
