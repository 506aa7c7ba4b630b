//! Tests that gradient lanes over ranks, each an emulated GPU, give the same bits for every way in which matrix
//! instructions sum.

use omr_base::config::{Dtype, SftConfig};
use omr_runtime::device::emu::options::{Options, Sums};
use omr_runtime_tests::kernels::{emu_of, skipped};

use crate::training::tiny::{run_sft_over, sft_config, training};

#[test]
#[ignore = "minutes; in tools/check --slow"]
fn ranks_on_emulated_cards_have_the_same_bits() {
    if skipped("a way of summing that is chosen") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let training = training(|t| t.gradient_lanes = Some(4));
    let config = SftConfig { dtype: Dtype::Bf16, max_steps: Some(2), training, ..sft_config(dir.path()) };
    for sums in [Sums::Chain, Sums::Aligned] {
        let device = || emu_of(Options { sums, ..Options::default() }).unwrap();
        let run =
            |size: usize| run_sft_over(&dir.path().join(format!("{sums:?}-{size}")), &config, device, &[size], &[]);
        let one = run(1);
        for size in [2, 4] {
            one.assert_same(&run(size), &format!("{sums:?}, {size} ranks"));
        }
    }
}
