#!/usr/bin/env bash
# From an empty cluster to an answer, and back: what CI runs on kind. Wants kubectl and helm, a
# current context without LoRA Land, and the images where the nodes find them.
#
#   CONTEXT=kind-loraland bash scripts/accept-kind.sh
set -euo pipefail
cd "$(dirname "$0")/.."

CONTEXT="${CONTEXT:-$(kubectl config current-context)}"
NAMESPACE="${NAMESPACE:-loraland-system}"
TOKEN="$(head -c 24 /dev/urandom | base64 | tr -d '/+=')"
SHA256="$(printf %s "$TOKEN" | sha256sum | cut -d' ' -f1)"
kubectl() { command kubectl --context "$CONTEXT" "$@"; }
helm() { command helm --kube-context "$CONTEXT" "$@"; }
step() { printf '\n== %s\n' "$*"; }

step "Install, with a Redis and an S3 for evaluation"
helm install loraland helm/loraland --namespace "$NAMESPACE" --create-namespace \
  --set evaluation.redis.enabled=true --set evaluation.objectStore.enabled=true \
  --set image.pullPolicy=IfNotPresent --set inference.resources.requests.cpu=500m \
  --set 'catalogue.baseModels.smollm2-135m-instruct.defaultResources.requests.cpu=500m' \
  --set-json "tokens.tokens=[{\"sha256\":\"$SHA256\",\"tenant\":\"default\",\"roles\":[\"inference\"]}]" \
  --wait --timeout 15m
helm test loraland --namespace "$NAMESPACE" --timeout 5m

step "Train: the job's namespace gets the keys of the bucket"
kubectl get secret loraland-store --namespace "$NAMESPACE" -o json \
  | python3 -c 'import json, sys; s = json.load(sys.stdin); s["metadata"] = {"name": "loraland-store"}; print(json.dumps(s))' \
  | kubectl apply --namespace default -f -
kubectl apply --namespace default -f examples/quickstart/job.yaml
kubectl wait --namespace default --for=condition=Succeeded finetunejob/support-desk --timeout 40m
kubectl wait --namespace default --for=condition=Ready adapter/support-desk --timeout 5m

step "Ask"
answer="$(kubectl run ask --namespace "$NAMESPACE" --rm --attach --restart=Never --quiet \
  --image "$(kubectl get deploy -n "$NAMESPACE" -l app.kubernetes.io/component=inference -o jsonpath='{.items[0].spec.template.spec.containers[0].image}')" \
  --env "TOKEN=$TOKEN" --env "ADDRESS=dns:///loraland-inference-smollm2-135m-instruct-headless:8500" \
  --command -- python -c "$(cat scripts/ask.py)")"
printf '%s\n' "$answer"
[[ "$answer" == *'"intent"'* ]]

step "Upgrade, and uninstall"
helm upgrade loraland helm/loraland --namespace "$NAMESPACE" --reuse-values --set inference.numSlots=4 --wait --timeout 10m
helm uninstall loraland --namespace "$NAMESPACE" --wait --timeout 10m
kubectl delete finetunejobs,adapters --all --all-namespaces --timeout 60s
step "Accepted"
