// Reads the clock of the multiprocessor that runs each CTA. Two launches around other work give the mean clock of every
// multiprocessor meanwhile.
// Shapes: out [grid].
// Grid: one warp per CTA, and more CTAs than multiprocessors, so that each multiprocessor of an idle GPU runs one.
// Bound: the launch.
// Reference: none, because the readings are the GPU's. src/ops/stamp.rs computes the clock.
// Benchmark: it measures the clock of `omr bench ops`.
#include "isa/clock.cuh"

namespace stamp {

struct Args {
    isa::Clock* out;
};

}  // namespace stamp

KERNEL(stamp, stamp::Args, 32, 1) {
    if (threadIdx.x == 0) args.out[blockIdx.x] = isa::read_clock();
}
