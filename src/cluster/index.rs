//! The world behind its lock, and which kinds are listed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use kube::Client;

use super::floor::{Floors, service_of};
use super::read;
use crate::policy::Verdict;
use crate::world::{Kind, Mesh, Object, RouteHistory, World};

/// The world as the watches tell it, behind one lock: whoever judges sees one instant of all kinds together.
pub struct Index {
    state: RwLock<State>,
    wanted: BTreeSet<Kind>,
    /// For live reads.
    pub(super) client: Option<Client>,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

pub(super) struct State {
    pub(super) world: World,
    pub(super) floors: Floors,
    progress: BTreeMap<Kind, Progress>,
}

/// How the watch of one kind is doing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// All objects have been seen once.
    pub is_listed: bool,
    /// The API server does not serve the kind: its CRD is not installed. It counts as listed and empty.
    pub is_absent: bool,
    /// When the API server last said something about an object of this kind; a quiet kind says nothing for long.
    pub last_event: Option<Instant>,
    /// Objects put in or taken out since the start.
    pub events: u64,
    /// Complete lists since the start.
    pub lists: u64,
    /// Broken or refused requests since the start.
    pub failures: u64,
    /// Which of the versions in the table the API server serves.
    pub(super) version: usize,
}

impl Index {
    /// An index that knows nothing yet, wants every kind, and reads through `client` what a refusal rests on.
    pub fn new(mesh: Mesh, client: Client) -> Self {
        Self { client: Some(client), ..Self::unconnected(mesh) }
    }

    /// An index that is fed by hand and cannot confirm anything.
    pub fn unconnected(mesh: Mesh) -> Self {
        let state =
            State { world: World::new(mesh), floors: Floors::default(), progress: BTreeMap::new() };
        Self { state: RwLock::new(state), wanted: Kind::ALL.into(), client: None }
    }

    /// Counts only these kinds as missing.
    #[must_use]
    pub fn wanting(self, kinds: &[Kind]) -> Self {
        Self { wanted: kinds.iter().copied().collect(), ..self }
    }

    /// Looks at the world as it is now; keep it short, writers wait.
    pub fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.state().world)
    }

    /// Judges with the world as it is now.
    pub fn judge(&self, judge: &dyn Fn(&World) -> Verdict) -> Verdict {
        self.read(judge)
    }

    /// Takes in what was remembered of routes before.
    pub fn restore(&self, kept: Vec<RouteHistory>) {
        self.state_mut().world.restore(kept);
    }

    /// A number that grows whenever something new is remembered.
    pub fn history_version(&self) -> u64 {
        self.read(World::history_version)
    }

    /// The mesh's settings have changed.
    pub fn set_mesh(&self, mesh: Mesh) {
        let is_same = self.read(|world| *world.mesh() == mesh);
        if !is_same {
            self.state_mut().world.set_mesh(mesh);
        }
    }

    /// The wanted kinds that are not listed yet.
    pub fn missing(&self) -> Vec<Kind> {
        let state = self.state();
        self.wanted.iter().copied().filter(|&kind| !state.world.knows(kind)).collect()
    }

    /// The kinds that the API server does not serve, as far as that is known.
    pub fn absent(&self) -> Vec<Kind> {
        let state = self.state();
        let absent = state.progress.iter().filter(|(_, own)| own.is_absent);
        absent.map(|(&kind, _)| kind).collect()
    }

    /// How the watch of `kind` is doing.
    pub fn progress(&self, kind: Kind) -> Progress {
        self.state().progress.get(&kind).copied().unwrap_or_default()
    }

    /// The API server does not serve `kind`: there is none of it.
    pub(super) fn set_absent(&self, kind: Kind) {
        let mut state = self.state_mut();
        for (namespace, name) in state.world.names(kind) {
            state.world.delete(kind, &namespace, &name);
        }
        state.world.set_listed(kind);
        let progress = state.progress(kind);
        progress.is_listed = true;
        progress.is_absent = true;
    }

    pub(super) fn set_version(&self, kind: Kind, version: usize) {
        self.state_mut().progress(kind).version = version;
    }

    pub(super) fn count_failure(&self, kind: Kind) {
        self.state_mut().progress(kind).failures += 1;
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state
            .read()
            .expect("a panic while writing ends the watches, and with them the process")
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state
            .write()
            .expect("a panic while writing ends the watches, and with them the process")
    }
}

impl State {
    pub(super) fn progress(&mut self, kind: Kind) -> &mut Progress {
        self.progress.entry(kind).or_default()
    }

    fn count(&mut self, kind: Kind, events: usize) {
        let progress = self.progress(kind);
        progress.last_event = Some(Instant::now());
        progress.events += events as u64;
    }

    /// An object of a watch event or, where `is_listed`, of a new list.
    pub(super) fn apply(
        &mut self,
        kind: Kind,
        Versioned { object, version }: Versioned,
        is_listed: bool,
    ) {
        let (namespace, name) = read::name(&object);
        let key = (namespace, name, service_of(Some(&object)));
        let is_stale = if is_listed {
            self.floors.hides(kind, key, version)
        } else {
            self.floors.is_stale(kind, key, version)
        };
        self.count(kind, 1);
        if !is_stale {
            self.world.apply(object);
        }
    }

    pub(super) fn delete(&mut self, kind: Kind, key: (&str, &str, Option<&str>), version: u64) {
        self.count(kind, 1);
        if !self.floors.is_stale(kind, key, version) {
            self.world.delete(kind, key.0, key.1);
        }
    }

    /// The list of `kind` that was asked for at `asked` is complete: what it did not name is `gone`. `false` where a live
    /// read came in between, so that the list has to be asked for again.
    pub(super) fn finish(&mut self, kind: Kind, gone: &[(String, String)], asked: Instant) -> bool {
        let is_settled = self.floors.settle(kind, asked);
        if is_settled {
            for (namespace, name) in gone {
                self.world.delete(kind, namespace, name);
            }
        }
        self.world.set_listed(kind);
        let progress = self.progress(kind);
        progress.is_listed = true;
        progress.is_absent = false;
        progress.lists += 1;
        progress.last_event = Some(Instant::now());
        is_settled
    }
}

/// An object and how new it is.
#[derive(Debug)]
pub(super) struct Versioned {
    pub(super) object: Object,
    pub(super) version: u64,
}
