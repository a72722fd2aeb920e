{{/* What the operator's commands need to know of where they are. */}}
{{- define "loraland.operator.placeEnv" -}}
{{ include "loraland.env.identity" . }}
{{ include "loraland.env.logs" . }}
{{- with .Values.operator.watchNamespaces }}
- name: LORALAND_WATCH_NAMESPACES
  value: {{ join "," . }}
{{- end }}
{{- with include "loraland.env.network" . | trim }}
{{ . }}
{{- end }}
{{- end -}}
