//! Sums over a CTA of 256 threads, as kernels/common/reduce.cuh has them, for bodies that are to have a kernel's bits.

/// Threads of the CTA.
pub const THREADS: usize = 256;
const WARP: usize = 32;

/// Folds the threads' values: each 32 in halves, then those results in order, from `none`.
pub fn fold<T: Copy>(threads: &mut [T], none: T, add: impl Fn(T, T) -> T) -> T {
    let mut total = none;
    for warp in threads.chunks_mut(WARP) {
        let mut half = WARP / 2;
        while half > 0 {
            for i in 0..half {
                warp[i] = add(warp[i], warp[i + half]);
            }
            half /= 2;
        }
        total = add(total, warp[0]);
    }
    total
}
