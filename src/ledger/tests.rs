//! The journal as a whole: written, read while it is written, killed, damaged, recovered, full.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tempfile::TempDir;

use super::journal::Entry;
use super::segment::Live;
use super::*;
use crate::sys::mmap::SharedWords;
use crate::time::UnixNs;

/// Slots of a segment here.
const SLOTS: u64 = 16;

const HEADER_LEN: u64 = 4_096;

struct World {
    data: TempDir,
    epoch: u32,
}

fn options(folder: PathBuf) -> JournalOptions {
    JournalOptions { folder, segment_bytes: HEADER_LEN + SLOTS * RECORD_LEN as u64, bytes_max: 1 << 30 }
}

fn record(n: u64) -> Record {
    let request = RequestId::new(&n.to_le_bytes());
    Record { time: UnixNs(1_000 + n), key: 7 + (n % 3) as u32, request, ..Record::EMPTY }
}

impl World {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap(), epoch: 0 }
    }

    fn folder(&self) -> PathBuf {
        self.data.path().join("journal")
    }

    /// Opens it for a new run of two shards.
    fn open(&mut self) -> (Journal, Vec<Segment>, Recovery) {
        self.epoch += 1;
        Journal::open(options(self.folder()), self.epoch, 2).unwrap()
    }

    fn chain(&self, shard: u16) -> ChainId {
        ChainId { epoch: self.epoch, shard }
    }

    fn file(&self, shard: u16, first: u64) -> PathBuf {
        let name = format!("shard-{shard}/{:010}-{first:020}.seg", self.epoch);
        self.folder().join(name)
    }
}

/// Appends so many records, with all the help that a shard has.
fn append(journal: &Journal, segment: &mut Segment, from: u64, count: u64) {
    for n in from..from + count {
        journal.keep().unwrap();
        assert_eq!(segment.append(record(n)).unwrap().sequence, n);
    }
}

/// All records of a chain, by sequence, read in small steps; and how many are missing.
fn all(journal: &Journal, chain: ChainId) -> (BTreeMap<u64, Record>, u64) {
    let (mut found, mut missing, mut at) = (BTreeMap::new(), 0, 0);
    loop {
        let mut out = Vec::new();
        let progress = journal.read(chain, at, 7, &mut out).unwrap();
        assert!(out.len() <= 7);
        for (id, record) in out {
            assert_eq!(id.chain(), chain);
            assert!(found.insert(id.sequence, record).is_none(), "{id:?} twice");
        }
        missing += progress.missing;
        if progress.next == at {
            return (found, missing);
        }
        at = progress.next;
    }
}

fn expected(range: impl IntoIterator<Item = u64>) -> BTreeMap<u64, Record> {
    range.into_iter().map(|n| (n, record(n))).collect()
}

#[test]
fn records_are_read_while_they_are_written_after_they_were_sealed_and_in_the_next_run() {
    let mut world = World::new();
    let (journal, mut segments, recovery) = world.open();
    assert_eq!(recovery, Recovery::default());
    let chain = world.chain(0);
    assert_eq!(all(&journal, chain), (BTreeMap::new(), 0));
    for n in 0..60 {
        append(&journal, &mut segments[0], n, 1);
        assert_eq!(all(&journal, chain), (expected(0..=n), 0));
        if n % 10 == 0 {
            journal.sync().unwrap();
        }
    }
    append(&journal, &mut segments[1], 0, 3);
    let sealed = journal.segments().iter().filter(|s| s.index.is_some()).count();
    assert_eq!(sealed, 3);
    drop(segments);
    journal.close().unwrap();
    assert!(journal.segments().iter().all(|segment| segment.index.is_some()));
    assert_eq!(all(&journal, chain), (expected(0..60), 0));
    drop(journal);
    let (journal, segments, recovery) = world.open();
    assert_eq!((recovery.records, recovery.segments, recovery.findings.len()), (63, 5, 0));
    assert_eq!(recovery.to_string(), "63 records of earlier runs in 5 segments");
    assert_eq!(all(&journal, chain), (expected(0..60), 0));
    let infos = journal.chains();
    let live: Vec<_> = infos.iter().map(|info| (info.id.epoch, info.id.shard, info.end, info.live)).collect();
    assert_eq!(live, [(1, 0, 60, false), (1, 1, 3, false), (2, 0, 0, true), (2, 1, 0, true)]);
    let first = &journal.segments()[0];
    let index = first.index.as_ref().unwrap();
    assert_eq!((index.time_min, index.time_max), (UnixNs(1_000), UnixNs(1_015)));
    assert_eq!(index.keys, Some(vec![7, 8, 9]));
    let mut sums = BTreeMap::new();
    journal
        .for_each_from(
            |chain| if chain.shard == 0 { 50 } else { 0 },
            |_, r| *sums.entry(r.key).or_insert(0) += 1,
        )
        .unwrap();
    assert_eq!(sums.values().sum::<i32>(), 13);
    drop(segments);
}

