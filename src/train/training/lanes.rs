//! Gradient lanes are virtual data-parallel ranks: they decide how the data of an update is cut into micro-batches, and
//! the order of the micro-batches. They do not decide which rank computes a micro-batch. Therefore results depend on
//! `gradient_lanes`, but not on the number of ranks. A lane of an update may be empty.

/// Returns the micro-batches of an update in the order in which their gradients are added: the first micro-batch of
/// lane 0, of lane 1 and so on, then the second micro-batch of each lane that has one.
pub fn interleaved<T>(lanes: impl IntoIterator<Item = Vec<T>>) -> Vec<T> {
    let mut lanes: Vec<_> = lanes.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(lanes.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return all;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::interleaved;

    #[test]
    fn micro_batches_are_in_the_order_of_rounds_and_then_lanes() {
        let lanes = [vec!["a0", "a1", "a2"], vec![], vec!["c0"], vec!["d0", "d1"]];
        assert_eq!(interleaved(lanes), ["a0", "c0", "d0", "a1", "d1", "a2"]);
        assert!(interleaved(Vec::<Vec<u8>>::new()).is_empty());
    }
}
