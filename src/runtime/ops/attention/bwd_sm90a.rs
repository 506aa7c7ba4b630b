//! Launches of kernels/attention_bwd_sm90a.cu, the wgmma variant of attention's backward over packed sequences. TMA
//! copies its operands. A start check verifies that its results are bitwise identical to those of the `mma.sync`
//! variant.

use super::names::{WideKernels, num_slots, shared_rows, wide_kernels};
use super::sm90a::{self, MATH, PANEL, PANELS, ROWS, THREADS};
use crate::device::{Gpu, Params, WgmmaKernels};
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::check;
use crate::tensor::Tensor;
use omr_base::error::Result;

const QUERIES: WideKernels = wide_kernels!("attention_bwd_sm90a", "attention_bwd_dq_wide");
const KEYS: WideKernels = wide_kernels!("attention_bwd_sm90a", "attention_bwd_dkv_wide");

/// Pipeline stages of keys and values.
const KEY_STAGES: usize = 2;
/// Pipeline stages of query rows and dO.
const ROW_STAGES: usize = 3;

/// Returns the bytes of `rows` rows in panels.
fn panels(rows: usize) -> usize {
    rows * PANELS * PANEL * 2
}

/// Returns the bytes of `attend_bwd::QuerySmem`: queries and dO, stages of keys and values, results before their store,
/// six barriers.
fn query_smem(dim: usize) -> usize {
    panels(2 * ROWS + KEY_STAGES * 2 * BLOCK) + shared_rows(ROWS, dim) + 2 * MATH + 6 * 8
}

/// Returns the bytes of `attend_bwd::KeySmem`: keys and values, stages of queries and dO with two numbers per row,
/// results, eight barriers.
fn key_smem(dim: usize, stage: usize) -> usize {
    let rows = ROW_STAGES * stage;
    panels(2 * BLOCK + 2 * rows) + shared_rows(BLOCK, dim) + 2 * rows * 4 + 2 * MATH + 8 * 8
}

/// A backward call that the wgmma kernels may run.
pub(super) struct WideBwd {
    pub qkv: Tensor,
    pub dout: Tensor,
    pub sequences: usize,
    /// True if sequences share prompts.
    pub shares: bool,
    pub heads: Heads,
    /// True if all rows start at multiples of 16 bytes.
    pub wide: bool,
    /// Maximum number of rows of a stage of dK and dV.
    pub stage: usize,
}

/// Launch of one of the two kernels. `tokens` is the number of tokens in a box of rows; `slots` is the number of slots
/// per key head, each of which has `ctas` CTAs.
struct Half {
    kernel: &'static str,
    smem: usize,
    tokens: usize,
    slots: u32,
    ctas: usize,
}

impl WideBwd {
    /// Launches the two wgmma kernels, first the one for dQ. `args` are the arguments of the `mma.sync` kernels.
    /// Returns false if the wgmma kernels do not support the device or the call.
    pub fn launch(&self, gpu: &mut Gpu<'_>, args: &Params) -> Result<bool> {
        let (heads, group, tokens) = (self.heads, self.heads.group(), self.qkv.rows());
        let (Some(queries), Some(keys)) = (QUERIES.of(heads.dim), KEYS.of(heads.dim)) else { return Ok(false) };
        let used = gpu.uses_wgmma(WgmmaKernels::AttentionBwd(heads.dim));
        if !used || !self.wide || group > self.stage || tokens == 0 {
            return Ok(false);
        }
        let slots = num_slots(gpu.op, tokens, self.sequences, group, ROWS / group * group)?;
        let smem = query_smem(heads.dim);
        self.launch_half(gpu, Half { kernel: queries, smem, tokens: ROWS / group, slots, ctas: 1 }, args)?;
        let slots = num_slots(gpu.op, tokens, self.sequences, 1, BLOCK)?;
        // The first CTA of a slot computes keys of a shared prompt, and the second one all other keys.
        let (smem, ctas) = (key_smem(heads.dim, self.stage), 1 + usize::from(self.shares));
        self.launch_half(gpu, Half { kernel: keys, smem, tokens: self.stage / group, slots, ctas }, args)?;
        Ok(true)
    }

    fn launch_half(&self, gpu: &mut Gpu<'_>, half: Half, args: &Params) -> Result<()> {
        let (Heads { q, kv, dim }, group, tokens) = (self.heads, self.heads.group(), self.qkv.rows());
        let (qkv, dout, boxed) = (gpu.ptr(self.qkv), gpu.ptr(self.dout), [group, half.tokens]);
        let maps = [
            sm90a::packed_keys(qkv, tokens, self.heads),
            sm90a::packed_map(qkv, tokens, self.heads, boxed),
            sm90a::rows_map(dout, [tokens, q, dim], boxed),
        ];
        // The additional fields of `attend_bwd::Args`.
        let args = args.clone().with(half.tokens as i32).with(half.slots);
        let args = sm90a::behind_maps(gpu, maps.each_ref(), args)?;
        let launch = check::launch(gpu.op, half.slots as usize * half.ctas * kv, THREADS as usize, half.smem)?;
        gpu.launch(QUERIES.file, half.kernel, launch, args)
    }
}
