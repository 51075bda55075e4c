//! The contract of `SessionStore`, and what this store promises beyond it.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use time::{Date, OffsetDateTime, Time};
use tophash::{Options, Store, SyncPolicy};
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, ExpiredDeletion};
use tower_sessions::{CachingSessionStore, MemoryStore, SessionStore};
use tower_sessions_tophash::{Durability, TophashStore};

fn open(path: &Path) -> Store {
    Options::new().sync(SyncPolicy::Manual).open(path).unwrap()
}

/// A store in a directory that lives as long.
fn new() -> (TempDir, Store, TophashStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    (dir, store.clone(), TophashStore::new(store))
}

fn record(id: i128, value: i64, expiry_date: OffsetDateTime) -> Record {
    Record { id: Id(id), data: [("value".to_string(), value.into())].into(), expiry_date }
}

fn in_an_hour() -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::hours(1)
}

fn is_durable(store: &Store) -> bool {
    let log = store.stats().log;
    log.durable_lsn >= log.end_lsn
}

#[tokio::test]
async fn a_session_is_created_loaded_saved_and_deleted() {
    let (_dir, store, awaited) = new();
    let policy = TophashStore::new(store).with_prefix("policy/").with_durability(Durability::Policy);
    for sessions in [awaited, policy] {
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), None);
        let mut first = record(1, 10, in_an_hour());
        sessions.create(&mut first).await.unwrap();
        assert_eq!(first.id, Id(1), "a free id was changed");
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), Some(first.clone()));

        let second = record(1, 20, in_an_hour());
        sessions.save(&second).await.unwrap();
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), Some(second));

        sessions.delete(&Id(1)).await.unwrap();
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), None);
        sessions.delete(&Id(1)).await.unwrap();

        // Of one that is absent.
        sessions.save(&first).await.unwrap();
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), Some(first));
    }
}

#[tokio::test]
async fn a_taken_id_is_exchanged_for_another() {
    let (_dir, store, awaited) = new();
    let policy = TophashStore::new(store).with_prefix("policy/").with_durability(Durability::Policy);
    for sessions in [awaited, policy] {
        let mut first = record(1, 10, in_an_hour());
        sessions.create(&mut first).await.unwrap();
        let mut second = record(1, 20, in_an_hour());
        sessions.create(&mut second).await.unwrap();
        assert_ne!(second.id, first.id);
        assert_eq!(sessions.load(&first.id).await.unwrap(), Some(first));
        assert_eq!(sessions.load(&second.id).await.unwrap(), Some(second));
    }
}

#[tokio::test]
async fn a_session_whose_date_has_passed_is_absent_and_its_id_is_free() {
    let (_dir, store, sessions) = new();
    let now = OffsetDateTime::now_utc();
    let before_1970 = OffsetDateTime::UNIX_EPOCH - time::Duration::days(1);
    let first = OffsetDateTime::new_utc(Date::MIN, Time::MIDNIGHT);
    for passed in [now - time::Duration::milliseconds(1), OffsetDateTime::UNIX_EPOCH, before_1970, first] {
        for _ in 0..2 {
            let mut record = record(1, 10, passed);
            sessions.create(&mut record).await.unwrap();
            assert_eq!(record.id, Id(1), "{passed}");
            assert_eq!(sessions.load(&Id(1)).await.unwrap(), None, "{passed}");
        }
        // A session that is there ends where a date that has passed is saved.
        sessions.save(&record(2, 10, in_an_hour())).await.unwrap();
        assert!(sessions.load(&Id(2)).await.unwrap().is_some());
        sessions.save(&record(2, 10, passed)).await.unwrap();
        assert_eq!(sessions.load(&Id(2)).await.unwrap(), None, "{passed}");
    }
    assert_eq!(store.iter().count(), 0);
    sessions.delete_expired().await.unwrap();
}

