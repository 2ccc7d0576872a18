//! The real program on disks that misbehave: full, read-only, damaged. Nothing is lost, nothing is counted
//! twice, the operator is told, and answers go on or are refused as overloaded.

#[path = "support/clients.rs"]
mod clients;
#[path = "support/running.rs"]
mod running;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use beast::wire::ErrorCode;
use beast::wire::v2::{Key, Reply};
use clients::{Udp, v2_request};
use running::{PATIENCE, Process, refused_in_mounts, v4, wait_until};

/// Requests under way at a time.
const WINDOW: u64 = 32;

/// Asks by v2 and knows what came of it.
struct Asker {
    client: Udp,
    key: Key,
    token: beast::account::Token,
    sent: u64,
    answered: u64,
    overloaded: u64,
}

impl Asker {
    fn of(server: &Process) -> Self {
        let token = server.token;
        let key = Key(token.v2_answer_key().0);
        Self { client: Udp::to(v4(&server.udp)), key, token, sent: 0, answered: 0, overloaded: 0 }
    }

    /// Sends so many requests at once and takes all their answers.
    fn ask(&mut self, many: u64) {
        for _ in 0..many {
            self.sent += 1;
            self.client.send(&v2_request(&self.token, "BTC", self.sent));
        }
        for _ in 0..many {
            match Reply::parse(&self.client.receive(), &self.key).unwrap() {
                Reply::Answer(_) => self.answered += 1,
                Reply::Refused(refusal) => {
                    assert_eq!(refusal.code, ErrorCode::Overloaded);
                    self.overloaded += 1;
                }
                Reply::RefusedUnsigned(refusal) => panic!("{refusal:?}"),
            }
        }
    }
}

/// Answers and refusals that the store has counted for months.
fn months(data: &Path) -> (u64, u64) {
    let db = rusqlite::Connection::open(data.join("beast.sqlite")).unwrap();
    let sum = |condition: &str| -> u64 {
        let select =
            format!("SELECT coalesce(sum(requests), 0) FROM usage_months WHERE status {condition} 0");
        let sum: i64 = db.query_row(&select, [], |row| row.get(0)).unwrap();
        sum.cast_unsigned()
    };
    (sum("="), sum("<>"))
}

#[test]
fn a_full_disk_refuses_as_overloaded_loses_nothing_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let args = ["--shards=1", "--set=journal.segment_mib=1"];
    let mount = "mount -t tmpfs -o size=24m,mode=0700 tmpfs \"$0\"";
    let server = Process::start_in_mounts(mount, &data, &args);
    let mut asker = Asker::of(&server);
    asker.ask(WINDOW);
    assert_eq!(asker.answered, WINDOW);
    // Somebody else's file takes all there is.
    let filler = server.mounted(&data).join("filler");
    let mut file = OpenOptions::new().create_new(true).write(true).open(&filler).unwrap();
    let mut piece = vec![1; 64 << 10];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
    let started = Instant::now();
    while asker.overloaded == 0 {
        assert!(started.elapsed() < 3 * PATIENCE, "{} answers on a full disk", asker.answered);
        asker.ask(WINDOW);
    }
    wait_until("the operator is told", || {
        let ready = server.health("/ready");
        ready.contains("No space left on device") && ready.contains("free space on the disk of")
    });
    assert!(server.health("/live").contains("true"), "{}", server.health("/live"));
    drop(file);
    fs::remove_file(&filler).unwrap();
    let refused = asker.overloaded;
    wait_until("answers go on", || {
        let before = asker.answered;
        asker.ask(1);
        asker.answered > before
    });
    asker.ask(WINDOW);
    assert!(asker.overloaded >= refused);
    server.drained();
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["beast.sqlite", "beast.sqlite-wal"] {
        fs::copy(server.mounted(&data).join(name), copy.join(name)).unwrap();
    }
    let (answered, _) = months(&copy);
    assert_eq!(answered, asker.answered, "every answer was counted once, whatever the disk did");
    let books = server.books();
    assert_eq!((books.received, books.answered), (asker.sent, asker.answered));
    assert_eq!(server.leave(), Some(0));
}

#[test]
fn a_journal_that_cannot_be_written_is_told_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    assert_eq!(Process::start(&data, &["--shards=1"]).leave(), Some(0));
    let read_only = "mount --bind \"$0/journal\" \"$0/journal\"; mount -o remount,bind,ro \"$0/journal\"";
    let said = refused_in_mounts(read_only, &data);
    let lock = data.join("journal/lock");
    assert!(
        said.contains(&format!("error: cannot open {}: Read-only file system", lock.display())),
        "{said}"
    );
    assert!(said.contains("what to do: choose a data folder on a disk that can be written"), "{said}");
    assert_eq!(Process::start(&data, &["--shards=1"]).leave(), Some(0));
}

#[test]
fn two_programs_do_not_share_a_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Process::start(&data, &["--shards=1"]);
    let said = refused_in_mounts("true", &data);
    assert!(said.contains("is in use by another beast"), "{said}");
    Asker::of(&server).ask(WINDOW);
    assert_eq!(server.leave(), Some(0));
}

/// The only segment that holds records.
fn segment(data: &Path) -> PathBuf {
    let files = fs::read_dir(data.join("journal/shard-0")).unwrap().map(|entry| entry.unwrap().path());
    let holds = |path: &PathBuf| fs::read(path).unwrap()[4_096..].iter().any(|byte| *byte != 0);
    let mut held: Vec<PathBuf> = files.filter(holds).collect();
    assert_eq!(held.len(), 1, "{held:?}");
    held.remove(0)
}

fn flip(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 16], at).unwrap();
}

#[test]
fn damage_is_told_costs_its_own_records_and_is_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Process::start(&data, &["--shards=1"]);
    let mut asker = Asker::of(&server);
    for _ in 0..4 {
        asker.ask(WINDOW);
    }
    assert_eq!(asker.answered, 4 * WINDOW);
    server.drained();
    server.kill();
    assert_eq!(months(&data), (4 * WINDOW, 0));
    let damaged = segment(&data);
    // The fifth record, and the last one, which is cut off in its middle.
    flip(&damaged, 4_096 + 4 * 64 + 30);
    let file = OpenOptions::new().write(true).open(&damaged).unwrap();
    file.set_len(4_096 + (4 * WINDOW - 1) * 64 + 20).unwrap();
    let server = Process::start(&data, &["--shards=1"]);
    let told = server.said.iter().find(|line| line.starts_with("journal  ")).expect("the start tells of it");
    let expected = format!(
        "{} records of earlier runs in 1 segments, 1 broken off unanswered, 1 damaged",
        4 * WINDOW - 2
    );
    assert!(told.contains(&expected), "{told}");
    assert!(server.said.iter().any(|line| line.contains("1 records are damaged; the others are kept")));
    Asker::of(&server).ask(WINDOW);
    server.drained();
    // A little longer than a drain takes.
    std::thread::sleep(Duration::from_millis(300));
    server.kill();
    assert_eq!(months(&data), (5 * WINDOW, 0), "what was drained before is not counted again");
}
