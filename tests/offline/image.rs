//! The container image: the same program makes the same image, others can read it, and the Dockerfile makes the same of it.

// The node tests use less of it, and so does this.
#[allow(dead_code)]
#[path = "../image/elf.rs"]
mod elf;
#[allow(dead_code)]
#[path = "../image/oci.rs"]
mod oci;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use self::oci::{About, Archive, Image};

const PROGRAM: &[u8] = b"not much";

fn published() -> About {
    About {
        labels: [("org.opencontainers.image.version".to_owned(), "1".to_owned())].into(),
        created: Some("2026-01-02T03:04:05Z".to_owned()),
        is_compressed: true,
    }
}

/// In a folder of its own, as on another machine.
fn archive(about: &About, content: &[u8]) -> Archive {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("program");
    fs::write(&program, content).expect("a program");
    let image = Image { name: "example.com/program:1", program: &program, arguments: &["serve"] };
    image.publish(about).expect("an image")
}

fn untar(file: &Path, folder: &Path) {
    let status = Command::new("tar").arg("-xf").arg(file).arg("-C").arg(folder).status();
    assert!(status.expect("tar").success(), "{}", file.display());
}

#[test]
fn an_image_is_its_program_and_nothing_else() {
    for about in [About::default(), published()] {
        let image = archive(&about, PROGRAM);
        let again = archive(&about, PROGRAM);
        assert_eq!(image.digest, again.digest);
        assert!(image.bytes == again.bytes, "two archives of one program");
        assert_ne!(image.digest, archive(&about, b"another").digest);

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("image.tar");
        fs::write(&file, &image.bytes).expect("an archive");
        untar(&file, folder.path());
        let read = |path: &str| -> Value {
            let text = fs::read(folder.path().join(path)).expect(path);
            serde_json::from_slice(&text).expect(path)
        };
        let path = |blob: &Value| {
            blob["digest"].as_str().expect("a digest").replace("sha256:", "blobs/sha256/")
        };
        let entry = &read("index.json")["manifests"][0];
        assert_eq!(entry["digest"], json!(image.digest));
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "example.com/program:1");
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1");
        let manifest = read(&path(entry));
        let config = read(&path(&manifest["config"]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/program"]));
        assert_eq!(config["config"]["User"], json!(oci::USER));
        assert_eq!(config["created"].as_str(), about.created.as_deref());

        // Into an empty folder: whatever else the layer held would be seen.
        let root = folder.path().join("root");
        fs::create_dir(&root).expect("a folder");
        untar(&folder.path().join(path(&manifest["layers"][0])), &root);
        let found = fs::read_dir(&root).expect("a folder").map(|entry| entry.expect("a file"));
        let names: Vec<_> = found.map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["program"]);
        assert_eq!(fs::read(root.join("program")).expect("the program"), PROGRAM);
        let digest = &manifest["layers"][0]["digest"];
        assert_eq!(config["rootfs"]["diff_ids"][0] == *digest, !about.is_compressed);
    }
}

/// This test is linked against the system's library: it needs a loader, and it names the folder that it was built in.
#[test]
fn a_program_that_an_image_cannot_hold_is_told_from_one_that_it_can() {
    let own = fs::read(std::env::current_exe().expect("a path")).expect("this program");
    if cfg!(not(target_feature = "crt-static")) {
        assert_eq!(elf::is_static(&own), Ok(false));
    }
    assert!(elf::contains(&own, env!("CARGO_MANIFEST_DIR")));
    assert!(elf::is_static(b"#!/bin/sh").is_err());
    assert!(elf::is_static(&own[..80]).is_err());
    // The same executable with its loader's header made one that means nothing.
    let mut without = own;
    let table = usize::from(without[32]);
    let (size, count) = (usize::from(without[54]), usize::from(without[56]));
    for at in (0..count).map(|at| table + at * size) {
        if without[at..at + 4] == [3, 0, 0, 0] {
            without[at] = 0;
        }
    }
    assert_eq!(elf::is_static(&without), Ok(true));
}

/// The last stage of the Dockerfile, which nothing here can run, makes the image that `make image` makes.
#[test]
fn the_dockerfile_says_what_the_image_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("Dockerfile")).expect("a Dockerfile");
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.filter(|line| !line.starts_with('#')).collect();
    let from = lines.iter().rposition(|line| line.starts_with("FROM ")).expect("a stage");
    assert_eq!(lines[from], "FROM scratch");
    let last = &lines[from..];
    let value = |word: &str| {
        let found: Vec<_> =
            last.iter().filter_map(|line| line.strip_prefix(&format!("{word} "))).collect();
        assert_eq!(found.len(), 1, "{word}: {found:?}");
        found[0]
    };
    assert_eq!(value("USER"), oci::USER);
    assert_eq!(value("ENTRYPOINT"), r#"["/sluicegate"]"#);
    assert_eq!(value("CMD"), r#"["serve"]"#);
    let copied = value("COPY");
    assert!(copied.starts_with("--from=build ") && copied.ends_with(" /sluicegate"), "{copied}");
    assert!(!last.iter().any(|line| line.starts_with("RUN ") || line.starts_with("ADD ")));

    // Both build the program in the same way, with the same compiler as everything else.
    let makefile = fs::read_to_string(root.join("Makefile")).expect("a Makefile");
    assert!(makefile.contains("\nimage: release\n"), "make image packs what make release builds");
    assert!(lines[..from].iter().any(|line| line.contains("make release")));
    let first = lines.iter().find(|line| line.starts_with("FROM ")).expect("a stage");
    assert!(first.starts_with("FROM rust:") && first.ends_with(" AS build"), "{first}");
}
