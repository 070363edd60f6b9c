//! Encoding of values as bytes, for the wire and for the disk: the only user of bincode.
//!
//! The decoder does not trust the bytes: every length in them is checked against a limit before memory is allocated.
//! Trailing bytes are an error. (bincode 2 is finished and no longer maintained; replacing it changes this one file.)

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Limit on the memory of a decoded value, in bytes, as the encoding claims it: the limit of a peer's frame and some
/// room.
const DECODE_MAX_BYTES: usize = 8 << 20;

/// Why bytes are not the encoding of a value.
#[derive(Debug, Error)]
pub enum CodecError {
    /// The bytes do not fit the type, or claim to be too long.
    #[error("cannot decode {length} bytes as {expected}: {cause}")]
    Invalid {
        /// Number of bytes.
        length: usize,
        /// The expected type.
        expected: &'static str,
        /// bincode's reason.
        cause: bincode::error::DecodeError,
    },
    /// A value, followed by other bytes.
    #[error("{left} unexpected bytes follow the {used} bytes of {expected}")]
    Trailing {
        /// The expected type.
        expected: &'static str,
        /// Number of bytes of the value.
        used: usize,
        /// Number of bytes after it.
        left: usize,
    },
}

fn config() -> Configuration<LittleEndian, Varint, Limit<DECODE_MAX_BYTES>> {
    bincode::config::standard().with_limit::<DECODE_MAX_BYTES>()
}

/// Appends the encoding of a value.
pub fn encode_into<T: Serialize>(value: &T, bytes: &mut Vec<u8>) {
    // Writing to memory fails only for types that cannot be encoded at all, and the tests encode all types.
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

/// Decodes the value that all of these bytes encode.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let expected = std::any::type_name::<T>().rsplit("::").next().unwrap_or("value");
    // Byte strings are borrowed from the input, so that they are copied once and not twice.
    match bincode::serde::borrow_decode_from_slice(bytes, config()) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(CodecError::Trailing { expected, used, left: bytes.len() - used }),
        Err(cause) => Err(CodecError::Invalid { length: bytes.len(), expected, cause }),
    }
}
