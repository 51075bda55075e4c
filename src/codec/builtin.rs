//! Codecs of the language's own types.

use std::borrow::Cow;

use super::{Codec, CodecError, wrong_length};

type Result<T> = std::result::Result<T, CodecError>;

/// Types that borrow from the store: what is written, what is kept, and the name.
macro_rules! borrowed {
    ($($codec:ty, $item:ty, $owned:ty, $name:literal, $decode:expr;)*) => {$(
        impl Codec for $codec {
            type Item = $item;
            type Read<'a> = &'a $item;
            type Owned = $owned;
            const VERSION: u16 = 1;

            fn name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }

            fn encode(item: &$item) -> Result<impl AsRef<[u8]>> {
                Ok(item)
            }

            fn decode(bytes: &[u8]) -> Result<&$item> {
                $decode(bytes)
            }

            fn into_owned(read: &$item) -> $owned {
                read.to_owned()
            }
        }
    )*};
}

borrowed! {
    [u8], [u8], Vec<u8>, "bytes", Ok;
    Vec<u8>, [u8], Vec<u8>, "bytes", Ok;
    str, str, String, "str", text;
    String, str, String, "str", text;
}

fn text(bytes: &[u8]) -> Result<&str> {
    Ok(std::str::from_utf8(bytes)?)
}

/// Types that are copied: the name, to an array of bytes, from one.
macro_rules! copied {
    ($($type:ty),*) => {$(
        impl Codec for $type {
            type Item = $type;
            type Read<'a> = $type;
            type Owned = $type;
            const VERSION: u16 = 1;

            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }

            fn encode(item: &$type) -> Result<impl AsRef<[u8]>> {
                Ok(item.to_le_bytes())
            }

            fn decode(bytes: &[u8]) -> Result<$type> {
                Ok(<$type>::from_le_bytes(array(bytes)?))
            }

            fn into_owned(read: $type) -> $type {
                read
            }
        }
    )*};
}

copied!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64);

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| wrong_length(N, bytes.len()))
}

impl Codec for bool {
    type Item = bool;
    type Read<'a> = bool;
    type Owned = bool;
    const VERSION: u16 = 1;

    fn name() -> Cow<'static, str> {
        Cow::Borrowed("bool")
    }

    fn encode(item: &bool) -> Result<impl AsRef<[u8]>> {
        Ok([u8::from(*item)])
    }

    fn decode(bytes: &[u8]) -> Result<bool> {
        match array(bytes)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(format!("expected 0 or 1, found {other}").into()),
        }
    }

    fn into_owned(read: bool) -> bool {
        read
    }
}

impl Codec for () {
    type Item = ();
    type Read<'a> = ();
    type Owned = ();
    const VERSION: u16 = 1;

    fn name() -> Cow<'static, str> {
        Cow::Borrowed("()")
    }

    fn encode((): &()) -> Result<impl AsRef<[u8]>> {
        Ok([])
    }

    fn decode(bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() { Ok(()) } else { Err(wrong_length(0, bytes.len())) }
    }

    fn into_owned((): ()) {}
}

impl<const N: usize> Codec for [u8; N] {
    type Item = [u8; N];
    type Read<'a> = [u8; N];
    type Owned = [u8; N];
    const VERSION: u16 = 1;

    fn name() -> Cow<'static, str> {
        Cow::Owned(format!("[u8; {N}]"))
    }

    fn encode(item: &[u8; N]) -> Result<impl AsRef<[u8]>> {
        Ok(item)
    }

    fn decode(bytes: &[u8]) -> Result<[u8; N]> {
        array(bytes)
    }

    fn into_owned(read: [u8; N]) -> [u8; N] {
        read
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Borrow;
    use std::fmt::Debug;

    use super::*;

    /// What is written is read again, and a byte more or less is not.
    fn survives<C: Codec + ?Sized>(name: &str, item: &C::Item, bytes: &[u8], is_exact: bool)
    where
        C::Item: PartialEq + Debug,
    {
        assert_eq!((&*C::name(), C::VERSION), (name, 1));
        assert_eq!(C::encode(item).unwrap().as_ref(), bytes);
        assert_eq!(C::into_owned(C::decode(bytes).unwrap()).borrow(), item);
        let longer = [bytes, &[0]].concat();
        assert_eq!(C::decode(&longer).is_err(), is_exact);
        if let Some((_, shorter)) = bytes.split_last() {
            assert_eq!(C::decode(shorter).is_err(), is_exact);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        survives::<[u8]>("bytes", &[1, 0xff], &[1, 0xff], false);
        survives::<Vec<u8>>("bytes", &[], &[], false);
        survives::<str>("str", "ab", b"ab", false);
        survives::<String>("str", "", b"", false);
        survives::<u8>("u8", &7, &[7], true);
        survives::<i16>("i16", &-2, &[0xfe, 0xff], true);
        survives::<u64>("u64", &0x0102, &[2, 1, 0, 0, 0, 0, 0, 0], true);
        survives::<i128>("i128", &-1, &[0xff; 16], true);
        survives::<f64>("f64", &1.5, &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f], true);
        survives::<bool>("bool", &true, &[1], true);
        survives::<()>("()", &(), &[], true);
        survives::<[u8; 3]>("[u8; 3]", &[1, 2, 3], &[1, 2, 3], true);
    }

    #[test]
    fn other_bytes_are_refused_with_a_reason() {
        assert_eq!(u32::decode(b"abc").unwrap_err().to_string(), "expected 4 bytes, found 3");
        assert_eq!(bool::decode(&[2]).unwrap_err().to_string(), "expected 0 or 1, found 2");
        assert!(str::decode(&[0xff]).unwrap_err().to_string().contains("utf-8"));
    }
}
