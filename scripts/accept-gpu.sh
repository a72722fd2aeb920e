#!/usr/bin/env bash
# Accepts a release on a GPU: publishes adapters, measures parity, load and the cliff, writes a report.
#
#   TOKEN=… BUCKET=my-bucket bash scripts/accept-gpu.sh
#
# Wants a current context with the release of values-a100.yaml, credentials for BUCKET here and in the
# Secret loraland-store of TENANT, a token of that tenant, and an environment with `pip install
# '.[models]'`. Exit code 0: all within the limits that scripts/accept_gpu.py names.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${TOKEN:?a token of the tenant}" "${BUCKET:?the bucket that adapters are imported from}"
NAMESPACE="${NAMESPACE:-loraland-system}"
TENANT="${TENANT:-default}"
BASE_MODEL="${BASE_MODEL:-mistral-7b-instruct}"
REPO="${REPO:-mistralai/Mistral-7B-Instruct-v0.3}"
COUNT="${COUNT:-64}"
REPORT="${REPORT:-accept-gpu.json}"
PORT="${PORT:-18500}"
PYTHON="${PYTHON:-python3}"
export TOKEN

deployment="$(kubectl get deploy -n "$NAMESPACE" -l "loraland.dev/base-model=$BASE_MODEL,app.kubernetes.io/component=inference" -o name)"
[ -n "$deployment" ] || { echo "no deployment of $BASE_MODEL in $NAMESPACE" >&2; exit 2; }
kubectl rollout status -n "$NAMESPACE" "$deployment" --timeout 40m
slots="$(kubectl get -n "$NAMESPACE" "$deployment" -o jsonpath='{.spec.template.spec.containers[0].env[?(@.name=="LORALAND_NUM_SLOTS")].value}')"

forward=""
clean() {
  echo "== removing them"
  [ -z "$forward" ] || kill "$forward" 2>/dev/null || true
  kubectl delete adapters -n "$TENANT" -l loraland.dev/acceptance=true --wait=false
}
trap clean EXIT

echo "== publishing $COUNT adapters"
"$PYTHON" scripts/accept_adapters.py --repo "$REPO" --base-model "$BASE_MODEL" --bucket "$BUCKET" \
  ${ENDPOINT_URL:+--endpoint-url "$ENDPOINT_URL"} --namespace "$TENANT" --count "$COUNT" \
  | kubectl apply --server-side -f -
kubectl wait -n "$TENANT" --for=condition=Ready adapters -l loraland.dev/acceptance=true --timeout 60m

echo "== measuring"
kubectl port-forward -n "$NAMESPACE" "$deployment" "$PORT:8500" >/dev/null &
forward=$!
adapters=()
for index in $(seq -f %02g 0 $((COUNT - 1))); do adapters+=("$TENANT/accept-$index"); done
"$PYTHON" scripts/accept_gpu.py --address "127.0.0.1:$PORT" --adapters "${adapters[@]}" \
  --slots "$slots" --report "$REPORT"
