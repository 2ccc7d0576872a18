//! Holds the source to the rules that no compiler checks: which room may use which, where unsafe
//! code may stand, how long a file may be, and what may not be left lying about.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may name. An entry with a second part allows only names that begin so.
/// The table is section 3 of the design, with the rooms at the bottom (limits, time, price, siphash) written out.
const ROOMS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("time", &[]),
    ("siphash", &[]),
    ("price", &["limits", "time"]),
    ("http", &["limits", "price"]),
    ("wire", &["limits", "price", "siphash", "time::UnixNs"]),
    ("sys", &["limits"]),
    ("engine", &["sys", "limits", "time"]),
    ("account", &["limits", "price", "siphash", "time", "sys"]),
    ("ledger", &["limits", "price", "time", "sys"]),
    ("shard", &["engine", "wire", "http", "price", "account", "ledger", "limits", "time", "siphash"]),
    ("xdp", &["wire", "price", "account", "ledger", "sys", "limits", "time"]),
    ("feed", &["engine", "http", "wire", "price", "time", "limits"]),
    ("store", &["ledger", "account", "price", "limits", "time"]),
    ("backoffice", &["ledger", "store", "account", "price", "limits", "time"]),
    ("admin", &["ledger", "account", "price", "limits", "time", PUBLISHED, COUNTERS, COUNTER]),
    ("report", &["store", "ledger", "account", "admin", "price", "limits", "time", "wire::ErrorCode"]),
    ("exchange_sim", &["wire", "http", "price", "limits", "time"]),
    ("host", &["limits", "sys"]),
    ("load", &["wire", "http", "price", "sys", "limits", "time"]),
];

/// What of a shard the rooms behind it may read.
const PUBLISHED: &str = "shard::Published";
const COUNTERS: &str = "shard::Counters";
const COUNTER: &str = "shard::Counter";

/// Parts of `src/` that put the rooms together and may name them all.
const COMPOSITION: &[&str] = &["main", "lib", "cli", "config", "appliance", "fuzz"];

/// Rooms of pure functions, and what in a line shows that one is not.
const PURE_ROOMS: &[&str] = &["price", "wire", "http", "limits"];
const IMPURE: &[&str] =
    &["UdpSocket", "TcpStream", "TcpListener", "Instant::now", "SystemTime", "RealClock", "tokio", "glommio"];

const LINES_MAX: usize = 600;

/// Built from halves so that this file does not hold what it looks for.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("todo", "!(", "finish it, or leave it out"),
    ("unimplemented", "!(", "finish it, or leave it out"),
    ("dbg", "!(", "remove it"),
    ("FIX", "ME", "mend it, or open an issue and describe the limit"),
    ("XX", "X", "mend it, or open an issue and describe the limit"),
    ("#[ign", "ore", "a test that does not run proves nothing: mend it or delete it"),
];

/// Where on one machine things happened to lie.
const MACHINE_PATHS: &[&str] = &["/root/", "/home/"];

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let mut findings = Findings::default();
    for file in files("src", "rs") {
        let room = room_of(&file);
        if COMPOSITION.contains(&room.as_str()) || is_test_file(&file) {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            findings.add(&file, 1, &format!("room {room} is not in the table; add its row to ROOMS"));
            continue;
        };
        let code = without_tests(&blanked(&read(&file)));
        for (line, path) in crate_paths(&code) {
            if path[0] == room || is_allowed(allowed, &path) {
                continue;
            }
            findings.add(
                &file,
                line,
                &format!(
                    "{room} may not use crate::{}; it builds on {allowed:?}. Pass the value in from cli, or move the type down",
                    path.join("::")
                ),
            );
        }
        for (line, text) in numbered(&code) {
            if text.contains("super::super::") {
                findings.add(&file, line, "super::super:: hides which room is used; write crate::…");
            }
            if PURE_ROOMS.contains(&room.as_str()) {
                for word in IMPURE.iter().filter(|word| text.contains(**word)) {
                    findings.add(
                        &file,
                        line,
                        &format!("{room} is pure, but this names {word}; take bytes and `now` as arguments"),
                    );
                }
            }
        }
    }
    findings.check();
}

