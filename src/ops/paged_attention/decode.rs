//! A decode step's work items ([`Split`]) as they lie on the device, so that a captured step can be replayed with another.

use super::split::Split;
use crate::device::{Device, On, Region};
use crate::error::Result;
use crate::ops::attend::Heads;
use crate::ops::attention::names::{WideKernels, wide_kernels};
use crate::ops::attention::sm90a;
use crate::ops::check;
use crate::tensor::{DType, Tensor};

pub(super) const WIDE: WideKernels = wide_kernels!("paged_attention_sm90a", "paged_attention_decode_wide");

/// Rows of a CTA whose warps share them.
pub(super) const ROWS: usize = 16;

/// Warps that multiply, of both bodies: each has a ticket, and a copy of a row's base and sum in the first (`attend::KEPT`).
pub(super) const WARPS: [usize; 2] = [4, 8];

/// A decode step's work items on the device.
#[derive(Clone, Copy, Debug)]
pub struct Decode {
    /// [`Split::lists`] in [`Split::room`].
    pub(super) lists: [Tensor; 3],
    pub(super) tickets: Tensor,
    /// Whether an item may have several sequences.
    pub(super) shares: bool,
    pub(super) together: usize,
}

impl Decode {
    /// What steps of at most `sequences` sequences count arrivals in: zeros, and zeros again after each step.
    pub fn tickets(dev: &mut Device, region: Region, sequences: usize, heads: Heads) -> Result<Tensor> {
        dev.zeros(region, DType::U32, &[sequences, heads.kv * each(heads)])
    }

    /// Copies a step's items up, to addresses that the step's size alone decides. `tickets` are of [`Decode::tickets`].
    pub fn upload(dev: &mut Device, region: Region, split: &Split, tickets: Tensor) -> Result<Decode> {
        let [sequences, columns] = split.size();
        let mut lists = Vec::with_capacity(3);
        for (list, room) in split.lists().into_iter().zip(Split::room(sequences, columns)) {
            let to = dev.alloc(region, DType::U32, &[room])?;
            let (want, got) = (format!("{room} words"), list.len().to_string());
            check::that("paged_attention::Decode", list.len() <= room, want, got)?;
            // What is behind a list's end is not read.
            dev.write(to.slice(0, list.len()), &list)?;
            lists.push(to);
        }
        let (lists, shares) = ([lists[0], lists[1], lists[2]], split.shares());
        Ok(Decode { lists, tickets, shares, together: split.together() })
    }
}

/// Tickets of a sequence's key head.
pub(super) fn each(heads: Heads) -> usize {
    (heads.group().div_ceil(ROWS) * WARPS[0]).max(WARPS[1])
}

/// Tokens of different sequences that an item can have on `dev`.
pub fn together(dev: &mut Device, heads: Heads) -> usize {
    match dev.on() {
        On::Gpu(gpu) => in_item(heads, sm90a::takes(&gpu, &WIDE, heads)),
        // A plan has memory for either body.
        _ => in_item(heads, false).max(in_item(heads, true)),
    }
}

/// Tokens that an item has room for.
pub(super) fn in_item(heads: Heads, by_wgmma: bool) -> usize {
    match by_wgmma {
        true => sm90a::ROWS / pitch(heads.group()),
        false => ROWS / heads.group().clamp(1, ROWS),
    }
}

/// Rows of a token by wgmma: it begins where a swizzle's pattern does, or a warp's rows.
fn pitch(group: usize) -> usize {
    if group > 8 { group.next_multiple_of(16) } else { 8 }
}
