//! Tests of kernels/embedding.cu against the CPU op.

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::embedding;
use omr_runtime::ops::matmul::Order;
use omr_runtime::ops::rows::Segments;
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{blank, cpu, normals, random, up, weight};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

/// (tokens, table rows, columns): rows of every alignment; one token, no token, and more tokens than a CTA handles.
const SHAPES: [(usize, usize, usize); 6] =
    [(9, 40, 64), (5, 33, 100), (1, 7, 135), (0, 3, 8), (130, 50, 136), (6, 9, 1282)];

pub fn ids(t: usize, n: usize) -> Vec<u32> {
    let mut random = random(t as u64);
    (0..t).map(|_| random.below(n as u64) as u32).collect()
}

pub fn run(dev: &mut Device, ids: &[u32], n: usize, k: usize) -> Outcome<Vec<bf16>> {
    let w = weight(dev, &normals(k as u64, n * k), n, k);
    let y = blank(dev, DType::Bf16, &[ids.len(), k]);
    let ids = up(dev, ids, &[ids.len()]);
    embedding::fwd(dev, ids, &w, y)?;
    Ok(dev.read(y)?)
}

/// Returns the gradient's rows after two batches.
pub fn gradients(dev: &mut Device, ids: &[u32], n: usize, k: usize) -> Outcome<Vec<f32>> {
    let order = Order::of(dev);
    let mut host = vec![0.0; order.len(DType::Bf16, n, k)];
    let before: Vec<f32> = normals(3, n * k);
    for row in 0..n {
        (0..k).for_each(|i| host[order.index(DType::Bf16, k, row, i)] = before[row * k + i]);
    }
    let dw = up(dev, &host, &[host.len()]);
    for batch in 0..2 {
        let dy = up(dev, &normals::<bf16>(4 + batch, ids.len() * k), &[ids.len(), k]);
        let segments = Segments::upload(dev, Region::Overlay, ids)?;
        let on_device = up(dev, ids, &[ids.len()]);
        embedding::bwd(dev, on_device, &segments, dy, dw)?;
    }
    let found = dev.read::<f32>(dw)?;
    let cells = (0..n).flat_map(|row| (0..k).map(move |i| (row, i)));
    Ok(cells.map(|(row, i)| found[order.index(DType::Bf16, k, row, i)]).collect())
}

fn probe(dev: &mut Device) -> Outcome {
    for (t, n, k) in SHAPES {
        let ids = ids(t, n);
        let want = gradients(&mut cpu(), &ids, n, k)?;
        equal(&format!("gradients of {t}, {n} x {k}"), &gradients(dev, &ids, n, k)?, &want)?;
        equal(&format!("{t} of {n} x {k}"), &run(dev, &ids, n, k)?, &run(&mut cpu(), &ids, n, k)?)?;
    }
    Ok(())
}

#[test]
fn rows_are_the_cpus() {
    probe(&mut emu()).unwrap();
    same_bits(4, |dev| run(dev, &ids(130, 50), 50, 136));
    same_bits(4, |dev| gradients(dev, &ids(130, 50), 50, 136));
}

#[test]
fn an_id_that_does_not_exist_gives_nan() {
    let (n, k) = (7, 100);
    let got = run(&mut emu(), &[3, 7, 6, u32::MAX], n, k).unwrap();
    let want = run(&mut cpu(), &[3, 6], n, k).unwrap();
    assert_eq!((&got[..k], &got[2 * k..3 * k]), (&want[..k], &want[k..]));
    assert!(got[k..2 * k].iter().chain(&got[3 * k..]).all(|x| x.is_nan()));
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("args.table + (int64_t)id * args.ld", "args.table + (int64_t)id * args.words"),
        ("if (row >= args.rows) return;", ""),
        ("i < to; i++", "i + 1 < to; i++"),
        ("args.dw + (int64_t)id * args.ld", "args.dw + (int64_t)segment * args.ld"),
        ("sum.load(dw + at);", "sum.load(args.dy + at);"),
    ] {
        mutate_source("embedding", from, to, 1, probe);
    }
}
