{{/* An address to listen on (list root, port); one of IPv6 in brackets. */}}
{{- define "sluicegate.listen" -}}
{{- $address := (index . 0).Values.gate.listenAddress -}}
{{- if contains ":" $address -}}[{{ $address }}]{{- else -}}{{ $address }}{{- end -}}:{{ int (index . 1) }}
{{- end -}}

{{/* What istiod was told, as flags; what is the default of the flag is left out. */}}
{{- define "sluicegate.meshArguments" -}}
{{- $flags := list -}}
{{- with .Values.mesh -}}
{{- if ne .domain "cluster.local" }}{{ $flags = append $flags (printf "--domain=%s" .domain) }}{{ end -}}
{{- with .rootNamespace }}{{ $flags = append $flags (printf "--root-namespace=%s" .) }}{{ end -}}
{{- if ne .revision "default" }}{{ $flags = append $flags (printf "--revision=%s" .revision) }}{{ end -}}
{{- with .istioNamespace }}{{ $flags = append $flags (printf "--istio-namespace=%s" .) }}{{ end -}}
{{- with .defaultVirtualServiceExportTo }}{{ $flags = append $flags (printf "--default-virtual-service-export-to=%s" (join "," .)) }}{{ end -}}
{{- with .defaultDestinationRuleExportTo }}{{ $flags = append $flags (printf "--default-destination-rule-export-to=%s" (join "," .)) }}{{ end -}}
{{- with .defaultServiceExportTo }}{{ $flags = append $flags (printf "--default-service-export-to=%s" (join "," .)) }}{{ end -}}
{{- range .discoverySelectors }}{{ $flags = append $flags (printf "--discovery-selector=%s" .) }}{{ end -}}
{{- if ne .clusterId "Kubernetes" }}{{ $flags = append $flags (printf "--cluster-id=%s" .clusterId) }}{{ end -}}
{{- if .plainDestinationRuleMerge }}{{ $flags = append $flags "--plain-destination-rule-merge" }}{{ end -}}
{{- if .multiCluster }}{{ $flags = append $flags "--multi-cluster" }}{{ end -}}
{{- end -}}
{{- with $flags }}{{ toYaml . }}{{ end -}}
{{- end -}}
