//! Work items of a decode step ([`Split`]) on the device. The items are at fixed addresses, so that a captured step can
//! be replayed with other items.

use super::split::{DecodeStep, Split};
use crate::device::{Device, On, Region};
use crate::ops::attend::Heads;
use crate::ops::attention::names::{WideKernels, wide_kernels};
use crate::ops::attention::sm90a;
use crate::ops::check;
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

pub(super) const WIDE: WideKernels = wide_kernels!("paged_attention_sm90a", "paged_attention_decode_wide");

/// Rows of a CTA. All warps of the CTA work on the same rows.
pub(super) const ROWS: usize = 16;

/// Warps that multiply, in the `mma.sync` and in the wgmma variant. Each warp has a ticket. In the `mma.sync` variant
/// each warp also stores a copy of a row's base and sum (`attend::KEPT`).
pub(super) const WARPS: [usize; 2] = [4, 8];

/// Work items of a decode step on the device.
#[derive(Clone, Copy, Debug)]
pub struct Decode {
    /// Lists of [`Split::lists`], each in a buffer of [`Split::room`] words.
    pub(super) lists: [Tensor; 3],
    pub(super) tickets: Tensor,
    /// True if an item may have several sequences.
    pub(super) shares: bool,
    pub(super) together: usize,
}

impl Decode {
    /// Allocates the tickets of steps with at most `sequences` sequences. A ticket counts the finished items of a
    /// sequence. Tickets are zero at first, and the kernels set them back to zero in each step.
    pub fn tickets(dev: &mut Device, region: Region, sequences: usize, heads: Heads) -> Result<Tensor> {
        dev.zeros(region, DType::U32, &[sequences, heads.kv * each(heads)])
    }

    /// Splits a step into items and copies them to the device, with tickets of its own.
    pub fn of(dev: &mut Device, region: Region, step: DecodeStep<'_>, heads: Heads) -> Result<Decode> {
        let split = Split::new(step, together(dev, heads))?;
        let tickets = Decode::tickets(dev, region, step.context_lens.len(), heads)?;
        Decode::upload(dev, region, &split, tickets)
    }

    /// Copies a step's items to the device. The addresses of the items depend only on the step's size. `tickets` comes
    /// from [`Decode::tickets`].
    pub fn upload(dev: &mut Device, region: Region, split: &Split, tickets: Tensor) -> Result<Decode> {
        let mut lists = Vec::with_capacity(3);
        for (list, room) in split.lists().into_iter().zip(Split::room(split.sequences, split.columns)) {
            let to = dev.alloc(region, DType::U32, &[room])?;
            let (want, got) = (format!("{room} words"), list.len().to_string());
            check::that("paged_attention::Decode", list.len() <= room, want, got)?;
            // The kernels do not read past the end of a list.
            dev.write(to.slice(0, list.len()), &list)?;
            lists.push(to);
        }
        let (lists, shares) = ([lists[0], lists[1], lists[2]], split.shares());
        Ok(Decode { lists, tickets, shares, together: split.together })
    }
}

/// Returns the number of tickets for each key head of a sequence.
pub(super) fn each(heads: Heads) -> usize {
    (heads.group().div_ceil(ROWS) * WARPS[0]).max(WARPS[1])
}

/// Returns the number of tokens of different sequences that one item can hold on `dev`.
pub fn together(dev: &mut Device, heads: Heads) -> usize {
    match dev.on() {
        On::Gpu(gpu) => in_item(heads, sm90a::takes(&gpu, &WIDE, heads)),
        // A memory plan reserves enough for either kernel variant.
        _ => in_item(heads, false).max(in_item(heads, true)),
    }
}

/// Returns the number of tokens that fit in one item.
pub(super) fn in_item(heads: Heads, by_wgmma: bool) -> usize {
    match by_wgmma {
        true => sm90a::ROWS / pitch(heads.group()),
        false => ROWS / heads.group().clamp(1, ROWS),
    }
}

/// Returns the distance between the first rows of two tokens in the wgmma variant. A token starts where the swizzle
/// pattern repeats or at the first row of a warp.
fn pitch(group: usize) -> usize {
    if group > 8 { group.next_multiple_of(16) } else { 8 }
}
