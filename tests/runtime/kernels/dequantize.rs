//! Tests of kernels/dequantize.cu: the values of the CPU op.

use half::bf16;
use omr_base::choice::BaseFormat;
use omr_runtime::device::Device;
use omr_runtime::ops::dequantize;
use omr_runtime::ops::quantized::Encoded;
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{blank, cpu, normals};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};
use crate::ops::quantized::{FORMATS, encoded, patterns, upload_codes};

/// Returns the values of rows of codes, without padding.
pub fn values(dev: &mut Device, format: BaseFormat, rows: &[Encoded]) -> Outcome<Vec<bf16>> {
    let (n, k) = (rows.len(), rows[0].codes.len());
    let w = upload_codes(dev, format, DType::Bf16, rows, k);
    let out = blank(dev, DType::Bf16, &[w.order.len(DType::Bf16, n, k)]);
    dequantize::fwd(dev, &w, out)?;
    let all = dev.read::<bf16>(out)?;
    let at = |i: usize| all[w.order.index(DType::Bf16, k, i / k, i % k)];
    Ok((0..n * k).map(at).collect())
}

/// Returns rows of normal numbers. Rows of int8 end within a block.
fn rows(format: BaseFormat) -> Vec<Encoded> {
    let k = if format == BaseFormat::Int8 { 1100 } else { 576 };
    encoded(format, &normals::<f32>(1, 5 * k), k)
}

fn probe(dev: &mut Device) -> Outcome {
    for format in FORMATS {
        for rows in [patterns(format), rows(format)] {
            let want = values(&mut cpu(), format, &rows)?;
            equal(&format!("{format:?} {}", rows.len()), &values(dev, format, &rows)?, &want)?;
        }
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_cpu() {
    probe(&mut emu()).unwrap();
    for format in FORMATS {
        same_bits(3, |dev| values(dev, format, &rows(format)));
    }
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("(float)(int8_t)(word >> (shift + 8))", "(float)(int8_t)(word >> shift)"),
        ("p[block] << 23", "p[block] << 22"),
        ("code == i ? LEVELS[i] : level", "code == i ? LEVELS[i - 1] : level"),
        ("isa::shfl(level, word >> (shift + 4))", "isa::shfl(level, word >> shift)"),
        ("(const float*)p + block", "(const float*)p + block / 2"),
    ] {
        mutate_source("common/codes.cuh", from, to, 1, probe);
    }
}
