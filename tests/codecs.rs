//! The codecs behind features: types that are read in place, and all that serde can write.

mod common;

use std::borrow::Cow;

use common::{open, says, scratch, tiny_options};
use serde::{Deserialize, Serialize};
use tophash::Error;
use tophash::codec::{Codec, Fixed, InPlace, Postcard, Schema};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Copy, PartialEq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Point {
    x: u64,
    y: u64,
}

impl Schema for Point {
    const VERSION: u16 = 2;

    fn name() -> Cow<'static, str> {
        "point".into()
    }
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Session {
    user: String,
    seen: Vec<Option<u32>>,
}

impl Schema for Session {
    const VERSION: u16 = 1;

    fn name() -> Cow<'static, str> {
        "session".into()
    }
}

const POINT: Point = Point { x: 3, y: 4 };

#[test]
fn a_fixed_value_is_read_in_place_where_its_bytes_allow_it() {
    assert_eq!((&*Fixed::<Point>::name(), Fixed::<Point>::VERSION), ("fixed point", 2));
    // A buffer of words, so that it is known where a point lies well.
    let mut words = [0u64; 4];
    let bytes = words.as_mut_bytes();
    bytes[8..24].copy_from_slice(Fixed::<Point>::encode(&POINT).unwrap().as_ref());
    let read = Fixed::<Point>::decode(&bytes[8..24]).unwrap();
    assert!(matches!(read, InPlace::Borrowed(&POINT)), "{read:?}");
    assert_eq!((read.x, Fixed::<Point>::into_owned(read)), (3, POINT));
    bytes.copy_within(8..24, 9);
    let read = Fixed::<Point>::decode(&bytes[9..25]).unwrap();
    assert!(matches!(read, InPlace::Copied(POINT)), "{read:?}");
    assert_eq!((read.y, Fixed::<Point>::into_owned(read)), (4, POINT));
    for wrong in [0, 15, 17] {
        let error = Fixed::<Point>::decode(&bytes[..wrong]).unwrap_err();
        assert_eq!(error.to_string(), format!("expected 16 bytes, found {wrong}"));
    }
}

#[test]
fn a_postcard_value_has_its_bytes_and_no_more() {
    assert_eq!((&*Postcard::<Session>::name(), Postcard::<Session>::VERSION), ("postcard session", 1));
    let session = Session { user: "Ada".into(), seen: vec![Some(7), None] };
    let bytes = Postcard::<Session>::encode(&session).unwrap().as_ref().to_vec();
    assert_eq!(bytes, [3, b'A', b'd', b'a', 2, 1, 7, 0]);
    assert_eq!(Postcard::<Session>::decode(&bytes).unwrap(), session);
    for len in 0..bytes.len() {
        assert!(Postcard::<Session>::decode(&bytes[..len]).is_err());
    }
    let longer = [&bytes[..], &[0, 0]].concat();
    let error = Postcard::<Session>::decode(&longer).unwrap_err();
    assert_eq!(error.to_string(), "2 bytes follow the value");
}

#[test]
fn tables_of_both_keep_what_they_are_given() {
    let dir = scratch();
    let path = dir.path().join("s");
    let store = open(&tiny_options(), &path);
    let points = store.table_of::<str, Fixed<Point>>("points").unwrap();
    let sessions = store.table_of::<Postcard<(u32, String)>, Postcard<Session>>("sessions").unwrap();
    let session = |n: u32| Session { user: format!("user {n}"), seen: vec![Some(n); n as usize % 300] };
    for n in 0..400 {
        // Keys of all lengths, so of all places where a value can lie.
        points.set(&"k".repeat(n as usize % 40), &Point { x: n.into(), ..POINT }).unwrap();
        sessions.set(&(n, "key".into()), &session(n)).unwrap();
    }
    store.close().unwrap();
    let store = open(&tiny_options(), &path);
    let points = store.table_of::<str, Fixed<Point>>("points").unwrap();
    let sessions = store.table_of::<Postcard<(u32, String)>, Postcard<Session>>("sessions").unwrap();
    assert_eq!((points.len(), sessions.len()), (40, 400));
    for n in 0..40 {
        let key = "k".repeat(n);
        assert_eq!(points.get(&key).unwrap(), Some(Point { x: 360 + n as u64, ..POINT }));
        let in_place = points.read(&key, |point| (point.x, matches!(point, InPlace::Borrowed(_)))).unwrap();
        assert_eq!(in_place, Some((360 + n as u64, true)));
    }
    assert!(sessions.iter().all(|entry| entry.is_ok_and(|((n, _), value)| value == session(n))));
    let error = store.table_of::<Postcard<(u64, String)>, Postcard<Session>>("sessions").unwrap_err();
    assert!(matches!(error, Error::WrongCodec { .. }), "{error}");
    says(&error, &["\"postcard (u32, String)\" version 1", "\"postcard (u64, String)\" version 1"]);
    let error = store.table_of::<str, Fixed<u64>>("points").unwrap_err();
    says(&error, &["\"fixed point\" version 2", "\"fixed u64\" version 1"]);
    store.close().unwrap();
}
