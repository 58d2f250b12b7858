{{/* The runtimes of this chart, as a map of file name to manifest. `$(...)` is filled by the operator, per revision. */}}
{{- define "penstock.runtimes" -}}
{{- with .Values.runtimes.onnxruntime }}{{ if .enabled }}
onnxruntime.json:
  apiVersion: penstock.dev/v1alpha1
  kind: ClusterModelRuntime
  metadata:
    name: onnxruntime
    # Not the release's labels: it is no part of the release, and tools that prune by them must not find it.
    labels: {app.kubernetes.io/managed-by: penstock}
  spec:
    formats:
      - {name: onnx, autoSelect: {{ .autoSelect }}}
    protocol: OpenInferenceV2
    modelLayout: flat
    ports: {http: 8080, grpc: 9000, metrics: 9090, admin: 9091}
    template:
      spec:
        # 5 s of serving on while routers take the pod out, then up to 20 s for what is in flight.
        terminationGracePeriodSeconds: 30
        containers:
          - name: server
            image: {{ include "penstock.image" $.Values.image.runtime }}
            imagePullPolicy: {{ $.Values.image.runtime.pullPolicy }}
            args:
              - serve
              - --model-path
              - $(model.path)
              - --model-name
              - $(model.name)
              - --http-port
              - $(ports.http)
              - --grpc-port
              - $(ports.grpc)
              - --metrics-port
              - $(ports.metrics)
              - --admin-port
              - $(ports.admin)
              - --drain-seconds
              - "5"
              - --shutdown-seconds
              - "20"
            ports:
              - {name: http, containerPort: 8080}
              - {name: grpc, containerPort: 9000}
              - {name: metrics, containerPort: 9090}
              - {name: admin, containerPort: 9091}
            # A model may take long to load: 10 min, beyond which spec.rollout.progressDeadline has long spoken.
            startupProbe:
              httpGet: {path: /v2/health/live, port: http}
              periodSeconds: 1
              timeoutSeconds: 2
              failureThreshold: 600
            readinessProbe:
              httpGet: {path: /v2/health/ready, port: http}
              periodSeconds: 2
              timeoutSeconds: 2
              failureThreshold: 2
            livenessProbe:
              httpGet: {path: /v2/health/live, port: http}
              periodSeconds: 10
              timeoutSeconds: 5
              failureThreshold: 6
            {{- with .resources }}
            resources: {{- toYaml . | nindent 14 }}
            {{- end }}
            securityContext:
              allowPrivilegeEscalation: false
              readOnlyRootFilesystem: true
              runAsNonRoot: true
              capabilities: {drop: [ALL]}
              seccompProfile: {type: RuntimeDefault}
{{- end }}{{ end }}
{{- end -}}
