//! `make image`: the release as a container image, and its digest.

#![allow(clippy::print_stdout)]

mod elf;
// The node tests use what this does not.
#[allow(dead_code)]
mod oci;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use jiff::Timestamp;

use self::oci::{About, Image, Result};

#[derive(Parser)]
struct Arguments {
    /// The static executable.
    program: PathBuf,
    /// Where the archive goes.
    archive: PathBuf,
    /// The name without its tag.
    #[arg(long)]
    name: String,
    #[arg(long)]
    tag: String,
    /// Where the sources are, an address.
    #[arg(long, default_value = "")]
    source: String,
    /// Which sources they are, a commit.
    #[arg(long, default_value = "")]
    revision: String,
    /// When they were written, in seconds since 1970.
    #[arg(long, env = "SOURCE_DATE_EPOCH")]
    created: Option<i64>,
    /// A folder of the building machine, which must not be found in the program.
    #[arg(long)]
    without: Vec<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let program = arguments.program.display();
    let content =
        fs::read(&arguments.program).map_err(|error| format!("reading {program}: {error}"))?;
    if !elf::is_static(&content)? {
        return Err(format!(
            "{program} needs a loader and libraries, which the image does not have; build it with \
                            RUSTFLAGS=\"-C target-feature=+crt-static\""
        )
        .into());
    }
    if let Some(folder) = arguments.without.iter().find(|folder| elf::contains(&content, folder)) {
        return Err(format!("{program} names {folder}, a folder of this machine: elsewhere it would be another program. Build \
                            it with --remap-path-prefix for that folder").into());
    }
    let created = arguments.created.map(Timestamp::from_second).transpose()?;
    let about = About {
        labels: labels(&arguments),
        created: created.map(|time| time.to_string()),
        is_compressed: true,
    };
    let name = format!("{}:{}", arguments.name, arguments.tag);
    let image = Image { name: &name, program: &arguments.program, arguments: &["serve"] };
    let archive = image.publish(&about)?;
    if let Some(folder) = arguments.archive.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&arguments.archive, archive.bytes)
        .map_err(|error| format!("writing {}: {error}", arguments.archive.display()))?;
    println!(
        "{name}\n{}\n{} (linux/{})",
        archive.digest,
        arguments.archive.display(),
        oci::architecture()
    );
    Ok(())
}

fn labels(arguments: &Arguments) -> BTreeMap<String, String> {
    let labels = [
        ("title", env!("CARGO_PKG_NAME")),
        ("description", env!("CARGO_PKG_DESCRIPTION")),
        ("version", arguments.tag.as_str()),
        ("licenses", env!("CARGO_PKG_LICENSE")),
        ("source", arguments.source.as_str()),
        ("revision", arguments.revision.as_str()),
    ];
    let known = labels.into_iter().filter(|(_, value)| !value.is_empty());
    known
        .map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.to_owned()))
        .collect()
}
