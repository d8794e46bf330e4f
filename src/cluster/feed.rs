//! What a watch tells, as changes of the index.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use kube::runtime::watcher::Event;

use super::floor::service_of;
use super::index::{Index, Versioned};
use super::watched::Watched;
use crate::world::Kind;

/// Objects of a new list that are held back to be put in at once. A longer list goes in by parts, each object replacing
/// its older self, because a second copy of a hundred thousand Pods is more memory than the index itself.
const MOST_HELD: usize = 1000;

/// Puts the events of one kind's watch into the index, in the order of [`kube::runtime::watcher()`].
///
/// A list that comes again (after a break, a 410, a restart) replaces what was there only when it is complete: nothing is
/// absent in between.
#[derive(Debug)]
pub struct Feed {
    index: Arc<Index>,
    kind: Kind,
    held: Vec<Versioned>,
    seen: BTreeSet<(String, String)>,
    asked: Instant,
}

/// What the watch has to do after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Follow,
    /// Ask for the whole list again.
    ListAgain,
}

impl Feed {
    /// A feed for the objects of `kind`.
    pub fn new(index: Arc<Index>, kind: Kind) -> Self {
        Self { index, kind, held: Vec::new(), seen: BTreeSet::new(), asked: Instant::now() }
    }

    /// Takes one event in.
    pub fn take(&mut self, event: Event<Watched>) -> Next {
        match event {
            Event::Init => {
                self.held.clear();
                self.seen.clear();
                self.asked = Instant::now();
            }
            Event::InitApply(object) => {
                self.seen.insert((object.namespace().to_owned(), object.name().to_owned()));
                self.held.extend(self.read(&object));
                if self.held.len() >= MOST_HELD {
                    let mut state = self.index.state_mut();
                    self.held.drain(..).for_each(|own| state.apply(self.kind, own, true));
                }
            }
            Event::InitDone => {
                // Looked up before the lock that keeps judges waiting: among many Pods it takes a while.
                let mut gone = self.index.read(|world| world.names(self.kind));
                gone.retain(|key| !self.seen.contains(key));
                let mut state = self.index.state_mut();
                self.held.drain(..).for_each(|own| state.apply(self.kind, own, true));
                let is_settled = state.finish(self.kind, &gone, self.asked);
                drop(state);
                self.held = Vec::new();
                self.seen = BTreeSet::new();
                if !is_settled {
                    return Next::ListAgain;
                }
            }
            Event::Apply(object) => {
                if let Some(own) = self.read(&object) {
                    self.index.state_mut().apply(self.kind, own, false);
                }
            }
            Event::Delete(object) => {
                let read = self.read(&object).map(|own| own.object);
                let key = (object.namespace(), object.name(), service_of(read.as_ref()));
                self.index.state_mut().delete(self.kind, key, object.version());
            }
        }
        Next::Follow
    }

    fn read(&self, object: &Watched) -> Option<Versioned> {
        let version = object.version();
        object.read(self.kind).map(|object| Versioned { object, version })
    }
}