#[test]
fn unsafe_code_stands_only_in_sys() {
    let mut findings = Findings::default();
    for file in files("src", "rs") {
        if room_of(&file) == "sys" {
            continue;
        }
        for (line, text) in numbered(&blanked(&read(&file))) {
            if words(text).any(|word| word == "unsafe") {
                findings.add(&file, line, "unsafe outside src/sys; put a safe face over it there");
            }
            if text.contains("unsafe_code") && !text.contains("deny(unsafe_code)") {
                findings.add(&file, line, "the unsafe_code lint is lifted outside src/sys; remove this");
            }
        }
    }
    findings.check();
}

#[test]
fn files_are_short_clean_and_finished() {
    let mut findings = Findings::default();
    let mut all = files("src", "rs");
    for folder in ["tests", "bench", "fuzz"] {
        all.extend(files(folder, "rs"));
    }
    for file in all {
        let text = read(&file);
        let count = text.lines().count();
        if count > LINES_MAX {
            findings.add(&file, count, &format!("{count} lines, at most {LINES_MAX}: split it by noun"));
        }
        for (line, text) in numbered(&text) {
            if text.contains('\t') {
                findings.add(&file, line, "a tab; use spaces (cargo fmt)");
            }
            if text.ends_with(' ') {
                findings.add(&file, line, "spaces at the end of the line; remove them (cargo fmt)");
            }
            for (head, tail, cure) in FORBIDDEN {
                let word = format!("{head}{tail}");
                if text.contains(&word) {
                    findings.add(&file, line, &format!("{word}; {cure}"));
                }
            }
        }
    }
    findings.check();
}

#[test]
fn every_room_says_what_it_is() {
    let mut findings = Findings::default();
    let lib = PathBuf::from("src/lib.rs");
    for (line, text) in numbered(&read(&lib)) {
        let Some(room) = text.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) else {
            continue;
        };
        let face = [format!("src/{room}/mod.rs"), format!("src/{room}.rs")];
        let Some(face) = face.iter().map(PathBuf::from).find(|path| root().join(path).exists()) else {
            findings.add(&lib, line, &format!("room {room} has no file"));
            continue;
        };
        if !read(&face).starts_with("//! ") && !read(&face).starts_with("#![expect(") {
            findings.add(&face, 1, "a room opens with //! and says why it exists");
        }
    }
    findings.check();
}

#[test]
fn documents_name_no_machine() {
    let mut findings = Findings::default();
    let mut all = files("", "md");
    all.extend(files("", "sh"));
    all.extend(files("src", "rs"));
    for file in all {
        for (line, text) in numbered(&read(&file)) {
            for path in MACHINE_PATHS.iter().filter(|path| text.contains(**path)) {
                findings.add(
                    &file,
                    line,
                    &format!("{path} lies on one machine only; write a path from the repository's root"),
                );
            }
        }
    }
    findings.check();
}

/// What was found, with the cure, to be shown all at once.
#[derive(Default)]
struct Findings(String);

impl Findings {
    fn add(&mut self, file: &Path, line: usize, text: &str) {
        writeln!(self.0, "{}:{line}: {text}", file.display()).unwrap();
    }

