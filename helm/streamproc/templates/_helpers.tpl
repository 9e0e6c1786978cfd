{{/* Names and labels. */}}
{{- define "streamproc.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects: never helm.sh/chart, which changes with every version. */}}
{{- define "streamproc.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "streamproc.labels" -}}
{{ include "streamproc.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "streamproc.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "streamproc.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "streamproc.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "streamproc.groupPrefix" -}}
{{- default (printf "%s-" (include "streamproc.fullname" .)) .Values.groupPrefix -}}
{{- end -}}

{{/* The picture that the chart renders: the same file that the workers and `topics apply` read. JSON. */}}
{{- define "streamproc.topology" -}}
{{- $topology := .Files.Get "files/topology.yaml" | fromYaml -}}
{{- if not $topology.agents -}}
{{- fail (printf "files/topology.yaml names no agents: %v" $topology) -}}
{{- end -}}
{{- range $name, $_ := .Values.agents -}}
{{- if not (hasKey $topology.agents $name) -}}
{{- fail (printf "agents.%s: topology.yaml has no such agent" $name) -}}
{{- end -}}
{{- end -}}
{{- $topology | toJson -}}
{{- end -}}

{{/* How many workers of an agent can have work: the fewest partitions of what it reads. Takes root, topology, agent. */}}
{{- define "streamproc.partitions" -}}
{{- $fewest := 0 -}}
{{- range $topic := .agent.reads -}}
{{- $own := (index $.topology.topics $topic).partitions -}}
{{- $count := $own | default $.root.Values.topics.partitions | default $.topology.partitions | int -}}
{{- if or (eq $fewest 0) (lt $count $fewest) -}}
{{- $fewest = $count -}}
{{- end -}}
{{- end -}}
{{- $fewest -}}
{{- end -}}

{{/* The settings of one agent: agentDefaults under agents.NAME. JSON. Takes root, topology, name, agent. */}}
{{- define "streamproc.agentSettings" -}}
{{- $settings := mergeOverwrite (deepCopy .root.Values.agentDefaults) (deepCopy (index .root.Values.agents .name | default dict)) -}}
{{- $partitions := include "streamproc.partitions" . | int -}}
{{- $scaling := $settings.autoscaling -}}
{{- if $scaling.enabled -}}
{{- if gt (int $scaling.maxReplicas) $partitions -}}
{{- fail (printf "agents.%s: autoscaling.maxReplicas %d is more than the %d partitions of what it reads" .name (int $scaling.maxReplicas) $partitions) -}}
{{- end -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "agents.%s: autoscaling.minReplicas %d is more than maxReplicas %d" .name (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if gt (int $scaling.fallback.replicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "agents.%s: autoscaling.fallback.replicas %d is more than maxReplicas %d" .name (int $scaling.fallback.replicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- else if gt (int $settings.replicas) $partitions -}}
{{- fail (printf "agents.%s: replicas %d is more than the %d partitions of what it reads" .name (int $settings.replicas) $partitions) -}}
{{- end -}}
{{- $settings | toJson -}}
{{- end -}}

{{- define "streamproc.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.security.runAsUser }}
runAsGroup: {{ int64 .Values.security.runAsUser }}
fsGroup: {{ int64 .Values.security.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "streamproc.containerSecurityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Of every pod. Service links off: a Service called streamproc would set STREAMPROC_PORT and the like, and a worker
     refuses settings that it does not know. */}}
{{- define "streamproc.podSpec" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "streamproc.podSecurityContext" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Environment of every container of ours. */}}
{{- define "streamproc.env" -}}
- name: STREAMPROC_BROKER
  value: {{ join "," .Values.broker.addresses | quote }}
- name: STREAMPROC_LOG_LEVEL
  value: {{ .Values.logLevel | quote }}
- name: STREAMPROC_LOG_FORMAT
  value: json
- name: STREAMPROC_CACHE
  value: /var/cache/streamproc
- name: HOME
  value: /tmp
{{- end -}}

{{/* What comes after `streamproc topics apply` and `diff`: a JSON list. */}}
{{- define "streamproc.topicArguments" -}}
{{- $arguments := list -}}
{{- with int .Values.topics.partitions -}}
{{- $arguments = concat $arguments (list "--partitions" (toString .)) -}}
{{- end -}}
{{- with int .Values.topics.replication -}}
{{- $arguments = concat $arguments (list "--replication" (toString .)) -}}
{{- end -}}
{{- $arguments | toJson -}}
{{- end -}}

{{/* The way out to the object store and media origins: one rule of a network policy. */}}
{{- define "streamproc.objectEgress" -}}
- ports:
    {{- range .Values.networkPolicy.egress.objectPorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .Values.networkPolicy.egress.objects }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