#[tokio::test]
async fn a_session_expires_while_the_store_is_open() {
    let (_dir, _store, sessions) = new();
    let expiry_date = OffsetDateTime::now_utc() + time::Duration::milliseconds(300);
    sessions.create(&mut record(1, 10, expiry_date)).await.unwrap();
    let begin = Instant::now();
    while sessions.load(&Id(1)).await.unwrap().is_some() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not expire");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(OffsetDateTime::now_utc() >= expiry_date, "it expired early");
    let mut another = record(1, 20, in_an_hour());
    sessions.create(&mut another).await.unwrap();
    assert_eq!(another.id, Id(1), "the id of an expired session is not free");
    assert_eq!(sessions.load(&Id(1)).await.unwrap(), Some(another));
}

#[tokio::test]
async fn a_restart_keeps_sessions_and_deadlines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let last = OffsetDateTime::new_utc(Date::MAX, Time::MAX);
    // A whole millisecond, a part of one, and the last date that there is.
    let whole = OffsetDateTime::from_unix_timestamp(32_503_723_200).unwrap() + time::Duration::milliseconds(5);
    let dates = [(whole, 0), (whole + time::Duration::nanoseconds(1), 999_999), (last, 1)];
    for round in 0..2 {
        let store = open(&path);
        let sessions = TophashStore::new(store.clone());
        for (id, (date, rounded)) in (1..).zip(dates) {
            if round == 0 {
                sessions.create(&mut record(id, 10, date)).await.unwrap();
            }
            let expires = store.expires_at(sessions.key(&Id(id))).unwrap().unwrap();
            assert_eq!(expires, SystemTime::from(date) + Duration::from_nanos(rounded));
            let loaded = sessions.load(&Id(id)).await.unwrap().unwrap();
            assert_eq!(loaded, record(id, 10, date));
        }
        store.close().unwrap();
    }
}

