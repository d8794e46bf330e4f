# For those who have a builder: docker build -t sluicegate . (podman, buildah and kaniko take it as well).
# `make image` makes the same image without one, and with the same digest each time.

ARG RUST=1.95
FROM rust:${RUST}-bookworm AS build
WORKDIR /sluicegate
COPY . .
RUN make release && cp target/*/release/sluicegate /sluicegate.static

# No shell, no libraries, no certificates: the gate talks to the API server alone, which its ServiceAccount's CA vouches for.
FROM scratch
COPY --from=build /sluicegate.static /sluicegate
USER 65532:65532
ENTRYPOINT ["/sluicegate"]
CMD ["serve"]
