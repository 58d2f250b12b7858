{{/* What the operator may do in each namespace it looks after: nothing that it does not do. */}}
{{- define "penstock.rules" -}}
# Reads what users want. It has no right to write a spec, so Git stays the truth.
- apiGroups: [penstock.dev]
  resources: [modeldeployments]
  verbs: [get, list, watch]
- apiGroups: [penstock.dev]
  resources: [modeldeployments/status]
  verbs: [get, update, patch]
# Evidence of its own.
- apiGroups: [penstock.dev]
  resources: [rolloutanalyses, rolloutanalyses/status]
  verbs: [get, list, watch, create, update, patch, delete]
# What it makes for a model. Server-side apply is `patch`, and `create` where the object is new.
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
# The key that signs prediction ids, Secret <model>-feedback-key; and, of a Secret that a spec names as credentials, whether
# its owner offers it (a label). RBAC cannot restrict `create` by name, and the names are not known here. Without `list`
# and `watch` it cannot look around: it can only ask for a name.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
# Watches its pods; `patch` sets annotations, so that a kubelet looks at a changed ConfigMap at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
