//! The names of the forms in which types are written.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

/// The name and the version of a type's form, for the codecs that write many types.
///
/// A program implements it for its types, and raises the version whenever the bytes become others: a field more or less, another
/// order of the fields, another type of one.
///
/// ```
/// use std::borrow::Cow;
/// use tophash::codec::Schema;
///
/// struct Session {
///     user: u64,
/// }
///
/// impl Schema for Session {
///     const VERSION: u16 = 1;
///
///     fn name() -> Cow<'static, str> {
///         "session".into()
///     }
/// }
///
/// assert_eq!(<Vec<Session>>::name(), "vec<session>");
/// ```
pub trait Schema {
    /// The version of the form.
    const VERSION: u16;

    /// The name. That of a codec, of which it is a part, has at most 128 bytes.
    fn name() -> Cow<'static, str>;
}

/// The name of a part, with its version.
fn part<T: Schema + ?Sized>() -> Cow<'static, str> {
    match T::VERSION {
        1 => T::name(),
        version => format!("{}.{version}", T::name()).into(),
    }
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Schema for $type {
            const VERSION: u16 = 1;

            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }
        }
    )*};
}

plain!((), bool, char, u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64, String);

/// A form that is made of others.
macro_rules! composed {
    ($([$($generics:tt)*] $type:ty, $name:literal, $($part:ident),*;)*) => {$(
        impl<$($generics)*> Schema for $type {
            const VERSION: u16 = 1;

            fn name() -> Cow<'static, str> {
                Cow::Owned(format!($name, $(part::<$part>()),*))
            }
        }
    )*};
}

composed! {
    [T: Schema] Option<T>, "option<{}>", T;
    [T: Schema] Box<T>, "{}", T;
    [T: Schema] Vec<T>, "vec<{}>", T;
    [T: Schema] VecDeque<T>, "vec<{}>", T;
    [T: Schema] BTreeSet<T>, "set<{}>", T;
    [T: Schema, S] HashSet<T, S>, "set<{}>", T;
    [K: Schema, V: Schema] BTreeMap<K, V>, "map<{}, {}>", K, V;
    [K: Schema, V: Schema, S] HashMap<K, V, S>, "map<{}, {}>", K, V;
    [A: Schema, B: Schema] (A, B), "({}, {})", A, B;
    [A: Schema, B: Schema, C: Schema] (A, B, C), "({}, {}, {})", A, B, C;
    [A: Schema, B: Schema, C: Schema, D: Schema] (A, B, C, D), "({}, {}, {}, {})", A, B, C, D;
}

impl<T: Schema, const N: usize> Schema for [T; N] {
    const VERSION: u16 = 1;

    fn name() -> Cow<'static, str> {
        Cow::Owned(format!("[{}; {N}]", part::<T>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Session;

    impl Schema for Session {
        const VERSION: u16 = 3;

        fn name() -> Cow<'static, str> {
            "session".into()
        }
    }

    #[test]
    fn the_version_of_a_part_is_in_the_name_of_the_whole() {
        assert_eq!(<Vec<Option<u8>>>::name(), "vec<option<u8>>");
        assert_eq!(<HashMap<String, [Session; 2]>>::name(), "map<String, [session.3; 2]>");
        assert_eq!(<(char, (), Box<Session>)>::name(), "(char, (), session.3)");
    }
}