    fn check(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Files of that extension under a folder of the repository, by path from its root. Build output
/// and hidden folders are left out.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root().join(&folder)) else { continue };
        for entry in entries.map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let path = folder.join(&name);
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// `src/price/board.rs` and `src/price.rs` are both in room `price`.
fn room_of(file: &Path) -> String {
    let mut parts = file.iter().skip(1);
    let first = Path::new(parts.next().unwrap());
    first.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// Test modules in files of their own: `tests.rs`, or below a folder `tests`.
fn is_test_file(file: &Path) -> bool {
    file.with_extension("").iter().any(|part| part == "tests")
}

fn is_allowed(allowed: &[&str], path: &[String]) -> bool {
    allowed
        .iter()
        .any(|entry| entry.split("::").zip(0..).all(|(part, i)| path.get(i).is_some_and(|p| p == part)))
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// The code before the file's test module: `#[cfg(test)]` directly before `mod … {`.
fn without_tests(code: &str) -> String {
    let marker = "#[cfg(test)]";
    for (at, _) in code.match_indices(marker) {
        let after = code[at + marker.len()..].trim_start();
        let head = after.split(['{', ';']).next().unwrap_or("");
        if words(head).any(|word| word == "mod") && after[head.len()..].starts_with('{') {
            return code[..at].to_owned();
        }
    }
    code.to_owned()
}

/// The text with comments, strings and character literals blanked out; lines stay where they are.
fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = if starts(at, "//") {
            (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len())
        } else if starts(at, "/*") {
            let mut depth = 1;
            let mut i = at + 2;
            while i < chars.len() && depth > 0 {
                let step = if starts(i, "/*") {
                    depth += 1;
                    2
                } else if starts(i, "*/") {
                    depth -= 1;
                    2
                } else {
                    1
                };
                i += step;
            }
            i
        } else if chars[at] == 'r' && raw_string(&chars, at).is_some() {
            raw_string(&chars, at).unwrap_or(at)
        } else if chars[at] == '"' {
            let mut i = at + 1;
            while i < chars.len() && chars[i] != '"' {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            i + 1
        } else if chars[at] == '\'' && chars.get(at + 1) == Some(&'\\') {
            (at + 3..chars.len()).find(|i| chars[*i] == '\'').unwrap_or(chars.len()) + 1
        } else if chars[at] == '\'' && chars.get(at + 2) == Some(&'\'') {
            at + 3
        } else {
            at
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        }
        for c in &chars[at.min(chars.len())..end.clamp(at, chars.len())] {
            out.push(if *c == '\n' { '\n' } else { ' ' });
        }
        at = at.max(end);
    }
    out
}

/// Where the raw string that begins at `at` ends; `None` when none does.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    if at > 0 && (chars[at - 1].is_alphanumeric() && chars[at - 1] != 'b' || chars[at - 1] == '_') {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return None;
    }
    let ends = |i: usize| chars[i] == '"' && (1..=hashes).all(|h| chars.get(i + h) == Some(&'#'));
    let end = (at + 2 + hashes..chars.len()).find(|i| ends(*i));
    Some(end.map_or(chars.len(), |i| i + 1 + hashes))
}

/// Every path that begins with `crate::`, groups taken apart, with its line.
fn crate_paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let mut rest = &code[at + "crate::".len()..];
        let mut paths = Vec::new();
        tree(&mut rest, &[], &mut paths);
        found.extend(paths.into_iter().map(|path| (line, path)));
    }
    found
}

/// Reads one use tree from the front of `rest`.
fn tree(rest: &mut &str, prefix: &[String], out: &mut Vec<Vec<String>>) {
    *rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('{') {
        *rest = inside.trim_start();
        while !rest.is_empty() && !rest.starts_with('}') {
            tree(rest, prefix, out);
            // Skip `as Name` and the comma.
            let next = rest.find([',', '}']).unwrap_or(rest.len());
            *rest = rest[next..].strip_prefix(',').unwrap_or(&rest[next..]).trim_start();
        }
        *rest = rest.strip_prefix('}').unwrap_or(rest);
        return;
    }
    let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(rest.len());
    let mut path = prefix.to_vec();
    path.push(rest[..len].to_owned());
    *rest = &rest[len..];
    match rest.trim_start().strip_prefix("::") {
        Some(after) => {
            *rest = after;
            tree(rest, &path, out);
        }
        None => out.push(path),
    }
}

#[test]
fn the_reader_of_paths_reads_paths() {
    let source = "use crate::{price::{Price, Quote as Q}, time};\n// crate::feed\nlet s = \"crate::load\";\n\
                  fn f(c: char) -> crate::wire::V1 { c == '\"' }\nlet r = r#\"crate::sys \"x\" \"#; crate::http::f();";
    let paths: Vec<_> =
        crate_paths(&blanked(source)).iter().map(|(l, p)| format!("{l} {}", p.join("::"))).collect();
    assert_eq!(paths, ["1 price::Price", "1 price::Quote", "1 time", "4 wire::V1", "5 http::f"]);
    let cut =
        without_tests("use a;\n#[cfg(test)]\nmod x;\nuse b;\n#[cfg(test)]\npub(super) mod tests {\nuse c;");
    assert!(cut.contains("use b") && !cut.contains("use c"));
    assert!(is_allowed(&["price"], &["price".into(), "Price".into()]));
    assert!(!is_allowed(&["shard::Counter"], &["shard".into(), "Shard".into()]));
    assert!(!is_allowed(&["shard::Counter"], &["shard".into()]));
}