#[test]
fn what_was_not_closed_is_recovered_with_every_record() {
    let mut world = World::new();
    for appended in [0, 1, 15, 16, 17, 40] {
        let (journal, mut segments, _) = world.open();
        append(&journal, &mut segments[0], 0, appended);
        let killed = world.chain(0);
        drop((journal, segments));
        let (journal, ..) = world.open();
        assert_eq!(all(&journal, killed), (expected(0..appended), 0));
        assert!(!journal.chains().iter().any(|chain| chain.id == killed && chain.end != appended));
    }
    assert!(!fs::read_dir(world.folder().join("shard-1")).unwrap().any(|e| {
        let name = e.unwrap().file_name();
        !name.to_str().unwrap().starts_with(&format!("{:010}", world.epoch))
    }));
}

#[test]
fn a_segment_that_grows_while_it_is_looked_at_is_not_passed_over() {
    let mut world = World::new();
    let (journal, mut segments, _) = world.open();
    let chain = world.chain(0);
    append(&journal, &mut segments[0], 0, 5);
    // What a look sees that has read the count of the first segment before it was filled, and that of
    // the second afterwards.
    let words = HEADER_LEN as usize / 8 + SLOTS as usize * record::RECORD_WORDS;
    let words = SharedWords::in_memory(words).unwrap();
    let second = Arc::new(Live::new(words, chain, SLOTS, None));
    let (ready, supply) = crossbeam_channel::bounded(1);
    ready.send(Arc::clone(&second)).unwrap();
    let mut written = Segment::awaiting(chain, supply).unwrap().going_on_from(SLOTS);
    written.append(record(SLOTS)).unwrap();
    journal.table().chains.get_mut(&chain).unwrap().segments.insert(SLOTS, Entry::Live(second));
    assert_eq!(all(&journal, chain), (expected(0..5), 0));
    for n in 5..SLOTS {
        segments[0].append(record(n)).unwrap();
    }
    assert_eq!(all(&journal, chain), (expected(0..=SLOTS), 0));
}

#[test]
fn one_process_at_a_time_keeps_a_journal() {
    let mut world = World::new();
    let held = world.open();
    let error = Journal::open(options(world.folder()), 9, 1).unwrap_err();
    assert!(error.what().contains("is in use by another beast"), "{error}");
    assert!(error.cure().contains("--data"));
    drop(held);
    world.open();
}

#[test]
fn a_start_that_was_counted_before_overwrites_nothing() {
    let mut world = World::new();
    let (journal, mut segments, _) = world.open();
    append(&journal, &mut segments[0], 0, 3);
    drop((journal, segments));
    let error = Journal::open(options(world.folder()), 1, 2).unwrap_err();
    assert!(error.what().contains("shard-0/0000000001-00000000000000000000.seg was written"), "{error}");
    assert!(error.cure().ends_with(&format!("or move {} away", world.folder().display())), "{error}");
    assert_eq!(world.open().2.records, 3);
}

