//! kill -9 at any moment: every write that returned is there afterwards.
//!
//! A child process (this test binary, run again) carries out numbered operations on a store: inserts, updates,
//! removals, batches, values in blob files, bulk removals, clears, checkpoints; from an empty store on, with
//! tiny pages and segments or with ordinary ones, under each sync policy. It writes a line to a pipe for each
//! operation that has returned. The parent kills it at a random moment, sometimes while it is still opening
//! (and so recovering), opens the store and compares: it must hold the result of exactly the operations that
//! returned, with or without the one that was in flight, and batches whole. Then the next child goes on with
//! the same store.
//!
//! Where the child has several threads, each has keys of its own and the same holds for each.

mod common;

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use common::{Random, bytes};
use tophash::{Batch, Error, Options, PartOrder, PartPlan, Store, SyncPolicy, Tuning};

/// Tells the test binary that it is the child, and of which series.
const CHILD: &str = "TOPHASH_KILL_CHILD";

/// The stores that are written to and killed.
const SERIES: [Series; 5] = [
    Series { name: "Manual, one thread", threads: 1, policy: Policy::Manual, background: false, size: Size::Tiny },
    Series { name: "Every, one thread", threads: 1, policy: Policy::Every, background: true, size: Size::Tiny },
    Series { name: "Always, three threads", threads: 3, policy: Policy::Always, background: true, size: Size::Tiny },
    Series { name: "Manual, two threads", threads: 2, policy: Policy::Manual, background: true, size: Size::Ordinary },
    YOUNG,
];

/// A store as it is shipped, that is killed before its first checkpoint.
const YOUNG: Series =
    Series { name: "young, two threads", threads: 2, policy: Policy::Every, background: true, size: Size::Young };
/// The least number of operations of a young store: from 10,000 records on, several threads replay the tail.
const TAIL: u64 = 10_200;

/// Kills of each series.
const KILLS: usize = 25;

#[derive(Clone, Copy)]
enum Policy {
    Manual,
    Every,
    Always,
}

#[derive(Clone, Copy)]
struct Series {
    name: &'static str,
    threads: u64,
    policy: Policy,
    background: bool,
    size: Size,
}

#[derive(Clone, Copy, PartialEq)]
enum Size {
    /// Pages and segments are tiny, checkpoints come all the time.
    Tiny,
    Ordinary,
    Young,
}

impl Series {
    fn options(&self) -> Options {
        let options = Options::new().sync(match self.policy {
            Policy::Manual => SyncPolicy::Manual,
            Policy::Every => SyncPolicy::Every(Duration::from_millis(2)),
            Policy::Always => SyncPolicy::Always,
        });
        if self.size == Size::Young {
            options.checkpoint_bytes(1 << 30)
        } else if self.size == Size::Tiny {
            let tuning = Tuning { background: self.background, ..common::tiny() };
            options.tuning(tuning).segment_bytes(16 << 10).checkpoint_bytes(12 << 10)
        } else {
            let tuning =
                Tuning { level_min: 0, background: self.background, blob_bytes_min: 2000, ..Tuning::default() };
            options.tuning(tuning).segment_bytes(128 << 10).checkpoint_bytes(100 << 10)
        }
    }
}

/// What a thread's keys hold: number of the key to value.
type Content = HashMap<u32, Vec<u8>>;

enum Op {
    Insert(u32, Vec<u8>),
    Remove(u32),
    /// Counts the key's first eight bytes up.
    Count(u32),
    Batch(Vec<(u32, Option<Vec<u8>>)>),
    RemoveMany(Vec<u32>),
    Clear,
    Checkpoint,
    Sync,
}

/// The n-th operation of a thread: a function of its arguments only, so that parent and child agree.
fn operation(series: &Series, seed: u64, thread: u64, number: u64) -> Op {
    let mut random = Random(seed ^ thread << 56 ^ number.wrapping_mul(0x2545_F491_4F6C_DD1D));
    if series.size == Size::Young {
        // Most keys are new, so that the table would double again and again if the tail were replayed key by key.
        let old = random.below(number + 1) as u32;
        return match random.below(20) {
            0..3 => Op::Remove(old),
            3 => Op::Insert(old, bytes(9, random.next())),
            4 => Op::Batch((0..3).map(|i| (old + i, random.chance(1, 2).then(|| bytes(8, number)))).collect()),
            _ => Op::Insert(number as u32, bytes(8, random.next())),
        };
    }
    // The set of keys in use widens and narrows, so that the table grows and pages fill and empty.
    let keys = [60, 700, 3000, 300][(number / 3000) as usize % 4];
    let key = |random: &mut Random| random.below(keys) as u32;
    let content = |random: &mut Random| {
        let len = if random.chance(1, 80) { random.below(9000) } else { random.below(200) };
        bytes(8 + len as usize, random.next())
    };
    match random.below(1000) {
        0..520 => Op::Insert(key(&mut random), content(&mut random)),
        520..700 => Op::Remove(key(&mut random)),
        700..800 => Op::Count(key(&mut random)),
        800..950 => {
            let change = |random: &mut Random| (key(random), random.chance(3, 4).then(|| content(random)));
            Op::Batch((0..random.below(25)).map(|_| change(&mut random)).collect())
        }
        950..985 => Op::RemoveMany((0..random.below(60)).map(|_| key(&mut random)).collect()),
        // It concerns all threads' keys.
        985..986 if series.threads == 1 => Op::Clear,
        986..993 => Op::Checkpoint,
        _ => Op::Sync,
    }
}

