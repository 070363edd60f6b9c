//! Bytes of a value and back: the only user of bincode, for the wire and for the disk.
//!
//! Whoever decodes does not trust the bytes: every length inside them is checked against a limit before memory is
//! taken, and bytes left over are an error. (bincode 2 is finished and no longer maintained; a swap is this one file.)

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The largest value that is decoded, in bytes as it claims to take in memory: the peer frame's limit and some room.
const DECODE_MAX_BYTES: usize = 8 << 20;

/// Why bytes are not the encoding of a value.
#[derive(Debug, Error)]
pub enum CodecError {
    /// They say something that the type cannot hold, or claim to be too long.
    #[error("these {length} bytes are not a {expected}: {cause}")]
    Invalid {
        /// How many bytes there were.
        length: usize,
        /// The type that was expected.
        expected: &'static str,
        /// bincode's sentence.
        cause: bincode::error::DecodeError,
    },
    /// A value, and then something else.
    #[error("a {expected} of {used} bytes is followed by {left} bytes that mean nothing")]
    Trailing {
        /// The type that was expected.
        expected: &'static str,
        /// The bytes of the value.
        used: usize,
        /// The bytes behind it.
        left: usize,
    },
}

fn config() -> Configuration<LittleEndian, Varint, Limit<DECODE_MAX_BYTES>> {
    bincode::config::standard().with_limit::<DECODE_MAX_BYTES>()
}

/// Appends the encoding of a value.
pub fn encode_into<T: Serialize>(value: &T, bytes: &mut Vec<u8>) {
    // Writing to memory fails only for types that cannot be encoded at all, which the tests would have met.
    if let Err(error) = bincode::serde::encode_into_std_write(value, bytes, config()) {
        panic!("a {} cannot be encoded: {error}", std::any::type_name::<T>());
    }
}

/// The encoding of a value.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes);
    bytes
}

/// The value that these bytes, all of them, encode.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let expected = std::any::type_name::<T>().rsplit("::").next().unwrap_or("value");
    // Byte strings are lent to whoever decodes them, so that they are copied once and not twice.
    match bincode::serde::borrow_decode_from_slice(bytes, config()) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(CodecError::Trailing { expected, used, left: bytes.len() - used }),
        Err(cause) => Err(CodecError::Invalid { length: bytes.len(), expected, cause }),
    }
}