#[test]
fn a_folder_that_cannot_be_made_is_told_with_its_cure() {
    let world = World::new();
    fs::write(world.folder(), b"a file").unwrap();
    let error = Journal::open(options(world.folder()), 1, 1).unwrap_err();
    assert!(error.what().starts_with(&format!("cannot make {}", world.folder().display())), "{error}");
    assert!(!error.is_full());
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 8], at).unwrap();
}

fn at(slot: u64) -> u64 {
    HEADER_LEN + slot * RECORD_LEN as u64
}

/// A journal and the folder it lies in.
struct Damaged {
    journal: Journal,
    _world: World,
}

impl std::ops::Deref for Damaged {
    type Target = Journal;

    fn deref(&self) -> &Journal {
        &self.journal
    }
}

/// Writes 40 records in three segments, killed or closed, does the damage, and opens it again.
fn damaged(close: bool, damage: impl Fn(&World)) -> (Damaged, Recovery, ChainId) {
    let mut world = World::new();
    let (journal, mut segments, _) = world.open();
    append(&journal, &mut segments[0], 0, 40);
    journal.sync().unwrap();
    drop(segments);
    if close {
        journal.close().unwrap();
    }
    drop(journal);
    damage(&world);
    let chain = world.chain(0);
    let (journal, _, recovery) = world.open();
    (Damaged { journal, _world: world }, recovery, chain)
}

#[test]
fn a_flipped_bit_costs_its_record_and_no_other() {
    // Where nothing was sealed it is found at the start, else when it is read.
    let (journal, recovery, chain) = damaged(false, |world| flip(&world.file(0, 32), at(3) + 9));
    assert_eq!((recovery.damaged, recovery.records, recovery.findings.len()), (1, 39, 1));
    assert!(recovery.findings[0].contains("1 records are damaged; the others are kept"), "{recovery:?}");
    let rest = expected((0..40).filter(|n| *n != 35));
    assert_eq!(all(&journal, chain), (rest.clone(), 1));
    let (journal, recovery, chain) = damaged(true, |world| flip(&world.file(0, 32), at(3) + 9));
    assert_eq!((recovery.damaged, recovery.records), (0, 40));
    assert_eq!(all(&journal, chain), (rest, 1));
}

#[test]
fn a_damaged_header_or_seal_costs_no_record() {
    for close in [false, true] {
        for byte in [0, 17, 30, 60] {
            let (journal, recovery, chain) = damaged(close, |world| flip(&world.file(0, 32), byte));
            assert_eq!((recovery.records, recovery.findings.len()), (40, 1), "{byte} {recovery:?}");
            assert!(recovery.findings[0].contains("header is damaged"), "{recovery:?}");
            assert_eq!(all(&journal, chain), (expected(0..40), 0));
        }
        let (journal, recovery, chain) = damaged(close, |world| flip(&world.file(0, 0), 64 + 9));
        assert_eq!((recovery.records, recovery.findings.len()), (40, 0));
        assert_eq!(all(&journal, chain), (expected(0..40), 0));
    }
}

#[test]
fn a_truncated_last_record_is_left_out_and_those_before_it_are_kept() {
    for close in [false, true] {
        let (journal, recovery, chain) = damaged(close, |world| {
            let file = OpenOptions::new().write(true).open(world.file(0, 32)).unwrap();
            file.set_len(at(7) + 20).unwrap();
        });
        assert_eq!((recovery.records, recovery.unfinished), (39, 1));
        assert!(recovery.to_string().contains("1 broken off unanswered"));
        assert_eq!(all(&journal, chain), (expected(0..39), 0));
    }
}

#[test]
fn a_missing_segment_is_told_and_nothing_around_it_is_lost() {
    let (journal, recovery, chain) = damaged(true, |world| fs::remove_file(world.file(0, 16)).unwrap());
    assert_eq!((recovery.records, recovery.missing), (24, 16));
    assert!(recovery.findings[0].contains("the 16 records before it are missing"), "{recovery:?}");
    assert_eq!(all(&journal, chain), (expected((0..16).chain(32..40)), 16));
}

