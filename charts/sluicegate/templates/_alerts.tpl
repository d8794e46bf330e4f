{{/* Every alert: what it means and what to do is in docs/runbooks.md, under its name. Series are those of the release's namespace. */}}
{{- define "sluicegate.alerts" -}}
{{- $own := printf "namespace=%q" .Release.Namespace -}}
{{- $name := include "sluicegate.fullname" . -}}
{{- $rule := .Values.prometheusRule -}}
- alert: SluicegateDown
  expr: absent(sluicegate_kind_listed{ {{- $own -}} })
  for: 5m
  labels: {severity: critical}
  annotations:
    summary: No replica of the gate is seen by Prometheus
    description: What webhook.validate covers is refused while no gate answers, if its failurePolicy is Fail, and else passes unjudged.
- alert: SluicegateReplicaMissing
  expr: count(sluicegate_overload_total{ {{- $own -}} }) < {{ .Values.replicas }}
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: Fewer replicas of the gate than {{ .Values.replicas }}
    description: 'Only {{ "{{ $value }}" }} of {{ .Values.replicas }} replicas are seen by Prometheus.'
- alert: SluicegateKindNotListed
  expr: min by (kind) (sluicegate_kind_listed{ {{- $own -}} }) == 0
  for: 5m
  labels: {severity: critical}
  annotations:
    summary: 'A replica has not listed {{ "{{ $labels.kind }}" }}'
    description: Until every kind is listed, that replica is not ready, and rises are answered with 503.
- alert: SluicegateIstioMissing
  expr: min(sluicegate_kind_installed{ {{- $own -}} ,kind="VirtualService"}) == 0
  for: 1h
  labels: {severity: info}
  annotations:
    summary: The cluster has no VirtualServices
    description: The CRDs of Istio are not installed; the gate has nothing to judge and looks for them again.
- alert: SluicegateCertificateExpiring
  expr: |-
    min(sluicegate_certificate_expiry_timestamp_seconds{ {{- $own -}} } > 0) - time() < {{ mulf $rule.certificateDays 86400 | int64 }}
  for: 10m
  labels: {severity: critical}
  annotations:
    summary: The serving certificate of the gate ends soon
    description: 'It ends in {{ "{{ $value | humanizeDuration }}" }}; nobody has renewed it. Afterwards no API server gets an answer.'
- alert: SluicegateCaExpiring
  expr: |-
    min(sluicegate_ca_expiry_timestamp_seconds{ {{- $own -}} } > 0) - time() < {{ mulf $rule.certificateDays 86400 | int64 }}
  for: 10m
  labels: {severity: critical}
  annotations:
    summary: The CA of the gate's certificate ends soon
    description: 'It ends in {{ "{{ $value | humanizeDuration }}" }}; nobody has renewed it. Afterwards no API server trusts the gate.'
- alert: SluicegateCertificateReloadFailing
  expr: sum(increase(sluicegate_certificate_reload_failures_total{ {{- $own -}} }[15m])) > 0
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: A new certificate cannot be used
    description: The last good one stays in use until it ends.
- alert: SluicegateCertificateIssueFailing
  expr: sum(increase(sluicegate_certificate_issue_failures_total{ {{- $own -}} }[15m])) > 0
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: The gate cannot renew its certificate, or make it trusted
    description: The last good one stays in use until it ends.
- alert: SluicegateCaBundleContested
  expr: sum(increase(sluicegate_ca_bundle_repairs_total{ {{- $own -}} }[1h])) > 3
  labels: {severity: warning}
  annotations:
    summary: Somebody keeps taking away the caBundle of the webhook
    description: 'In the last hour the gate put it back {{ "{{ $value | humanize }}" }} times; each time API servers trusted nothing for a moment.'
- alert: SluicegatePolicyNotCurrent
  expr: min(sluicegate_policy_current{ {{- $own -}} }) == 0
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: The policy that was written last cannot be used
    description: The last good one is in force. The log and `helm test` say what is wrong.
- alert: SluicegatePolicyReloadFailing
  expr: sum(increase(sluicegate_policy_reload_failures_total{ {{- $own -}} }[15m])) > 0
  for: 30m
  labels: {severity: warning}
  annotations:
    summary: A policy could not be read, again and again
    description: The last good one is in force.
- alert: SluicegateUndecided
  expr: |-
    sum(rate(sluicegate_reviews_total{ {{- $own -}} ,verdict="undecided"}[10m]))
      / sum(rate(sluicegate_reviews_total{ {{- $own -}} }[10m])) > {{ divf $rule.failedPercent 100 }}
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: The gate cannot decide
    description: '{{ "{{ $value | humanizePercentage }}" }} of the reviews are answered with 503, and failurePolicy decides.'
- alert: SluicegateErrors
  expr: |-
    sum(rate(sluicegate_reviews_total{ {{- $own -}} ,verdict="error"}[10m]))
      / sum(rate(sluicegate_reviews_total{ {{- $own -}} }[10m])) > {{ divf $rule.failedPercent 100 }}
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: Reviews end with an error
    description: '{{ "{{ $value | humanizePercentage }}" }} of the requests could not be read, or judging them failed.'
- alert: SluicegateOverloaded
  expr: sum(increase(sluicegate_overload_total{ {{- $own -}} }[5m])) > 0
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: The gate turns requests away
    description: More requests or connections at once than it takes; they got 503, and failurePolicy decides.
- alert: SluicegateSlow
  expr: |-
    histogram_quantile(0.99, sum by (le) (rate(sluicegate_review_duration_seconds_bucket{ {{- $own -}} }[10m]))) > {{ $rule.slowSeconds }}
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: The gate answers slowly
    description: 'One review in a hundred takes longer than {{ "{{ $value | humanizeDuration }}" }}; API servers wait {{ .Values.webhook.validate.timeoutSeconds }} s for writes of people and {{ .Values.webhook.controllers.timeoutSeconds }} s for those of controllers.'
- alert: SluicegateLiveReadsFailing
  expr: |-
    sum(rate(sluicegate_live_reads_total{ {{- $own -}} ,result!="ok"}[10m]))
      / sum(rate(sluicegate_live_reads_total{ {{- $own -}} }[10m])) > 0.05
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: The API server does not answer the gate in time
    description: '{{ "{{ $value | humanizePercentage }}" }} of the reads before a refusal failed; these writes got 503 instead of an answer.'
{{- end -}}
