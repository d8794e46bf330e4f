//! The cluster, brought into the world: from files, from watches, and read again live before a denial.
//!
//! The only room that talks to the API server. [`follow`] keeps an [`Index`] fed; the index answers with one instant of all
//! kinds, says which are not listed yet, and reads again what a refusal rests on. [`load`] and [`world`] make the same world
//! from files.
//!
//! **Invariants.** Reading an object cannot fail, and a delete goes by name. A kind counts as listed only when its first
//! list is complete. The lock is never held across an await.

mod ca_bundle;
mod certificates;
mod client;
mod clock;
mod feed;
mod files;
mod floor;
mod index;
mod lease;
mod live;
mod memory;
mod mesh_config;
mod offline;
mod owner;
mod question;
mod read;
mod registration;
mod repair;
mod resources;
mod watch;
mod watched;
mod yaml;

pub use certificates::{CertificateKeeper, SelfManaged};
pub use client::{ClientError, client};
pub use feed::{Feed, Next};
pub use files::{Document, FileError, load, parse};
pub use index::{Index, Progress};
pub use live::{LiveReadError, requests};
pub use memory::{Memory, MemoryError, MemoryName, memories_in};
pub use mesh_config::{
    MeshConfig, MeshConfigName, Reading, follow_mesh_config, mesh_config, mesh_config_in, say,
};
pub use offline::{object_in, world};
pub use owner::owner;
pub use question::MOST_REQUESTS;
pub use read::object;
pub use registration::{RegistrationError, cluster_ip, unregister, webhooks};
pub use resources::{RESOURCES, Resource, resource};
pub use watch::{Patience, WatchEnded, follow, follow_with};
pub use watched::{Served, Watched};
