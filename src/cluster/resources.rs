//! Every kind that is read, and where the API server serves it.

use crate::world::Kind;

/// Where the API server serves a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// Which kind.
    pub kind: Kind,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The versions that may be served, best first. Istio before 1.22 does not serve `v1`.
    pub versions: &'static [&'static str],
    /// The name in URLs and RBAC rules.
    pub plural: &'static str,
    /// Whether a CRD brings it, so that it may not be there yet.
    pub is_custom: bool,
}

impl Resource {
    /// The name as `kind:` spells it.
    pub fn spelled(&self) -> &'static str {
        match self.kind {
            Kind::Waypoint => "Gateway",
            kind => kind.name(),
        }
    }
}

const fn built_in(kind: Kind, group: &'static str, plural: &'static str) -> Resource {
    Resource { kind, group, versions: &["v1"], plural, is_custom: false }
}

const fn istio(kind: Kind, plural: &'static str) -> Resource {
    let versions = &["v1", "v1beta1", "v1alpha3"];
    Resource { kind, group: "networking.istio.io", versions, plural, is_custom: true }
}

/// Everything that the gate reads: `get`, `list` and `watch` on each of these is all it needs for its verdicts.
pub const RESOURCES: [Resource; Kind::ALL.len()] = [
    istio(Kind::VirtualService, "virtualservices"),
    istio(Kind::DestinationRule, "destinationrules"),
    istio(Kind::ServiceEntry, "serviceentries"),
    istio(Kind::WorkloadEntry, "workloadentries"),
    istio(Kind::Gateway, "gateways"),
    Resource {
        kind: Kind::Waypoint,
        group: "gateway.networking.k8s.io",
        versions: &["v1", "v1beta1"],
        plural: "gateways",
        is_custom: true,
    },
    istio(Kind::Sidecar, "sidecars"),
    built_in(Kind::Service, "", "services"),
    built_in(Kind::EndpointSlice, "discovery.k8s.io", "endpointslices"),
    built_in(Kind::Pod, "", "pods"),
    built_in(Kind::Node, "", "nodes"),
    built_in(Kind::Namespace, "", "namespaces"),
    built_in(Kind::Deployment, "apps", "deployments"),
    built_in(Kind::ReplicaSet, "apps", "replicasets"),
    built_in(Kind::StatefulSet, "apps", "statefulsets"),
    built_in(Kind::DaemonSet, "apps", "daemonsets"),
    Resource {
        kind: Kind::Canary,
        group: "flagger.app",
        versions: &["v1beta1"],
        plural: "canaries",
        is_custom: true,
    },
    Resource {
        kind: Kind::Rollout,
        group: "argoproj.io",
        versions: &["v1alpha1"],
        plural: "rollouts",
        is_custom: true,
    },
];

/// Where the API server serves `kind`.
pub fn resource(kind: Kind) -> &'static Resource {
    RESOURCES
        .iter()
        .find(|resource| resource.kind == kind)
        .expect("the table has a row for every kind, which a test compares")
}

/// The kind that an object calls itself; every served version has the same fields as far as they are read.
pub(super) fn kind_of(api_version: &str, kind: &str) -> Option<Kind> {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let named =
        RESOURCES.iter().find(|resource| resource.spelled() == kind && resource.group == group);
    named.map(|resource| resource.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_row_and_is_found_by_its_own_name() {
        for kind in Kind::ALL {
            let own = resource(kind);
            for version in own.versions {
                let api_version = match own.group {
                    "" => (*version).to_owned(),
                    group => format!("{group}/{version}"),
                };
                assert_eq!(kind_of(&api_version, own.spelled()), Some(kind));
            }
        }
        assert_eq!(kind_of("networking.example.com/v1", "VirtualService"), None);
        assert_eq!(kind_of("v1", "Deployment"), None);
    }
}
