{{/* Of one deployment; all want root and one (its values, completed). */}}

{{- define "loraland.inference.env" -}}
{{ include "loraland.env.identity" .root }}
{{ include "loraland.env.logs" .root }}
{{ include "loraland.env.store" .root }}
{{ include "loraland.env.redis" (dict "root" .root "party" "replica") | trim }}
{{- with include "loraland.env.network" .root | trim }}
{{ . }}
{{- end }}
{{- with include "loraland.env.hub" .root | trim }}
{{ . }}
{{- end }}
- name: LORALAND_BASE_MODEL
  value: {{ .one.baseModel }}
{{- end -}}

{{- define "loraland.inference.tuning" -}}
{{- $one := .one -}}
- name: LORALAND_PORT
  value: {{ $one.ports.grpc | quote }}
- name: LORALAND_METRICS_PORT
  value: {{ $one.ports.metrics | quote }}
{{- $variables := dict
      "LORALAND_NUM_SLOTS" $one.numSlots
      "LORALAND_MAX_RUNNING" $one.maxRunning
      "LORALAND_MAX_QUEUE" $one.maxQueue
      "LORALAND_KV_MEMORY_MIB" $one.kvMemoryMib
      "LORALAND_DISK_MIB" $one.diskMib
      "LORALAND_HOST_MIB" $one.hostMib
      "LORALAND_SLOT_MIB" $one.slotMib
      "LORALAND_MAX_ADAPTER_MIB" $one.maxAdapterMib
      "LORALAND_CONCURRENT_FETCHES" $one.concurrentFetches
      "LORALAND_ENGINE_THREADS" $one.engineThreads
      "LORALAND_STEP_LIMIT_S" $one.stepLimitS
      "LORALAND_START_LIMIT_S" $one.startLimitS
      "LORALAND_DRAIN_GRACE_S" $one.drainGraceS
      "LORALAND_MAX_DEADLINE_S" $one.maxDeadlineS
      "LORALAND_METRICS_TOP" $one.metricsTop }}
{{- range $name, $value := $variables }}
{{- if not (kindIs "invalid" $value) }}
- name: {{ $name }}
  value: {{ $value | int64 | quote }}
{{- end }}
{{- end }}
- name: LORALAND_PREFIX_CACHE
  value: {{ $one.prefixCache | quote }}
{{- with $one.traces.endpoint }}
- name: LORALAND_TRACES_ENDPOINT
  value: {{ . | quote }}
- name: LORALAND_TRACES_SAMPLE_RATIO
  value: {{ $one.traces.sampleRatio | quote }}
{{- end }}
{{- if $one.packed.enabled }}
- name: LORALAND_PACKED_DIR
  value: /var/lib/loraland/packed
{{- end }}
{{- if $one.tls.enabled }}
- name: LORALAND_TLS_CERT_FILE
  value: /etc/loraland/tls/tls.crt
- name: LORALAND_TLS_KEY_FILE
  value: /etc/loraland/tls/tls.key
{{- if $one.tls.clientCa.enabled }}
- name: LORALAND_TLS_CLIENT_CA_FILE
  value: {{ if $one.tls.clientCa.secret }}/etc/loraland/client-ca/{{ $one.tls.clientCa.key }}{{ else }}/etc/loraland/tls/ca.crt{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "loraland.inference.cacheVolume" -}}
- name: cache
{{- if eq .one.cache.kind "hostPath" }}
  hostPath: {path: {{ .one.cache.hostPath }}, type: DirectoryOrCreate}
{{- else if eq .one.cache.kind "persistentVolumeClaim" }}
  persistentVolumeClaim: {claimName: {{ .one.cache.persistentVolumeClaim | default (printf "%s-cache" (include "loraland.inference.name" .)) }}}
{{- else }}
  emptyDir: {sizeLimit: {{ .one.cache.sizeLimit }}}
{{- end }}
{{- end -}}

{{- define "loraland.inference.mounts" -}}
{{ include "loraland.mounts.common" .root }}
- name: cache
  mountPath: /var/cache/loraland
- name: tokens
  mountPath: /etc/loraland/tokens
  readOnly: true
{{- if .one.packed.enabled }}
- name: packed
  mountPath: /var/lib/loraland/packed
{{- end }}
{{- if .one.sharedMemory }}
- name: shared-memory
  mountPath: /dev/shm
{{- end }}
{{- if .one.tls.enabled }}
- name: tls
  mountPath: /etc/loraland/tls
  readOnly: true
{{- if .one.tls.clientCa.secret }}
- name: client-ca
  mountPath: /etc/loraland/client-ca
  readOnly: true
{{- end }}
{{- end }}
{{- with .one.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "loraland.inference.volumes" -}}
{{ include "loraland.volumes.common" .root }}
{{ include "loraland.inference.cacheVolume" . }}
- name: tokens
  secret: {secretName: {{ include "loraland.tokens.secret" .root }}}
{{- if .one.packed.enabled }}
- name: packed
  emptyDir:
    medium: Memory
    sizeLimit: {{ .one.packed.sizeLimit | default (printf "%dMi" (add (int64 .one.hostMib) 256)) }}
{{- end }}
{{- with .one.sharedMemory }}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: {{ . }}}
{{- end }}
{{- if .one.tls.enabled }}
- name: tls
  secret: {secretName: {{ .one.tls.existingSecret | default (printf "%s-tls" (include "loraland.inference.name" .)) }}}
{{- with .one.tls.clientCa.secret }}
- name: client-ca
  secret: {secretName: {{ . }}}
{{- end }}
{{- end }}
{{- with .one.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
