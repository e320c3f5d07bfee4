{{- define "superstep.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of everything here. Room is left for what Kubernetes puts behind it. */}}
{{- define "superstep.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "superstep.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- printf "%s-worker" ($full | trunc 40 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* What never changes about a release: selectors may not. */}}
{{- define "superstep.selector" -}}
app.kubernetes.io/name: {{ include "superstep.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: worker
{{- end -}}

{{- define "superstep.labels" -}}
{{ include "superstep.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "superstep.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "superstep.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "superstep.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The settings as variables. Numbers of YAML are floats in templates: int64 keeps them whole. */}}
{{- define "superstep.variables" -}}
{{- range $name, $value := .Values.settings }}
SUPERSTEP_{{ upper $name }}: {{ ternary ($value | int64 | toString) $value (kindIs "float64" $value) | quote }}
{{- end }}
SUPERSTEP_DRAIN_TIMEOUT: {{ printf "%ds" (int64 .Values.drainSeconds) | quote }}
SUPERSTEP_HEALTH_ADDR: {{ printf "0.0.0.0:%d" (int64 .Values.health.port) | quote }}
SUPERSTEP_OUTBOX: /var/lib/superstep/outbox.jsonl
{{- end -}}
