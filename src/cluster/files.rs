//! Objects from files and folders.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::yaml::Placed;

/// A Kubernetes object from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file, or what stands for it.
    pub source: String,
    /// The line it begins in, counted from 1; unknown for JSON.
    pub line: Option<usize>,
    /// The object; never anything but a JSON object.
    pub value: Value,
}

/// Why files cannot be read as Kubernetes objects.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system says no.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the file system said.
        cause: std::io::Error,
    },
    /// A directory without a file of ours.
    #[error("{} holds no file that ends in .yaml, .yml or .json", path.display())]
    NoFiles {
        /// The directory.
        path: PathBuf,
    },
    /// The text is no YAML or JSON.
    #[error("{name}:{line}:{column}: {reason}")]
    Syntax {
        /// The file.
        name: String,
        /// Where, counted from 1.
        line: u64,
        /// Where, counted from 1.
        column: u64,
        /// What is wrong.
        reason: String,
    },
    /// A document that is a list, a number or a text.
    #[error(
        "{name}:{line}: not an object: a document is written as `field: value` lines (apiVersion, kind, metadata ...)"
    )]
    NotAnObject {
        /// The file.
        name: String,
        /// The line it begins in; 1 for JSON.
        line: usize,
    },
}

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads files and directories; a directory stands for every `*.yaml`, `*.yml` and `*.json` below it, in the order of their
/// names. Names that begin with a dot are left out, because a mounted ConfigMap shows every file twice through them.
///
/// # Errors
/// For the first file that cannot be read.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Document>, FileError> {
    let mut documents = Vec::new();
    for path in paths {
        for file in files_of(path)? {
            let text = fs::read_to_string(&file)
                .map_err(|cause| FileError::Read { path: file.clone(), cause })?;
            documents.extend(parse(&file.display().to_string(), &text)?);
        }
    }
    Ok(documents)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let metadata =
        fs::metadata(path).map_err(|cause| FileError::Read { path: path.to_owned(), cause })?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    collect(path, &mut BTreeSet::new(), &mut files)?;
    if files.is_empty() {
        return Err(FileError::NoFiles { path: path.to_owned() });
    }
    Ok(files)
}

fn collect(
    directory: &Path,
    seen: &mut BTreeSet<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> Result<(), FileError> {
    let failed = |cause| FileError::Read { path: directory.to_owned(), cause };
    // A symbolic link may lead back up.
    if !seen.insert(fs::canonicalize(directory).map_err(failed)?) {
        return Ok(());
    }
    let entries = fs::read_dir(directory).map_err(failed)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(&path, seen, files)?;
        } else if path.extension().is_some_and(|own| EXTENSIONS.iter().any(|known| own == *known)) {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads the objects of a text: YAML with any number of documents, or JSON. A `List` counts as its members, an empty
/// document as nothing.
///
/// # Errors
/// Where the text is neither, says a key twice, or unfolds into more than a cluster dump can be.
pub fn parse(name: &str, text: &str) -> Result<Vec<Document>, FileError> {
    let placed =
        if text.trim_start().starts_with('{') { json(name, text) } else { yaml(name, text) };
    let mut documents = Vec::new();
    for placed in placed?.into_iter().flat_map(Placed::members) {
        let line = placed.line();
        let value = placed.into_value(text);
        if !value.is_object() {
            return Err(FileError::NotAnObject { name: name.to_owned(), line: line.unwrap_or(1) });
        }
        documents.push(Document { source: name.to_owned(), line, value });
    }
    Ok(documents)
}

/// Something that begins with a brace may still be YAML, `{kind: Service}`; JSON goes first because it is fast and without
/// limits of its own.
fn json(name: &str, text: &str) -> Result<Vec<Placed>, FileError> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Placed>();
    values.collect::<Result<Vec<_>, _>>().or_else(|error| {
        // Where it is JSON as far as the grammar goes, only JSON's own complaint is to the point.
        let is_json = serde_json::Deserializer::from_str(text)
            .into_iter::<serde::de::IgnoredAny>()
            .all(|value| value.is_ok());
        if !is_json && !name.ends_with(".json") {
            return yaml(name, text);
        }
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or(&reason).to_owned();
        let (line, column) = (error.line() as u64, error.column() as u64);
        Err(FileError::Syntax { name: name.to_owned(), line, column, reason })
    })
}

fn yaml(name: &str, text: &str) -> Result<Vec<Placed>, FileError> {
    let options = serde_saphyr::options! {
        // The defaults fit configuration; a dump of a whole cluster has more of everything. It has no aliases though, and
        // tight limits on them are what stops a document that unfolds into gigabytes.
        budget: serde_saphyr::budget! {
            max_events: 20_000_000,
            max_nodes: 10_000_000,
            max_documents: 200_000,
            max_total_scalar_bytes: 512 * 1024 * 1024,
            max_recorded_anchor_events: 100_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let (line, column) =
            error.location().map_or((1, 1), |at| (at.line().max(1), at.column().max(1)));
        let reason = match &error {
            serde_saphyr::Error::Budget { .. } => {
                "too large, nested too deeply, or its aliases unfold too far; split the file"
                    .to_owned()
            }
            error => {
                let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
                text.split(" at line ").next().unwrap_or(&text).to_owned()
            }
        };
        FileError::Syntax { name: name.to_owned(), line, column, reason }
    })
}
