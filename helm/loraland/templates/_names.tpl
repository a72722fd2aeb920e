{{/* Names and labels. One release a namespace: the operator's Lease has one name in it. */}}

{{- define "loraland.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "loraland.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "loraland.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "loraland.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* A name that Services may have, too (63 letters, nine of them for "-headless"): a long one ends
     with a piece of its hash. */}}
{{- define "loraland.short" -}}
{{- if gt (len .) 54 -}}
{{- printf "%s-%s" (. | trunc 45 | trimSuffix "-") (. | sha256sum | trunc 8) -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{- define "loraland.inference.name" -}}
{{- include "loraland.short" (printf "%s-inference-%s" (include "loraland.fullname" .root) .one.baseModel) -}}
{{- end -}}

{{- define "loraland.chartLabel" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What selectors use, and what never changes. Wants root, component. */}}
{{- define "loraland.selector" -}}
app.kubernetes.io/part-of: loraland
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- if .baseModel }}
loraland.dev/base-model: {{ .baseModel }}
{{- end }}
{{- end -}}

{{- define "loraland.labels" -}}
{{ include "loraland.selector" . }}
app.kubernetes.io/name: {{ include "loraland.name" .root }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ include "loraland.chartLabel" .root }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of pods: nothing that changes when only the chart does, so that it restarts nobody. */}}
{{- define "loraland.podLabels" -}}
{{ include "loraland.selector" . }}
app.kubernetes.io/name: {{ include "loraland.name" .root }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object in the release's namespace. Wants root, component, name; takes
     annotations, baseModel, namespace. */}}
{{- define "loraland.metadata" -}}
name: {{ .name }}
{{- if not .isClusterWide }}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{- end }}
labels:
  {{- include "loraland.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "loraland.image" -}}
{{- $registry := .image.registry | default .root.Values.image.registry -}}
{{- $repository := .image.repository -}}
{{- if $registry }}{{ $repository = printf "%s/%s" $registry $repository }}{{ end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "loraland.operator.serviceAccount" -}}
{{- .Values.operator.serviceAccount.name | default (printf "%s-operator" (include "loraland.fullname" .)) -}}
{{- end -}}

{{- define "loraland.inference.serviceAccount" -}}
{{- .Values.inference.serviceAccount.name | default (printf "%s-inference" (include "loraland.fullname" .)) -}}
{{- end -}}

{{- define "loraland.catalogue.name" -}}
{{- .Values.catalogue.existingConfigMap | default (printf "%s-catalogue" (include "loraland.fullname" .)) -}}
{{- end -}}
