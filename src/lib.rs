#![doc = include_str!("../ARCHITECTURE.md")]

pub mod certs;
pub mod cli;
pub mod cluster;
pub mod delivery;
pub mod istio;
pub mod policy;
pub mod rules;
pub mod server;
pub mod world;
