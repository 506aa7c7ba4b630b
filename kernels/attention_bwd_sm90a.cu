// Backward of attention for compute capability 9.0: attention_bwd.cu with wgmma, and with operands loaded by TMA.
// Shapes: as in attention_bwd.cu. dim is HD and all rows start at multiples of 16 bytes. qkv and dout are read through
// tensor maps, whose second dimension is the heads.
// Grid: (slots * kv heads), twice in dkv if sequences share prompts. A dq CTA owns 128 rows (token, head of the group); a
// dkv CTA, which runs after dq, owns 128 keys. Each has two math warpgroups and one producer warpgroup.
// Bound: tensor cores. 14 * rows * keys * dim flops (half if causal), of which 4 compute S and dP a second time.
// Reference: attention_bwd.cu and src/runtime/ops/attention/backward.rs; tests/runtime/kernels/attention_bwd_sm90a.rs.
// Benchmark: `omr bench "attention bwd"`.
#include "common/attend_bwd_sm90a.cuh"

// registers attention_bwd_dq_wide_hd80 <= 168
// registers attention_bwd_dq_wide_hd128 <= 168
// registers attention_bwd_dkv_wide_hd80 <= 168
// registers attention_bwd_dkv_wide_hd128 <= 168
// instructions attention_bwd_*: HGMMA UTMALDG USETMAXREG
// main loop attention_bwd_dq_wide_hd80: 10 + 8 HGMMA over 64 MUFU
// main loop attention_bwd_dq_wide_hd128: 16 + 8 HGMMA over 64 MUFU
// main loop attention_bwd_dkv_wide_hd80: 10 + 8 HGMMA over 32 MUFU
// main loop attention_bwd_dkv_wide_hd128: 16 + 8 HGMMA over 32 MUFU
KERNEL_SM90A(attention_bwd_dq_wide_hd80, attend_bwd::Args, attend::WIDE_THREADS, 1) { attend_bwd::dq<80>(args); }
KERNEL_SM90A(attention_bwd_dq_wide_hd128, attend_bwd::Args, attend::WIDE_THREADS, 1) { attend_bwd::dq<128>(args); }
KERNEL_SM90A(attention_bwd_dkv_wide_hd80, attend_bwd::Args, attend::WIDE_THREADS, 1) { attend_bwd::dkv<80>(args); }
KERNEL_SM90A(attention_bwd_dkv_wide_hd128, attend_bwd::Args, attend::WIDE_THREADS, 1) { attend_bwd::dkv<128>(args); }
