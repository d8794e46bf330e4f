use std::path::Path;

use crate::policy::Policies;
use crate::rules;
use crate::server::{self, PolicyFileError};

/// Reads the policies of a file; without a file the built-in default.
///
/// # Errors
/// Where the file cannot be read or says something that no policy can say.
pub(super) fn load(path: Option<&Path>) -> Result<Policies, PolicyFileError> {
    match path {
        Some(path) => server::policies(path, rules::ALL),
        None => Ok(Policies::new(Vec::new(), rules::ALL)),
    }
}
