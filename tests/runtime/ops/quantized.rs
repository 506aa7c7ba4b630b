//! Tests the formats of quantised weights against their definitions, and products with codes against products with the
//! widened matrix.

use omr_base::choice::BaseFormat;
use omr_runtime::ops::gelu::GeluKind;
use omr_runtime::ops::input::{Input, Pair};
use omr_runtime::ops::linear_logprob::{self, LogProbCall, Outs};
use omr_runtime::ops::quantized::{BLOCK, EncodeFault, Encoded, LEVELS, Quantized, encode, scale_dtype};
use omr_runtime::ops::{dequantize, linear};

use super::*;

pub const FORMATS: [BaseFormat; 2] = [BaseFormat::Int8, BaseFormat::Nf4];

/// Uploads the rows of a quantised weight `[n, k]` of the compute type `dtype`.
pub fn upload_codes(dev: &mut Device, format: BaseFormat, dtype: DType, rows: &[Encoded], k: usize) -> Weight {
    let (order, n) = (Order::of(dev), rows.len());
    let (layout, units) = order.quantized(format, n, k);
    let size = scale_dtype(format).size();
    let (mut codes, mut scales) = (vec![0; units * layout.codes()], vec![0; units * layout.scales() * size]);
    layout.clear(&mut codes);
    for (i, row) in rows.iter().enumerate() {
        let (unit, scale) = (layout.codes(), layout.scales() * size);
        let (u, r) = (i / layout.rows, i % layout.rows);
        layout.put_row(r, row, &mut codes[u * unit..][..unit], &mut scales[u * scale..][..scale]);
    }
    let data = dev.upload(Region::Overlay, &codes, &[codes.len()]).unwrap();
    let of_scales = dev.alloc(Region::Overlay, scale_dtype(format), &[scales.len() / size]).unwrap();
    dev.write_bytes(of_scales, &scales).unwrap();
    Weight { quantized: Some(Quantized { format, scales: of_scales, dtype }), ..Weight::new(data, order, n, k) }
}

/// Returns the codes of the rows of `values` `[n, k]`.
pub fn encoded(format: BaseFormat, values: &[f32], k: usize) -> Vec<Encoded> {
    let row = |values: &[f32]| {
        let mut row = Encoded::zeros(format, k);
        encode(format, values, &mut row).unwrap();
        row
    };
    values.chunks_exact(k).map(row).collect()
}

/// Returns the values of rows of codes by the definition, in f64 and with one rounding where a format has one.
pub fn defined(format: BaseFormat, rows: &[Encoded]) -> Vec<f32> {
    let value = |row: &Encoded, i: usize| match format {
        BaseFormat::Int8 => (f64::from(row.codes[i] as i8) * (f64::from(row.scales[i / BLOCK]) - 127.0).exp2()) as f32,
        BaseFormat::Nf4 => {
            let absmax = f32::from_ne_bytes(row.scales[i / BLOCK * 4..][..4].try_into().unwrap());
            bf16::from_f32(LEVELS[usize::from(row.codes[i])] * absmax).to_f32()
        }
    };
    rows.iter().flat_map(|row| (0..row.codes.len()).map(|i| value(row, i)).collect::<Vec<_>>()).collect()
}

/// Returns rows that have every code with every scale: all bytes of int8, or positive f32 of all sizes with all mantissas
/// of bf16 and of random bits.
pub fn patterns(format: BaseFormat) -> Vec<Encoded> {
    match format {
        BaseFormat::Int8 => {
            let codes = |half: i32| (0..128).map(|i| (half * 127 - i.min(127)) as i8 as u8).collect::<Vec<_>>();
            let row = |scale: u8, half| Encoded { codes: codes(half), scales: vec![scale; 2] };
            (10..=246).flat_map(|scale| [row(scale, 0), row(scale, 1)]).collect()
        }
        BaseFormat::Nf4 => {
            let mut random = Random::new(3, Purpose::Test, 1);
            let row = |bits: u32| {
                let absmax = f32::from_bits(bits).to_ne_bytes();
                Encoded { codes: (0..64).map(|i| i % 16).collect(), scales: absmax.to_vec() }
            };
            let bits = (0..0x7f80).step_by(3).map(|high: u32| (high << 16) | (random.next_u32() & 0xffff));
            bits.chain((0..0x7f80).step_by(7).map(|high| high << 16)).map(row).collect()
        }
    }
}

fn widened(dev: &mut Device, w: &Weight) -> Weight {
    let dtype = w.dtype();
    let data = dev.alloc(Region::Overlay, dtype, &[w.order.len(dtype, w.n, w.k)]).unwrap();
    dequantize::fwd(dev, w, data).unwrap();
    Weight::new(data, w.order, w.n, w.k)
}

#[test]
fn every_code_with_every_scale_has_its_defined_value() {
    for format in FORMATS {
        let rows = patterns(format);
        let (k, want) = (rows[0].codes.len(), defined(format, &rows));
        for dtype in [DType::F32, DType::Bf16] {
            for isa in isas() {
                let dev = &mut device(2, isa);
                let w = upload_codes(dev, format, dtype, &rows, k);
                let plain = widened(dev, &w);
                let want = weight(dev, dtype, &want, rows.len(), k);
                let (got, want) = (read(dev, plain.data), read(dev, want.data));
                same_bits(&format!("{format:?} {dtype:?} {isa:?}"), &got, &want);
            }
        }
    }
}