#[test]
fn a_segment_that_goes_or_that_the_disk_has_lost_costs_its_own_records() {
    let (journal, _, chain) = damaged(true, |_| {});
    let path = journal.options.folder.join("shard-0").join(layout::file_name(chain.epoch, 16));
    fs::remove_file(&path).unwrap();
    let rest = expected((0..16).chain(32..40));
    assert_eq!(all(&journal, chain), (rest.clone(), 16));
    // Reading where this process has no memory fails as a disk does.
    std::os::unix::fs::symlink("/proc/self/mem", &path).unwrap();
    assert_eq!(all(&journal, chain), (rest, 16));
    let mut records = 0;
    journal.for_each_from(|_| 0, |_, _| records += 1).unwrap();
    assert_eq!(records, 24);
}

#[test]
fn foreign_files_stay_and_a_copy_counts_for_nothing() {
    let (journal, recovery, chain) = damaged(true, |world| {
        fs::write(world.folder().join("shard-0/notes.txt"), b"mine").unwrap();
        fs::write(world.folder().join("else"), b"").unwrap();
        fs::write(world.file(0, 77), b"short").unwrap();
        // Another shard's, another run's, another place's.
        fs::create_dir(world.folder().join("shard-9")).unwrap();
        fs::copy(world.file(0, 0), world.file(9, 0)).unwrap();
        fs::copy(world.file(0, 0), world.file(0, 48)).unwrap();
        // Never finished.
        fs::write(world.file(0, 64).with_extension("seg.new"), b"half").unwrap();
    });
    assert_eq!((recovery.records, recovery.damaged, recovery.missing), (40, 0, 0), "{recovery:?}");
    assert_eq!(recovery.findings.len(), 5, "{recovery:?}");
    assert_eq!(all(&journal, chain), (expected(0..40), 0));
    assert!(journal.options.folder.join("shard-0/notes.txt").exists());
    assert!(!journal.options.folder.join("shard-0/0000000001-00000000000000000064.seg.new").exists());
}

#[test]
fn the_cap_refuses_until_records_are_released_and_never_prunes_others() {
    let mut world = World::new();
    world.epoch = 1;
    let mut capped = options(world.folder());
    // Four segments for two shards.
    capped.bytes_max = 4 * capped.segment_bytes;
    let (journal, mut segments, _) = Journal::open(capped, 1, 2).unwrap();
    let chain = world.chain(0);
    let fill = |segment: &mut Segment| {
        let mut appended = 0;
        loop {
            journal.keep().unwrap();
            match segment.append(record(segment.appended())) {
                Some(_) => appended += 1,
                None => return appended,
            }
        }
    };
    let appended = fill(&mut segments[0]);
    assert_eq!(appended, 3 * SLOTS);
    let status = journal.status();
    assert_eq!((status.bytes, status.unreleased), (status.bytes_max, 3 * SLOTS));
    assert_eq!(status.room_records, [0, SLOTS]);
    let trouble = status.trouble.unwrap();
    assert!(trouble.contains("refused as overloaded") && trouble.contains("journal.max_mib"), "{trouble}");
    // Sealed, but not released: stays.
    journal.sync().unwrap();
    let everything = Prune { before: Some(UnixNs(u64::MAX)), bytes_max: Some(0) };
    assert_eq!(journal.prune(everything).unwrap(), Pruned::default());
    journal.release(chain, SLOTS + SLOTS / 2);
    assert_eq!(fill(&mut segments[0]), SLOTS);
    assert_eq!(journal.status().unreleased, 3 * SLOTS - SLOTS / 2);
    let (left, missing) = all(&journal, chain);
    assert_eq!((left, missing), (expected(SLOTS..4 * SLOTS), SLOTS));
    assert!(journal.status().trouble.is_some());
    journal.release(chain, u64::MAX);
    journal.sync().unwrap();
    journal.keep().unwrap();
    assert_eq!(journal.status().trouble, None);
    assert!(segments[0].append(record(0)).is_some());
}

