{{/* The name of an outbox's objects: of (list root instance). */}}
{{- define "postrider.name" -}}
{{- $root := index . 0 -}}{{- $instance := index . 1 -}}
{{- printf "%s-%s" $root.Release.Name $instance.name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What its pods are found by. It never changes. */}}
{{- define "postrider.selector" -}}
{{- $root := index . 0 -}}{{- $instance := index . 1 -}}
app.kubernetes.io/name: postrider
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ $instance.name }}
{{- end -}}

{{- define "postrider.labels" -}}
app.kubernetes.io/name: postrider
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "postrider.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* A map as TOML, of (list path map): what is no table first. Strings, numbers and lists of JSON are such of TOML, too. */}}
{{- define "postrider.table" -}}
{{- $path := index . 0 -}}{{- $values := index . 1 -}}
{{- range $key, $value := $values }}
{{- if not (kindIs "map" $value) }}
{{ $key | quote }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- range $key, $value := $values }}
{{- if kindIs "map" $value }}
{{- $below := append $path ($key | quote) }}

[{{ join "." $below }}]
{{- include "postrider.table" (list $below $value) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "postrider.toml" -}}
{{ include "postrider.table" (list list .) | trim }}
{{- end -}}

{{/* What `run` and `check` have in common. */}}
{{- define "postrider.container" -}}
{{- $root := index . 0 -}}{{- $instance := index . 1 -}}
image: {{ include "postrider.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
env:
  - {name: POSTRIDER_CONFIG, value: /etc/postrider/postrider.toml}
  - {name: POSTRIDER_ADMIN_LISTEN, value: "0.0.0.0:9786"}
  - {name: POSTRIDER_LOG_FORMAT, value: json}
  {{- if $instance.passwordKey }}
  - {name: POSTRIDER_DATABASE_PASSWORD_FILE, value: {{ printf "/run/secrets/postrider/%s" $instance.passwordKey | quote }}}
  {{- end }}
  {{- with $instance.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources: {{- toYaml ($instance.resources | default $root.Values.resources) | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/postrider, readOnly: true}
  {{- if $instance.secret }}
  - {name: secret, mountPath: /run/secrets/postrider, readOnly: true}
  {{- end }}
{{- end -}}
