use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::words::{list, near_miss, percent};
use crate::policy::{Action, Carried, Case, Destination, Reference, Report, Rule, Stage};
use crate::world::{ANY_NAMESPACE, Client, Kind};

/// A subset that gets traffic is defined.
///
/// Refuses a destination with a share above 0 whose subset no DestinationRule in force defines for the clients concerned: that
/// share of the requests is answered with 503 (`cluster_not_found`), and nothing falls back to another subset.
///
/// A DestinationRule is looked up as Istio does: in the client's namespace, the service's, then the root namespace; an exact
/// host hides a wildcard; those of one namespace with equal `exportTo` act as one.
///
/// Admitted with a warning: on a first install, where no endpoint of the host is ready yet; in a dry run, whose other objects
/// the server does not have; where the subset was missing before and gets no more than it had; and for a lowering. Before
/// anybody is refused the DestinationRules are read again from the API server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SubsetDefined {}

impl Rule for SubsetDefined {
    const ID: &'static str = "subset-defined";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Traffic;
    const READS: &'static [Kind] = &[Kind::DestinationRule, Kind::Service, Kind::ServiceEntry];

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let Some(change) = case.change else { return };
        for carried in case.carried() {
            let destination = change.destinations.get(carried.destination);
            let subset = carried.written.destination.subset.as_str();
            if subset.is_empty() || case.world.host(&destination.host).is_none() {
                continue;
            }
            let lacks =
                |client: &&Client| case.world.subset(&destination.host, subset, client).is_none();
            let Some(client) = change.clients.iter().find(lacks) else { continue };
            let message = message(case, &carried, destination, client);
            report.lookup(
                case.if_absent(carried.gravity),
                carried.path(),
                message,
                rests_on(case, destination, client),
            );
        }
    }
}

fn rests_on(case: &Case<'_>, destination: &Destination, client: &Client) -> Vec<Reference> {
    let root = case.world.mesh().root_namespace.as_str();
    let service = case.world.host_namespace(&destination.host).unwrap_or_default();
    let mut namespaces = vec![client.namespace.as_str(), service, root];
    namespaces.retain(|namespace| *namespace != ANY_NAMESPACE);
    namespaces.sort_unstable();
    namespaces.dedup();
    namespaces
        .into_iter()
        .map(|namespace| Reference::DestinationRules { namespace: namespace.to_owned() })
        .collect()
}

fn message(
    case: &Case<'_>,
    carried: &Carried<'_>,
    destination: &Destination,
    client: &Client,
) -> String {
    let subset = carried.written.destination.subset.as_str();
    let clients = match client.namespace.as_str() {
        ANY_NAMESPACE => "in the mesh".to_owned(),
        namespace => format!("in {namespace}"),
    };
    let mut message = format!(
        "{} would get 503: no DestinationRule that clients {clients} use defines subset {subset} of {}",
        percent(carried.share),
        destination.host
    );
    let rules = case.world.destination_rules(&destination.host, client);
    let full = |rule: &crate::istio::DestinationRule| {
        format!("{}/{}", rule.metadata.namespace, rule.metadata.name)
    };
    let defined =
        rules.iter().flat_map(|rule| rule.spec.subsets.iter().map(|subset| subset.name.as_str()));
    let defined = defined.collect::<Vec<_>>();
    let names = list(&rules.iter().map(|rule| full(rule)).collect::<Vec<_>>());
    if !rules.is_empty() {
        let verb = if rules.len() == 1 { "defines" } else { "define" };
        let what = list(&defined.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let what = if defined.is_empty() { "no subset".to_owned() } else { what };
        message.push_str(&format!("\n  DestinationRule {names} {verb} {what}."));
    }
    let elsewhere = case.world.rules_defining(&destination.host, subset);
    if let Some(rule) = elsewhere.first() {
        let why = match rules.last() {
            None if rule.is_exported_to(&client.namespace) => format!(
                "Istio does not look in namespace {} for these clients",
                rule.metadata.namespace
            ),
            None => "its exportTo keeps it from these clients".to_owned(),
            Some(instead) => format!("{} takes its place for these clients", full(instead)),
        };
        message.push_str(&format!("\n  {} does define {subset}, but {why}.", full(rule)));
    }
    let add_to = rules.last().map(|rule| full(rule));
    let next = match (near_miss(subset, defined.iter().copied()), add_to) {
        (Some(meant), _) => format!("Did you mean {meant}?"),
        (None, Some(rule)) => {
            format!("Passes: add subset {subset} to {rule} first, then send it traffic.")
        }
        (None, None) => format!(
            "Passes: first a DestinationRule for {} in namespace {} that defines {subset}, then this.",
            destination.host,
            case.world.host_namespace(&destination.host).unwrap_or(&case.review.namespace)
        ),
    };
    message.push_str(&format!("\n  {next}"));
    message
}
