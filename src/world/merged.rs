//! How istiod merges the DestinationRules of a namespace for one host.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Mesh;
use crate::istio::{DestinationRule, PolicyInForce, Subset, WorkloadSelector};

/// The DestinationRules of one namespace for one host as written, and as istiod merges them for those who may see them.
#[derive(Debug, Default)]
pub(super) struct HostRules {
    /// All of them, those of other revisions included; sorted: those with a `workloadSelector` first, then by age.
    pub(super) written: Vec<Arc<DestinationRule>>,
    /// What clients of the namespace itself find.
    pub(super) local: Vec<Entry>,
    /// What clients of other namespaces find, as far as `exportTo` lets them.
    pub(super) exported: Vec<Entry>,
    /// What clients of the root namespace find, where this is the root namespace.
    pub(super) root_local: Vec<Entry>,
}

/// DestinationRules that act as one.
#[derive(Debug)]
pub(super) struct Entry {
    /// `exportTo` of the first one, as a set; exactly `.` where it has a `workloadSelector`.
    export_to: BTreeSet<String>,
    /// In the order in which they were merged; never empty.
    pub(super) rules: Vec<Arc<DestinationRule>>,
    /// Where a subset stands: which rule, and its place there. Empty where there are so few that looking at each is faster.
    places: HashMap<String, (usize, usize)>,
}

/// So many subsets are looked at one after the other.
const FEW_SUBSETS: usize = 16;

impl HostRules {
    /// Sorts and merges; `written` may come in any order.
    ///
    /// Source: `pilot/pkg/model/push_context.go` `setDestinationRules`.
    pub(super) fn of(mut written: Vec<Arc<DestinationRule>>, mesh: &Mesh) -> Self {
        written.sort_by(|a, b| {
            let key = |rule: &DestinationRule| rule.spec.workload_selector.is_none();
            key(a).cmp(&key(b)).then_with(|| a.metadata.by_age().cmp(&b.metadata.by_age()))
        });
        let mut merged = Self::default();
        let is_private_by_default =
            mesh.default_destination_rule_export_to.iter().any(|to| to == ".");
        for rule in written.iter().filter(|rule| rule.metadata.is_in_revision(&mesh.revision)) {
            let namespace = rule.metadata.namespace.as_str();
            let export_to = match rule.spec.workload_selector {
                Some(_) => BTreeSet::from([".".to_owned()]),
                None => rule.spec.export_to.iter().cloned().collect(),
            };
            let names = |to: &str| export_to.contains(to);
            let add = |list: &mut Vec<Entry>| merge(list, rule, &export_to, mesh);
            if export_to.is_empty() || names("*") || names(".") || names(namespace) {
                add(&mut merged.local);
            }
            let is_private_only = if export_to.is_empty() {
                is_private_by_default
            } else {
                export_to.len() == 1 && (names(".") || names(namespace))
            };
            if !is_private_only {
                add(&mut merged.exported);
            } else if namespace == mesh.root_namespace {
                add(&mut merged.root_local);
            }
        }
        let Self { local, exported, root_local, .. } = &mut merged;
        [local, exported, root_local].into_iter().flatten().for_each(Entry::index);
        Self { written, ..merged }
    }
}

/// Adds `rule` to the entries of its host: into those whose `exportTo` and selector fit, and as one more of its own where the
/// last of them says so. What looks odd here is so in Istio: a plain rule whose set is wider than that of an older plain one lives
/// only inside the narrower entry, and one with exactly the set of a selector's entry only inside that.
///
/// Source: `pilot/pkg/model/destination_rule.go` `mergeDestinationRule`.
fn merge(
    entries: &mut Vec<Entry>,
    rule: &Arc<DestinationRule>,
    export_to: &BTreeSet<String>,
    mesh: &Mesh,
) {
    let selector = rule.spec.workload_selector.as_ref();
    let mut stands_alone = true;
    for entry in entries.iter_mut() {
        if mesh.has_enhanced_merge {
            let is_wider = !entry.export_to.is_empty() && export_to.is_superset(&entry.export_to);
            stands_alone = entry.export_to != *export_to;
            if stands_alone && !is_wider {
                continue;
            }
        }
        match (entry.selector(), selector) {
            (Some(theirs), Some(own)) if theirs != own => {
                stands_alone = true;
                continue;
            }
            (Some(_), Some(_)) | (None, None) => stands_alone = false,
            _ => {}
        }
        entry.rules.push(Arc::clone(rule));
    }
    if stands_alone {
        let rules = vec![Arc::clone(rule)];
        entries.push(Entry { export_to: export_to.clone(), rules, places: HashMap::new() });
    }
}