fn counted(old: Option<&[u8]>) -> Vec<u8> {
    let old = old.and_then(|old| old.first_chunk()).map_or(0, |first| u64::from_le_bytes(*first));
    old.wrapping_add(1).to_le_bytes().to_vec()
}

fn key_bytes(thread: u64, key: u32) -> Vec<u8> {
    format!("{thread}/{key}").into_bytes()
}

fn carry_out(store: &Store, thread: u64, op: Op) -> tophash::Result<()> {
    let name = |key| key_bytes(thread, key);
    match op {
        Op::Insert(key, value) => store.insert(name(key), value).map(drop),
        Op::Remove(key) => store.remove(name(key)).map(drop),
        Op::Count(key) => store.update(name(key), |old| Some(counted(old))).map(drop),
        Op::Batch(changes) => {
            let mut batch = Batch::new();
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(name(key), value),
                    None => batch.remove(name(key)),
                };
            }
            store.apply(&batch)
        }
        Op::RemoveMany(keys) => store.remove_many(&keys.into_iter().map(name).collect::<Vec<_>>()).map(drop),
        Op::Clear => store.clear(),
        Op::Checkpoint => store.checkpoint(),
        Op::Sync => store.sync(),
    }
}

/// The same on a model.
fn imagine(content: &mut Content, op: Op) {
    match op {
        Op::Insert(key, value) => _ = content.insert(key, value),
        Op::Remove(key) => _ = content.remove(&key),
        Op::Count(key) => {
            let value = counted(content.get(&key).map(Vec::as_slice));
            content.insert(key, value);
        }
        Op::Batch(changes) => {
            for (key, value) in changes {
                match value {
                    Some(value) => _ = content.insert(key, value),
                    None => _ = content.remove(&key),
                }
            }
        }
        Op::RemoveMany(keys) => keys.iter().for_each(|key| _ = content.remove(key)),
        Op::Clear => content.clear(),
        Op::Checkpoint | Op::Sync => {}
    }
}

/// One line to the parent, by one system call.
fn say(line: &str) {
    let text = format!("\n{line}\n");
    std::io::stdout().write_all(text.as_bytes()).expect("write to the parent");
}

/// Not a test: the child's part of the test below, which runs it with the environment variable set.
#[test]
fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let words: Vec<&str> = order.splitn(4, ' ').collect();
    let [number, seed, first, path] = words[..] else { panic!("{order:?}") };
    let series = &SERIES[number.parse::<usize>().unwrap()];
    let seed = seed.parse().unwrap();
    let first: Vec<u64> = first.split(',').map(|first| first.parse().unwrap()).collect();
    say("opening");
    let store = series.options().open(path).unwrap();
    say("open");
    std::thread::scope(|scope| {
        for (thread, &first) in (0..).zip(&first) {
            let store = &store;
            scope.spawn(move || {
                for number in first.. {
                    if let Err(error) = carry_out(store, thread, operation(series, seed, thread, number)) {
                        eprintln!("operation {number} of thread {thread}: {error}");
                        std::process::exit(3);
                    }
                    say(&format!("done {thread} {number}"));
                }
            });
        }
    });
}

/// What a child said before it died.
struct Said {
    opened: bool,
    /// By thread: the last operation that returned.
    done: Vec<Option<u64>>,
}