#[tokio::test]
async fn wrong_bytes_are_an_error_that_names_no_id() {
    let (_dir, store, sessions) = new();
    for wrong in [b"".as_slice(), b"\x01", b"\x02\x93\x01\x00\x80", b"\x01\x93\x01\x00\x80\x00", b"{\"user\":1}"] {
        let key = sessions.key(&Id(1));
        store.set(&key, wrong).unwrap();
        let error = sessions.load(&Id(1)).await.unwrap_err();
        assert!(matches!(error, Error::Decode(_)), "{error:?}");
        assert!(!error.to_string().contains(&Id(1).to_string()));

        // Nothing but a save or a delete takes them away.
        let mut created = record(1, 10, in_an_hour());
        sessions.create(&mut created).await.unwrap();
        assert_ne!(created.id, Id(1));
        assert_eq!(store.get(&key).unwrap().unwrap(), wrong);
        sessions.save(&record(1, 20, in_an_hour())).await.unwrap();
        assert!(sessions.load(&Id(1)).await.unwrap().is_some());
        sessions.delete(&Id(1)).await.unwrap();
        assert_eq!(sessions.load(&Id(1)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn prefixes_and_other_keys_share_a_store() {
    let (_dir, store, sessions) = new();
    store.set("user:1", "Ada").unwrap();
    let all = [sessions.clone(), sessions.clone().with_prefix(""), sessions.with_prefix("session/staff/")];
    for (value, sessions) in (0..).zip(&all) {
        let mut record = record(1, value, in_an_hour());
        sessions.create(&mut record).await.unwrap();
        assert_eq!(record.id, Id(1));
    }
    for (value, sessions) in (0..).zip(&all) {
        assert_eq!(sessions.load(&Id(1)).await.unwrap().unwrap().data["value"], value);
    }
    all[0].delete(&Id(1)).await.unwrap();
    assert!(all[0].load(&Id(1)).await.unwrap().is_none() && all[1].load(&Id(1)).await.unwrap().is_some());
    assert_eq!((store.iter().count(), store.get("user:1").unwrap().unwrap().to_vec()), (3, b"Ada".to_vec()));
}

/// Tasks that create at once, all with the same few ids: each has a session of its own in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_session_is_lost_among_many_tasks() {
    let (dir, store, sessions) = new();
    let tasks: Vec<_> = (0..400)
        .map(|n| {
            let sessions = sessions.clone();
            tokio::spawn(async move {
                let mut record = record(i128::from(n % 4), n, in_an_hour());
                sessions.create(&mut record).await.unwrap();
                record
            })
        })
        .collect();
    let mut created = Vec::new();
    for task in tasks {
        created.push(task.await.unwrap());
    }
    assert!(is_durable(&store));
    let ids: HashSet<_> = created.iter().map(|record| record.id).collect();
    assert_eq!((ids.len(), store.len()), (400, 400), "two sessions share an id");
    for record in &created {
        assert_eq!(sessions.load(&record.id).await.unwrap().as_ref(), Some(record));
    }
    store.close().unwrap();
    let sessions = TophashStore::new(open(&dir.path().join("store")));
    for record in &created {
        assert_eq!(sessions.load(&record.id).await.unwrap().as_ref(), Some(record));
    }
}

#[tokio::test]
async fn each_change_is_durable_unless_the_policy_counts() {
    let (_dir, store, sessions) = new();
    sessions.create(&mut record(1, 10, in_an_hour())).await.unwrap();
    assert!(is_durable(&store));
    sessions.save(&record(1, 20, in_an_hour())).await.unwrap();
    assert!(is_durable(&store));
    sessions.delete(&Id(1)).await.unwrap();
    assert!(is_durable(&store));

    let waiters = store.stats().commit.waiters;
    let unawaited = sessions.clone().with_durability(Durability::Policy);
    unawaited.create(&mut record(1, 10, in_an_hour())).await.unwrap();
    unawaited.save(&record(1, 20, in_an_hour())).await.unwrap();
    unawaited.delete(&Id(1)).await.unwrap();
    unawaited.delete(&Id(1)).await.unwrap();
    assert_eq!(store.stats().commit.waiters, waiters, "somebody waited for a sync");

    // The removal above was not awaited, and an awaited one of the same session covers it.
    sessions.delete(&Id(1)).await.unwrap();
    assert!(is_durable(&store));
}

#[tokio::test]
async fn a_closed_store_is_an_error_of_the_backend() {
    let (_dir, store, sessions) = new();
    store.close().unwrap();
    for sessions in [sessions.clone(), sessions.with_durability(Durability::Policy)] {
        let mut record = record(1, 10, in_an_hour());
        let errors = [
            sessions.create(&mut record).await.unwrap_err(),
            sessions.save(&record).await.unwrap_err(),
            sessions.load(&Id(1)).await.unwrap_err(),
            sessions.delete(&Id(1)).await.unwrap_err(),
        ];
        assert!(
            errors.iter().all(|error| matches!(error, Error::Backend(text) if text.contains("closed"))),
            "{errors:?}"
        );
    }
}

#[tokio::test]
async fn it_caches_and_is_cached() {
    let (_dir, store, sessions) = new();
    let behind = CachingSessionStore::new(MemoryStore::default(), sessions.clone());
    let mut record = record(1, 10, in_an_hour());
    behind.create(&mut record).await.unwrap();
    assert_eq!(sessions.load(&record.id).await.unwrap(), Some(record.clone()));
    behind.delete(&record.id).await.unwrap();
    assert_eq!(store.iter().count(), 0);

    // As a cache it is filled by `save` of a session that it does not have.
    let memory = MemoryStore::default();
    memory.save(&record).await.unwrap();
    let before = CachingSessionStore::new(sessions.clone(), memory);
    assert_eq!(before.load(&record.id).await.unwrap(), Some(record.clone()));
    assert_eq!(sessions.load(&record.id).await.unwrap(), Some(record));
}

/// With a value that has a file of its own in the store.
#[tokio::test]
async fn a_large_session_comes_back() {
    let (_dir, _store, sessions) = new();
    let mut record = record(1, 10, in_an_hour());
    record.data.insert("text".into(), "x".repeat(300_000).into());
    sessions.create(&mut record).await.unwrap();
    assert_eq!(sessions.load(&Id(1)).await.unwrap(), Some(record));
}