impl Entry {
    /// Makes look-ups of its subsets fast where it has many.
    fn index(&mut self) {
        let count = self.rules.iter().map(|rule| rule.spec.subsets.len()).sum::<usize>();
        if count <= FEW_SUBSETS {
            return;
        }
        for (rule, own) in self.rules.iter().enumerate() {
            for (at, subset) in own.spec.subsets.iter().enumerate() {
                self.places.entry(subset.name.clone()).or_insert((rule, at));
            }
        }
    }

    pub(super) fn selector(&self) -> Option<&WorkloadSelector> {
        self.rules.first()?.spec.workload_selector.as_ref()
    }

    /// Whether clients of another namespace may use it.
    pub(super) fn is_exported_to(&self, namespace: &str) -> bool {
        self.export_to.is_empty()
            || self.export_to.contains("*")
            || self.export_to.contains(namespace)
    }
}

/// What a client uses for a host: one DestinationRule, or several of one namespace that act as one.
#[derive(Debug, Clone, Copy)]
pub struct EffectiveRule<'a> {
    entry: &'a Entry,
}

impl<'a> EffectiveRule<'a> {
    pub(super) fn of(entry: &'a Entry) -> Self {
        Self { entry }
    }

    /// The DestinationRules that it is made of, in the order in which Istio merged them: what an earlier one says counts.
    pub fn rules(self) -> impl DoubleEndedIterator<Item = &'a DestinationRule> + ExactSizeIterator {
        self.entry.rules.iter().map(Arc::as_ref)
    }

    /// Their namespace.
    pub fn namespace(self) -> &'a str {
        self.entry.rules.first().map_or("", |rule| &rule.metadata.namespace)
    }

    /// The client pods it is for; `None` for all of those that see it.
    pub fn selector(self) -> Option<&'a WorkloadSelector> {
        self.entry.selector()
    }

    /// Its subsets, each name once: the first rule that defines it wins.
    pub fn subsets(self) -> impl Iterator<Item = &'a Subset> {
        let all = self.entry.rules.iter().flat_map(|rule| &rule.spec.subsets);
        let mut seen = BTreeSet::new();
        all.filter(move |subset| seen.insert(subset.name.as_str()))
    }

    /// The subset of this name.
    pub fn subset(self, name: &str) -> Option<&'a Subset> {
        let Entry { rules, places, .. } = self.entry;
        if places.is_empty() {
            let mut all = rules.iter().flat_map(|rule| &rule.spec.subsets);
            return all.find(|subset| subset.name == name);
        }
        let &(rule, at) = places.get(name)?;
        rules[rule].spec.subsets.get(at)
    }

    /// Whether any of them, or a subset, says how traffic is treated.
    pub fn has_policy(self) -> bool {
        let mut subsets = self.entry.rules.iter().flat_map(|rule| &rule.spec.subsets);
        self.rules().any(|rule| rule.spec.traffic_policy.is_some())
            || subsets.any(|subset| subset.traffic_policy.is_some())
    }

    /// The traffic policy for a subset (empty for the whole host) and one of the host's ports: of the rules the first one that has
    /// any, and what the subset says over it.
    pub fn policy(self, subset: &str, port: Option<i64>) -> PolicyInForce<'a> {
        let rule = self.entry.rules.iter().find_map(|rule| rule.spec.traffic_policy.as_ref());
        let subset = self.subset(subset).and_then(|subset| subset.traffic_policy.as_ref());
        PolicyInForce::of(rule, subset, port)
    }
}
