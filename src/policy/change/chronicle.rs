//! What is remembered of the routes of the object under review.

use std::borrow::Cow;

use super::base::Written;
use super::{Base, Flow, Side};
use crate::istio::VirtualService;
use crate::world::{Reign, Remembered, World};

/// The histories of the routes of the object under review.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chronicle<'a> {
    remembered: Option<&'a Remembered>,
    written: Written<'a>,
    /// What the world holds of the object, where the API server has stored something else since.
    stale: Option<&'a VirtualService>,
    pub(super) world: &'a World,
}

impl<'a> Chronicle<'a> {
    /// `None` where nothing is remembered.
    pub(super) fn of(written: Written<'a>, world: &'a World) -> Option<Self> {
        let remembered = world.remembered(written.namespace, written.name);
        let known = world.virtual_service(written.namespace, written.name);
        let stale = known.filter(|known| written.old.is_some_and(|old| old.spec != known.spec));
        let says_anything = remembered.is_some() || stale.is_some();
        says_anything.then_some(Self { remembered, written, stale, world })
    }

    /// Who carried the requests of a flow before: by the stored route that takes them; where the object is created anew, by the new
    /// one.
    pub(super) fn of_flow(&self, flow: &Flow) -> Option<Cow<'a, [Reign]>> {
        let of = |side: &Side, object: Option<&VirtualService>| {
            let route = object?.spec.routes(flow.protocol).get(side.written_at)?;
            let key = route.key(flow.protocol);
            let remembered = self.remembered.and_then(|own| own.get(&key));
            // The watch has not brought the last write yet: who carried most until then carried it before.
            let last = self.stale.and_then(|stale| self.world.holder(stale, &key));
            match (remembered, last) {
                (Some(remembered), None) => Some(Cow::Borrowed(remembered.as_slice())),
                (None, None) => None,
                (remembered, Some(last)) => {
                    let mut reigns = remembered.cloned().unwrap_or_default();
                    if reigns.last().is_none_or(|own| own.until.is_some()) {
                        reigns.push(last);
                    }
                    Some(Cow::Owned(reigns))
                }
            }
        };
        match (&flow.base, &flow.before, &flow.after) {
            (Base::Stored, Some(before), _) if before.is_own => of(before, self.written.old),
            (Base::Plain(_) | Base::Nothing, _, Some(after))
                if after.is_own && self.written.old.is_none() =>
            {
                of(after, self.written.new)
            }
            _ => None,
        }
    }
}
