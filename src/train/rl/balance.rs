//! Divides work into parts of about equal size, as verl does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Cost of one token, in units of one attended pair: verl's constant, 6 x the hidden size 4,096.
const LINEAR: u64 = 24_576;

/// Returns the work of a sequence of `len` tokens, in units of one attended pair.
pub fn workload(len: usize) -> u64 {
    let len = len as u64;
    LINEAR * len + len * len
}

/// Returns the work of a prompt that is computed once for all its responses, in units of one attended pair. With one
/// response it is the [`workload`] of the whole sequence.
pub fn shared_workload(prompt: usize, responses: impl IntoIterator<Item = usize>) -> u64 {
    let response = |len: usize| workload(len) + 2 * (prompt * len) as u64;
    workload(prompt) + responses.into_iter().map(response).sum::<u64>()
}

/// One part of a partial solution: its total and its items.
type Part = (u64, Vec<usize>);

/// Divides items into `k` non-empty parts of about equal sums by the largest differencing method (Karmarkar-Karp). Each
/// part is ascending. `k` is limited to the number of items. Ties are resolved by index, so the result is the same on
/// every machine.
pub fn karmarkar_karp(values: &[u64], k: usize) -> Vec<Vec<usize>> {
    let k = k.min(values.len());
    if k == 0 {
        return Vec::new();
    }
    // A state consists of k parts in descending order. The heap returns the state with the largest difference between
    // its parts.
    let mut heap: BinaryHeap<(u64, Vec<Part>)> = values
        .iter()
        .enumerate()
        .map(|(i, &v)| {
            let mut parts = vec![(v, vec![i])];
            parts.resize(k, (0, Vec::new()));
            (v, parts)
        })
        .collect();
    loop {
        let Some((_, mut a)) = heap.pop() else { return Vec::new() };
        let Some((_, b)) = heap.pop() else {
            return spread_out(values, a.into_iter().map(|(_, items)| items).collect());
        };
        for (x, y) in a.iter_mut().zip(b.into_iter().rev()) {
            x.0 += y.0;
            x.1.extend(y.1);
        }
        a.sort_by(|x, y| y.cmp(x));
        heap.push((a[0].0 - a[k - 1].0, a));
    }
}

/// Moves to each empty part the item with the smallest value of the part with the most items. Parts can be empty if
/// values are 0.
fn spread_out(values: &[u64], mut parts: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    while let Some(empty) = parts.iter().position(Vec::is_empty) {
        let Some(from) = (0..parts.len()).max_by_key(|&p| (parts[p].len(), Reverse(p))) else { break };
        parts[from].sort_by_key(|&i| (Reverse(values[i]), i));
        let Some(item) = parts[from].pop() else { break };
        parts[empty].push(item);
    }
    parts.iter_mut().for_each(|p| p.sort_unstable());
    parts
}
