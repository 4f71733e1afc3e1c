{{- define "tailwise.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of all objects: the release's, with the chart's unless the release is called by it. */}}
{{- define "tailwise.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "tailwise.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tailwise.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tailwise.operator" -}}
{{ include "tailwise.fullname" . }}-operator
{{- end }}

{{- define "tailwise.agent" -}}
{{ include "tailwise.fullname" . }}-agent
{{- end }}

{{/* Name of cluster-scoped objects: releases of other namespaces must not share them. */}}
{{- define "tailwise.clustername" -}}
{{ printf "%s-%s" .Release.Namespace (include "tailwise.fullname" .) | trunc 200 | trimSuffix "-" }}
{{- end }}

{{- define "tailwise.selectors" -}}
app.kubernetes.io/name: {{ include "tailwise.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tailwise.labels" -}}
{{ include "tailwise.selectors" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tailwise
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tailwise.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "tailwise.training" -}}
{{ include "tailwise.fullname" . }}-training
{{- end }}

{{- define "tailwise.trainingimage" -}}
{{- with .Values.training.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{/* Pods pass the restricted pod security standard (the agent but for its hostPath, read-only). */}}
{{- define "tailwise.podsecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "tailwise.containersecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
{{- end }}

{{/* Version of admissionregistration.k8s.io that has MutatingAdmissionPolicy; empty where none is wanted. */}}
{{- define "tailwise.gatepolicy" -}}
{{- $group := "admissionregistration.k8s.io" -}}
{{- if eq .Values.placementGate.policy "Disabled" -}}
{{- else if .Capabilities.APIVersions.Has (printf "%s/v1/MutatingAdmissionPolicy" $group) -}}
{{ $group }}/v1
{{- else if .Capabilities.APIVersions.Has (printf "%s/v1beta1/MutatingAdmissionPolicy" $group) -}}
{{ $group }}/v1beta1
{{- else if eq .Values.placementGate.policy "Enabled" -}}
{{ $group }}/v1
{{- end -}}
{{- end }}
