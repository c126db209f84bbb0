//! Replays the seed corpora, and checks that every target is complete.

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use goldcrest_fuzz::TARGETS;

/// What all corpora may take, in bytes: they are in everyone's clone.
const CORPORA_LIMIT: u64 = 2 << 20;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The names of what is in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn target_names() -> BTreeSet<String> {
    TARGETS
        .iter()
        .map(|target| target.name.to_owned())
        .collect()
}

#[test]
fn every_seed_of_every_target_runs() {
    for target in TARGETS {
        let corpus = folder("corpus").join(target.name);
        let seeds = names(&corpus);
        assert!(!seeds.is_empty(), "{} is empty", corpus.display());
        for seed in seeds {
            let seed = corpus.join(seed);
            let data = fs::read(&seed).unwrap();
            if panic::catch_unwind(|| (target.run)(&data)).is_err() {
                panic!("target {} fails on {}", target.name, seed.display());
            }
        }
    }
}

#[test]
fn every_target_has_a_program_and_every_corpus_a_target() {
    let targets = target_names();
    let programs: BTreeSet<_> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&folder("fuzz_targets")), programs);
    assert_eq!(names(&folder("corpus")), targets);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for name in &targets {
        let bin = format!("[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n");
        assert!(manifest.contains(&bin), "{name} is missing from Cargo.toml");
        let program =
            fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(
            program.contains(&format!("fuzz_target!({name});")),
            "{name}.rs runs another target"
        );
    }
}

#[test]
fn corpora_are_small() {
    let sizes = TARGETS.iter().flat_map(|target| {
        let corpus = folder("corpus").join(target.name);
        let seeds = names(&corpus).into_iter();
        seeds.map(move |seed| fs::metadata(corpus.join(seed)).unwrap().len())
    });
    assert!(sizes.sum::<u64>() < CORPORA_LIMIT);
}

/// What no corpus has: the shortest inputs, and long ones of one byte.
#[test]
fn plain_inputs_run() {
    for target in TARGETS {
        (target.run)(&[]);
        for byte in [0, 0x5a, 0x80, 0xff] {
            for len in [1, 2, 3, 64, 5000] {
                (target.run)(&vec![byte; len]);
            }
        }
    }
}
