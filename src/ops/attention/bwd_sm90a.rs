//! Launches of kernels/attention_bwd_sm90a.cu, the second body of attention's backward over packed sequences: by wgmma,
//! operands by TMA. It has the first body's bits (`agreement` asks at start).

use bytemuck::NoUninit;

use super::sm90a::{self, MATH, PANEL, PANELS, ROWS, THREADS, WideNames};
use super::tiles;
use crate::device::{Address, Gpu, Launch};
use crate::error::Result;
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::check;

const FILE: &str = "attention_bwd_sm90a";

const QUERIES: WideNames = [(80, "attention_bwd_dq_wide_hd80"), (128, "attention_bwd_dq_wide_hd128")];

const KEYS: WideNames = [(80, "attention_bwd_dkv_wide_hd80"), (128, "attention_bwd_dkv_wide_hd128")];

/// Stages of keys and values, and of rows.
const KEY_STAGES: usize = 2;
const ROW_STAGES: usize = 3;

/// Bytes of `rows` rows in panels.
fn panels(rows: usize) -> usize {
    rows * PANELS * PANEL * 2
}

/// `attend_bwd::QuerySmem`: queries and dO, stages of keys and values, results on their way, six barriers.
fn query_smem(dim: usize) -> usize {
    panels(2 * ROWS + KEY_STAGES * 2 * BLOCK) + tiles::shared_rows(ROWS, dim) + 2 * MATH + 6 * 8
}

/// `attend_bwd::KeySmem`: keys and values, stages of queries and dO with two numbers a row, results, eight barriers.
fn key_smem(dim: usize, stage: usize) -> usize {
    let rows = ROW_STAGES * stage;
    panels(2 * BLOCK + 2 * rows) + tiles::shared_rows(BLOCK, dim) + 2 * rows * 4 + 2 * MATH + 8 * 8
}

/// A call that this body may take.
pub(super) struct WideBwd {
    pub qkv: Address,
    pub dout: Address,
    pub tokens: usize,
    pub sequences: usize,
    pub heads: Heads,
    /// Whether all rows start at multiples of 16 bytes.
    pub wide: bool,
    /// Rows of a stage of dK and dV, at most.
    pub stage: usize,
}

impl WideBwd {
    /// Launches this body's kernels, dQ's first, with what the other body's take; false where the device or the call is not
    /// for it.
    pub fn launch<A: NoUninit>(&self, op: &'static str, gpu: &mut Gpu<'_>, args: &A) -> Result<bool> {
        let (heads, group, tokens) = (self.heads, self.heads.group(), self.tokens);
        let named = |names: &WideNames| names.iter().find(|(dim, _)| *dim == heads.dim).map(|(_, kernel)| *kernel);
        let (Some(queries), Some(keys)) = (named(&QUERIES), named(&KEYS)) else { return Ok(false) };
        if !gpu.wgmma_attention_bwd || !self.wide || group > self.stage || tokens == 0 {
            return Ok(false);
        }
        let slots = tiles::slots(op, tokens, self.sequences, group, ROWS / group * group)?;
        self.launch_one(op, gpu, (queries, query_smem(heads.dim)), [ROWS / group, slots as usize], args)?;
        let slots = tiles::slots(op, tokens, self.sequences, 1, BLOCK)?;
        let smem = key_smem(heads.dim, self.stage);
        self.launch_one(op, gpu, (keys, smem), [self.stage / group, slots as usize], args)?;
        Ok(true)
    }

    /// One kernel, whose boxes of rows have so many tokens and whose key heads so many slots.
    fn launch_one<A: NoUninit>(
        &self,
        op: &'static str,
        gpu: &mut Gpu<'_>,
        (kernel, smem): (&'static str, usize),
        [tokens, slots]: [usize; 2],
        args: &A,
    ) -> Result<()> {
        let (Heads { q, kv, dim }, group) = (self.heads, self.heads.group());
        let maps = [
            sm90a::packed_keys(self.qkv, self.tokens, self.heads),
            sm90a::packed_map(self.qkv, self.tokens, self.heads, [group, tokens]),
            sm90a::rows_map(self.dout, [self.tokens, q, dim], [group, tokens]),
        ];
        let args = [bytemuck::bytes_of(args), bytemuck::bytes_of(&[tokens as i32, slots as i32])].concat();
        let bytes = sm90a::behind_maps(gpu, maps.each_ref(), &args)?;
        let launch = Launch::new([check::grid(op, slots * kv)?, 1, 1], THREADS, smem);
        gpu.launch_bytes(FILE, kernel, launch, &bytes)
    }
}
