//! Container images without a daemon: one static file as an OCI archive, the same bytes for the same file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::harness::Result;

/// Nobody in particular, as in every image without a shell.
const USER: &str = "65532:65532";

/// An image that consists of one program.
pub(crate) struct Image<'a> {
    /// The name with its tag, `example.com/name:tag`.
    pub(crate) name: &'a str,
    /// A static executable; in the image it stands at the root, under its own file name.
    pub(crate) program: &'a Path,
    /// What follows the program where a Pod says nothing else.
    pub(crate) arguments: &'a [&'a str],
}

impl Image<'_> {
    /// An OCI image layout as a tar archive, as `ctr images import` and `skopeo` take it.
    pub(crate) fn archive(&self) -> Result<Vec<u8>> {
        let file = self.program.file_name().and_then(|name| name.to_str()).ok_or("no file name")?;
        let content = fs::read(self.program)
            .map_err(|error| format!("reading {}: {error}", self.program.display()))?;
        let layer = tar(&[(file.to_owned(), &content, 0o755)])?;
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": { "User": USER, "Entrypoint": [format!("/{file}")], "Cmd": self.arguments },
            "rootfs": { "type": "layers", "diff_ids": [sha256(&layer)] },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("application/vnd.oci.image.config.v1+json", &config),
            "layers": [blob("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = blob("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
        let mut files = BTreeMap::new();
        for content in [&layer, &config, &manifest] {
            files.insert(format!("blobs/sha256/{}", hex(content)), content.as_slice());
        }
        files.insert("index.json".to_owned(), index.as_bytes());
        files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#);
        let files: Vec<_> =
            files.into_iter().map(|(name, content)| (name, content, 0o644)).collect();
        tar(&files)
    }
}

fn architecture() -> &'static str {
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

/// The same program makes the same image, whenever and wherever it was built; and others can read it.
pub(crate) fn is_its_program() -> Result {
    let archive = |folder: &Path| -> Result<Vec<u8>> {
        let program = folder.join("program");
        fs::write(&program, "not much")?;
        Image { name: "example.com/program:1", program: &program, arguments: &["serve"] }.archive()
    };
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let image = archive(here.path())?;
    if archive(there.path())? != image {
        return Err("two images of one program".into());
    }
    let unpacked = here.path().join("image");
    fs::create_dir(&unpacked)?;
    let file = here.path().join("image.tar");
    fs::write(&file, image)?;
    untar(&file, &unpacked)?;
    let read = |path: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(unpacked.join(path))?)?)
    };
    let path = |blob: &Value| {
        blob["digest"].as_str().unwrap_or_default().replace("sha256:", "blobs/sha256/")
    };
    let manifest = read(&path(&read("index.json")?["manifests"][0]))?;
    untar(&unpacked.join(path(&manifest["layers"][0])), &unpacked)?;
    let config = read(&path(&manifest["config"]))?;
    if fs::read(unpacked.join("program"))? != b"not much"
        || config["config"]["Entrypoint"] != json!(["/program"])
        || config["rootfs"]["diff_ids"][0] != manifest["layers"][0]["digest"]
    {
        return Err(format!("{manifest}, {config}").into());
    }
    Ok(())
}

fn untar(file: &Path, folder: &Path) -> Result {
    let status = Command::new("tar").arg("-xf").arg(file).arg("-C").arg(folder).status()?;
    if status.success() { Ok(()) } else { Err(format!("tar: {status}").into()) }
}
