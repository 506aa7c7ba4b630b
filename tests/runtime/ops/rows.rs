//! Tests the ops that gather, scatter and add rows.

use half::bf16;
use omr_runtime::ops::rows;
use omr_runtime::tensor::Elem;

use super::reference::{Random, blank, device, devices, up};

fn moves_rows<T: Elem>(t: usize, s: usize, d: usize) {
    let mut r = Random::new(d as u64);
    let (src, base): (Vec<T>, Vec<T>) = (r.values(t * d), r.values(s * d));
    let idx: Vec<u32> = (0..t).map(|_| r.below(s) as u32).collect();
    for dev in &mut devices() {
        let table = up(dev, &base, &[s, d]);
        let i = up(dev, &idx, &[t]);
        let out = blank(dev, T::DTYPE, &[t, d]);
        rows::gather(dev, table, i, out).unwrap();
        let want: Vec<T> = idx.iter().flat_map(|&i| base[i as usize * d..][..d].to_vec()).collect();
        assert_eq!(dev.read::<T>(out).unwrap(), want);

        let x = up(dev, &src, &[t, d]);
        rows::scatter(dev, x, i, table).unwrap();
        let mut want = base.clone();
        for (row, &i) in src.chunks(d).zip(&idx) {
            want[i as usize * d..][..d].copy_from_slice(row);
        }
        assert_eq!(dev.read::<T>(table).unwrap(), want, "the last of equal indices wins");

        let table = up(dev, &base, &[s, d]);
        rows::scatter_add(dev, x, i, None, table).unwrap();
        let mut sums: Vec<f32> = base.iter().map(|x| x.to_f32()).collect();
        for (row, &i) in src.chunks(d).zip(&idx) {
            sums[i as usize * d..][..d].iter_mut().zip(row).for_each(|(s, x)| *s += x.to_f32());
        }
        let want: Vec<T> = sums.iter().map(|&x| T::from_f32(x)).collect();
        assert_eq!(dev.read::<T>(table).unwrap(), want, "sums in ascending order, rounded once");
    }
}

#[test]
fn gather_scatter_and_scatter_add_are_exact() {
    for (t, s, d) in [(1, 1, 1), (300, 50, 7), (40, 1000, 96), (5, 3, 130)] {
        moves_rows::<f32>(t, s, d);
        moves_rows::<bf16>(t, s, d);
    }
}

#[test]
fn a_row_is_scattered_to_several_places() {
    let (table, x, idx) = ([0.5f32; 14], [1.0f32, 2.0, 3.0, 4.0], [6u32, 1, 0, 4]);
    for dev in &mut devices() {
        let (i, rows, spread) = (up(dev, &idx, &[4]), up(dev, &x, &[2, 2]), up(dev, &table, &[7, 2]));
        rows::scatter(dev, rows, i, spread).unwrap();
        let want = [1.0, 2.0, 3.0, 4.0, 0.5, 0.5, 0.5, 0.5, 3.0, 4.0, 0.5, 0.5, 1.0, 2.0];
        assert_eq!(dev.read::<f32>(spread).unwrap(), want);
    }
}

#[test]
fn an_index_past_the_end_is_an_error() {
    let dev = &mut device(1, omr_runtime::device::Isa::Portable);
    let x = up(dev, &[0.0f32; 6], &[3, 2]);
    let i = up(dev, &[0u32, 3], &[2]);
    let y = blank(dev, omr_runtime::tensor::DType::F32, &[2, 2]);
    assert!(rows::gather(dev, x, i, y).is_err());
    assert!(rows::scatter(dev, y, i, x).is_err());
    assert!(rows::scatter_add(dev, y, i, None, x).is_err());
    let three = up(dev, &[0u32, 1, 2], &[3]);
    assert!(rows::scatter(dev, y, three, x).is_err(), "3 are no 2 k");
}