#[test]
fn integers_have_the_smallest_exponent_and_are_rounded_to_even() {
    let block = |values: &[f32]| {
        let mut row = Encoded::zeros(BaseFormat::Int8, values.len());
        encode(BaseFormat::Int8, values, &mut row).map(|()| (row.codes, i32::from(row.scales[0]) - 127))
    };
    assert_eq!(block(&[127.0, 0.5, 1.5, -2.5]).unwrap(), (vec![127, 0, 2, -2i8 as u8], 0));
    // The number after 127 needs the next power of two.
    assert_eq!(block(&[127.00001, 3.0]).unwrap(), (vec![64, 2], 1));
    assert_eq!(block(&[0.0, -0.0]).unwrap(), (vec![0, 0], -117));
    // Small numbers keep the smallest exponent, whose values are normal numbers of bf16.
    assert_eq!(block(&[2f32.powi(-120), 2f32.powi(-117)]).unwrap(), (vec![0, 1], -117));
    assert_eq!(block(&[127.0 * 2f32.powi(119)]).unwrap().1, 119);
    let large = 127.5 * 2f32.powi(119);
    assert_eq!(block(&[1.0, -large]), Err(EncodeFault { at: 1, value: -large }));
    let mut random = Random::new(5, Purpose::Test, 1);
    for _ in 0..2000 {
        let values: Vec<f32> = (0..BLOCK).map(|_| random.normal() * 2f32.powf(60.0 * random.normal())).collect();
        let amax = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let Ok((codes, s)) = block(&values) else { continue };
        let fits = |s: i32| f64::from(amax) <= 127.0 * f64::from(s).exp2();
        assert!(fits(s) && (s == -117 || !fits(s - 1)), "{amax:e}: {s}");
        for (x, code) in values.iter().zip(codes) {
            assert!((f64::from(*x) - f64::from(code as i8) * f64::from(s).exp2()).abs() <= f64::from(s - 1).exp2());
        }
    }
}

/// (T, N, K) of products: one row and more than a tile, panels that are not full, several chunks of K, and for int8 rows
/// that end within a block.
const SHAPES: [(usize, usize, usize); 7] =
    [(1, 96, 128), (5, 100, 576), (13, 64, 1728), (40, 192, 64), (300, 64, 320), (3, 130, 1100), (17, 64, 2049)];

/// Returns the results of every product with `w`, one after the other.
fn products(dev: &mut Device, dtype: DType, t: usize, rank: usize, w: &Weight) -> Vec<f32> {
    let (n, k) = (w.n, w.k);
    let mut up = |name: u64, dims: [usize; 2]| upload(dev, dtype, &values(dtype, name, dims[0] * dims[1]), &dims);
    let (x, dy, residual, left) = (up(1, [t, k]), up(2, [t, n]), up(3, [t, n]), up(4, [t, rank.max(1)]));
    let bias = upload(dev, dtype, &values(dtype, 5, n), &[n]);
    let s = weight(dev, dtype, &values(dtype, 6, n * rank.max(1)), n, rank.max(1));
    let a = weight(dev, dtype, &values(dtype, 7, k * rank.max(1)), rank.max(1), k);
    let pair = |right| (rank > 0).then_some(Pair { left, right });
    let mut alloc = |cols: usize| dev.alloc(Region::Overlay, dtype, &[t, cols]).unwrap();
    let [y, pre, act, gate_up] = [n; 4].map(&mut alloc);
    let (half, dx) = (alloc(n / 2), alloc(k));
    let input = Input { x, pair: pair(s) };
    linear::fwd(dev, input, w, Some(bias), Some(residual), y).unwrap();
    linear::fwd_gelu(dev, GeluKind::Tanh, input, w, Some(bias), Some(pre), act).unwrap();
    linear::dgrad(dev, Input { x: dy, pair: pair(a) }, w, dx, false).unwrap();
    let mut all = vec![y, pre, act, dx];
    if n.is_multiple_of(64) {
        linear::fwd_swiglu(dev, input, w, Some(bias), Some(gate_up), half).unwrap();
        all.extend([gate_up, half]);
    }
    let [log_prob, lse] = [0; 2].map(|_| dev.alloc(Region::Overlay, DType::F32, &[t]).unwrap());
    let targets = dev.upload(Region::Overlay, &vec![7u32; t], &[t]).unwrap();
    let call = LogProbCall { hidden: x, w, allowed: None, temperature: 1.0, targets };
    linear_logprob::fwd(dev, call, Outs { log_prob, lse, entropy: None, logits: None }).unwrap();
    all.push(log_prob);
    all.into_iter().flat_map(|t| read(dev, t)).collect()
}

#[test]
fn a_product_with_codes_has_the_bits_of_the_product_with_their_values() {
    for format in FORMATS {
        for (t, n, k) in SHAPES.into_iter().filter(|(_, _, k)| omr_runtime::ops::quantized::takes(format, *k)) {
            let rows = encoded(format, &values(DType::F32, 9, n * k), k);
            for dtype in [DType::F32, DType::Bf16] {
                // AMX's ends are those of the codes or of the pair, so its twin takes every rank on every machine.
                let ranks = |isa: Isa| match isa {
                    Isa::AmxTwin => [0, 1, 16, 64].to_vec(),
                    _ => vec![[0, 1, 16, 64][(isa as usize + t) % 4]],
                };
                for (isa, rank) in isas().into_iter().flat_map(|isa| ranks(isa).into_iter().map(move |r| (isa, r))) {
                    let dev = &mut device(if rank > 1 { 2 } else { 1 }, isa);
                    let w = upload_codes(dev, format, dtype, &rows, k);
                    let plain = widened(dev, &w);
                    let (got, want) = (products(dev, dtype, t, rank, &w), products(dev, dtype, t, rank, &plain));
                    same_bits(&format!("{format:?} {dtype:?} {isa:?} {t} x {n} x {k}, rank {rank}"), &got, &want);
                }
            }
        }
    }
}
