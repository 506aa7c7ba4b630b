//! Tests of kernels/pos_embed.cu: the bits of the CPU op.

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::matmul::Order;
use omr_runtime::ops::pos_embed::{self, Taps};
use omr_runtime::ops::rows::Segments;
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{cpu, normals, random, uniform, up, weight};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

/// (rows, table rows, columns): one row, no row, columns of every alignment, and more columns than a CTA handles.
const SHAPES: [(usize, usize, usize); 5] = [(9, 36, 64), (50, 16, 144), (1, 7, 135), (0, 3, 8), (60, 2304, 40)];

fn taps(dev: &mut Device, indices: &[u32]) -> Outcome<Taps> {
    let t = indices.len() / 4;
    let weights = up(dev, &uniform::<f32>(1, 4 * t), &[t, 4]);
    let segments = Segments::upload(dev, Region::Overlay, indices)?;
    Ok(Taps { indices: up(dev, indices, &[t, 4]), weights, segments })
}

/// Returns the rows with their taps, and the table's gradient after two batches.
fn at(dev: &mut Device, indices: &[u32], n: usize, k: usize) -> Outcome<(Vec<bf16>, Vec<f32>)> {
    let (t, order) = (indices.len() / 4, Order::of(dev));
    let table = weight(dev, &normals(k as u64, n * k), n, k);
    let taps = taps(dev, indices)?;
    let x = up(dev, &normals::<bf16>(2, t * k), &[t, k]);
    pos_embed::fwd(dev, x, &table, &taps)?;
    let mut host = vec![0.0; order.len(DType::Bf16, n, k)];
    let cells: Vec<usize> = (0..n * k).map(|i| order.index(DType::Bf16, k, i / k, i % k)).collect();
    cells.iter().zip(normals::<f32>(3, n * k)).for_each(|(cell, value)| host[*cell] = value);
    let dtable = up(dev, &host, &[host.len()]);
    for batch in 0..2 {
        let dy = up(dev, &normals::<bf16>(4 + batch, t * k), &[t, k]);
        pos_embed::bwd(dev, dy, &taps, dtable)?;
    }
    let found = dev.read::<f32>(dtable)?;
    Ok((dev.read(x)?, cells.into_iter().map(|cell| found[cell]).collect()))
}

/// Runs [`at`] with random indices, of which many occur several times.
pub fn run(dev: &mut Device, (t, n, k): (usize, usize, usize)) -> Outcome<(Vec<bf16>, Vec<f32>)> {
    let mut random = random(t as u64);
    let indices: Vec<u32> = (0..4 * t).map(|i| if i % 11 == 1 { 0 } else { random.below(n as u64) as u32 }).collect();
    at(dev, &indices, n, k)
}

fn probe(dev: &mut Device) -> Outcome {
    for shape in SHAPES {
        let (got, want) = (run(dev, shape)?, run(&mut cpu(), shape)?);
        equal(&format!("rows of {shape:?}"), &got.0, &want.0)?;
        equal(&format!("gradients of {shape:?}"), &got.1, &want.1)?;
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_cpu() {
    probe(&mut emu()).unwrap();
    same_bits(4, |dev| Ok(run(dev, (50, 16, 144))?.0));
    same_bits(4, |dev| Ok(run(dev, (50, 16, 144))?.1));
}

#[test]
fn an_index_that_does_not_exist_gives_nan() {
    let (n, k) = (7, 20);
    let (got, dtable) = at(&mut emu(), &[3, 2, 1, 0, 0, 7, 1, 2, 6, 6, 6, 6], n, k).unwrap();
    let (want, _) = at(&mut cpu(), &[3, 2, 1, 0, 0, 0, 1, 2, 6, 6, 6, 6], n, k).unwrap();
    assert_eq!((&got[..k], &got[2 * k..]), (&want[..k], &want[2 * k..]));
    assert!(got[k..2 * k].iter().all(|x| x.is_nan()) && dtable.iter().all(|x| !x.is_nan()));
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("(int64_t)i.y * args.ld", "(int64_t)i.y * args.k"),
        ("if (row >= args.rows) return;", ""),
        ("fmaf(w.z, r.v[j], sum)", "fmaf(w.z, s.v[j], sum)"),
        ("to_float(to_bf16(sum))", "sum"),
        ("i < to; i++", "i + 1 < to; i++"),
        ("args.weights[at], dy", "args.weights[i], dy"),
        ("(int64_t)(at / 4) * args.k", "(int64_t)(at % 4) * args.k"),
        ("(int64_t)id * args.ld;", "(int64_t)segment * args.ld;"),
        ("sum.load(dtable + column);", "sum.load(args.dy + column);"),
    ] {
        mutate_source("pos_embed", from, to, 1, probe);
    }
}
