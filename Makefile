# Each target is one line to read; what it does lies in the folder it names.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export PYTHONPATH := operator/src:runtime/src:.
export PYTHONSAFEPATH := 1
PY = $$(dev/venv)

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo:  ## the main job on a real cluster: good models promoted, bad ones rolled back (installs what it needs)
	@e2e/demo/run

test:  ## unit, property and integration tests (installs what they need)
	@py=$(PY); e2e/cluster/tool etcd kube-apiserver kubectl >/dev/null; $$py -m pytest tests

browser-test:  ## tests of the model server's page in headless Chromium (installs it on Debian)
	@py=$(PY); dev/browser; $$py -m pytest tests/browser

conformance:  ## the protocol by clients that others wrote: tritonclient, schemathesis
	@server=$(PY); client=$$(dev/venv conformance); PENSTOCK_SERVER_PYTHON=$$server $$client -m pytest -p no:schemathesis conformance

fuzz:  ## a million inputs through the server (INPUTS, SEED), then its decoders guided by coverage (RUNS for each)
	@py=$$(dev/venv fuzz); $$py -m tests.fuzz --inputs $${INPUTS:-1000000} --seed $${SEED:-1}; $$py -m tests.fuzz.guided --runs $${RUNS:-200000} --seed $${SEED:-1}

e2e:  ## end-to-end tests on a kind cluster (brings it up)
	@e2e/run

bench-server:  ## the model server beside others, a quarter of an hour (BENCH=quick; CASES="iris-json conv"; PROFILE=iris-json-64)
	@bench/server/run $(if $(filter quick,$(BENCH)),--quick) $(if $(CASES),--cases "$(CASES)") $(if $(PROFILE),--profile $(PROFILE))

soak:  ## ten million requests with a hundred exchanges of the model (ARGS="--requests 1000000")
	@py=$(PY); $$py -m bench.soak $(ARGS)

check:  ## format, lint, types, import contracts, generated files, chart
	@dev/check

generate:  ## write what is generated: CRDs, reference pages, the machine's diagram, gRPC messages, the chart's copies
	@py=$(PY); $$py -m penstock.api.schema && $$py -m penstock.api.reference && $$py dev/diagram.py && $$py dev/messages.py && $$py docs/images/draw.py && charts/sync

format:  ## format the code
	@py=$(PY); $$py -m ruff format . && $$py -m ruff check --fix .

lock:  ## pin the dependencies anew, with hashes
	@dev/lock

up:  ## a bare kind cluster (what goes onto it: docs/operations.md, e2e/cluster/README.md)
	@e2e/cluster/up

kubeconfig:  ## print the path of the cluster's kubeconfig
	@e2e/cluster/kubeconfig

down:  ## remove the cluster
	@e2e/cluster/down

.PHONY: help demo test browser-test conformance fuzz e2e bench-server soak check generate format lock up kubeconfig down
