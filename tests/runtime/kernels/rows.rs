//! Tests of kernels/rows.cu against the CPU op.

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::rows;
use omr_runtime::ops::rows::Segments;
use omr_runtime::tensor::Elem;

use crate::kernels::inputs::{cpu, normals, random, up};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

/// (indices, rows of the indexed side, columns): every alignment, one row, no row, rows longer than a warp's batch.
const SHAPES: [(usize, usize, usize); 7] =
    [(9, 12, 64), (5, 33, 100), (1, 7, 135), (0, 3, 8), (70, 90, 136), (3, 4, 3), (2, 3, 2050)];

/// Returns distinct indices.
fn indices(t: usize, s: usize) -> Vec<u32> {
    let mut all: Vec<u32> = (0..s as u32).collect();
    random(s as u64).shuffle(&mut all);
    all.truncate(t);
    all
}

fn gather<T: Elem>(dev: &mut Device, idx: &[u32], s: usize, d: usize) -> Outcome<Vec<T>> {
    let src = up(dev, &normals::<T>(1, s * d), &[s, d]);
    let dst = up(dev, &normals::<T>(2, idx.len() * d), &[idx.len(), d]);
    let idx = up(dev, idx, &[idx.len()]);
    rows::gather(dev, src, idx, dst)?;
    Ok(dev.read(dst)?)
}

fn scatter<T: Elem>(dev: &mut Device, idx: &[u32], s: usize, d: usize) -> Outcome<Vec<T>> {
    let src = up(dev, &normals::<T>(1, idx.len() * d), &[idx.len(), d]);
    let dst = up(dev, &normals::<T>(2, s * d), &[s, d]);
    let idx = up(dev, idx, &[idx.len()]);
    rows::scatter(dev, src, idx, dst)?;
    Ok(dev.read(dst)?)
}

fn scatter_add(dev: &mut Device, idx: &[u32], s: usize, d: usize, repeated: bool) -> Outcome<Vec<bf16>> {
    let segments = Segments::upload(dev, Region::Overlay, idx)?;
    let src = up(dev, &normals::<bf16>(1, idx.len() * d), &[idx.len(), d]);
    let dst = up(dev, &normals::<bf16>(2, s * d), &[s, d]);
    let idx = up(dev, idx, &[idx.len()]);
    rows::scatter_add(dev, src, idx, repeated.then_some(&segments), dst)?;
    Ok(dev.read(dst)?)
}

/// Scatters each row of `t` to several places.
fn spread(dev: &mut Device, idx: &[u32], t: usize, s: usize, d: usize) -> Outcome<Vec<bf16>> {
    let x = up(dev, &normals::<bf16>(1, t * d), &[t, d]);
    let table = up(dev, &normals::<bf16>(2, s * d), &[s, d]);
    let idx = up(dev, idx, &[idx.len()]);
    rows::scatter(dev, x, idx, table)?;
    Ok(dev.read(table)?)
}

fn probe_type<T: Elem>(dev: &mut Device) -> Outcome {
    for (t, s, d) in SHAPES {
        let (idx, name) = (indices(t, s), format!("{t} of {s} x {d} {:?}", T::DTYPE));
        equal(&format!("gather {name}"), &gather::<T>(dev, &idx, s, d)?, &gather::<T>(&mut cpu(), &idx, s, d)?)?;
        equal(&format!("scatter {name}"), &scatter::<T>(dev, &idx, s, d)?, &scatter::<T>(&mut cpu(), &idx, s, d)?)?;
    }
    Ok(())
}

fn probe(dev: &mut Device) -> Outcome {
    probe_type::<bf16>(dev)?;
    for (t, s, d) in SHAPES {
        let (idx, what) = (indices(t, s), format!("scatter_add {t} of {s} x {d}"));
        equal(&what, &scatter_add(dev, &idx, s, d, false)?, &scatter_add(&mut cpu(), &idx, s, d, false)?)?;
        // Each index is repeated 16 times, between the others.
        let idx = idx.repeat(16);
        equal(&what, &scatter_add(dev, &idx, s, d, true)?, &scatter_add(&mut cpu(), &idx, s, d, true)?)?;
    }
    for (times, t, s, d) in [(1, 9, 12, 64), (3, 5, 33, 100), (16, 2, 40, 136), (2, 1, 4, 3)] {
        let (idx, what) = (indices(times * t, s), format!("spread {times} x {t} of {s} x {d}"));
        equal(&what, &spread(dev, &idx, t, s, d)?, &spread(&mut cpu(), &idx, t, s, d)?)?;
    }
    probe_type::<f32>(dev)
}

#[test]
fn rows_are_the_cpus() {
    probe(&mut emu()).unwrap();
    same_bits(4, |dev| gather::<bf16>(dev, &[3, 3, 0, 8, 8, 8, 1], 9, 100));
    same_bits(4, |dev| scatter::<bf16>(dev, &indices(70, 90), 90, 136));
}

#[test]
fn an_index_that_does_not_exist_reads_nan_and_writes_nowhere() {
    let (s, d) = (5, 12);
    let got = gather::<bf16>(&mut emu(), &[4, 5, u32::MAX], s, d).unwrap();
    assert_eq!(got[..d], gather::<bf16>(&mut cpu(), &[4], s, d).unwrap()[..]);
    assert!(got[d..].iter().all(|x| x.is_nan()));
    let got = scatter::<bf16>(&mut emu(), &[2, 5, u32::MAX], s, d).unwrap();
    assert_eq!(got, scatter::<bf16>(&mut cpu(), &[2], s, d).unwrap());
    let got = scatter_add(&mut emu(), &[2, 2, 5, u32::MAX], s, d, true).unwrap();
    assert_eq!(got[..], scatter_add(&mut emu(), &[2, 2], s, d, true).unwrap()[..]);
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("args.dst + (int64_t)to * args.words", "args.dst + (int64_t)row * args.words"),
        ("sum[i].load(dst + at), more", "sum[i].load(src + at), more"),
        ("sum[i].add(more[i]);", ""),
        ("row % args.sources", "row"),
        ("sum.load(dst);", "sum.load(args.src);"),
        ("(int64_t)args.positions[i] * args.columns", "(int64_t)i * args.columns"),
        ("dst, args.src + (int64_t)from * args.words", "dst, args.src + (int64_t)from * args.words + 1"),
    ] {
        mutate_source("rows", from, to, 1, probe);
    }
}
