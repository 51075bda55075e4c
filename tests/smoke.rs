use tophash::{Batch, Options, Store, SyncPolicy, Tuning};

fn tiny() -> Tuning {
    Tuning {
        level_min: 0,
        home_buckets: 2,
        stash_buckets: 1,
        overflow_log2_min: 1,
        background: false,
        blob_bytes_min: 600,
        ..Tuning::default()
    }
}

#[test]
fn basics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = Store::open(&path).unwrap();
    for i in 0..200_000u64 {
        assert!(store.insert(i.to_le_bytes(), (i * 3).to_le_bytes()).unwrap().is_none());
    }
    assert_eq!(store.len(), 200_000);
    for i in 0..200_000u64 {
        assert_eq!(&*store.get(i.to_le_bytes()).unwrap().unwrap(), &(i * 3).to_le_bytes());
    }
    for i in 0..100_000u64 {
        assert!(store.remove((i * 2).to_le_bytes()).unwrap().is_some());
    }
    assert_eq!(store.iter().map(|e| e.unwrap()).count(), 100_000);
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    assert!(!store.stats().recovery.was_unclean);
    for i in 0..200_000u64 {
        assert_eq!(store.get(i.to_le_bytes()).unwrap().is_some(), i % 2 == 1);
    }
    println!("{:#?}", store.stats());
}

#[test]
fn tiny_pages() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let options = Options::new().tuning(tiny()).segment_bytes(4096).checkpoint_bytes(20_000).sync(SyncPolicy::Manual);
    let mut store = options.open(&path).unwrap();
    for round in 0..5 {
        for i in 0..3000u32 {
            store.insert(i.to_le_bytes(), vec![i as u8; (i % 100) as usize]).unwrap();
        }
        let mut batch = Batch::new();
        for i in 0..20u32 {
            batch.insert(i.to_le_bytes(), vec![7; 30]);
            batch.remove((i + 100).to_le_bytes());
        }
        store.apply(&batch).unwrap();
        store.insert("big", vec![5; 10_000]).unwrap();
        assert_eq!(store.get("big").unwrap().unwrap().len(), 10_000);
        assert!(store.get(105u32.to_le_bytes()).unwrap().is_none());
        for i in 0..1500u32 {
            store.remove((i * 2).to_le_bytes()).unwrap();
        }
        let keys: Vec<_> = (0..700u32).map(|i| (i * 4 + 1).to_le_bytes()).collect();
        store.remove_many(&keys).unwrap();
        let n = store.len();
        assert_eq!(store.iter().map(|e| e.unwrap()).count() as u64, n);
        let _ = round;
        store.close().unwrap();
        store = options.open(&path).unwrap();
        assert_eq!(store.len(), n);
        assert_eq!(store.iter().map(|e| e.unwrap()).count() as u64, n);
    }
    store.clear().unwrap();
    assert!(store.is_empty());
}
