//! Container images without a daemon: one static file as an OCI archive, the same bytes for the same file.
//!
//! Source of the formats: the OCI image specification 1.1, image-layout.md, config.md and annotations.md.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Nobody in particular, as in every image without a shell.
pub(crate) const USER: &str = "65532:65532";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image that consists of one program.
pub(crate) struct Image<'a> {
    /// The name with its tag, `example.com/name:tag`.
    pub(crate) name: &'a str,
    /// A static executable; in the image it stands at the root, under its own file name.
    pub(crate) program: &'a Path,
    /// What follows the program where a Pod says nothing else.
    pub(crate) arguments: &'a [&'a str],
}

/// What is said about an image that is published, and nothing about one for a test.
#[derive(Default)]
pub(crate) struct About {
    /// `org.opencontainers.image.*` and what else an image is labelled with.
    pub(crate) labels: BTreeMap<String, String>,
    /// When its sources were written (RFC 3339); the time of the build would make each build another image.
    pub(crate) created: Option<String>,
    /// Whether the layer is compressed: less to pull, and nothing left to compress for a tool that pushes it, which would change
    /// its digest.
    pub(crate) is_compressed: bool,
}

/// An OCI image layout as a tar archive, as `ctr images import` and `skopeo` take it.
pub(crate) struct Archive {
    pub(crate) bytes: Vec<u8>,
    /// Of the manifest, `sha256:...`: what a registry calls the image.
    pub(crate) digest: String,
}

impl Image<'_> {
    pub(crate) fn archive(&self) -> Result<Vec<u8>> {
        Ok(self.publish(&About::default())?.bytes)
    }

    pub(crate) fn publish(&self, about: &About) -> Result<Archive> {
        let file = self.program.file_name().and_then(|name| name.to_str()).ok_or("no file name")?;
        let content = fs::read(self.program)
            .map_err(|error| format!("reading {}: {error}", self.program.display()))?;
        let plain = tar(&[(file.to_owned(), &content, 0o755)])?;
        // Of the layer as it is when it is unpacked.
        let diff_id = sha256(&plain);
        let (kind, layer) = if about.is_compressed {
            (format!("{LAYER}+gzip"), gzip(&plain)?)
        } else {
            (LAYER.to_owned(), plain)
        };
        let mut config = json!({
            "architecture": architecture(), "os": "linux",
            "config": { "User": USER, "Entrypoint": [format!("/{file}")], "Cmd": self.arguments },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        if !about.labels.is_empty() {
            config["config"]["Labels"] = json!(about.labels);
        }
        if let Some(created) = &about.created {
            config["created"] = json!(created);
        }
        let config = config.to_string().into_bytes();
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": blob(CONFIG, &config), "layers": [blob(&kind, &layer)],
        });
        if !about.labels.is_empty() {
            manifest["annotations"] = json!(about.labels);
        }
        let manifest = manifest.to_string().into_bytes();
        let mut entry = blob(MANIFEST, &manifest);
        entry["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        entry["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name.rsplit(':').next(),
        });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
        let index = index.to_string();
        let mut files = BTreeMap::new();
        for content in [&layer, &config, &manifest] {
            files.insert(format!("blobs/sha256/{}", hex(content)), content.as_slice());
        }
        files.insert("index.json".to_owned(), index.as_bytes());
        files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#);
        let files: Vec<_> =
            files.into_iter().map(|(name, content)| (name, content, 0o644)).collect();
        Ok(Archive { bytes: tar(&files)?, digest: sha256(&manifest) })
    }
}

/// As Go and so every container runtime calls the architecture that this was compiled for.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn blob(kind: &str, content: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": sha256(content), "size": content.len() })
}

fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex(content))
}

fn hex(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// No time, no name, no system in the header. The version of the compressor is fixed by Cargo.lock.
fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    const UNKNOWN_SYSTEM: u8 = 255;
    let builder = GzBuilder::new().mtime(0).operating_system(UNKNOWN_SYSTEM);
    let mut encoder = builder.write(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

/// Files with their modes, in the ustar format: no owner, no time, so that nothing but the content counts.
fn tar<C: AsRef<[u8]>>(files: &[(String, C, u32)]) -> Result<Vec<u8>> {
    const BLOCK: usize = 512;
    let mut archive = Vec::new();
    for (name, content, mode) in files {
        let content = content.as_ref();
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &str| {
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        if name.len() > 100 {
            return Err(format!("{name} is too long for a tar archive").into());
        }
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, "00000000000");
        // The sum counts its own field as spaces.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar");
        put(263, "00");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}
