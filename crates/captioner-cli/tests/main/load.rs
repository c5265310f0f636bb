//! Promise: `load` finds out by itself which kind of BLIP a folder holds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use tch::Device;
use tldr_captioner::{Captioner, Matcher};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

#[test]
fn the_command_finds_out_which_blip_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let run = |model: &str, out: &Path, arguments: &[&Path]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tldr-loader"));
        command.arg("load").arg(golden(model)).arg("--out").arg(out).args(arguments);
        let done = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let alone = folder.path().join("matcher");
    let (code, said, _) = run("blip_matcher/model", &alone, &[]);
    assert!(code == Some(0) && said.contains("judge = "), "{said}");
    let matcher = Matcher::load(&alone, Device::Cpu).unwrap();
    let both = folder.path().join("captioner");
    let (flag, retrieval) = (Path::new("--matcher"), golden("blip_matcher/model"));
    let (code, said, error) =
        run("blip/base", &both, &[flag, &retrieval, Path::new("--preview-size"), Path::new("48")]);
    assert!(code == Some(0) && said.contains("tldr-loader fit"), "{said}{error}");
    let captioner = Captioner::load(&both, Device::Cpu).unwrap();
    let own = captioner.matcher().unwrap();
    assert_eq!((own.config().preview_size, matcher.config().preview_size), (48, 32));
    let (code, _, error) = run("blip_matcher/model", &alone, &[flag, &retrieval]);
    assert!(code == Some(2) && error.contains("matcher = "), "{error}");
}
