use crate::istio::{Host, Protocol, VirtualService};
use crate::world::{Client, World};

/// The clients to ask about: `exportTo: ["."]` leaves only the object's own namespace; otherwise any namespace without
/// DestinationRules of its own stands for all of them, and the services' own namespaces can differ from it.
pub(super) fn of(object: &VirtualService, namespace: &str, world: &World) -> Vec<Client> {
    let own = |to: &String| to == "." || to == namespace;
    if !object.spec.export_to.is_empty() && object.spec.export_to.iter().all(own) {
        return vec![Client::in_namespace(namespace)];
    }
    let mut clients = vec![Client::anywhere()];
    for protocol in Protocol::ALL {
        for written in object.spec.routes(protocol).iter().flat_map(|route| &route.route) {
            let host = Host::resolve(&written.destination.host, namespace, &world.mesh().domain);
            if let Some(at) = world.host_namespace(&host).map(Client::in_namespace)
                && !clients.contains(&at)
            {
                clients.push(at);
            }
        }
    }
    clients
}
