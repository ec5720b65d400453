//! Every committed input through its target.
//!
//! In:  `fuzz/corpus/<target>/`.
//! Out: a failure that names the input that breaks a property, or the target without inputs.
//! Not here: making inputs (`seeds.rs`, `explore.rs`, `fuzz/libfuzzer`).

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod corpus;

use std::panic::catch_unwind;

use fuzz::TARGETS;

/// All corpora together: enough to remember what was found, not a place to keep everything.
const MOST_BYTES: usize = 300_000;

#[test]
fn every_input_of_every_target_holds() {
    let mut broken = Vec::new();
    let mut bytes = 0;
    for (name, target) in TARGETS {
        let files = corpus::files(name);
        assert!(!files.is_empty(), "no corpus in {:?}", corpus::folder(name));
        println!("{name}: {} inputs", files.len());
        for (file, data) in files {
            bytes += data.len();
            if catch_unwind(|| target(&data)).is_err() {
                broken.push(format!("{name}/{file}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(bytes <= MOST_BYTES, "the corpora hold {bytes} bytes");
}

#[test]
fn an_empty_input_is_one() {
    for (_, target) in TARGETS {
        target(&[]);
    }
}

#[test]
fn every_corpus_has_a_target() {
    let root = corpus::folder("");
    for entry in std::fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|(target, _)| *target == name), "{name}");
    }
}

#[test]
fn every_target_has_its_wrapper() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/libfuzzer");
    let manifest = std::fs::read_to_string(format!("{folder}/Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        let wrapper = std::fs::read_to_string(format!("{folder}/fuzz_targets/{name}.rs")).unwrap();
        assert!(wrapper.contains(&format!("fuzz::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
