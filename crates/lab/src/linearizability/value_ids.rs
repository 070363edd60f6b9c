//! Numeric ids for the values of one key.
//!
//! Only the result of a read can tell two values apart. All values that no operation has read get the same id. This
//! changes no verdict, and makes many pending writes equal, so that one order of them is tried instead of all.

use std::collections::HashMap;
use std::hash::Hash;

/// The id of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(u32);

/// The id of all values that no operation has read.
pub const UNREAD: ValueId = ValueId(0);

/// The ids of the values of one key.
#[derive(Clone, Debug, Default)]
pub struct ValueIds<T> {
    numbers: HashMap<T, ValueId>,
    /// The values by their id, from 1.
    values: Vec<T>,
}

impl<T: Clone + Eq + Hash> ValueIds<T> {
    /// Assigns ids to these values, which some operation has read.
    pub fn read(values: impl IntoIterator<Item = T>) -> ValueIds<T> {
        let mut all = ValueIds { numbers: HashMap::new(), values: Vec::new() };
        for value in values {
            if !all.numbers.contains_key(&value) {
                all.values.push(value.clone());
                all.numbers.insert(value, ValueId(all.values.len() as u32));
            }
        }
        all
    }

    /// The id of a value.
    pub fn number(&self, value: &T) -> ValueId {
        self.numbers.get(value).copied().unwrap_or(UNREAD)
    }

    /// The value with an id; None for [`UNREAD`].
    pub fn value(&self, number: ValueId) -> Option<&T> {
        self.values.get((number.0 as usize).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_were_read_are_told_apart_and_the_others_are_not() {
        let values = ValueIds::read(["a", "b", "a"]);
        assert_ne!(values.number(&"a"), values.number(&"b"));
        assert_eq!((values.number(&"x"), values.number(&"y")), (UNREAD, UNREAD));
        assert_eq!([values.value(values.number(&"b")), values.value(UNREAD)], [Some(&"b"), None]);
    }
}
