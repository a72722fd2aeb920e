"""Requests for resources: from a route and a body to an answer. HTTP in its types only."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from . import (
    conversion,
    decoding,
    errors,
    lists,
    patches,
    replies,
    reviews,
    subresources,
    wire,
)
from .cluster import Cluster
from .identity import User
from .intake import Options
from .kinds import ResourceType
from .routes import Route

Json = dict[str, Any]

_PATCHES = (patches.JSON_PATCH, patches.MERGE_PATCH, patches.STRATEGIC_PATCH, patches.APPLY_PATCH)


class Request:
    """One request for a resource, read whole."""

    def __init__(
        self, http: web.Request, body: bytes, route: Route, resource: ResourceType, user: User
    ) -> None:
        self.http = http
        self.body = body
        self.route = route
        self.resource = resource
        self.user = user
        self.query = http.query
        self.media_type = (http.headers.get("Content-Type") or "").partition(";")[0].strip()
        self.form = replies.wanted_form(http.headers.get("Accept", ""))
        self.include = self.query.get("includeObject", "Metadata")

    @property
    def place(self) -> tuple[ResourceType, str, str]:
        return self.resource, self.route.namespace, self.route.name

    def options(self) -> Options:
        agent = self.http.headers.get("User-Agent", "")
        validation = self.query.get("fieldValidation") or decoding.WARN
        if validation not in {decoding.STRICT, decoding.WARN, decoding.IGNORE}:
            raise errors.bad_request(f"fieldValidation: Unsupported value: {validation!r}")
        return Options(
            manager=self.query.get("fieldManager") or agent.partition("/")[0] or "unknown",
            dry_run=self.dry_run,
            validation=validation,
            force=self.query.get("force") in {"true", "1"},
            subresource=self.route.subresource,
        )

    @property
    def dry_run(self) -> bool:
        return bool(self.query.get("dryRun"))

    def object(self, options: Options) -> Json:
        obj, options.duplicates = decoding.body_object(self.body, self.media_type, self.resource)
        return obj

    def virtual(self, message: str) -> Json:
        """Read a body whose kind is not the route's, such as a Scale or a TokenRequest."""
        if self.media_type == wire.CONTENT_TYPE:
            return wire.decode(self.body, message or None)
        return decoding.parse(self.body or b"{}", self.resource.kind)[0]


