//! Everything that needs neither a server nor a cluster: the rules of the house, what must hold for every write, and the
//! command line.

mod bounded;
mod certificates;
mod check;
mod connections;
mod controllers;
mod delegates;
mod deliveries;
mod desk;
mod destination_rules;
mod discovery;
mod history;
mod house;
mod image;
mod oracle;
mod policy_schema;
mod properties;
mod re2;
mod recorded;
mod sidecars;
mod traps;
mod values;
mod virtual_services;
mod waypoints;
mod workflows;
