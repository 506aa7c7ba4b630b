//! Tests the embedding op and its gradients: rows are copied, and gradients are summed in ascending order.

use half::bf16;
use omr_runtime::device::{Isa, Region};
use omr_runtime::ops::embedding;
use omr_runtime::ops::matmul::{Order, Weight, panel_len};
use omr_runtime::ops::rows::Segments;
use omr_runtime::tensor::{DType, Elem};

use super::panels::{pack_order, unpack_order};
use super::reference::{Random, blank, device, devices, up};

fn moves_rows<T: Elem + Default>(t: usize, n: usize, k: usize) {
    let mut r = Random::new(n as u64);
    let (table, dy): (Vec<T>, Vec<T>) = (r.values(n * k), r.values(t * k));
    let before: Vec<f32> = r.values(n * k);
    let ids: Vec<u32> = (0..t).map(|_| r.below(n) as u32).collect();
    let len = panel_len(T::DTYPE, n, k);
    let (mut panels, mut start) = (vec![T::default(); len], vec![0.0f32; len]);
    pack_order(T::DTYPE, n, k, &table, &mut panels);
    pack_order(T::DTYPE, n, k, &before, &mut start);
    for dev in &mut devices() {
        let w = Weight::new(up(dev, &panels, &[len]), Order::Panels, n, k);
        let i = up(dev, &ids, &[t]);
        let y = blank(dev, T::DTYPE, &[t, k]);
        embedding::fwd(dev, i, &w, y).unwrap();
        let want: Vec<T> = ids.iter().flat_map(|&i| table[i as usize * k..][..k].to_vec()).collect();
        assert_eq!(dev.read::<T>(y).unwrap(), want);

        let (dw, dy_tensor) = (up(dev, &start, &[len]), up(dev, &dy, &[t, k]));
        let segments = Segments::upload(dev, Region::Overlay, &ids).unwrap();
        embedding::bwd(dev, i, &segments, dy_tensor, dw).unwrap();
        let mut want = before.clone();
        for (row, &i) in dy.chunks(k).zip(&ids) {
            want[i as usize * k..][..k].iter_mut().zip(row).for_each(|(s, x)| *s += x.to_f32());
        }
        let got: Vec<f32> = dev.read(dw).unwrap();
        assert_eq!(unpack_order(T::DTYPE, n, k, &got), want, "sums in ascending order");
        let mut repacked = vec![0.0; len];
        pack_order(T::DTYPE, n, k, &want, &mut repacked);
        assert_eq!(got, repacked, "padding stays zero");
    }
}

#[test]
fn rows_and_their_gradients_are_exact() {
    for (t, n, k) in [(1, 1, 1), (100, 40, 7), (64, 320, 96), (3, 33, 130)] {
        moves_rows::<f32>(t, n, k);
        moves_rows::<bf16>(t, n, k);
    }
}

#[test]
fn an_id_past_the_table_is_an_error() {
    let dev = &mut device(1, Isa::Portable);
    let w = Weight::new(up(dev, &[0.0f32; 64], &[64]), Order::Panels, 5, 2);
    let ids = up(dev, &[5u32], &[1]);
    let y = blank(dev, DType::F32, &[1, 2]);
    assert!(embedding::fwd(dev, ids, &w, y).is_err());
    let ids = up(dev, &[32u32], &[1]);
    let segments = Segments::upload(dev, Region::Overlay, &[0]).unwrap();
    assert!(embedding::bwd(dev, ids, &segments, y, w.data).is_err());
}
