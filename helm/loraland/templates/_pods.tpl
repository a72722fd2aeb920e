{{/* Parts that all pods share. */}}

{{- define "loraland.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podSecurity.runAsUser }}
runAsGroup: {{ .Values.podSecurity.runAsGroup }}
fsGroup: {{ .Values.podSecurity.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "loraland.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Where a pod may run, and how it is pulled. Wants root, pod (its values). */}}
{{- define "loraland.placement" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $.pod $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- range $field := list "priorityClassName" "runtimeClassName" "schedulerName" }}
{{- with index $.pod $field }}
{{ $field }}: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "loraland.env.identity" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end -}}

{{- define "loraland.env.logs" -}}
- name: LORALAND_LOG_FORMAT
  value: {{ .Values.logs.format }}
- name: LORALAND_LOG_LEVEL
  value: {{ .Values.logs.level }}
{{- end -}}

{{- define "loraland.env.store" -}}
- name: LORALAND_STORE_BUCKET
  value: {{ include "loraland.store.bucket" . | quote }}
{{- with .Values.store.prefix }}
- name: LORALAND_STORE_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- with include "loraland.store.endpointUrl" . }}
- name: LORALAND_STORE_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.store.region }}
- name: LORALAND_STORE_REGION
  value: {{ . | quote }}
{{- end }}
{{- with include "loraland.store.secret" . }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_SECRET_ACCESS_KEY}}
- name: AWS_SESSION_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_SESSION_TOKEN, optional: true}}
{{- end }}
{{- end -}}

{{/* Wants root, party: operator or replica. */}}
{{- define "loraland.env.redis" -}}
{{- $redis := .root.Values.redis -}}
{{- $secret := include "loraland.redis.secret" .root -}}
{{- $url := include "loraland.redis.url" .root -}}
{{- if $url }}
- name: LORALAND_REDIS_URL
  value: {{ $url | quote }}
{{- if $secret }}
- name: LORALAND_REDIS_USER
  value: {{ index $redis.users .party | quote }}
- name: LORALAND_REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ .party }}-password}}
{{- end }}
{{- else }}
- name: LORALAND_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ required "redis: set redis.url, or redis.existingSecret with the keys operator-url and replica-url, or evaluation.redis.enabled to try things out" $secret }}, key: {{ .party }}-url}}
{{- end }}
{{- if and (eq .party "replica") $redis.users.registry $secret }}
- name: LORALAND_REDIS_REGISTRY_USER
  value: {{ $redis.users.registry | quote }}
- name: LORALAND_REDIS_REGISTRY_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: registry-password, optional: true}}
{{- end }}
{{- with $redis.tls.caSecret.name }}
- name: LORALAND_REDIS_CA_FILE
  value: /etc/loraland/redis-ca/{{ $redis.tls.caSecret.key }}
{{- end }}
{{- with $redis.tls.clientCertificateSecret }}
- name: LORALAND_REDIS_CERT_FILE
  value: /etc/loraland/redis-tls/tls.crt
- name: LORALAND_REDIS_KEY_FILE
  value: /etc/loraland/redis-tls/tls.key
{{- end }}
{{- with $redis.timeoutS }}
- name: LORALAND_REDIS_TIMEOUT_S
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Proxy and private authorities. */}}
{{- define "loraland.env.network" -}}
{{- range $name, $value := dict "HTTP_PROXY" .Values.proxy.http "HTTPS_PROXY" .Values.proxy.https "NO_PROXY" .Values.proxy.noProxy }}
{{- with $value }}
- name: {{ $name }}
  value: {{ . | quote }}
- name: {{ lower $name }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if or .Values.ca.configMap .Values.ca.secret }}
{{- range $name := list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "AWS_CA_BUNDLE" }}
- name: {{ $name }}
  value: /etc/loraland/ca/{{ $.Values.ca.key }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "loraland.env.hub" -}}
{{- with .Values.hub.endpoint }}
- name: HF_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.hub.existingSecret }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $.Values.hub.tokenKey }}}}
{{- end }}
{{- end -}}

{{- define "loraland.mounts.common" -}}
- name: catalogue
  mountPath: /etc/loraland/catalogue
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if or .Values.ca.configMap .Values.ca.secret }}
- name: ca
  mountPath: /etc/loraland/ca
  readOnly: true
{{- end }}
{{- if .Values.redis.tls.caSecret.name }}
- name: redis-ca
  mountPath: /etc/loraland/redis-ca
  readOnly: true
{{- end }}
{{- if .Values.redis.tls.clientCertificateSecret }}
- name: redis-tls
  mountPath: /etc/loraland/redis-tls
  readOnly: true
{{- end }}
{{- end -}}

{{- define "loraland.volumes.common" -}}
- name: catalogue
  configMap: {name: {{ include "loraland.catalogue.name" . }}}
- name: tmp
  emptyDir: {sizeLimit: {{ .Values.tmpSizeLimit }}}
{{- if .Values.ca.configMap }}
- name: ca
  configMap: {name: {{ .Values.ca.configMap }}}
{{- else if .Values.ca.secret }}
- name: ca
  secret: {secretName: {{ .Values.ca.secret }}}
{{- end }}
{{- with .Values.redis.tls.caSecret.name }}
- name: redis-ca
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .Values.redis.tls.clientCertificateSecret }}
- name: redis-tls
  secret: {secretName: {{ . }}}
{{- end }}
{{- end -}}

{{/* Everything is said, so that all of it goes again with a change to Recreate: what the API server
     fills in belongs to nobody, stays, and is refused then. */}}
{{- define "loraland.strategy" -}}
type: {{ .type }}
{{- if eq .type "RollingUpdate" }}
rollingUpdate:
  {{- toYaml (mergeOverwrite (dict "maxSurge" "25%" "maxUnavailable" "25%") (.rollingUpdate | default dict)) | nindent 2 }}
{{- end }}
{{- end -}}
