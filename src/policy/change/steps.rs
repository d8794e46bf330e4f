//! The rises of a change, measured by the steps that a policy allows.

use std::collections::BTreeMap;

use super::{Change, Class, Flow, Movement, Side};
use crate::istio::Protocol;
use crate::policy::settings::Step;

/// Floating point leaves this much over, in points.
const TOLERANCE: f64 = 1e-6;

/// The rises of a change, measured by a policy's steps. Of those to one destination of one route the largest is kept.
#[derive(Debug)]
pub struct Steps<'a> {
    /// The canaries that go further than one may in one write.
    pub too_far: Vec<(&'a Flow, &'a Movement)>,
    /// The requests of which all canaries together get more than they may, although none of them does by itself.
    pub together: Vec<&'a Flow>,
    /// The rises that a person wants to hear of although they pass: rollbacks, evacuations, and steps that would be too large if
    /// they were a canary's, which nobody can say.
    pub notes: Vec<(&'a Flow, &'a Movement)>,
}

impl Change {
    /// Measures every rise.
    pub fn steps(&self, step: &Step) -> Steps<'_> {
        let mut too_far = Worst::default();
        let mut together = Worst::default();
        let mut notes = Worst::default();
        for flow in self.all() {
            let Some(after) = &flow.after else { continue };
            let mut alone = false;
            for moved in flow.movements.iter().filter(|moved| moved.rises()) {
                let exceeds = exceeds(step, flow, after, moved) && !flow.is_targeted();
                // What no DestinationRule defines is another rule's business.
                let is_defined = || self.destinations.get(moved.destination).labels.is_some();
                let key = (flow.protocol, after.is_own, after.route, moved.destination);
                match moved.class {
                    Class::Canary if exceeds => {
                        alone = true;
                        too_far.keep(key, moved.rise(), (flow, moved));
                    }
                    // The end of a dark launch is daily work.
                    Class::Rollback | Class::Evacuation if !flow.is_targeted() => {
                        notes.keep(key, moved.rise(), (flow, moved));
                    }
                    Class::Unknown if exceeds && is_defined() => {
                        notes.keep(key, moved.rise(), (flow, moved));
                    }
                    _ => {}
                }
            }
            if alone || flow.is_targeted() {
                continue;
            }
            let (from, to) = flow.canaries();
            let most = step.limit(from * 100.0).max(from * 100.0 + step.max());
            if to > from && to * 100.0 > most + TOLERANCE {
                let key = (flow.protocol, after.is_own, after.route, 0);
                together.keep(key, to - from, (flow, &flow.movements[0]));
            }
        }
        Steps {
            too_far: too_far.into_values().collect(),
            together: together.into_values().map(|(flow, _)| flow).collect(),
            notes: notes.into_values().collect(),
        }
    }
}

impl Change {
    /// Whether a route of the object could share its requests like this instead, as far as steps go.
    pub fn allows(&self, step: &Step, at: (Protocol, usize), shares: &[(usize, f64)]) -> bool {
        let mut asked = BTreeMap::new();
        for &(destination, share) in shares {
            *asked.entry(destination).or_insert(0.0) += share;
        }
        self.flows_of(at).all(|flow| {
            let (Some(before), false) = (&flow.before, flow.is_targeted()) else { return true };
            let (mut from, mut to) = (0.0, 0.0);
            for (&destination, &share) in &asked {
                let moved = flow.movement(destination);
                let had = moved.map_or_else(|| before.share(destination), |own| own.from) * 100.0;
                // Of what does not rise as written nobody has said what it is.
                let may_be_canary =
                    moved.is_none_or(|own| !own.rises() || own.class == Class::Canary);
                if share * 100.0 <= had + TOLERANCE || !may_be_canary {
                    continue;
                }
                if share * 100.0 > step.limit(had) + TOLERANCE || !step.is_rung(share * 100.0) {
                    return false;
                }
                (from, to) = (from + had, to + share * 100.0);
            }
            to <= step.limit(from).max(from + step.max()) + TOLERANCE
        })
    }

    /// The requests that a route of the object serves from now on.
    pub fn flows_of(&self, at: (Protocol, usize)) -> impl Iterator<Item = &Flow> {
        let from = self.served.partition_point(|(own, _)| *own < at);
        let own = self.served[from..].iter().take_while(move |(own, _)| *own == at);
        own.map(|(_, flow)| &self.flows[*flow])
    }
}

/// Which of the flows each route of the object serves, sorted: protocol and route, and the place of the flow.
pub(super) fn served(flows: &[Flow]) -> Vec<((Protocol, usize), usize)> {
    let own = |flow: &Flow| {
        let after = flow.after.as_ref().filter(|after| after.is_own)?;
        Some((flow.protocol, after.route))
    };
    let all = flows.iter().enumerate().filter_map(|(at, flow)| Some((own(flow)?, at)));
    let mut all = all.collect::<Vec<_>>();
    all.sort_unstable();
    all
}

impl Flow {
    /// What all rising canaries carry together, before and after: what the stable sides lose, they gain.
    pub fn canaries(&self) -> (f64, f64) {
        let rising =
            self.movements.iter().filter(|moved| moved.rises() && moved.class == Class::Canary);
        let (from, to) =
            rising.fold((0.0, 0.0), |(from, to), moved| (from + moved.from, to + moved.to));
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return (0.0, 0.0) };
        // A canary that falls in favour of another one is no rise of all of them: only what a stable side gives up counts.
        let falls = self.movements.iter().filter(|moved| !moved.rises());
        let heaviest = falls.max_by(|a, b| a.from.total_cmp(&b.from));
        let given_up = heaviest.map_or(to - from, |stable| {
            before.share(stable.destination).max(stable.from)
                - after.share(stable.destination).max(stable.to)
        });
        (from, from + (to - from).min(given_up.max(0.0)))
    }
}

/// Whether a rise goes further than the policy lets a canary go.
fn exceeds(step: &Step, flow: &Flow, after: &Side, moved: &Movement) -> bool {
    let (from, to) = (moved.from * 100.0, moved.to * 100.0);
    let is_off_ladder =
        flow.before.is_some() && !step.is_rung(to) && after.share(moved.destination) > 0.0;
    to > step.limit(from) + TOLERANCE || is_off_ladder
}

/// A place in the new object or outside of it: protocol, whether it is in the object, route, destination.
type Place = (Protocol, bool, usize, usize);

/// Per place the largest rise.
#[derive(Default)]
struct Worst<'a>(BTreeMap<Place, Found<'a>>);

struct Found<'a> {
    rise: f64,
    flow: &'a Flow,
    moved: &'a Movement,
}

impl<'a> Worst<'a> {
    fn keep(&mut self, place: Place, rise: f64, (flow, moved): (&'a Flow, &'a Movement)) {
        let known = self.0.entry(place).or_insert(Found { rise, flow, moved });
        if rise > known.rise + TOLERANCE {
            *known = Found { rise, flow, moved };
        }
    }

    fn into_values(self) -> impl Iterator<Item = (&'a Flow, &'a Movement)> {
        self.0.into_values().map(|found| (found.flow, found.moved))
    }
}
