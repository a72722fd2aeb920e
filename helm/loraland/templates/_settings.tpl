{{/* What the values come to, and what they may not be. */}}

{{- define "loraland.store.bucket" -}}
{{- .Values.store.bucket | default (ternary "loraland" "" .Values.evaluation.objectStore.enabled) | required "store.bucket: name the bucket that holds the artifacts, or set evaluation.objectStore.enabled to try things out" -}}
{{- end -}}

{{- define "loraland.store.endpointUrl" -}}
{{- if .Values.evaluation.objectStore.enabled -}}
http://{{ include "loraland.fullname" . }}-object-store.{{ .Release.Namespace }}.svc:9000
{{- else -}}
{{- .Values.store.endpointUrl -}}
{{- end -}}
{{- end -}}

{{- define "loraland.store.secret" -}}
{{- if .Values.store.existingSecret -}}
{{- .Values.store.existingSecret -}}
{{- else if .Values.evaluation.objectStore.enabled -}}
{{- include "loraland.fullname" . }}-store
{{- end -}}
{{- end -}}

{{- define "loraland.redis.url" -}}
{{- if .Values.evaluation.redis.enabled -}}
redis://{{ include "loraland.fullname" . }}-redis.{{ .Release.Namespace }}.svc:6379/0
{{- else -}}
{{- .Values.redis.url -}}
{{- end -}}
{{- end -}}

{{- define "loraland.redis.secret" -}}
{{- if .Values.redis.existingSecret -}}
{{- .Values.redis.existingSecret -}}
{{- else if .Values.evaluation.redis.enabled -}}
{{- include "loraland.fullname" . }}-redis
{{- end -}}
{{- end -}}

{{/* The deployments with what they leave out, as a YAML list under "all". */}}
{{- define "loraland.deployments" -}}
{{- $all := list -}}
{{- range .Values.inference.deployments -}}
{{- $all = append $all (mergeOverwrite (deepCopy (omit $.Values.inference "deployments" "serviceAccount")) .) -}}
{{- end -}}
{{- dict "all" $all | toYaml -}}
{{- end -}}

{{/* Refuses what a schema cannot see. */}}
{{- define "loraland.check" -}}
{{- $seen := dict -}}
{{- $known := keys .Values.catalogue.baseModels | sortAlpha -}}
{{- range $index, $one := .Values.inference.deployments -}}
{{- $field := printf "inference.deployments[%d].baseModel" $index -}}
{{- if hasKey $seen $one.baseModel -}}
{{- fail (printf "%s: %s has a deployment already; raise its replicas instead" $field $one.baseModel) -}}
{{- end -}}
{{- $_ := set $seen $one.baseModel true -}}
{{- if and (not $.Values.catalogue.existingConfigMap) (not (has $one.baseModel $known)) -}}
{{- fail (printf "%s: %s is not in catalogue.baseModels, which has: %s" $field $one.baseModel (join ", " $known)) -}}
{{- end -}}
{{- end -}}
{{- range (include "loraland.deployments" . | fromYaml).all -}}
{{- $field := printf "inference.deployments (%s)" .baseModel -}}
{{- if and .autoscaling.hpa.enabled .autoscaling.keda.enabled -}}
{{- fail (printf "%s: autoscaling.hpa and autoscaling.keda exclude each other; enable one" $field) -}}
{{- end -}}
{{- $scaling := ternary .autoscaling.hpa .autoscaling.keda .autoscaling.hpa.enabled -}}
{{- if and (or .autoscaling.hpa.enabled .autoscaling.keda.enabled) (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- fail (printf "%s: autoscaling: minReplicas %v is more than maxReplicas %v" $field $scaling.minReplicas $scaling.maxReplicas) -}}
{{- end -}}
{{- if and .tls.enabled (not .tls.existingSecret) (not .tls.certManager.enabled) -}}
{{- fail (printf "%s: tls.enabled wants tls.existingSecret or tls.certManager.enabled" $field) -}}
{{- end -}}
{{- if and .tls.certManager.enabled (not .tls.certManager.issuerRef.name) -}}
{{- fail (printf "%s: tls.certManager.issuerRef.name: name the issuer" $field) -}}
{{- end -}}
{{- if and .prefetch.enabled (eq .cache.kind "emptyDir") -}}
{{- fail (printf "%s: prefetch.enabled wants a cache that outlives its pod: set cache.kind to hostPath or persistentVolumeClaim" $field) -}}
{{- end -}}
{{- if ge (add (int .drainGraceS) (int .preStopSleepS)) (int64 .terminationGracePeriodSeconds) -}}
{{- fail (printf "%s: terminationGracePeriodSeconds %v must exceed drainGraceS %v and preStopSleepS %v together" $field .terminationGracePeriodSeconds .drainGraceS .preStopSleepS) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.egress.enabled (not .Values.networkPolicy.egress.to) -}}
{{- fail "networkPolicy.egress.to: list where Redis, the artifact store, the Hub and the API server are, or leave networkPolicy.egress.enabled off" -}}
{{- end -}}
{{- end -}}

{{- define "loraland.tokens.secret" -}}
{{- .Values.tokens.existingSecret | default (printf "%s-tokens" (include "loraland.fullname" .)) -}}
{{- end -}}
