{{/* The name of the application, for labels. */}}
{{- define "sluicegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of everything. Short enough for the longest suffix, and for a label. */}}
{{- define "sluicegate.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* By what the Pods of the gate are found; the Pods of hooks and tests have another component. */}}
{{- define "sluicegate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sluicegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gate
{{- end -}}

{{/* Metadata of an object: dict root, and optionally name, namespace (false: none), component, labels, annotations. */}}
{{- define "sluicegate.metadata" -}}
{{- $root := .root -}}
{{- $labels := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/name" (include "sluicegate.name" $root)
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/version" (regexReplaceAll "[^A-Za-z0-9._-]" $root.Chart.AppVersion "_" | trunc 63)
  "app.kubernetes.io/managed-by" $root.Release.Service
  "app.kubernetes.io/part-of" "sluicegate"
  "app.kubernetes.io/component" (default "gate" .component) -}}
{{- /* The user's labels never take the place of those by which something is found. */ -}}
{{- $labels = merge $labels (default dict .labels) $root.Values.commonLabels -}}
{{- $annotations := merge (dict) (default dict .annotations) $root.Values.commonAnnotations -}}
name: {{ default (include "sluicegate.fullname" $root) .name }}
{{- if ne (toString .namespace) "false" }}
namespace: {{ default $root.Release.Namespace .namespace }}
{{- end }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "sluicegate.serviceAccountName" -}}
{{- default (ternary (include "sluicegate.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "sluicegate.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Secret of the serving certificate. */}}
{{- define "sluicegate.certsSecret" -}}
{{- if eq .Values.certificates.mode "existingSecret" -}}
{{- .Values.certificates.existingSecret.name -}}
{{- else -}}
{{- include "sluicegate.fullname" . }}-certs
{{- end -}}
{{- end -}}

{{/* Istio's ConfigMap, and where it is. */}}
{{- define "sluicegate.meshConfigName" -}}
{{- if or (eq .Values.mesh.revision "") (eq .Values.mesh.revision "default") -}}istio{{- else -}}istio-{{ .Values.mesh.revision }}{{- end -}}
{{- end -}}
{{- define "sluicegate.meshConfigNamespace" -}}
{{- coalesce .Values.mesh.istioNamespace .Values.mesh.rootNamespace "istio-system" -}}
{{- end -}}

{{/* What every Pod has, restricted as Pod Security Standards want it. */}}
{{- define "sluicegate.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
fsGroup: {{ .Values.runAsUser }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- define "sluicegate.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Where the Pods may run: all of them alike. */}}
{{- define "sluicegate.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A Pod that does one thing and ends (dict root, account, command, volumes, mounts): the hook's and the test's. */}}
{{- define "sluicegate.oneShot" -}}
{{- $root := .root -}}
serviceAccountName: {{ .account }}
automountServiceAccountToken: true
restartPolicy: Never
securityContext:
  {{- include "sluicegate.podSecurityContext" $root | nindent 2 }}
{{- include "sluicegate.placement" $root }}
containers:
  - name: sluicegate
    image: {{ include "sluicegate.image" $root | quote }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args:
      {{- toYaml .command | nindent 6 }}
    securityContext:
      {{- include "sluicegate.containerSecurityContext" $root | nindent 6 }}
    resources:
      requests: {cpu: 10m, memory: 32Mi}
      limits: {memory: 128Mi}
    {{- with .mounts }}
    volumeMounts:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- with .volumes }}
volumes:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Binds a role to an account (dict root, kind, metadata, role, account). */}}
{{- define "sluicegate.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  {{- include "sluicegate.metadata" .metadata | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .role }}
subjects:
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{/* The accounts of delivery controllers as an expression in CEL; a * at either end as the policy reads it. */}}
{{- define "sluicegate.isController" -}}
{{- $names := list -}}
{{- $terms := list -}}
{{- range concat (default list .Values.policy.controllers.flagger) (default list .Values.policy.controllers.argoRollouts) -}}
{{- if and (gt (len .) 1) (hasPrefix "*" .) (hasSuffix "*" .) -}}
{{- $terms = append $terms (printf "request.userInfo.username.contains(%s)" (trimPrefix "*" . | trimSuffix "*" | toJson)) -}}
{{- else if hasPrefix "*" . -}}
{{- $terms = append $terms (printf "request.userInfo.username.endsWith(%s)" (trimPrefix "*" . | toJson)) -}}
{{- else if hasSuffix "*" . -}}
{{- $terms = append $terms (printf "request.userInfo.username.startsWith(%s)" (trimSuffix "*" . | toJson)) -}}
{{- else -}}
{{- $names = append $names (toJson .) -}}
{{- end -}}
{{- end -}}
{{- if $names -}}
{{- $terms = prepend $terms (printf "request.userInfo.username in [%s]" (join ", " $names)) -}}
{{- end -}}
{{- default "false" (join " || " $terms) -}}
{{- end -}}
