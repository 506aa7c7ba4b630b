//! Sums over a CTA of 256 threads in the order of kernels/common/reduce.cuh, for CPU code that must be bitwise
//! identical to a kernel.

/// Threads of a CTA.
pub const THREADS: usize = 256;
const WARP: usize = 32;

/// Combines the threads' values: within each warp of 32 by halves, then the warps' results in order, starting from
/// `none`.
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
