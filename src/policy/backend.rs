//! What stands behind a host: the Service or the ServiceEntry whose endpoints take its requests.

use std::collections::BTreeMap;

use crate::istio::{Host, ServiceEntry};
use crate::world::{HostKind, Service, World};

/// What stands behind a host: who has its endpoints.
#[derive(Debug, Clone, Copy)]
pub enum Backend<'a> {
    /// A Kubernetes Service.
    Service(&'a Service),
    /// The oldest ServiceEntry that names the host.
    Entry(&'a ServiceEntry),
}

impl<'a> Backend<'a> {
    /// What stands behind `host`, or behind the host for which it is another name; `None` where nobody has it.
    pub fn of(host: &Host, world: &'a World) -> Option<Self> {
        let target = world.alias_target(host);
        match world.host(target.as_ref().unwrap_or(host))? {
            HostKind::Service(service) => Some(Self::Service(service)),
            HostKind::ServiceEntry(entry) => Some(Self::Entry(entry)),
            HostKind::Alias(_) => None,
        }
    }

    /// Its namespace.
    pub fn namespace(self) -> String {
        match self {
            Self::Service(service) => service.namespace.clone(),
            Self::Entry(entry) => entry.metadata.namespace.clone(),
        }
    }

    /// As messages say it: `Service reviews`, `ServiceEntry shop/legacy`.
    pub fn name(self) -> String {
        match self {
            Self::Service(service) => format!("Service {}", service.name),
            Self::Entry(entry) => {
                format!("ServiceEntry {}/{}", entry.metadata.namespace, entry.metadata.name)
            }
        }
    }

    /// The labels that it selects its endpoints by; empty where it lists them.
    pub fn selector(self) -> BTreeMap<String, String> {
        match self {
            Self::Service(service) => service.selector.clone(),
            Self::Entry(entry) => {
                entry.spec.workload_selector.clone().map(|own| own.labels).unwrap_or_default()
            }
        }
    }
}