/// Runs a child and kills it.
fn run_child(series: usize, seed: u64, first: &[u64], path: &Path, random: &mut Random) -> Said {
    let first: Vec<String> = first.iter().map(u64::to_string).collect();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{series} {seed} {} {}", first.join(","), path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the child");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut said = Said { opened: false, done: vec![None; first.len()] };
        for line in lines {
            let line = line.expect("read from the child");
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["opening"] => _ = sender.send(false),
                ["open"] => {
                    said.opened = true;
                    let _ = sender.send(true);
                }
                ["done", thread, number] => {
                    let (thread, number): (usize, u64) = (thread.parse().unwrap(), number.parse().unwrap());
                    assert!(said.done[thread].is_none_or(|before| before + 1 == number), "{line}");
                    said.done[thread] = Some(number);
                }
                _ => {}
            }
        }
        said
    });
    let while_opening = random.chance(1, 4);
    let mut opened = receiver.recv_timeout(common::PATIENCE);
    if !while_opening && opened == Ok(false) {
        opened = receiver.recv_timeout(common::PATIENCE);
    }
    let micros = if while_opening { random.below(4_000) } else { random.below(60_000) };
    std::thread::sleep(Duration::from_micros(micros));
    if let Some(status) = child.try_wait().unwrap() {
        panic!("the child ended by itself: {status}, {opened:?}");
    }
    child.kill().expect("kill the child");
    child.wait().expect("wait for the child");
    opened.expect("the child said nothing");
    reader.join().unwrap()
}

/// What is in the store, by thread.
fn read(store: &Store, threads: u64) -> Vec<Content> {
    let mut contents = vec![Content::new(); threads as usize];
    for (key, value) in common::contents(store) {
        assert_eq!(store.get(&key).unwrap().as_deref(), Some(&value[..]));
        let text = String::from_utf8(key).unwrap();
        let (thread, key) = text.split_once('/').unwrap();
        contents[thread.parse::<usize>().unwrap()].insert(key.parse().unwrap(), value);
    }
    assert_eq!(contents.iter().map(Content::len).sum::<usize>() as u64, store.len());
    contents
}

#[derive(Debug, Default)]
struct Counts {
    kills: u64,
    kills_while_opening: u64,
    operations: u64,
    in_flight_there: u64,
    in_flight_not_there: u64,
    in_flight_in_part: u64,
    replayed_records: u64,
    journals_redone: u64,
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills, {} of them while opening; {} operations, the last one there {} times, not there {}, in part {}; \
             {} records replayed, {} journals finished",
            self.kills,
            self.kills_while_opening,
            self.operations,
            self.in_flight_there,
            self.in_flight_not_there,
            self.in_flight_in_part,
            self.replayed_records,
            self.journals_redone
        )
    }
}

/// Decides whether a thread's part of the store is what it may be. Returns the operation to go on with.
fn judge(
    series: &Series,
    seed: u64,
    thread: u64,
    returned: u64,
    model: &mut Content,
    found: Content,
    counts: &mut Counts,
) -> u64 {
    let in_flight = operation(series, seed, thread, returned);
    if *model == found {
        counts.in_flight_not_there += 1;
        return returned;
    }
    let before = model.clone();
    let removes = matches!(in_flight, Op::RemoveMany(_));
    imagine(model, in_flight);
    if *model == found {
        counts.in_flight_there += 1;
        return returned + 1;
    }
    // Bulk removal is the one operation that may be there in part: some of its keys are gone.
    let of_both = |key: &u32, value: &Vec<u8>| before.get(key) == Some(value);
    if removes
        && found.iter().all(|(key, value)| of_both(key, value))
        && model.keys().all(|key| found.contains_key(key))
    {
        counts.in_flight_in_part += 1;
        *model = found;
        return returned;
    }
    let lost: Vec<_> = before.iter().filter(|(key, value)| found.get(key) != Some(value)).map(|(key, _)| key).collect();
    let new: Vec<_> = found.iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(key, _)| key).collect();
    panic!(
        "{}, seed {seed}: thread {thread} had {returned} operations return; after the kill the keys {lost:?} are not \
         as they were then, and {new:?} have other values",
        series.name
    );
}

fn run_series(number: usize, seed: u64, counts: &mut Counts) {
    let series = &SERIES[number];
    let dir = if number.is_multiple_of(2) { common::scratch() } else { common::disk_scratch() };
    let path = dir.path().join("store");
    let mut random = Random(seed);
    let mut models = vec![Content::new(); series.threads as usize];
    let mut next = vec![0u64; series.threads as usize];
    for kill in 0..KILLS {
        let said = run_child(number, seed, &next, &path, &mut random);
        counts.kills += 1;
        counts.kills_while_opening += u64::from(!said.opened);
        for thread in 0..series.threads {
            let at = thread as usize;
            let end = said.done[at].map_or(next[at], |done| done + 1);
            counts.operations += end - next[at];
            for operation_number in next[at]..end {
                imagine(&mut models[at], operation(series, seed, thread, operation_number));
            }
            next[at] = end;
        }
        // Read-only: the next child recovers. Writable: the parent does.
        let read_only = kill % 3 != 2;
        let store = match series.options().read_only(read_only).open(&path) {
            Err(Error::NotFound { .. }) if next.iter().all(|&n| n == 0) => continue,
            store => store.unwrap_or_else(|error| panic!("{}, seed {seed}, kill {kill}: {error}", series.name)),
        };
        let recovery = store.stats().recovery;
        counts.replayed_records += recovery.replayed_records;
        counts.journals_redone += u64::from(recovery.journal_redone);
        for (thread, found) in (0..series.threads).zip(read(&store, series.threads)) {
            let at = thread as usize;
            next[at] = judge(series, seed, thread, next[at], &mut models[at], found, counts);
        }
        if !read_only && kill % 2 == 0 {
            store.close().unwrap();
        }
    }
    let store = common::open(&series.options(), &path);
    assert!(read(&store, series.threads) == models, "{}, seed {seed}: another recovery, another result", series.name);
    store.close().unwrap();
    let report = tophash::verify::verify(&path).unwrap();
    assert!(report.is_clean(), "{report:#?}");
}

