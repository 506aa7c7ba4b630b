//! Work items of the launches of attention by wgmma, from which their times are predicted.

use omr_runtime::device::Sequences;
use omr_runtime::device::perf_model::{Attention, Items};
use omr_runtime::ops::attend::{BLOCK, CHUNK};

/// Rows (token, query head of the group) of a tile, and of a stage of dK and dV.
const ROWS: [usize; 2] = [128, 64];

/// Keys and values that a launch of paged attention reads.
#[derive(Clone, Copy, Default, Debug)]
pub struct Pages {
    /// Bytes of all sequences.
    pub bytes: f64,
    /// Keys of each sequence.
    pub keys: usize,
}

/// Returns the items of a launch over packed sequences in the order of the grid, or `None` for other kernels. The
/// sequences are taken to have equal lengths that give the same number of pairs.
pub fn packed(kernel: &str, sequences: Sequences) -> Option<Items> {
    let Sequences { tokens, pairs, causal, heads: [key_heads, group] } = sequences;
    let is = |name: &str| kernel.starts_with(name);
    let (of, by_rows) = match kernel {
        // A pass over shared prompts attends as a prefill does.
        _ if is("attention_fwd_wide") || is("paged_attention_prefill_wide") => (Attention::Forward, true),
        _ if is("attention_bwd_dq_wide") => (Attention::Backward, true),
        _ if is("attention_bwd_dkv_wide") => (Attention::Backward, false),
        _ => return None,
    };
    let length = if causal { (2 * pairs).checked_div(tokens)?.saturating_sub(1) } else { pairs.checked_div(tokens)? };
    let length = length.clamp(1, tokens);
    let [tile, stage] = ROWS.map(|rows| (rows / group).max(1));
    let of_sequence: Vec<u32> = match by_rows {
        // Tiles with the most keys come first.
        true => (0..length.div_ceil(tile))
            .rev()
            .map(|i| if causal { length.min((i + 1) * tile) } else { length }.div_ceil(BLOCK) as u32)
            .collect(),
        false => (0..length.div_ceil(BLOCK))
            .map(|i| (length - if causal { i * BLOCK } else { 0 }).div_ceil(stage) as u32)
            .collect(),
    };
    let count = (tokens + length / 2) / length;
    let steps = (0..count).flat_map(|_| of_sequence.iter().flat_map(|&steps| vec![steps; key_heads])).collect();
    Some(Items { of, steps, chunk: (CHUNK / BLOCK) as u32, dynamic: true })
}

/// Returns the items of a decode step, one for each chunk of a sequence and key head, or `None` for other kernels.
pub fn paged(kernel: &str, pages: Pages) -> Option<Items> {
    let dim: f64 = kernel.strip_prefix("paged_attention_decode_wide_hd")?.parse().ok()?;
    let chunks = (0..pages.keys).step_by(CHUNK).map(|from| (pages.keys - from).min(CHUNK).div_ceil(BLOCK) as u32);
    // A key and its value have `dim` elements of two bytes each.
    let heads = (pages.bytes / (4.0 * dim * pages.keys.max(1) as f64)).round() as usize;
    let chunks: Vec<u32> = chunks.collect();
    Some(Items { of: Attention::Decode, steps: chunks.repeat(heads), chunk: (CHUNK / BLOCK) as u32, dynamic: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_runtime::device::Launch;
    use omr_runtime::device::images::OWN;
    use omr_runtime::device::perf_model::{Clocks, Share};

    /// TFLOP/s of FlashAttention-3 forward on an H100 SXM5 with 16 heads of 128 and 16,384 tokens, in sequences of 512 to
    /// 16,384 tokens, without and with a causal mask: figure 5 of arXiv 2407.08608, read second-hand from a stored
    /// extraction of the chart.
    const FLASH_ATTENTION_3: [(bool, [f64; 6]); 2] =
        [(false, [467.0, 565.0, 625.0, 638.0, 646.0, 648.0]), (true, [292.0, 423.0, 521.0, 579.0, 602.0, 616.0])];

    /// The paper does not state the clock. This is the one assumed for fast.cu (`device/perf_model/tests.rs`), which was
    /// measured on the same kind of GPU.
    const PAPER: Clocks = Clocks { hz: 1.6e9, memory: 3.0e12 };

    // Our kernel has the tile and the loop of FlashAttention-3, so the paper's figures must be inside its range. The
    // model was fitted to two of them: 467 and 648.
    #[test]
    fn the_curve_of_flash_attention_3_is_inside_the_range() {
        let kernel = "attention_fwd_wide_hd128";
        let (costs, tokens) = (OWN.kernel_costs(kernel).unwrap(), 16_384);
        let launch = Launch::new([132, 1, 1], 384, 200_000);
        for (causal, curve) in FLASH_ATTENTION_3 {
            for (i, measured) in curve.into_iter().enumerate() {
                let length = 512 << i;
                let pairs = tokens / length * if causal { length * (length + 1) / 2 } else { length * length };
                let items = packed(kernel, Sequences { tokens, pairs, causal, heads: [16, 1] });
                // FlashAttention-3 has no chunks, and its tiles are distributed while it runs.
                let items = items.map(|items| Items { chunk: u32::MAX, dynamic: true, ..items });
                // The paper counts half of the pairs under a mask.
                let flops = 4.0 * (tokens * length * 2048) as f64 / if causal { 2.0 } else { 1.0 };
                let share = Share { flops, bytes: 4.0 * (tokens * 2048 * 2) as f64, items, ..Share::default() };
                let found = costs.predict(&launch, &share, PAPER).seconds;
                let [fast, likely, slow] = [found.low, found.likely, found.high].map(|seconds| flops / seconds / 1e12);
                println!("causal {causal} {length}: {slow:.0} to {fast:.0}, likely {likely:.0}; measured {measured}");
                assert!(slow < measured && measured < fast, "{length}: {slow:.0} to {fast:.0}, measured {measured}");
                assert!(fast < 1.35 * slow, "{length}: {slow:.0} to {fast:.0}");
            }
        }
    }
}
