//! Tests the thread pool.

use omr_runtime::device::{Parts, Pool};

#[test]
fn every_index_runs_once() {
    for threads in [1, 2, 5] {
        let pool = Pool::new(threads).unwrap();
        for len in [0, 1, 7, 1000] {
            let mut out = vec![0u32; len];
            let parts = Parts::new(&mut out, 1);
            pool.run(len, |i| parts.take(i)[0] += i as u32 + 1);
            assert!(out.iter().enumerate().all(|(i, &v)| v == i as u32 + 1));
        }
    }
}

#[test]
fn parts_cover_the_slice_once() {
    let mut out = [0u8; 10];
    let parts = Parts::at(&mut out, vec![0, 3, 3, 10]);
    Pool::new(2).unwrap().run(parts.count(), |i| parts.take(i).fill(i as u8 + 1));
    assert_eq!(out, [1, 1, 1, 3, 3, 3, 3, 3, 3, 3]);
    let parts = Parts::new(&mut out, 4);
    (0..parts.count()).for_each(|i| parts.take(i).fill(i as u8));
    assert_eq!(out, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
}

#[test]
#[should_panic]
fn a_panic_in_a_job_reaches_the_caller() {
    Pool::new(3).unwrap().run(100, |i| assert!(i != 57));
}
