{{/* A password that stays what it was when the release is upgraded. Wants root, secret, key. */}}
{{- define "loraland.password" -}}
{{- $found := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- $kept := index (($found | default dict).data | default dict) .key -}}
{{- if $kept -}}{{ $kept | b64dec }}{{- else -}}{{ randAlphaNum 32 }}{{- end -}}
{{- end -}}
