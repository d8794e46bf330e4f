//! The server as the API server and the kubelet meet it: real sockets, real TLS, real files.

mod confirm;
mod connections;
mod exposition;
mod files;
mod harness;
mod limits;
mod policies;
mod process;
mod reviews;
mod rotation;
mod shutdown;
mod status;