class ResourceApi:
    """Answers every request but watches and logs, which are streams."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def answer(self, request: Request, verb: str) -> web.Response:
        if request.route.subresource not in {"", "status"}:
            return self._subresource(request, verb)
        if verb == "get":
            return self._shown(request, self._cluster.operations.get(*request.place))
        answers = {
            "list": self._list,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }
        if verb not in answers:
            raise errors.method_not_allowed()
        return answers[verb](request)

    def _shown(
        self, request: Request, obj: Json, status: int = 200, options: Options | None = None
    ) -> web.Response:
        obj = conversion.from_stored(obj, request.resource)
        body = replies.object_in_form(obj, request.resource, request.form, request.include)
        warnings = options.warnings if options else ()
        return replies.json_reply(body, status=status, warnings=warnings)

    def _list(self, request: Request) -> web.Response:
        store, resource = self._cluster.store, request.resource
        page = lists.page(store, resource, request.route.namespace, request.query)
        if request.form == replies.WHOLE:
            return replies.json_reply(lists.body(store, resource, page))
        metadata: Json = {"resourceVersion": page.version}
        if page.continue_token:
            metadata["continue"] = page.continue_token
            if page.remaining:
                metadata["remainingItemCount"] = page.remaining
        shown = [conversion.from_stored(obj, resource) for obj in page.objects]
        return replies.json_reply(
            replies.objects_reply(shown, resource, request.form, metadata, request.include)
        )

    def _create(self, request: Request) -> web.Response:
        if request.route.name:
            raise errors.method_not_allowed()
        options, resource = request.options(), request.resource
        obj = request.object(options)
        if "get" not in resource.verbs:
            return self._virtual(request, obj)
        made = self._cluster.operations.create(resource, request.route.namespace, obj, options)
        return self._shown(request, made, 201, options)

    def _virtual(self, request: Request, obj: Json) -> web.Response:
        cluster = self._cluster
        if request.resource.kind == "Binding":
            name = (obj.get("metadata") or {}).get("name", "")
            done = subresources.bind(cluster.operations, request.route.namespace, name, obj)
            return replies.json_reply(done, status=201)
        body = reviews.answer(
            request.resource,
            obj,
            store=cluster.store,
            tokens=cluster.tokens,
            user=request.user,
        )
        return replies.json_reply(body, status=201)

    def _update(self, request: Request) -> web.Response:
        options = request.options()
        obj = request.object(options)
        stored, created = self._cluster.operations.update(*request.place, obj, options)
        return self._shown(request, stored, 201 if created else 200, options)

    def _patch(self, request: Request) -> web.Response:
        options, operations = request.options(), self._cluster.operations
        accepted = [
            media
            for media in _PATCHES
            if media != patches.STRATEGIC_PATCH or request.resource.custom is None
        ]
        if request.media_type not in accepted:
            raise errors.unsupported_media_type(accepted)
        if request.media_type == patches.APPLY_PATCH:
            if not request.query.get("fieldManager"):
                cause = errors.required_value("fieldManager", "is required for apply patch")
                raise errors.invalid("PatchOptions", "meta.k8s.io", "", [cause])
            config = decoding.parse_yaml(request.body)
            stored, created = operations.apply(*request.place, config, options)
            return self._shown(request, stored, 201 if created else 200, options)
        patch = _patch_body(request.body)
        stored = operations.patch(
            *request.place, options, media_type=request.media_type, patch=patch
        )
        return self._shown(request, stored, 200, options)

    def _delete_options(self, request: Request) -> Json:
        found: Json = {}
        if request.body:
            found = request.virtual("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
        for key in ("propagationPolicy", "gracePeriodSeconds"):
            if request.query.get(key):
                found[key] = request.query[key]
        if "gracePeriodSeconds" in found and found["gracePeriodSeconds"] is not None:
            found["gracePeriodSeconds"] = int(found["gracePeriodSeconds"])
        policy = found.get("propagationPolicy")
        if policy not in {None, "", "Orphan", "Background", "Foreground"}:
            supported = ("Foreground", "Background", "Orphan", "nil")
            cause = errors.unsupported_value("propagationPolicy", f'"{policy}"', supported)
            raise errors.invalid("DeleteOptions", "meta.k8s.io", "", [cause])
        return found

    def _delete(self, request: Request) -> web.Response:
        options = self._delete_options(request)
        dry_run = request.dry_run or bool(options.get("dryRun"))
        body = self._cluster.deletions.delete(*request.place, options, dry_run=dry_run)
        if body["kind"] == "Status":
            return replies.json_reply(body)
        return self._shown(request, body)

    def _delete_collection(self, request: Request) -> web.Response:
        resource, options = request.resource, self._delete_options(request)
        found = self._cluster.deletions.delete_all(
            resource,
            request.route.namespace,
            lists.match(request.query, resource),
            options,
            dry_run=request.dry_run or bool(options.get("dryRun")),
        )
        return replies.json_reply(
            {
                "apiVersion": resource.api_version,
                "items": [conversion.from_stored(obj, resource) for obj in found],
                "kind": resource.list_kind,
                "metadata": {
                    "continue": "",
                    "resourceVersion": str(self._cluster.store.version),
                },
            }
        )

    # --- subresources

    def _subresource(self, request: Request, verb: str) -> web.Response:
        name, cluster, route = request.route.subresource, self._cluster, request.route
        if name == "scale":
            return self._scale(request, verb)
        if name == "token" and verb == "create":
            account = cluster.operations.get(*request.place)
            obj = request.virtual("io.k8s.api.authentication.v1.TokenRequest")
            body = reviews.token_request(cluster.tokens, account, obj)
        elif name == "binding" and verb == "create":
            obj = request.virtual("io.k8s.api.core.v1.Binding")
            body = subresources.bind(cluster.operations, route.namespace, route.name, obj)
        elif name == "eviction" and verb == "create":
            obj = request.virtual("")
            body = subresources.evict(
                cluster.deletions, route.namespace, route.name, obj, dry_run=request.dry_run
            )
        elif name == "finalize" and verb == "update":
            obj = request.virtual("io.k8s.api.core.v1.Namespace")
            body = subresources.finalize(cluster.operations, route.name, obj)
            return replies.json_reply(body)
        else:
            raise errors.method_not_allowed()
        return replies.json_reply(body, status=201)

    def _scale(self, request: Request, verb: str) -> web.Response:
        objects = self._cluster.operations
        obj = objects.get(*request.place)
        if verb == "get":
            return replies.json_reply(subresources.scale_of(obj, request.resource))
        options = request.options()
        if verb == "update":
            scale = request.virtual("io.k8s.api.autoscaling.v1.Scale")
            body = subresources.write_scale(objects, request.resource, obj, scale, options)
        elif verb == "patch":
            patch = _patch_body(request.body)
            body = subresources.patch_scale(
                objects,
                request.resource,
                obj,
                options,
                media_type=request.media_type,
                patch=patch,
            )
        else:
            raise errors.method_not_allowed()
        return replies.json_reply(body)


def _patch_body(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise errors.bad_request(f"error decoding patch: {error}") from error
