//! A codec of bytes whose values are aligned.

use std::borrow::Cow;

use tophash::codec::{Codec, CodecError};

/// Bytes that begin at a multiple of 16.
#[derive(Debug)]
pub struct Aligned;

impl Codec for Aligned {
    type Item = [u8];
    type Read<'a> = &'a [u8];
    type Owned = Vec<u8>;
    const VERSION: u16 = 1;
    const ALIGNED: bool = true;

    fn name() -> Cow<'static, str> {
        "aligned bytes".into()
    }

    fn encode(item: &[u8]) -> Result<impl AsRef<[u8]>, CodecError> {
        Ok(item)
    }

    fn decode(bytes: &[u8]) -> Result<&[u8], CodecError> {
        Ok(bytes)
    }

    fn into_owned(read: &[u8]) -> Vec<u8> {
        read.to_vec()
    }
}
