//! Where the real programs are.

use std::env;
use std::path::{Path, PathBuf};

use super::Result;

/// A program of the control plane, or a file that came with it.
///
/// `KUBEBUILDER_ASSETS` goes first, as with every other test suite of Kubernetes' world; then what `make platform` built
/// (`SLUICEGATE_PLATFORM` if that was built elsewhere).
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let built = env::var_os("SLUICEGATE_PLATFORM").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/platform"),
        PathBuf::from,
    );
    let places: Vec<_> =
        assets.into_iter().chain([built]).map(|folder| folder.join(name)).collect();
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let places: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
        format!(
            "{name} is missing (looked for {}). Run `make platform` once (for a node also `make platform-node`): it builds the \
             real programs of these tests (ten to fifteen minutes; afterwards a second)",
            places.join(", ")
        )
        .into()
    })
}
