use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::FieldPath;
use crate::policy::{Action, Gravity, Report, Review, Rule, Stage};
use crate::world::{Kind, World};

/// What is written is read by istiod.
///
/// Reads: the namespace. Looks up its labels.
///
/// Why: where `meshConfig.discoverySelectors` are set, istiod reads nothing in a namespace whose labels satisfy none of them. A
/// VirtualService there routes nothing, a DestinationRule there defines nothing, for clients anywhere, and nobody says so. On the
/// day on which the namespace gets such labels everything in it comes into force at once, and nobody judges it then.
///
/// A write there moves no traffic, so nothing else is said about it; only what would be broken for everyone is refused all the
/// same. A namespace that belongs to another istiod is best left out by the `namespaceSelector` of the webhook. A deletion there
/// passes without a word.
///
/// Warned about: a VirtualService in namespace legacy, which has no label `mesh`, with `discoverySelectors` that ask for
/// `mesh: on`.
///
/// Passes: the same in a namespace with the label `mesh: on`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct NamespaceRead {}

impl Rule for NamespaceRead {
    const ID: &'static str = "namespace-read";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Unread;
    const READS: &'static [Kind] = &[Kind::Namespace];

    fn check_unread(&self, review: &Review, world: &World, report: &mut Report<'_>) {
        let nothing = match review.kind() {
            Some(Kind::DestinationRule) => "this DestinationRule defines nothing for anybody",
            _ => "this VirtualService routes nothing",
        };
        let namespace = review.namespace.as_str();
        let message = format!(
            "istiod does not read namespace {namespace}: its labels are none that meshConfig.discoverySelectors ask for ({}); {nothing}\n  Passes without a warning: this once the namespace has such labels; all that is in it then comes into force at once.",
            world.mesh().wanted_labels()
        );
        report.lookup(Gravity::Full, FieldPath::spec(), message, Vec::new());
    }
}
