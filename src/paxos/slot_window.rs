//! A queue of values for consecutive slots, oldest first, that knows the slot of each value.

use std::collections::VecDeque;

use super::Slot;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlotWindow<T> {
    /// The slot of the first value, or of the next value if there is none.
    first: Slot,
    values: VecDeque<T>,
}

impl<T> SlotWindow<T> {
    /// An empty window whose first value will be for this slot.
    pub(super) fn from(first: Slot) -> SlotWindow<T> {
        SlotWindow { first, values: VecDeque::new() }
    }

    /// The slot of the first value, or of the next value if there is none.
    pub(super) fn first(&self) -> Slot {
        self.first
    }

    /// The value of the first slot.
    pub(super) fn front(&self) -> Option<&T> {
        self.values.front()
    }

    /// Number of slots in the window.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Adds the value of the next slot.
    pub(super) fn push(&mut self, value: T) {
        self.values.push_back(value);
    }

    /// Removes the first slot and returns its value, if it had one. The window then begins with the next slot.
    pub(super) fn pop_first(&mut self) -> Option<T> {
        self.first = self.first.next();
        self.values.pop_front()
    }

    /// Removes all slots below this one.
    pub(super) fn drop_below(&mut self, below: Slot) {
        let count = below.ahead_of(self.first).min(self.values.len() as u64) as usize;
        self.values.drain(..count);
        self.first = self.first.max(below);
    }

    /// The values of the slots from this one on.
    pub(super) fn range(&self, from: Slot) -> impl Iterator<Item = (Slot, &T)> {
        let skipped = from.ahead_of(self.first);
        let begin = skipped.min(self.values.len() as u64) as usize;
        self.first.plus(skipped).to(Slot::LAST).zip(self.values.range(begin..))
    }

    /// The value of this slot; `None` if the slot is below the first. Missing values up to this slot are created.
    pub(super) fn get_or_extend(&mut self, slot: Slot) -> Option<&mut T>
    where
        T: Default,
    {
        let at = usize::try_from(slot.0.checked_sub(self.first.0)?).ok()?;
        if at >= self.values.len() {
            self.values.resize_with(at + 1, T::default);
        }
        self.values.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(row: &SlotWindow<u32>, from: u64) -> Vec<(u64, u32)> {
        row.range(Slot(from)).map(|(slot, value)| (slot.0, *value)).collect()
    }

    #[test]
    fn window_knows_the_slot_of_each_value() {
        let mut row = SlotWindow::from(Slot(5));
        [10, 20, 30].into_iter().for_each(|value| row.push(value));
        assert_eq!(all(&row, 0), [(5, 10), (6, 20), (7, 30)]);
        assert_eq!((all(&row, 6), all(&row, 8), all(&row, 99)), (vec![(6, 20), (7, 30)], vec![], vec![]));
        assert_eq!((row.pop_first(), row.first(), row.front()), (Some(10), Slot(6), Some(&20)));
        row.drop_below(Slot(7));
        assert_eq!(all(&row, 0), [(7, 30)]);
        row.drop_below(Slot(7));
        row.drop_below(Slot(3));
        assert_eq!((row.first(), row.front()), (Slot(7), Some(&30)));
        row.drop_below(Slot(20));
        assert_eq!((row.first(), row.front()), (Slot(20), None));
        assert_eq!((row.pop_first(), row.first()), (None, Slot(21)));
        row.push(40);
        assert_eq!(all(&row, 0), [(21, 40)]);
    }

    #[test]
    fn window_extends_forward_only() {
        let mut row = SlotWindow::from(Slot(5));
        assert_eq!(row.get_or_extend(Slot(4)), None);
        *row.get_or_extend(Slot(7)).unwrap() = 3;
        assert_eq!(all(&row, 0), [(5, 0), (6, 0), (7, 3)]);
        *row.get_or_extend(Slot(5)).unwrap() = 1;
        assert_eq!(all(&row, 0), [(5, 1), (6, 0), (7, 3)]);
    }
}