#[test]
fn near_the_cap_the_shard_with_the_fewest_segments_comes_first() {
    let mut world = World::new();
    let mut capped = options(world.folder());
    capped.bytes_max = 6 * capped.segment_bytes;
    world.epoch = 1;
    let (journal, mut segments, _) = Journal::open(capped, 1, 2).unwrap();
    // Both have gone through one segment and into their second: from now on each should have two.
    for n in 0..=SLOTS {
        for segment in &mut segments {
            segment.append(record(n)).unwrap();
        }
        if n == 0 {
            journal.keep().unwrap();
        }
    }
    journal.keep().unwrap();
    assert_eq!(journal.status().room_records, [2 * SLOTS - 1, 2 * SLOTS - 1]);
}

#[test]
fn a_folder_that_cannot_be_used_starves_its_own_shard_only() {
    let mut world = World::new();
    let (journal, mut segments, _) = world.open();
    let folder = world.folder().join("shard-0");
    fs::rename(&folder, world.folder().join("aside")).unwrap();
    fs::write(&folder, b"a file").unwrap();
    for segment in &mut segments {
        segment.append(record(0)).unwrap();
    }
    let error = journal.keep().unwrap_err();
    assert!(error.what().contains("shard-0/"), "{error}");
    assert_eq!(journal.status().room_records, [SLOTS - 1, 2 * SLOTS - 1]);
    assert!(journal.status().trouble.is_some());
}

#[test]
fn detail_is_pruned_by_age_and_by_size_oldest_first() {
    let mut world = World::new();
    let (journal, mut segments, _) = world.open();
    append(&journal, &mut segments[0], 0, 3 * SLOTS + 1);
    journal.sync().unwrap();
    let chain = world.chain(0);
    journal.release(chain, u64::MAX);
    let pruned = journal.prune(Prune { before: Some(UnixNs(1_000 + SLOTS)), bytes_max: None }).unwrap();
    assert_eq!(pruned.segments, 1);
    assert_eq!(all(&journal, chain).0, expected(SLOTS..3 * SLOTS + 1));
    assert_eq!(journal.chains()[0].first, SLOTS);
    let bytes = journal.status().bytes;
    let pruned = journal.prune(Prune { before: None, bytes_max: Some(bytes - 1) }).unwrap();
    assert_eq!((pruned.segments, pruned.bytes), (1, HEADER_LEN + SLOTS * RECORD_LEN as u64));
    // What is being written always stays.
    journal.prune(Prune { before: Some(UnixNs(u64::MAX)), bytes_max: Some(0) }).unwrap();
    assert_eq!(all(&journal, chain).0, expected([3 * SLOTS]));
    drop(segments);
    journal.close().unwrap();
    drop(journal);
    let (journal, ..) = world.open();
    journal.release(chain, u64::MAX);
    journal.prune(Prune { before: None, bytes_max: Some(0) }).unwrap();
    assert!(!journal.chains().iter().any(|info| info.id == chain), "nothing is left of it");
}

#[test]
fn a_clock_that_steps_back_costs_nothing_and_age_counts_from_the_latest_record() {
    let mut world = World::new();
    let (journal, mut segments, _) = world.open();
    let times = |n: u64| UnixNs(if n < 10 { 5_000 + n } else { 100 + n });
    for n in 0..SLOTS + 1 {
        journal.keep().unwrap();
        segments[0].append(Record { time: times(n), ..record(n) }).unwrap();
    }
    journal.sync().unwrap();
    let chain = world.chain(0);
    journal.release(chain, u64::MAX);
    let index = journal.segments()[0].index.clone().unwrap();
    assert_eq!((index.time_min, index.time_max), (UnixNs(110), UnixNs(5_009)));
    assert_eq!(journal.prune(Prune { before: Some(UnixNs(5_009)), bytes_max: None }).unwrap().segments, 0);
    let found = all(&journal, chain).0;
    assert!((0..=SLOTS).all(|n| found[&n].time == times(n)));
    drop((segments, journal));
    let (journal, _, recovery) = world.open();
    assert_eq!((recovery.records, recovery.findings.len()), (SLOTS + 1, 0));
    assert_eq!(all(&journal, chain).0, found);
}