#[test]
fn what_returned_survives_a_kill() {
    let seed = common::seed("kill");
    let mut counts = Counts::default();
    for round in 0..common::scale() as u64 {
        for number in 0..SERIES.len() - 1 {
            run_series(number, seed.wrapping_add(round) & u64::MAX >> 8, &mut counts);
        }
    }
    println!("kill: {counts}");
    assert!(counts.kills >= 50 && counts.operations > 1000 && counts.replayed_records > 100, "{counts:?}");
}

/// Lets the child write a new store until it has so many operations behind it, and kills it. Returns the number of
/// operations of each thread that returned.
fn write_and_kill(seed: u64, path: &Path, operations: u64) -> Vec<u64> {
    let number = SERIES.len() - 1;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{number} {seed} 0,0 {}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the child");
    let (mut returned, mut total) = (vec![0; YOUNG.threads as usize], 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.expect("read from the child");
        let words: Vec<&str> = line.split(' ').collect();
        if let ["done", thread, number] = words[..] {
            returned[thread.parse::<usize>().unwrap()] = number.parse::<u64>().unwrap() + 1;
            total += 1;
            if total == operations {
                child.kill().expect("kill the child");
            }
        }
    }
    child.wait().expect("wait for the child");
    assert!(total >= operations, "the child ended by itself after {total} operations");
    returned
}

/// Kills a young store, and recovers it in all ways. Returns the number of recoveries and of the records replayed.
fn kill_a_young_store(seed: u64) -> (u64, u64) {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let returned = write_and_kill(seed, &path, TAIL + Random(seed).below(2_000));
    let mut models = vec![Content::new(); YOUNG.threads as usize];
    for thread in 0..YOUNG.threads {
        for number in 0..returned[thread as usize] {
            imagine(&mut models[thread as usize], operation(&YOUNG, seed, thread, number));
        }
    }
    let orders = [PartOrder::Late(1), PartOrder::NoThreads];
    let plans = orders.map(|order| PartPlan { parts: 3, order }).into_iter().chain([PartPlan::default()]);
    let (mut recoveries, mut replayed) = (0, 0);
    for (i, parts) in plans.enumerate() {
        // The last one recovers for writing, as the next process would.
        let read_only = i < orders.len();
        let options = YOUNG.options().tuning(Tuning { parts, ..Tuning::default() }).read_only(read_only);
        let store = common::open(&options, &path);
        recoveries += 1;
        replayed += store.stats().recovery.replayed_records;
        for (thread, found) in (0..YOUNG.threads).zip(read(&store, YOUNG.threads)) {
            let mut model = models[thread as usize].clone();
            judge(&YOUNG, seed, thread, returned[thread as usize], &mut model, found, &mut Counts::default());
        }
        if !read_only {
            store.close().unwrap();
        }
    }
    assert!(tophash::verify::verify(&path).unwrap().is_clean());
    (recoveries, replayed)
}

/// Ends the busy threads, also when a test fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// **Recovery lost a quarter of acknowledged, synced records.** Each thread of a replay partitioned the tail by the growth
/// word that it found when it began; on a busy machine one began after another had doubled the table. No kill of this file
/// met it, because all stores had short tails, which one thread replays.
///
/// Several parts are asked for, even on one processor, in the system's order and in chosen ones, beside busy threads.
#[test]
fn young_stores_with_long_tails_survive_a_kill_on_a_busy_machine() {
    let seed = common::seed("kill, young stores") & u64::MAX >> 8;
    let over = AtomicBool::new(false);
    let (mut recoveries, mut replayed) = (0, 0);
    std::thread::scope(|scope| {
        let _stop = Stop(&over);
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        for round in 0..common::scale() as u64 {
            let (opened, records) = kill_a_young_store(seed ^ round);
            (recoveries, replayed) = (recoveries + opened, replayed + records);
        }
    });
    println!("kill, young stores: {} kills, {recoveries} recoveries of {replayed} records", common::scale());
    assert!(replayed >= recoveries * 10_000, "the tails are too short");
}
