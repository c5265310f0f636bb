//! Promise: `load` finds out by itself which kind of BLIP a folder holds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::wait;
use tch::Device;
use tldr_captioner::{Captioner, Decoding, Matcher};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

#[test]
fn the_command_finds_out_which_blip_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let run = |model: &str, out: &Path, arguments: &[&Path]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tldr-loader"));
        command.arg("load").arg(golden(model)).arg("--out").arg(out).args(arguments);
        let done = wait::output(&mut command);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let alone = folder.path().join("matcher");
    let (code, said, _) = run("blip_matcher/model", &alone, &[]);
    assert!(code == Some(0) && said.contains("judge="), "{said}");
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
    assert!(code == Some(2) && error.contains("invalid matcher="), "{error}");
}

#[test]
fn the_command_makes_a_captioner_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("captioner");
    let run = |model: &Path, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tldr-loader"));
        command.arg("load").arg(model).arg("--out").arg(&out).args(arguments);
        let done = wait::output(&mut command);
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, said, _) = run(
        &golden("blip/large"),
        &[
            "--decoding",
            "nucleus",
            "--preview-size",
            "48",
            "--prompt",
            "a dog",
            "--max-tokens",
            "9",
            "--seed",
            "4",
        ],
    );
    assert_eq!(code, Some(0));
    assert!(said.contains("previews of 48 pixels") && said.contains("tldr-loader fit"), "{said}");
    let config = Captioner::load(&out, Device::Cpu).unwrap().config().clone();
    let generation = &config.generation;
    assert_eq!((generation.decoding, generation.seed), (Decoding::Nucleus, 4));
    assert_eq!((generation.prompt.as_str(), generation.max_tokens), ("a dog", 9));
    for (model, arguments, expected_code, expected) in [
        (
            golden("blip/base"),
            ["--decoding", "sample"],
            2,
            "invalid decoding=sample: expected one of greedy, beam, nucleus",
        ),
        (golden("blip/base"), ["--top-p", "0"], 2, "invalid generation.top_p=0"),
        (golden("blip/absent"), ["--beams", "2"], 1, "absent/config.json"),
        (out.clone(), ["--beams", "2"], 2, "invalid out="),
    ] {
        let (code, _, said) = run(&model, &arguments);
        assert_eq!(code, Some(expected_code), "{said}");
        assert!(said.contains(expected), "{expected:?} is not in: {said}");
    }
}