/// Ends a thread that looks at it, also when a test fails.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A copy of the files at any instant is what a kill at that instant leaves.
#[test]
fn killed_at_any_instant_every_answered_record_is_there() {
    const COPIES: u32 = 12;
    let data = tempfile::tempdir().unwrap();
    let mut live = options(data.path().join("live"));
    live.segment_bytes = 1 << 20;
    let (journal, mut segments, _) = Journal::open(live.clone(), 1, 1).unwrap();
    let answered = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = SetAtEnd(&stop);
        scope.spawn(|| {
            for n in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                while segments[0].append(record(n)).is_none() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::yield_now();
                }
                answered.store(n + 1, Ordering::Release);
                if n % 64 == 0 {
                    std::thread::yield_now();
                }
            }
        });
        for copies in 0..COPIES {
            journal.keep().unwrap();
            let copy = data.path().join(format!("copy-{copies}"));
            fs::create_dir_all(copy.join("shard-0")).unwrap();
            let before = answered.load(Ordering::Acquire);
            for entry in fs::read_dir(live.folder.join("shard-0")).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, copy.join("shard-0").join(path.file_name().unwrap())).unwrap();
            }
            let after = answered.load(Ordering::Acquire);
            let of_copy = JournalOptions { folder: copy.clone(), ..live.clone() };
            let (copied, _, recovery) = Journal::open(of_copy, 2, 1).unwrap();
            let mut out = Vec::new();
            copied.read(ChainId { epoch: 1, shard: 0 }, 0, usize::MAX, &mut out).unwrap();
            // Copying takes its time, so of those written meanwhile any may be there.
            let kept = out.iter().filter(|(id, _)| id.sequence < before).count() as u64;
            assert_eq!(kept, before, "{recovery:?}");
            for (id, read) in &out {
                assert!(id.sequence <= after);
                assert_eq!(*read, record(id.sequence));
            }
            drop(copied);
            fs::remove_dir_all(copy).unwrap();
        }
    });
}

#[test]
fn a_second_process_writes_beside_the_first_and_takes_in_its_records_when_it_has_gone() {
    let mut world = World::new();
    let (first, mut first_segments, _) = world.open();
    append(&first, &mut first_segments[0], 0, 20);
    let (second, mut second_segments) = Journal::open_beside(options(world.folder()), 2, 2).unwrap();
    append(&second, &mut second_segments[0], 0, 20);
    append(&first, &mut first_segments[0], 20, 20);
    assert_eq!(second.take_over().unwrap(), None, "the first one is still there");
    let epochs = |journal: &Journal| -> Vec<(u32, u64)> {
        journal
            .chains()
            .iter()
            .filter(|chain| chain.end > 0)
            .map(|chain| (chain.id.epoch, chain.end))
            .collect()
    };
    assert_eq!(epochs(&first), [(1, 40)]);
    assert_eq!(epochs(&second), [(2, 20)]);
    first.close().unwrap();
    drop((first, first_segments));
    assert_eq!(second.take_over().unwrap().unwrap().records, 40);
    assert_eq!(epochs(&second), [(1, 40), (2, 20)]);
    append(&second, &mut second_segments[0], 20, 20);
    assert_eq!(epochs(&second), [(1, 40), (2, 40)]);
    assert_eq!(second.take_over().unwrap(), Some(Recovery::default()), "taken in once");
    let error = Journal::open(options(world.folder()), 3, 1).unwrap_err();
    assert!(matches!(error, JournalError::Held { .. }));
}
