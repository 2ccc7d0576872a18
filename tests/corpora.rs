//! Every fuzz body over its corpus: the files as they are, and each of them damaged in ways that a
//! seed decides. A failure prints the file and the bytes; the bytes, kept as a file of the corpus,
//! are the test of its mending.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use beast::fuzz::{BODIES, Body};

/// Damaged forms of one file. More take longer; the fuzzer of `fuzz/` is for the long search.
const DAMAGES_PER_FILE: usize = 60;

/// All corpora together, in bytes: what a clone should carry.
const CORPUS_LEN_MAX: u64 = 200_000;

#[test]
fn every_body_survives_its_corpus_and_damaged_forms_of_it() {
    let mut faults = String::new();
    for body in BODIES {
        let files = corpus(body.name);
        assert!(
            !files.is_empty(),
            "tests/corpus/{} holds no file: write valid and nearly valid ones",
            body.name
        );
        let all: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        for (number, (file, bytes)) in files.iter().zip(&all).enumerate() {
            let mut random = Random(0x5eed + number as u64);
            let damaged = (0..DAMAGES_PER_FILE).map(|_| damaged(bytes, &all, &mut random));
            let inputs = std::iter::once(bytes.clone()).chain(damaged);
            if let Some(input) = inputs.into_iter().find(|input| !survives(*body, input)) {
                let (file, shown) = (file.display(), input.escape_ascii());
                faults.push_str(&format!("body {} fails on a form of {file}:\n  {shown}\n", body.name));
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn every_body_has_a_corpus_and_a_target_and_nothing_else_has() {
    let bodies: BTreeSet<&str> = BODIES.iter().map(|body| body.name).collect();
    assert_eq!(bodies.len(), BODIES.len(), "a name twice");
    let folders = names("tests/corpus", "");
    assert_eq!(folders.iter().map(String::as_str).collect::<BTreeSet<_>>(), bodies);
    let targets = names("fuzz/fuzz_targets", ".rs");
    assert_eq!(targets.iter().map(String::as_str).collect::<BTreeSet<_>>(), bodies);
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    for body in &bodies {
        assert!(manifest.contains(&format!("name = \"{body}\"")), "fuzz/Cargo.toml has no target {body}");
    }
    let files = bodies.iter().flat_map(|body| corpus(body));
    let len: u64 = files.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(
        len <= CORPUS_LEN_MAX,
        "the corpora have {len} bytes, at most {CORPUS_LEN_MAX}: leave out the largest"
    );
}

#[test]
fn damage_comes_in_every_kind_and_is_the_same_every_time() {
    let (one, other) = (b"0123456789".to_vec(), b"abcdefghij".to_vec());
    let all = [one.clone(), other];
    let made = || {
        let mut random = Random(1);
        (0..200).map(|_| damaged(&one, &all, &mut random)).collect::<Vec<_>>()
    };
    assert_eq!(made(), made());
    let forms = made();
    assert!(forms.iter().any(|form| form.len() < one.len()), "cut off");
    assert!(forms.iter().any(|form| form.len() > one.len()), "lengthened");
    assert!(forms.iter().any(|form| form.len() == one.len() && *form != one), "changed");
    assert!(forms.iter().any(|form| form.contains(&b'0') && form.contains(&b'j')), "spliced");
}

fn survives(body: Body, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (body.run)(input))).is_ok()
}

/// One to three kinds of damage to `bytes`; `all` is what may be spliced in.
fn damaged(bytes: &[u8], all: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(out.len() + 1);
        match random.below(6) {
            0 if at < out.len() => out[at] ^= 1 << random.below(8),
            1 if at < out.len() => out[at] = random.byte(),
            2 => out.truncate(at),
            3 => out.insert(at, random.byte()),
            4 => {
                let len = random.below(out.len() - at + 1).min(64);
                let piece = out[at..at + len].to_vec();
                out.splice(at..at, piece);
            }
            _ => {
                let other = &all[random.below(all.len())];
                let from = random.below(other.len() + 1);
                out.truncate(at);
                out.extend_from_slice(&other[from..]);
            }
        }
    }
    out
}

/// Marsaglia's xorshift: enough to choose damage by.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Mostly bytes that mean something to some decoder.
    fn byte(&mut self) -> u8 {
        let telling = b"\"\\{}[],:0159eE+-./?%&= \r\n\t\0\x7f\x80\xff";
        if self.below(3) > 0 { telling[self.below(telling.len())] } else { self.next().to_le_bytes()[3] }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a body's corpus, in the order of their names.
fn corpus(name: &str) -> Vec<PathBuf> {
    let folder = Path::new("tests/corpus").join(name);
    let mut files: Vec<_> = names(folder.to_str().unwrap(), "").iter().map(|n| folder.join(n)).collect();
    files.sort();
    files.iter().map(|file| root().join(file)).collect()
}

/// What stands in a folder of the repository under names that end so, without that end.
fn names(folder: &str, end: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root().join(folder)) else { return Vec::new() };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    entries.map(name).filter_map(|name| name.strip_suffix(end).map(str::to_owned)).collect()
}
