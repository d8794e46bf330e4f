//! What is remembered of the routes of the object under review.

use super::base::Written;
use super::{Base, Flow, Side};
use crate::istio::VirtualService;
use crate::world::{Reign, Remembered, World};

/// The histories of the routes of the object under review; without a history there is none of these.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chronicle<'a> {
    remembered: &'a Remembered,
    written: Written<'a>,
    pub(super) world: &'a World,
}

impl<'a> Chronicle<'a> {
    pub(super) fn of(written: Written<'a>, world: &'a World) -> Option<Self> {
        let remembered = world.remembered(written.namespace, written.name)?;
        Some(Self { remembered, written, world })
    }

    /// Who carried the requests of a flow before: by the stored route that takes them; where the object is created anew, by the new
    /// one.
    pub(super) fn of_flow(&self, flow: &Flow) -> Option<&'a [Reign]> {
        let of = |side: &Side, object: Option<&VirtualService>| {
            let route = object?.spec.routes(flow.protocol).get(side.written_at)?;
            self.remembered.get(&route.key(flow.protocol)).map(Vec::as_slice)
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
