{{- define "penstock.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "penstock.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "penstock.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "penstock.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "penstock.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "penstock.selector" -}}
app.kubernetes.io/name: {{ include "penstock.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "penstock.labels" -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image reference: a tag that begins with sha256: is a digest. */}}
{{- define "penstock.image" -}}
{{- if hasPrefix "sha256:" .tag -}}
{{ .repository }}@{{ .tag }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end -}}

{{- define "penstock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Where samples are read, and how to log in there. */}}
{{- define "penstock.prometheus" -}}
{{- $prometheus := .Values.prometheus -}}
{{- $auth := $prometheus.auth -}}
{{- if and (not $auth.secretName) (or $auth.tokenKey $auth.passwordKey $auth.caKey) -}}
{{- fail "prometheus.auth: name the Secret that holds these keys in prometheus.auth.secretName" -}}
{{- end -}}
{{- $matchers := list -}}
{{- range $name, $value := $prometheus.matchers -}}
{{- $matchers = append $matchers (printf "%s=%s" $name $value) -}}
{{- end -}}
- {name: PENSTOCK_PROMETHEUS_URL, value: {{ $prometheus.url | quote }}}
- {name: PENSTOCK_PROMETHEUS_MATCHERS, value: {{ join "," $matchers | quote }}}
- {name: PENSTOCK_PROMETHEUS_USERNAME, value: {{ $auth.username | quote }}}
{{- range $variable, $key := dict "TOKEN" $auth.tokenKey "PASSWORD" $auth.passwordKey "CA" $auth.caKey }}
{{- if $key }}
- {name: PENSTOCK_PROMETHEUS_{{ $variable }}_FILE, value: {{ printf "/etc/penstock/prometheus/%s" $key | quote }}}
{{- end }}
{{- end }}
{{- end -}}
