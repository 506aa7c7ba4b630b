// Backward of attention on compute capability 9.0: that of attention_bwd.cu by wgmma, its operands by TMA.
// As in attention_bwd.cu; dim is HD, all rows start at 16 bytes. qkv and dout by tensor maps: heads are their second dimension.
// Grid (slots kv heads): dq 128 rows (token, head of the group) a CTA; then dkv 128 keys; two math warpgroups, one that copies.
// Bound by the tensor cores: 14 rows keys dim flops (half if causal), 10 of them not computed twice.
// Reference: attention_bwd.cu and src/ops/attention/backward.rs; tests/kernels/attention_bwd_sm90a.rs; bench: omr bench, attention bwd.
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
